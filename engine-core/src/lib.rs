//! Everything of bathysphere that knows no hardware.
//!
//! Read in this order: [`config`] (what the checkpoint says it is), [`weights`] (the checkpoint's tensors),
//! [`quant`] (weights as typed values), [`backend`] (the contract every device fulfils), [`model`] (the one graph),
//! [`runner`] (one step of a batch), [`scheduler`] (which sequences run), [`engine`] (what an embedder holds).
//!
//! **Invariant:** no vendor word, no backend cfg, no environment variable and nothing printed in this crate.

pub mod backend;
pub mod cache;
pub mod config;
pub mod convert;
pub mod engine;
pub mod error;
mod file;
pub mod model;
pub mod noop;
pub mod plan;
pub mod quant;
pub mod reference;
pub mod rope;
pub mod runner;
pub mod sampling;
pub mod scheduler;
pub mod synth;
pub mod tokenizer;
pub mod weights;

pub use error::{Error, Result};
