//! The checkpoint's tensors: safetensors files, memory-mapped, checked, typed.

mod check;
mod checkpoint;
mod error;
mod index;
pub mod layout;
mod mmap;
mod read;
mod shard;
pub mod shares;
#[cfg(test)]
mod tests;

pub use check::CheckpointReport;
pub use checkpoint::{Checkpoint, TensorInfo};
pub use error::CheckpointError;
pub(crate) use index::INDEX_SUFFIX;
