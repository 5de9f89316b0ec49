//! A strict stand-in for CANN's libraries (`libascendcl.so`, `libnnopbase.so`, `libopapi.so`, `libhccl.so`) over host memory.
//!
//! A test instrument. It lets an unchanged backend run whole models on a machine without an accelerator, and it refuses
//! what CANN may let pass. It is never shipped and it is no backend. One shared library has the symbols of all of them and is
//! found under each of their names.
//!
//! * [`config`]: which product it pretends to be, and the faults it injects; chosen by environment variables.
//! * [`machine`]: devices, contexts, and who owns what.
//! * [`stream`]: work is queued and runs when somebody waits for it.
//! * [`collective`]: sums over devices: communicators, and when all their ranks have come.
//! * [`capture`]: work that is recorded, replayed, and updated in between.
//! * [`tensor`]: descriptors, and views of device memory as numbers.
//! * [`operator`]: the two-phase protocol.
//! * [`ops`]: operators: what each accepts on Atlas A2 and A3, and its arithmetic in f32.
//! * [`api`]: the other C functions.
//!
//! Memory, faults and the report of leaks are those of every emulator (`emulator_common`).
//!
//! What it checks, and what it cannot prove, is listed in `docs/emulators.md`.

#![allow(rustdoc::private_intra_doc_links)]

mod abi;
mod api;
mod capture;
mod collective;
pub mod config;
mod machine;
mod operator;
mod ops;
mod stream;
mod tensor;

#[cfg(test)]
mod tests;
