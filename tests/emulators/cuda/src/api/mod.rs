//! The C functions, one file per part of the driver's reference, over what all drivers of GPUs share.

pub(crate) mod context;
pub(crate) mod cublaslt;
pub(crate) mod device;
pub(crate) mod event;
pub(crate) mod graph;
pub(crate) mod launch;
pub(crate) mod memory;
pub(crate) mod module;
pub(crate) mod nccl;
pub(crate) mod stream;
pub(crate) mod tensor_map;
pub(crate) mod unsupported;
