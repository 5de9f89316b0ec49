//! Opening a checkpoint directory.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use bytemuck::Pod;
use safetensors::Dtype;

use super::CheckpointError;
use super::index::{Index, main_file};
use super::shard::{Extent, Shard};
use crate::quant::SharedSlice;

/// Ending of the name of a checkpoint that fits one file.
const SINGLE_SUFFIX: &str = ".safetensors";

/// An opened checkpoint directory: every file memory-mapped, every header checked, no weight read yet.
///
/// Typed weights come out of [`Checkpoint::linear`], [`Checkpoint::plain`] and [`Checkpoint::vector_f32`]; where the
/// stored type allows they are views of the mapping, so that loading never holds a second copy of the checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    shards: Vec<Shard>,
    tensors: BTreeMap<String, Stored>,
}

/// What a header says about one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Size of the values.
    pub num_bytes: usize,
}

#[derive(Debug)]
struct Stored {
    shard: usize,
    extent: Extent,
}

/// One tensor of an open checkpoint, for the typed readers.
#[derive(Clone, Copy)]
pub(super) struct StoredTensor<'a> {
    pub(super) name: &'a str,
    pub(super) shard: &'a Shard,
    pub(super) extent: &'a Extent,
}

impl Checkpoint {
    /// Opens `dir`: `model.safetensors.index.json` and the files it names, or else `model.safetensors`. Where neither is
    /// there, the one file that begins with `quant_model_weight` is taken in its place, as tools of quantisation write it.
    ///
    /// The files stay mapped for as long as the checkpoint or any weight read from it lives. They must not be shortened
    /// or rewritten meanwhile: as with every memory-mapped file the system then ends the process or hands out the new
    /// bytes, and no check can prevent that. Replace a checkpoint by renaming a new directory into place.
    ///
    /// # Errors
    /// [`CheckpointError`] naming the file, and where there is one the tensor, at fault: no checkpoint there, a missing
    /// or truncated file, a header that is too large, malformed, or whose byte ranges overlap or leave gaps, an index
    /// that promises a tensor its file lacks or points outside the directory.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let mut checkpoint = Self { dir: dir.to_owned(), shards: Vec::new(), tensors: BTreeMap::new() };
        match Index::open(dir)? {
            Some(index) => checkpoint.open_indexed(&index)?,
            None => checkpoint.open_single()?,
        }
        Ok(checkpoint)
    }

    fn open_single(&mut self) -> Result<(), CheckpointError> {
        let Some(file) = main_file(&self.dir, SINGLE_SUFFIX) else {
            return Err(CheckpointError::NoWeights { dir: self.dir.clone() });
        };
        let (shard, tensors) = Shard::open(&file)?;
        self.shards.push(shard);
        self.tensors = tensors.into_iter().map(|(name, extent)| (name, Stored { shard: 0, extent })).collect();
        Ok(())
    }

    fn open_indexed(&mut self, index: &Index) -> Result<(), CheckpointError> {
        let file_names: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
        for file_name in file_names {
            self.open_shard(index, file_name)?;
        }
        for (tensor, file_name) in &index.weight_map {
            if !self.tensors.contains_key(tensor) {
                return Err(CheckpointError::NotInShard {
                    file: self.dir.join(file_name),
                    index: index.file.clone(),
                    tensor: tensor.clone(),
                });
            }
        }
        Ok(())
    }

    fn open_shard(&mut self, index: &Index, file_name: &str) -> Result<(), CheckpointError> {
        let file = self.dir.join(file_name);
        if !file.exists() {
            let tensor = index.weight_map.iter().find(|(_, f)| *f == file_name).map(|(t, _)| t.clone());
            return Err(CheckpointError::MissingShard {
                file,
                index: index.file.clone(),
                tensor: tensor.unwrap_or_default(),
            });
        }
        let (shard, tensors) = Shard::open(&file)?;
        let number = self.shards.len();
        for (name, extent) in tensors {
            // Where the index names another file for this tensor, that one is meant.
            if index.weight_map.get(&name).is_some_and(|f| f != file_name) {
                continue;
            }
            match self.tensors.entry(name) {
                Entry::Vacant(entry) => {
                    entry.insert(Stored { shard: number, extent });
                }
                Entry::Occupied(entry) => {
                    let first = self.shards[entry.get().shard].file.clone();
                    return Err(CheckpointError::Duplicate { tensor: entry.key().clone(), first, second: file });
                }
            }
        }
        self.shards.push(shard);
        Ok(())
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// True when a tensor of this name is stored.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Type, shape and size of a tensor, from its header.
    pub fn tensor_info(&self, name: &str) -> Option<TensorInfo> {
        let Extent { dtype, shape, bytes } = &self.tensors.get(name)?.extent;
        Some(TensorInfo { dtype: *dtype, shape: shape.clone(), num_bytes: bytes.len() })
    }

    /// The bytes of a tensor as stored, row-major and little-endian; shares the mapping.
    pub fn bytes(&self, name: &str) -> Option<SharedSlice<u8>> {
        self.get(name).map(StoredTensor::view)
    }

    /// The first name in sorted order that is not below `prefix`.
    pub(super) fn first_at_or_after(&self, prefix: &str) -> Option<&str> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        self.tensors.range::<str, _>(from).next().map(|(name, _)| name.as_str())
    }

    pub(super) fn get(&self, name: &str) -> Option<StoredTensor<'_>> {
        let (name, stored) = self.tensors.get_key_value(name)?;
        Some(StoredTensor { name, shard: &self.shards[stored.shard], extent: &stored.extent })
    }

    pub(super) fn require(&self, name: &str) -> Result<StoredTensor<'_>, CheckpointError> {
        self.get(name).ok_or_else(|| CheckpointError::MissingTensor { dir: self.dir.clone(), tensor: name.to_owned() })
    }
}

impl StoredTensor<'_> {
    /// The values as `T`, whose size is that of the tensor's type; a copy only where the file is not aligned for `T`.
    pub(super) fn view<T: Pod + Send + Sync>(self) -> SharedSlice<T> {
        SharedSlice::from_owner(self.shard.map.clone(), self.extent.bytes.clone())
    }

    pub(super) fn expect_shape(self, expected: &[usize]) -> Result<(), CheckpointError> {
        if self.extent.shape == expected {
            return Ok(());
        }
        Err(CheckpointError::Shape {
            file: self.shard.file.clone(),
            tensor: self.name.to_owned(),
            found: self.extent.shape.clone(),
            expected: expected.to_owned(),
        })
    }

    pub(super) fn wrong_dtype(self, accepted: &'static str) -> CheckpointError {
        CheckpointError::Dtype {
            file: self.shard.file.clone(),
            tensor: self.name.to_owned(),
            found: self.extent.dtype,
            accepted,
        }
    }
}
