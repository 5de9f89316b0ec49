//! The checkpoint's tensors: safetensors files, memory-mapped, checked, typed.

mod checkpoint;
mod error;
pub mod layout;

pub use checkpoint::Checkpoint;
pub use error::CheckpointError;
