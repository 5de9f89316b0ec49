//! The AMD backend: kernels compiled ahead of time, HIP opened at run time.
//!
//! Everything above memory, streams and launches is [`gpu_common`], shared with other vendors' GPUs. Here is what is AMD's
//! alone:
//!
//! * [`driver`]: calls of HIP's runtime, each behind a safe function; the only `unsafe` code of the crate. The runtime is
//!   opened when somebody asks for a device: the crate builds and starts on machines that have none.
//! * [`probe`]: whether a device can be used, and if not, why. Nothing panics for a missing or old runtime.
//! * [`images`]: device code for each architecture, compressed. Nothing is compiled while serving.
//! * [`capture`]: whether recorded launches are to be trusted, by version and by trial.
//! * [`RocmRuntime`]: all put together as a [`GpuRuntime`](gpu_common::GpuRuntime).
//!
//! # `hip-sys`
//!
//! The functions are declared in this crate, not taken from `hip-sys`, because `hip-sys` is linked when it is built (so such
//! a program neither builds nor starts where ROCm is not), because its types are those of HIP 5.4, whose
//! `hipDeviceProp_t` is another one than that of ROCm 6 and later, and because it declares functions to return an enum: a
//! status that HIP added since is undefined behaviour. With the feature `hip-sys` the handles of both convert into each
//! other (`RocmStream::from_hip`, `RocmStream::as_hip`), and tests compare our numbers with its.

#![allow(rustdoc::private_intra_doc_links)]

mod capture;
mod driver;
mod images;
mod probe;
mod runtime;

use std::path::PathBuf;

use engine_core::backend::Unavailable;
use gpu_common::{CollectiveLibrary, GpuRuntime as _};

pub use gpu_common::GpuOptions;
pub use probe::{Reason, num_devices};
pub use runtime::{RocmBuffer, RocmGraph, RocmKernel, RocmRuntime, RocmStream};

/// An AMD GPU as a device.
pub type RocmBackend = gpu_common::GpuBackend<RocmRuntime>;

/// What whoever opens a device may choose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RocmOptions {
    /// What does not depend on the vendor. Waves per block are counted in waves of 32 threads: a device whose waves have 64
    /// takes half as many, so that blocks are as large.
    pub gpu: GpuOptions,
    /// The file of HIP's runtime library; the usual names and places if there is none.
    pub library: Option<PathBuf>,
}

/// What groups of devices add up with. RCCL counts versions as NCCL does, whose sums of bf16 came with 2.10; ROCm 6.0 has 2.18.
pub const RCCL: CollectiveLibrary = CollectiveLibrary {
    name: "RCCL",
    files: &["librccl.so.1", "librccl.so", "/opt/rocm/lib/librccl.so.1"],
    min_version: 21_000,
};

/// Opens devices as the ranks of one group, in this order, with RCCL between them; one alone needs none.
///
/// # Errors
/// Why there is no such group: a device that cannot be used or is named twice, no RCCL, one that is too old, or one that
/// does not sum right.
pub fn open_group(ordinals: &[u32], options: &RocmOptions) -> Result<Vec<RocmBackend>, Unavailable> {
    gpu_common::open_group(&RCCL, ("rocm", ordinals), |ordinal| runtime(ordinal, options))
}

/// A device, and the options that suit it.
fn runtime(ordinal: u32, options: &RocmOptions) -> Result<(RocmRuntime, GpuOptions), Unavailable> {
    let runtime = RocmRuntime::open(ordinal, options.library.as_deref())?;
    let waves_per_block = (options.gpu.waves_per_block * 32 / runtime.info().wave_size).max(1);
    Ok((runtime, GpuOptions { waves_per_block, ..options.gpu }))
}

/// Opens device number `ordinal`.
///
/// # Errors
/// Why it cannot be used: no runtime, one that is too old, no such device, an architecture without device code …
pub fn open(ordinal: u32, options: &RocmOptions) -> Result<RocmBackend, Unavailable> {
    let (runtime, gpu) = runtime(ordinal, options)?;
    RocmBackend::new(runtime, gpu)
        .map_err(|error| Unavailable { device: format!("rocm:{ordinal}"), reason: error.to_string() })
}
