//! The engine at its edges: failing devices, handles and streams that go away at bad moments, caches and steps of the
//! smallest sizes, unusual checkpoints. Every test ends in bounded time or fails.
#![cfg(feature = "cpu")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod best_tokens;
mod checkpoints;
mod faults;
mod lifetimes;
mod limits;
mod logits;
mod rig;
mod stopping;
