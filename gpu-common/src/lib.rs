//! What the GPU backends share: kernels, and the backend above them.
//!
//! `kernels/` holds one source file per family of ops, written in a small dialect of C++ (`kernels/gk.h`) that three
//! compilers take: NVIDIA's, AMD's, and the host's, where every GPU thread is a fiber. A vendor's crate brings the
//! compiled kernels and a [`GpuRuntime`]: memory, streams, launches. Everything else is here, once: [`GpuBackend`].
//!
//! # Kernels and their arguments
//!
//! A kernel is one `extern "C"` entry with a plain name and plain parameters: addresses, `u32`, `f32` ([`Arg`]). A
//! family is one source file and one image per architecture; [`GpuRuntime::kernel`] finds a kernel by both names, while
//! weights are prepared. A kernel that the image lacks is refused there ([`PrepareError::Unsupported`]
//! naming it), so a running step never misses one.
//!
//! # The data's way through
//!
//! Weights stay packed as the checkpoint has them (rows padded to 16 bytes) and are widened in registers ([`matrix`]).
//! Every projection is a [`product`]: for few rows a kernel that reads each weight once, for many rows one of matrix
//! tiles; both take bf16 activations or quantised ones, and both serve single matrices, the heads of attention and the
//! experts. [`ffn`], [`experts`], [`gate`] and [`mla`] are sequences of launches; what lies between two kernels of an op is
//! in the stream's [`scratch`] memory, which grows to the largest step and then stays.
//!
//! Devices of one group add up their sums through the vendor's library of [`collective`]s, in the order of the stream.
//!
//! What is the same in every vendor's crate, though no backend needs it, is in [`images`] and [`vendor`].
//!
//! [`PrepareError::Unsupported`]: engine_core::backend::PrepareError::Unsupported

#![warn(rustdoc::broken_intra_doc_links)]
#![allow(rustdoc::private_intra_doc_links)]

mod backend;
mod collective;
mod device;
mod experts;
mod ffn;
mod fnuz;
mod gate;
mod images;
mod linear;
mod matrix;
mod mla;
mod norm;
mod options;
mod product;
mod runtime;
mod scratch;
mod top;
mod vendor;
mod wide;

pub use backend::GpuBackend;
pub use collective::{CollectiveLibrary, open_group};
pub use experts::GpuExperts;
pub use ffn::GpuFfn;
pub use gate::GpuGate;
pub use images::{Family, Image, Images, KernelParameters, MAX_ARGUMENTS};
pub use linear::{GpuEmbedding, GpuLinear};
pub use mla::{GpuLatentCache, GpuMla, GpuQueries};
pub use norm::GpuNorm;
pub use options::GpuOptions;
pub use runtime::{Arg, Fp8, GpuInfo, GpuRuntime, LaunchShape, NativeQueue};
pub use scratch::{GpuGraph, GpuStream};
pub use vendor::{DeviceName, DriverFailure, Modules, range_within};
pub use wide::{WideExperts, WideRows, WideWeights};
