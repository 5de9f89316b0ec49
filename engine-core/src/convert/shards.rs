//! Writing the tensors of a checkpoint into safetensors files whose headers are known before any data.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::ConvertError;
use super::staging::Staging;

/// Most bytes of tensors in one file, as on the Hugging Face hub; one larger tensor gets a file of its own.
const MAX_SHARD_BYTES: u64 = 5_000_000_000;

/// File that says which tensor is where.
pub(crate) const INDEX_FILE: &str = "model.safetensors.index.json";

/// One tensor to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutputTensor {
    /// Full name.
    pub(crate) name: String,
    /// Element type.
    pub(crate) dtype: Dtype,
    /// Dimensions.
    pub(crate) shape: Vec<usize>,
    /// Bytes of all elements.
    pub(crate) num_bytes: u64,
}

impl OutputTensor {
    /// A tensor of a type whose elements are whole bytes.
    pub(crate) fn new(name: String, dtype: Dtype, shape: &[usize]) -> Self {
        let bits = shape.iter().fold(dtype.bitsize() as u64, |n, d| n.saturating_mul(*d as u64));
        Self { name, dtype, shape: shape.to_vec(), num_bytes: bits / 8 }
    }
}

/// The safetensors files and the index of one checkpoint, written tensor by tensor in any order.
#[derive(Debug)]
pub(crate) struct ShardWriter<'a> {
    staging: &'a Staging,
    shards: Vec<Shard>,
    places: HashMap<String, Place>,
    total_bytes: u64,
    done_bytes: u64,
}

#[derive(Debug)]
struct Shard {
    file_name: String,
    /// Open from the first byte to the last.
    file: Option<File>,
    missing_bytes: u64,
}

#[derive(Debug)]
struct Place {
    shard: usize,
    /// Position in the file of the next byte to write.
    position: u64,
    missing_bytes: u64,
    num_bytes: u64,
}

impl<'a> ShardWriter<'a> {
    /// Distributes the tensors over files in the order given and writes every header.
    pub(crate) fn create(staging: &'a Staging, tensors: Vec<OutputTensor>) -> Result<Self, ConvertError> {
        Self::with_shard_size(staging, tensors, MAX_SHARD_BYTES)
    }

    fn with_shard_size(
        staging: &'a Staging,
        tensors: Vec<OutputTensor>,
        max_shard_bytes: u64,
    ) -> Result<Self, ConvertError> {
        let total_bytes = tensors.iter().fold(0u64, |sum, t| sum.saturating_add(t.num_bytes));
        staging.check_space(total_bytes)?;
        let mut writer = Self { staging, shards: Vec::new(), places: HashMap::new(), total_bytes, done_bytes: 0 };
        let groups = distribute(tensors, max_shard_bytes);
        let num_shards = groups.len();
        for (i, group) in groups.into_iter().enumerate() {
            writer.add_shard(format!("model-{:05}-of-{num_shards:05}.safetensors", i + 1), group)?;
        }
        Ok(writer)
    }

    /// Bytes of all tensors.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Bytes written so far.
    pub(crate) fn done_bytes(&self) -> u64 {
        self.done_bytes
    }

    /// Number of safetensors files.
    pub(crate) fn num_shards(&self) -> usize {
        self.shards.len()
    }

    /// Creates a file that holds the header alone.
    fn add_shard(&mut self, file_name: String, mut tensors: Vec<OutputTensor>) -> Result<(), ConvertError> {
        // Wide types first, so that every tensor is aligned for its type; the order of the safetensors crate.
        tensors.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
        let path = self.staging.path(&file_name);
        let header = header(&tensors).map_err(|source| ConvertError::Header { path: path.clone(), source })?;
        let mut file = File::create_new(&path).map_err(ConvertError::io("create", &path))?;
        file.write_all(&header).and_then(|()| file.sync_all()).map_err(ConvertError::io("write", &path))?;
        let (shard, mut position, mut missing_bytes) = (self.shards.len(), header.len() as u64, 0);
        for tensor in tensors {
            let num_bytes = tensor.num_bytes;
            let place = Place { shard, position, missing_bytes: num_bytes, num_bytes };
            self.places.insert(tensor.name, place);
            position += num_bytes;
            missing_bytes += num_bytes;
        }
        self.shards.push(Shard { file_name, file: None, missing_bytes });
        Ok(())
    }

    /// Appends `bytes` to what tensor `name` has so far.
    pub(crate) fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), ConvertError> {
        let len = bytes.len() as u64;
        let (need_bytes, have_bytes) = (self.total_bytes, self.done_bytes);
        let Some(place) = self.places.get_mut(name).filter(|p| p.missing_bytes >= len) else {
            return Err(self.size_error(name, len));
        };
        let shard = &mut self.shards[place.shard];
        let path = self.staging.path(&shard.file_name);
        let is_last = shard.missing_bytes == len;
        let written = write_at(&mut shard.file, &path, place.position, bytes, is_last);
        written.map_err(|source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                ConvertError::DiskFull { path: self.staging.output().to_owned(), need_bytes, have_bytes }
            }
            _ => ConvertError::Io { action: "write", path, source },
        })?;
        place.position += len;
        place.missing_bytes -= len;
        shard.missing_bytes -= len;
        self.done_bytes += len;
        Ok(())
    }

    /// Checks that every tensor is complete and writes the index.
    pub(crate) fn finish(self) -> Result<(), ConvertError> {
        if let Some(name) = self.places.iter().filter(|(_, p)| p.missing_bytes > 0).map(|(name, _)| name).min() {
            return Err(self.size_error(name, 0));
        }
        let weight_map: BTreeMap<&str, &str> = self
            .places
            .iter()
            .map(|(name, place)| (name.as_str(), self.shards[place.shard].file_name.as_str()))
            .collect();
        let index = serde_json::json!({ "metadata": { "total_size": self.total_bytes }, "weight_map": weight_map });
        self.staging.write(INDEX_FILE, format!("{index:#}\n").as_bytes())
    }

    fn size_error(&self, name: &str, more_bytes: u64) -> ConvertError {
        let (expected_bytes, missing) = self.places.get(name).map_or((0, 0), |p| (p.num_bytes, p.missing_bytes));
        let found_bytes = expected_bytes - missing + more_bytes;
        ConvertError::TensorSize { tensor: name.to_owned(), found_bytes, expected_bytes }
    }
}

/// Writes at a position of a file that is opened with its first and flushed and closed with its last bytes.
fn write_at(
    slot: &mut Option<File>,
    path: &std::path::Path,
    position: u64,
    bytes: &[u8],
    is_last: bool,
) -> io::Result<()> {
    let file = match slot {
        Some(file) => file,
        None => slot.insert(File::options().write(true).open(path)?),
    };
    file.seek(SeekFrom::Start(position))?;
    file.write_all(bytes)?;
    if is_last {
        file.sync_all()?;
        *slot = None;
    }
    Ok(())
}

/// Consecutive tensors up to the size limit.
fn distribute(tensors: Vec<OutputTensor>, max_shard_bytes: u64) -> Vec<Vec<OutputTensor>> {
    let mut groups: Vec<Vec<OutputTensor>> = Vec::new();
    let mut group_bytes = 0u64;
    for tensor in tensors {
        let fits = group_bytes.saturating_add(tensor.num_bytes) <= max_shard_bytes;
        match groups.last_mut() {
            Some(group) if fits => {
                group_bytes += tensor.num_bytes;
                group.push(tensor);
            }
            _ => {
                group_bytes = tensor.num_bytes;
                groups.push(vec![tensor]);
            }
        }
    }
    groups
}

/// A safetensors header: u64 little-endian length, JSON, spaces up to a multiple of eight bytes.
fn header(tensors: &[OutputTensor]) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let mut begin = 0;
    let infos = tensors
        .iter()
        .map(|t| {
            let end = begin + t.num_bytes as usize;
            let info = TensorInfo { dtype: t.dtype, shape: t.shape.clone(), data_offsets: (begin, end) };
            begin = end;
            (t.name.clone(), info)
        })
        .collect();
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut json = serde_json::to_vec(&Metadata::new(Some(format), infos)?)?;
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    Ok(header)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use safetensors::SafeTensors;

    use super::*;

    fn tensor(name: &str, dtype: Dtype, shape: &[usize]) -> OutputTensor {
        OutputTensor::new(name.to_owned(), dtype, shape)
    }

    #[test]
    fn files_are_read_back_by_the_safetensors_crate() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::create(&root.path().join("out")).unwrap();
        let tensors = vec![
            tensor("w", Dtype::I8, &[3, 1]),
            tensor("s", Dtype::F32, &[3, 1]),
            tensor("empty", Dtype::F32, &[0]),
            tensor("big", Dtype::U8, &[40]),
            tensor("last", Dtype::BF16, &[2]),
        ];
        let mut writer = ShardWriter::with_shard_size(&staging, tensors, 20).unwrap();
        assert_eq!((writer.num_shards(), writer.total_bytes()), (3, 59));
        writer.write("last", &[1, 2, 3, 4]).unwrap();
        writer.write("big", &[7; 25]).unwrap();
        writer.write("w", &[1, 2, 3]).unwrap();
        writer.write("big", &[8; 15]).unwrap();
        writer.write("s", bytemuck::cast_slice(&[1.0f32, 2.0, 3.0])).unwrap();
        writer.finish().unwrap();
        let output = staging.commit().unwrap();

        let first = std::fs::read(output.join("model-00001-of-00003.safetensors")).unwrap();
        let header_bytes = u64::from_le_bytes(first[..8].try_into().unwrap());
        assert_eq!(header_bytes % 8, 0);
        let first = SafeTensors::deserialize(&first).unwrap();
        assert_eq!(first.len(), 3);
        assert_eq!(first.tensor("w").unwrap().data(), [1, 2, 3]);
        assert_eq!(first.tensor("s").unwrap().data(), bytemuck::cast_slice::<f32, u8>(&[1.0, 2.0, 3.0]));
        assert_eq!(first.tensor("s").unwrap().shape(), [3, 1]);
        let second = std::fs::read(output.join("model-00002-of-00003.safetensors")).unwrap();
        let second = SafeTensors::deserialize(&second).unwrap();
        assert_eq!(second.tensor("big").unwrap().data(), [[7; 25].as_slice(), &[8; 15]].concat());

        let index: serde_json::Value =
            serde_json::from_slice(&std::fs::read(output.join(INDEX_FILE)).unwrap()).unwrap();
        assert_eq!(index["metadata"]["total_size"], 59);
        assert_eq!(index["weight_map"]["last"], "model-00003-of-00003.safetensors");
        assert_eq!(index["weight_map"].as_object().unwrap().len(), 5);
    }

    #[test]
    fn missing_surplus_and_unknown_bytes_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::create(&root.path().join("out")).unwrap();
        let tensors = vec![tensor("a", Dtype::U8, &[4])];
        let mut writer = ShardWriter::create(&staging, tensors).unwrap();
        writer.write("a", &[1, 2]).unwrap();
        let surplus = writer.write("a", &[1, 2, 3]).unwrap_err();
        assert!(matches!(surplus, ConvertError::TensorSize { found_bytes: 5, expected_bytes: 4, .. }), "{surplus}");
        assert!(matches!(writer.write("b", &[1]), Err(ConvertError::TensorSize { expected_bytes: 0, .. })));
        let missing = writer.finish().unwrap_err();
        assert!(matches!(missing, ConvertError::TensorSize { found_bytes: 2, expected_bytes: 4, .. }), "{missing}");
    }

    #[test]
    fn a_checkpoint_larger_than_the_disk_is_refused_before_a_byte_is_written() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::create(&root.path().join("out")).unwrap();
        let tensors = vec![tensor("a", Dtype::F32, &[1 << 31, 1 << 31]), tensor("b", Dtype::F32, &[1 << 31, 1 << 31])];
        assert!(matches!(ShardWriter::create(&staging, tensors), Err(ConvertError::DiskFull { .. })));
    }
}
