//! A test instrument, not a backend: the GPU kernels compiled for the host, and a [`GpuRuntime`] that launches them.
//!
//! Every GPU thread is a fiber ([the block emulation](../../../../gpu-common/kernels/host/block.h)), one block runs at a
//! time, on the thread that launches. The runtime is strict: it checks the number and size of arguments, that addresses
//! point into live memory, that nothing beside an allocation was written, that kernels agree on barriers and ask for the
//! shared memory they use. Memory and shared memory hold NaN until they are written.
//!
//! What it cannot show: races (blocks and threads take turns), how a vendor's compiler, matrix units and exponentials
//! round, and how fast anything is.
//!
//! [`GpuRuntime`]: gpu_common::GpuRuntime

mod memory;
mod profile;
mod runtime;
mod sys;

pub use memory::{HostMemory, Ledger};
pub use profile::Profile;
pub use runtime::{HostGraph, HostKernel, HostOptions, HostRuntime, HostStream};
pub use sys::{ArgValue, Barrier, KernelInfo, barriers, launch_kernel, registered_kernels, skip_barrier};
