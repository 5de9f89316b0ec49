//! The library of collectives.

use crate::config::Hip;

gpu_emulator::nccl_entries!(Hip);
