//! Calls of HIP's runtime, each behind a safe function.
//!
//! [`Runtime::open`] opens the library. Owners ([`Allocation`], [`Stream`] …) give back what they own when they are dropped,
//! and hold what it depends on.

#[cfg(all(test, feature = "hip-sys"))]
mod agreement;
mod context;
mod graph;
#[cfg(feature = "hip-sys")]
mod interop;
mod library;
mod memory;
mod module;
mod properties;
mod stream;
mod sys;

pub(crate) use context::{Context, Device};
pub(crate) use graph::ExecutableGraph;
pub(crate) use library::{Absence, Runtime};
pub(crate) use memory::{Allocation, Pinned};
pub(crate) use module::{Function, Module};
pub(crate) use properties::{Properties, PropertiesError};
pub(crate) use stream::Stream;

use gpu_common::DriverFailure;
use sys::{Status, status};

/// A function of HIP that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HipError {
    function: &'static str,
    status: Status,
}

impl DriverFailure for HipError {
    fn is_out_of_memory(&self) -> bool {
        self.status == status::OUT_OF_MEMORY
    }

    fn is_not_found(&self) -> bool {
        self.status == status::NOT_FOUND
    }
}

impl HipError {
    /// True where the machine has no device.
    pub(crate) fn is_no_device(self) -> bool {
        self.status == status::NO_DEVICE
    }

    /// What the function answered.
    pub(crate) fn status(self) -> u32 {
        self.status
    }
}

impl std::fmt::Display for HipError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { function, status } = self;
        match status::NAMES.iter().find(|(known, _)| known == status) {
            Some((_, name)) => write!(f, "{function} answered {status} ({name})"),
            None => write!(f, "{function} answered {status}"),
        }
    }
}

/// Turns a status into a result.
fn check(function: &'static str, status: Status) -> Result<(), HipError> {
    if status == status::SUCCESS { Ok(()) } else { Err(HipError { function, status }) }
}

/// Reports what went wrong while giving something back; there is nobody to hand it to.
fn report_drop(result: Result<(), HipError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "a device resource could not be given back");
    }
}
