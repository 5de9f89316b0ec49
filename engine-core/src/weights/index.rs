//! Which file holds which tensor: `model.safetensors.index.json`, or what tools of quantisation call it.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::CheckpointError;
use crate::file::read_text;

/// Ending of an index's name, whoever wrote it.
pub(crate) const INDEX_SUFFIX: &str = ".safetensors.index.json";
/// How files of msModelSlim begin, where others say `model`.
const QUANTISED: &str = "quant_model_weight";
/// DeepSeek-V3's index has 9 MB.
const MAX_INDEX_BYTES: u64 = 512 << 20;

/// A checked index.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) file: PathBuf,
    /// Tensor name to plain file name.
    pub(super) weight_map: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct IndexJson {
    weight_map: BTreeMap<String, String>,
}

impl Index {
    /// The index of `dir`, or `None` when there is none.
    pub(super) fn open(dir: &Path) -> Result<Option<Self>, CheckpointError> {
        let Some(file) = main_file(dir, INDEX_SUFFIX) else { return Ok(None) };
        let text = match read_text(&file, MAX_INDEX_BYTES) {
            Ok(text) => text,
            Err(cause) => return Err(CheckpointError::Read { file, cause }),
        };
        let IndexJson { weight_map } = match serde_json::from_str(&text) {
            Ok(index) => index,
            Err(cause) => return Err(CheckpointError::Index { file, cause }),
        };
        for (tensor, found) in &weight_map {
            if !is_plain_file_name(found) {
                let (tensor, found) = (tensor.clone(), found.clone());
                return Err(CheckpointError::FileName { index: file, tensor, found });
            }
        }
        Ok(Some(Self { file, weight_map }))
    }
}

/// `model` with this ending, or else the one file that begins with [`QUANTISED`] and has it.
pub(super) fn main_file(dir: &Path, suffix: &str) -> Option<PathBuf> {
    let usual = dir.join(format!("model{suffix}"));
    if usual.exists() {
        return Some(usual);
    }
    let is_wanted = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(QUANTISED) && name.ends_with(suffix))
    };
    let mut found = dir.read_dir().ok()?.flatten().map(|entry| entry.path()).filter(is_wanted);
    // Of several none is the whole.
    found.next().filter(|_| found.next().is_none())
}

/// True when joining `name` to a directory gives a file of that directory, on every operating system.
fn is_plain_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(part)), None) if part == name)
        && !name.contains(['/', '\\', ':', '\0'])
}
