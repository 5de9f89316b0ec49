//! The NVIDIA backend: kernels compiled ahead of time, the driver opened at run time.
//!
//! Everything above memory, streams and launches is [`gpu_common`], shared with other vendors' GPUs. Here is what is
//! NVIDIA's alone:
//!
//! * [`driver`]: calls of the driver, each behind a safe function; the only `unsafe` code of the crate. The driver is
//!   opened when somebody asks for a device: the crate builds and starts on machines that have none.
//! * [`probe`]: whether a device can be used, and if not, why. Nothing panics for a missing or old driver.
//! * [`images`]: device code for six architectures, compressed. Nothing is compiled while serving.
//! * [`wide`]: products of many FP8 rows on Hopper, with kernels that no other device has.
//! * [`cublaslt`]: the same by NVIDIA's library, for those who ask for it.
//! * [`CudaRuntime`]: both put together as a [`GpuRuntime`](gpu_common::GpuRuntime).

#![allow(rustdoc::private_intra_doc_links)]

mod cublaslt;
mod driver;
mod images;
mod probe;
mod runtime;
mod wide;

use engine_core::backend::Unavailable;
use gpu_common::CollectiveLibrary;

pub use cublaslt::{CublasLt, CublasLtReason, PromptProducts};
pub use gpu_common::GpuOptions;
pub use probe::{Reason, num_devices};
pub use runtime::{CudaBuffer, CudaGraph, CudaKernel, CudaRuntime, CudaStream};
pub use wide::CudaWide;

/// An NVIDIA GPU as a device.
pub type CudaBackend = gpu_common::GpuBackend<CudaRuntime>;

/// What groups of devices add up with. Sums of bf16 came with NCCL 2.10; collectives can be recorded since 2.9.
pub const NCCL: CollectiveLibrary =
    CollectiveLibrary { name: "NCCL", files: &["libnccl.so.2", "libnccl.so"], min_version: 21_000 };

/// What whoever opens a device may choose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CudaOptions {
    /// What does not depend on the vendor.
    pub gpu: GpuOptions,
    /// Which kernels multiply the rows of prompts with FP8 weights. [`CudaRuntime::cublaslt`] says what became of it.
    pub prompt_products: PromptProducts,
}

/// Opens devices as the ranks of one group, in this order, with NCCL between them; one alone needs none.
///
/// # Errors
/// Why there is no such group: a device that cannot be used or is named twice, no NCCL, one that is too old, or one that
/// does not sum right.
pub fn open_group(ordinals: &[u32], options: CudaOptions) -> Result<Vec<CudaBackend>, Unavailable> {
    let runtime = |ordinal| Ok((CudaRuntime::open(ordinal, options.prompt_products)?, options.gpu));
    gpu_common::open_group(&NCCL, ("cuda", ordinals), runtime)
}

/// Opens device number `ordinal`.
///
/// # Errors
/// Why it cannot be used: no driver, one that is too old, no such device, a generation without device code …
pub fn open(ordinal: u32, options: CudaOptions) -> Result<CudaBackend, Unavailable> {
    let runtime = CudaRuntime::open(ordinal, options.prompt_products)?;
    CudaBackend::new(runtime, options.gpu)
        .map_err(|error| Unavailable { device: format!("cuda:{ordinal}"), reason: error.to_string() })
}
