//! A strict stand-in for `libamdhip64.so` over host memory.
//!
//! A test instrument. It lets an unchanged backend run whole models on a machine without an accelerator, and it refuses
//! what a runtime may let pass. It is never shipped and it is no backend.
//!
//! * [`config`]: which device it pretends to be, chosen by environment variables; code objects are the real ones, their
//!   kernels, arguments and limits are read from the file.
//! * [`properties`]: the structure in which HIP describes a device.
//! * `gpu_emulator`: what it shares with other vendors' drivers: who owns what, streams, graphs, launches.
//! * [`api`]: the C functions, as far as something here models them.
//!
//! What it checks, and what it cannot prove, is listed in `docs/emulators.md`.

#![allow(rustdoc::private_intra_doc_links)]

mod api;
pub mod config;
mod properties;

#[cfg(test)]
mod tests;
