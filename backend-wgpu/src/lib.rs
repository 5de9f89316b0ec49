//! bathysphere on any GPU that speaks Vulkan, Metal or DirectX 12, through wgpu.
//!
//! # The data's way through
//!
//! [`WgpuBackend`] opens an adapter ([`adapter`]) as a [`gpu`]. Weights are uploaded as the checkpoint has them, FP8,
//! INT8, INT4 or bf16 packed in words, in slabs no larger than one binding ([`matrix`]); kernels expand them in
//! registers. The kernels are WGSL with a few template directives ([`kernels`]), compiled while weights are prepared
//! ([`pipelines`]). Ops record kernels into a [`stream`]; a step is one submission and one small read-back.
//!
//! Matrix products ([`matmul`]) come in three cuts: along the inputs for few rows, tiles in workgroup memory for many,
//! and one for software rasterisers, where each lane pays for its own loads. Rows of one expert are grouped on the device
//! ([`ffn`]), so that only chosen experts' weights are read. Attention ([`mla`]) is absorbed and walks over the paged
//! cache with a running softmax; small steps split the positions.
//!
//! Nothing relies on more than WebGPU's default limits (see the repository's `docs/wgpu.md`).

#![warn(rustdoc::broken_intra_doc_links)]
#![allow(rustdoc::private_intra_doc_links)]

mod adapter;
mod backend;
mod ffn;
mod gate;
mod gpu;
mod kernels;
mod matmul;
mod matrix;
mod mla;
mod options;
mod params;
mod pipeline_cache;
mod pipelines;
mod rows;
mod scratch;
mod stream;
#[cfg(test)]
mod tests;

pub use adapter::AdapterDescription;
pub use backend::WgpuBackend;
pub use ffn::{Experts, Ffn};
pub use gate::Gate;
pub use gpu::{WgpuBuffer, WgpuCounts};
pub use matmul::Matmul;
pub use matrix::Matrix;
pub use mla::{LatentCache, Mla, Queries};
pub use options::{MatmulStyle, WgpuOptions};
pub use rows::{Embedding, Norm};
pub use stream::WgpuStream;
