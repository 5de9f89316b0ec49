//! The CPU backend: multi-threaded, weights expanded in registers.
//!
//! # The data's way through
//!
//! [`CpuBackend`] implements [`Backend`](engine_core::backend::Backend). A prepared weight ([`matrix`]) is the host's
//! weight itself: FP8, INT8, INT4 or bf16 values stay where the checkpoint has them, memory-mapped, and are never
//! copied. Every projection is a [`gemm`]: tiles of output rows are handed to the [`threads`], and a task multiplies its
//! rows with all tokens in one of two [`kernels`]. For few tokens rows are widened to f32 in registers and used at
//! once; for many they are widened into a panel that stays in cache and meets the tokens there. Kernels are written
//! once over sixteen-lane vectors and compiled for each instruction set ([`simd`]), one of which is chosen when the
//! backend is made.
//!
//! The rest is built from these: [`ffn`] and [`experts`] (tokens grouped by expert, only chosen experts' weights are
//! read), [`gate`], [`norm`], and [`mla`] (attention over the paged latent cache in tiles of positions). Tasks write
//! disjoint tiles of one output matrix through a [`grid`]. Intermediate values live in the stream and in the threads'
//! [`scratch`], which grow on demand; steady decoding does not grow them.
//!
//! # The invariant: a token's result is its own
//!
//! Bit for bit, what is computed for a token does not depend on the other tokens and sequences of the step, on how a
//! prompt was cut into steps, on where its blocks lie, or on the number of threads. It holds because
//!
//! * every dot product has one order ([`kernels`]), whatever tile it is part of, and a tile never splits one;
//! * attention goes through a sequence in tiles that start at fixed positions (`mla::online`);
//! * a token's experts are added in ascending order, the shared expert last ([`ffn::sum_down`]);
//! * sizes of tiles and tasks are free to depend on anything, since they decide none of the above.

#![warn(rustdoc::broken_intra_doc_links)]
#![allow(rustdoc::private_intra_doc_links)]

mod backend;
mod device;
mod experts;
mod ffn;
mod gate;
mod gemm;
mod grid;
mod kernels;
mod matrix;
mod mla;
mod norm;
mod options;
mod scratch;
mod simd;
#[cfg(test)]
mod tests;
mod threads;

pub use backend::CpuBackend;
pub use engine_core::reference::MlaForm;
pub use experts::Experts;
pub use ffn::Ffn;
pub use gate::Gate;
pub use matrix::Matrix;
pub use mla::{LatentCache, Mla, Queries};
pub use norm::Norm;
pub use options::CpuOptions;
pub use scratch::CpuStream;
pub use simd::SimdLevel;
