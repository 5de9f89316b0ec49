//! What emulated drivers share, whoever's driver it is.
//!
//! A part of test instruments: never shipped, never a backend.
//!
//! * [`config`]: choices of every emulated machine, and its environment variables.
//! * [`fault`]: what goes wrong on purpose, and when.
//! * [`memory`]: allocations with guards, full of NaN.
//! * [`caller`]: what a caller's pointers lead to.
//! * [`collective`]: sums over devices.
//! * [`exit`]: what was never given back is reported when the process ends.

pub mod caller;
pub mod collective;
pub mod config;
pub mod exit;
pub mod fault;
pub mod memory;

/// A function that did not succeed: what it answers, and what the developer should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The status, in the driver's own numbers.
    pub status: i32,
    /// Empty where there is nothing to say.
    pub message: String,
}

impl Failure {
    /// A failure with its message.
    pub fn new(status: i32, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

/// What the body of a function comes to.
pub type Outcome<T> = Result<T, Failure>;
