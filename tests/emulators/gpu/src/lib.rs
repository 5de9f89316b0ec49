//! What the emulated drivers of GPUs share. CUDA's and HIP's driver interfaces are the same in all but names, down to the
//! numbers of their statuses; what a [`Gpu`] says is what differs.
//!
//! A part of test instruments: never shipped, never a backend.
//!
//! * [`Gpu`], [`Config`], [`Limits`]: what a vendor's emulator brings.
//! * [`Driver`]: devices, contexts, and who owns what.
//! * [`stream`]: work is queued and runs when somebody waits for it, as late as the rules allow.
//! * [`module`]: what images say of their kernels; launches that keep to it.
//! * [`nccl`]: communicators, and sums over devices (`collective`).
//! * [`entries`]: the C functions, which a vendor's emulator defines over all this. Each is a few lines.

#![allow(rustdoc::private_intra_doc_links)]

mod api;
mod collective;
mod config;
mod driver;
mod event;
mod execute;
mod graph;
mod kernels;
mod memory;
pub mod module;
pub mod nccl;
pub mod status;
pub mod stream;
pub mod two_kernels;

pub use api::{Statuses, answer, answer_as, name, read, read_at, read_elf, write};
pub use config::{Config, Gpu, Libraries, Limits, Nccl};
pub use driver::{Context, DeviceId, Driver, Kind, Memory, Slot, current, set_current};
pub use emulator_common::{Failure, Outcome};
pub use gpu_host::Profile;
pub use kernels::{HostKernels, LaunchOrder};
pub use status::Status;
