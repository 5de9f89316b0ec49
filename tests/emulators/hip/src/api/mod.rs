//! The C functions, one file per part of HIP's reference, over what all drivers of GPUs share.

pub(crate) mod device;
pub(crate) mod event;
pub(crate) mod graph;
pub(crate) mod memory;
pub(crate) mod module;
pub(crate) mod nccl;
pub(crate) mod stream;
