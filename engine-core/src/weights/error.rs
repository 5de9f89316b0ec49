//! What can be wrong with a checkpoint.

use std::path::PathBuf;

use safetensors::Dtype;

use crate::quant::WeightError;

/// A checkpoint that cannot be read: the file and tensor at fault, what was found and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The directory holds no safetensors checkpoint.
    #[error(
        "{}: neither model.safetensors.index.json nor model.safetensors is there, nor one file of either kind that begins \
         with quant_model_weight; give a directory with a Hugging Face checkpoint in safetensors format", dir.display()
    )]
    NoWeights {
        /// Directory given.
        dir: PathBuf,
    },
    /// A file cannot be opened or read.
    #[error("{}: cannot be read ({cause}); check the path and its permissions", file.display())]
    Read {
        /// File at fault.
        file: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The index is not JSON with a `weight_map` of tensor names to file names.
    #[error("{}: not a safetensors index ({cause}); download the file again", file.display())]
    Index {
        /// The index.
        file: PathBuf,
        /// What the parser said, with line and column.
        cause: serde_json::Error,
    },
    /// The index points outside its own directory.
    #[error(
        "{}: tensor {tensor} is said to be in {found:?}; only plain file names in the same directory are followed",
        index.display()
    )]
    FileName {
        /// The index.
        index: PathBuf,
        /// Tensor at fault.
        tensor: String,
        /// File name found.
        found: String,
    },
    /// A file that the index names is not there.
    #[error("{}: missing, though {} says it holds {tensor}; download the file", file.display(), index.display())]
    MissingShard {
        /// The absent file.
        file: PathBuf,
        /// The index.
        index: PathBuf,
        /// First tensor the file should hold.
        tensor: String,
    },
    /// A tensor is not in the file the index names.
    #[error("{}: lacks tensor {tensor}, which {} says it holds; index and files do not belong together", file.display(), index.display())]
    NotInShard {
        /// File that lacks the tensor.
        file: PathBuf,
        /// The index.
        index: PathBuf,
        /// Tensor at fault.
        tensor: String,
    },
    /// Two files hold a tensor of one name and the index names neither.
    #[error("tensor {tensor} is both in {} and in {}; remove the file that does not belong here", first.display(), second.display())]
    Duplicate {
        /// Tensor at fault.
        tensor: String,
        /// One file.
        first: PathBuf,
        /// The other file.
        second: PathBuf,
    },
    /// A file ends before it should.
    #[error("{}: {found} bytes, expected {expected} by its own header; the download is incomplete", file.display())]
    Truncated {
        /// File at fault.
        file: PathBuf,
        /// Size in bytes.
        found: u64,
        /// Size the first bytes promise.
        expected: u64,
    },
    /// The header claims a size no header has.
    #[error("{}: header of {found} bytes, at most {accepted} are read; is this a safetensors file?", file.display())]
    HeaderTooLarge {
        /// File at fault.
        file: PathBuf,
        /// Bytes claimed.
        found: u64,
        /// Bytes read at most.
        accepted: u64,
    },
    /// The header is not what the safetensors format asks for.
    #[error("{}: the header is not valid ({cause}); download the file again", file.display())]
    Header {
        /// File at fault.
        file: PathBuf,
        /// What the parser said.
        cause: serde_json::Error,
    },
    /// Two tensors claim the same bytes.
    #[error("{}: tensors {first} and {second} overlap at byte {at}; the file is damaged", file.display())]
    Overlap {
        /// File at fault.
        file: PathBuf,
        /// Tensor that starts first.
        first: String,
        /// Tensor that starts before the first ends.
        second: String,
        /// Where the second starts, counted from the end of the header.
        at: usize,
    },
    /// Bytes that belong to no tensor.
    #[error("{}: bytes {begin} to {end}, next to tensor {tensor}, belong to no tensor; the file is damaged", file.display())]
    Gap {
        /// File at fault.
        file: PathBuf,
        /// Tensor beside the gap.
        tensor: String,
        /// First byte of the gap, counted from the end of the header.
        begin: usize,
        /// One past the gap.
        end: usize,
    },
    /// A tensor's byte range does not fit its type and shape.
    #[error("{}: tensor {tensor} ({dtype:?} {shape:?}) spans bytes {begin} to {end}, which is not its size; the file is damaged", file.display())]
    Extent {
        /// File at fault.
        file: PathBuf,
        /// Tensor at fault.
        tensor: String,
        /// Element type.
        dtype: Dtype,
        /// Shape.
        shape: Vec<usize>,
        /// First byte, counted from the end of the header.
        begin: usize,
        /// One past the last byte.
        end: usize,
    },
    /// A tensor the configuration asks for is not there.
    #[error("{}: no tensor {tensor}, which config.json asks for; config and weights do not belong together", dir.display())]
    MissingTensor {
        /// Checkpoint directory.
        dir: PathBuf,
        /// Tensor asked for.
        tensor: String,
    },
    /// A quantised weight comes without the tensor that gives it its values.
    #[error("{}: {tensor} is {dtype:?} and needs {companion}, which no file of the checkpoint holds", file.display())]
    MissingCompanion {
        /// File that holds the weight.
        file: PathBuf,
        /// The quantised weight.
        tensor: String,
        /// Its type.
        dtype: Dtype,
        /// The absent scale or shape tensor.
        companion: String,
    },
    /// A tensor has another shape than the configuration asks for.
    #[error("{}: {tensor} has shape {found:?}, config.json asks for {expected:?}; they do not belong together", file.display())]
    Shape {
        /// File that holds the tensor.
        file: PathBuf,
        /// Tensor at fault.
        tensor: String,
        /// Shape found.
        found: Vec<usize>,
        /// Shape asked for.
        expected: Vec<usize>,
    },
    /// A tensor has an element type that cannot be used in its place.
    #[error("{}: {tensor} is {found:?}, accepted are {accepted}; convert the checkpoint", file.display())]
    Dtype {
        /// File that holds the tensor.
        file: PathBuf,
        /// Tensor at fault.
        tensor: String,
        /// Type found.
        found: Dtype,
        /// Types accepted.
        accepted: &'static str,
    },
    /// 4-bit weights without the group size that only the configuration knows.
    #[error(
        "{}: {tensor} holds packed 4-bit values, but config.json has no quantization_config of format \
         \"pack-quantized\" with a group_size", file.display()
    )]
    UndeclaredGroups {
        /// File that holds the tensor.
        file: PathBuf,
        /// Tensor at fault.
        tensor: String,
    },
    /// An INT8 weight that is not symmetric.
    #[error(
        "{}: {tensor} is {found} in row {row}; INT8 weights are run without offsets: quantise the checkpoint symmetrically",
        file.display()
    )]
    Offset {
        /// File that holds the tensor.
        file: PathBuf,
        /// The offsets.
        tensor: String,
        /// First row that has one.
        row: usize,
        /// The offset.
        found: f32,
    },
    /// An INT8 weight whose inputs have a scale that was fixed when it was quantised.
    #[error(
        "{}: {tensor} is a fixed scale of the inputs of {weight}; inputs are quantised per token as they come: quantise the \
         checkpoint as W8A8_DYNAMIC", file.display()
    )]
    StaticInputs {
        /// File that holds the tensor.
        file: PathBuf,
        /// The tensor that says so.
        tensor: String,
        /// The weight.
        weight: String,
    },
    /// The stored values themselves are not acceptable.
    #[error("{}: {cause}", file.display())]
    Weight {
        /// File that holds the tensor.
        file: PathBuf,
        /// What is wrong, with the tensor's name.
        cause: WeightError,
    },
}
