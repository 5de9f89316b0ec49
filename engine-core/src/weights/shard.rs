//! One safetensors file: its header, parsed and checked byte by byte against the file's real size.
//!
//! Types and syntax of the header are the `safetensors` crate's. Offsets are checked here and not by its
//! `read_metadata`, whose errors do not say which tensors are at fault.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo as HeaderEntry;
use serde::Deserialize;

use super::CheckpointError;
use super::mmap::MappedFile;

/// Bytes of the header's length field.
const LENGTH_BYTES: usize = 8;
/// The format's own limit on a header.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// An open safetensors file.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) file: PathBuf,
    pub(super) map: Arc<MappedFile>,
}

/// Where a tensor lies in its shard. `bytes` is inside the file and of the size that type and shape need.
#[derive(Debug)]
pub(super) struct Extent {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Range<usize>,
}

#[derive(Deserialize)]
struct Header {
    /// Free text the format allows; parsed so that it is not taken for a tensor.
    #[serde(rename = "__metadata__")]
    _metadata: Option<HashMap<String, String>>,
    #[serde(flatten)]
    tensors: BTreeMap<String, HeaderEntry>,
}

impl Shard {
    /// Maps `file` and reads its header: no page of weights is touched.
    pub(super) fn open(file: &Path) -> Result<(Self, Vec<(String, Extent)>), CheckpointError> {
        let map = MappedFile::open(file).map_err(|cause| CheckpointError::Read { file: file.to_owned(), cause })?;
        let tensors = tensors(file, map.as_ref())?;
        Ok((Self { file: file.to_owned(), map: Arc::new(map) }, tensors))
    }
}

fn tensors(file: &Path, content: &[u8]) -> Result<Vec<(String, Extent)>, CheckpointError> {
    let header = header_bytes(file, content)?;
    let data_start = LENGTH_BYTES + header.len();
    let data_len = content.len() - data_start;
    let header: Header =
        serde_json::from_slice(header).map_err(|cause| CheckpointError::Header { file: file.to_owned(), cause })?;
    let mut entries: Vec<(String, HeaderEntry)> = header.tensors.into_iter().collect();
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    check_offsets(file, &entries, data_start, data_len)?;
    let extent = |entry: HeaderEntry| {
        let (begin, end) = entry.data_offsets;
        Extent { dtype: entry.dtype, shape: entry.shape, bytes: data_start + begin..data_start + end }
    };
    Ok(entries.into_iter().map(|(name, entry)| (name, extent(entry))).collect())
}

fn header_bytes<'a>(file: &Path, content: &'a [u8]) -> Result<&'a [u8], CheckpointError> {
    let found = content.len() as u64;
    let truncated = |expected| CheckpointError::Truncated { file: file.to_owned(), found, expected };
    let (length, rest) = content.split_first_chunk().ok_or_else(|| truncated(LENGTH_BYTES as u64))?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(CheckpointError::HeaderTooLarge {
            file: file.to_owned(),
            found: length,
            accepted: MAX_HEADER_BYTES,
        });
    }
    // The cast holds on every target: the limit above is below 2^32.
    rest.get(..length as usize).ok_or_else(|| truncated(LENGTH_BYTES as u64 + length))
}

/// Every byte after the header belongs to exactly one tensor of exactly that size. `entries` are sorted by offset.
fn check_offsets(
    file: &Path,
    entries: &[(String, HeaderEntry)],
    data_start: usize,
    data_len: usize,
) -> Result<(), CheckpointError> {
    let file = || file.to_owned();
    let mut position = 0;
    let mut previous = "";
    for (name, entry) in entries {
        let (begin, end) = entry.data_offsets;
        if size_in_bytes(entry).is_none_or(|size| begin.checked_add(size) != Some(end)) {
            let (tensor, dtype, shape) = (name.clone(), entry.dtype, entry.shape.clone());
            return Err(CheckpointError::Extent { file: file(), tensor, dtype, shape, begin, end });
        }
        if begin < position {
            let (first, second) = (previous.to_owned(), name.clone());
            return Err(CheckpointError::Overlap { file: file(), first, second, at: begin });
        }
        if begin > position {
            return Err(CheckpointError::Gap { file: file(), tensor: name.clone(), begin: position, end: begin });
        }
        (position, previous) = (end, name);
    }
    if position > data_len {
        let (found, expected) = ((data_start + data_len) as u64, (data_start as u64).saturating_add(position as u64));
        return Err(CheckpointError::Truncated { file: file(), found, expected });
    }
    if position < data_len {
        return Err(CheckpointError::Gap { file: file(), tensor: previous.into(), begin: position, end: data_len });
    }
    Ok(())
}

/// `None` on overflow and for types whose values do not fill whole bytes.
fn size_in_bytes(entry: &HeaderEntry) -> Option<usize> {
    let elements = entry.shape.iter().try_fold(1usize, |n, dim| n.checked_mul(*dim))?;
    let bits = elements.checked_mul(entry.dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}
