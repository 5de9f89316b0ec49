//! The library of collectives.

use crate::config::Cuda;

gpu_emulator::nccl_entries!(Cuda);
