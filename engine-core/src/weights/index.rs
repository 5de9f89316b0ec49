//! `model.safetensors.index.json`: which file holds which tensor.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::CheckpointError;
use crate::file::read_text;

/// File name of the index.
pub(super) const INDEX_FILE: &str = "model.safetensors.index.json";
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
        let file = dir.join(INDEX_FILE);
        if !file.exists() {
            return Ok(None);
        }
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

/// True when joining `name` to a directory gives a file of that directory, on every operating system.
fn is_plain_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(part)), None) if part == name)
        && !name.contains(['/', '\\', ':', '\0'])
}
