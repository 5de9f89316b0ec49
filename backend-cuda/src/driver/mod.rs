//! Calls of NVIDIA's driver, each behind a safe function.
//!
//! [`library`] must have said that the driver is there, with every function in [`SYMBOLS`](library::SYMBOLS), before
//! anything else in here is called: the bindings load functions one by one and panic for one that is missing. Owners
//! ([`Context`], [`Allocation`] …) give back what they own when they are dropped, and hold what it depends on.

mod context;
pub(crate) mod cublaslt;
mod graph;
mod library;
mod memory;
mod module;
mod stream;
mod tensor_map;

pub(crate) use context::{Context, Device};
pub(crate) use graph::ExecutableGraph;
pub(crate) use library::{Absence, initialise, version};
pub(crate) use memory::{Allocation, Pinned};
pub(crate) use module::{Function, Module};
pub(crate) use stream::Stream;
pub(crate) use tensor_map::{ByteMatrix, TensorMap};

use cudarc::driver::sys::CUresult;
use gpu_common::DriverFailure;

/// A driver function that failed. The bindings list the statuses of CUDA 12.9; the functions called here answer none that
/// is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DriverError {
    function: &'static str,
    status: CUresult,
}

impl DriverFailure for DriverError {
    fn is_out_of_memory(&self) -> bool {
        self.status == CUresult::CUDA_ERROR_OUT_OF_MEMORY
    }

    fn is_not_found(&self) -> bool {
        self.status == CUresult::CUDA_ERROR_NOT_FOUND
    }
}

impl DriverError {
    /// True where the machine has no device.
    pub(crate) fn is_no_device(self) -> bool {
        self.status == CUresult::CUDA_ERROR_NO_DEVICE
    }
}

impl std::fmt::Display for DriverError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} answered {:?}", self.function, self.status)
    }
}

/// Turns a status into a result.
fn check(function: &'static str, status: CUresult) -> Result<(), DriverError> {
    if status == CUresult::CUDA_SUCCESS { Ok(()) } else { Err(DriverError { function, status }) }
}

/// Reports what went wrong while giving something back; there is nobody to hand it to.
fn report_drop(result: Result<(), DriverError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "a device resource could not be given back");
    }
}
