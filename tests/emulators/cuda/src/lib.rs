//! A strict stand-in for `libcuda.so.1` over host memory.
//!
//! A test instrument. It lets an unchanged backend run whole models on a machine without an accelerator, and it refuses
//! what a driver may let pass. It is never shipped and it is no backend.
//!
//! * [`config`]: which device it pretends to be, chosen by environment variables; images are the real ones, their entry
//!   points, parameters and limits are read from the file.
//! * [`tensor_map`]: matrices as the copy engine of Hopper knows them.
//! * [`cublaslt`]: the library of products, as far as FP8 in blocks of 128 goes.
//! * `gpu_emulator`: what it shares with other vendors' drivers: who owns what, streams, graphs, launches.
//! * [`api`]: the C functions. Those that nothing here models answer `CUDA_ERROR_NOT_SUPPORTED` with their name.
//!
//! What it checks, and what it cannot prove, is listed in `docs/emulators.md`.

#![allow(rustdoc::private_intra_doc_links)]

mod abi;
mod api;
pub mod config;
mod cublaslt;
mod tensor_map;

#[cfg(test)]
mod tests;
