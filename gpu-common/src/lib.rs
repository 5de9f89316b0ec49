//! What the GPU backends share: kernels, and the backend above them.
//!
//! `kernels/` holds one source file per family of ops, written in a small dialect of C++ (`kernels/gk.h`) that three
//! compilers take: NVIDIA's, AMD's, and the host's, where every GPU thread is a fiber. A vendor's crate brings the
//! compiled kernels and a [`GpuRuntime`]: memory, streams, launches. Everything else is here, once.
//!
//! # Kernels and their arguments
//!
//! A kernel is one `extern "C"` entry with a plain name and plain parameters: addresses, `u32`, `f32` ([`Arg`]). A
//! family is one source file and one image per architecture; [`GpuRuntime::kernel`] finds a kernel by both names, while
//! weights are prepared. A kernel that the image lacks is refused there ([`PrepareError::Unsupported`]
//! naming it), so a running step never misses one.
//!
//! [`PrepareError::Unsupported`]: engine_core::backend::PrepareError::Unsupported

#![warn(rustdoc::broken_intra_doc_links)]

mod runtime;

pub use runtime::{Arg, Fp8, GpuInfo, GpuRuntime, LaunchShape};
