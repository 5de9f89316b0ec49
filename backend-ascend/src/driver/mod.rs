//! Calls of CANN's libraries, each behind a safe function; all `unsafe` of the crate.
//!
//! * [`library`]: opens the libraries and says what is missing. Nothing else in here can be called without them.
//! * [`communicator`]: sums over devices.
//! * [`context`], [`memory`], [`stream`]: owners of what the runtime hands out. Each gives it back when dropped, and holds
//!   what it depends on. Device memory is freed after everything queued on the device.
//! * [`capture`]: work that is recorded, and updated before it is replayed.
//! * [`descriptor`]: what an operator takes: tensors, lists, arrays, scalars; alive until the operator is queued.
//! * [`ops`]: the operators, one safe function each. A function plans, grows the stream's workspace and queues. Where a
//!   call comes again with the same [`arguments`], the stream's [`calls`] have its executor, and it is queued only.

mod arguments;
mod calls;
mod capture;
mod communicator;
mod context;
mod descriptor;
mod library;
mod memory;
mod ops;
mod stream;
mod sys;

pub(crate) use capture::Graph;
pub(crate) use communicator::Communicator;
pub use context::AscendCounts;
pub(crate) use context::Context;
pub(crate) use descriptor::{DataType, View};
pub(crate) use library::{Absence, Libraries, Operator};
pub(crate) use memory::Allocation;
pub(crate) use ops::{Attention, FusedGateUp, GatingRules, GroupedProduct, KeyPart, Keys, MlaProlog, Routed};
pub(crate) use stream::Stream;

/// `ACL_ERROR_RT_MEMORY_ALLOCATION` and `ACL_ERROR_BAD_ALLOC`: the device's memory and the host's.
const OUT_OF_MEMORY: [i32; 2] = [207_001, 200_000];
/// `ACL_ERROR_RT_NO_DEVICE`.
const NO_DEVICE: i32 = 207_004;

/// None of CANN's statuses.
const NOT_ASKED: i32 = -1;

/// A function that did not succeed, with the words that CANN left on the calling thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AscendError {
    function: &'static str,
    status: i32,
    message: String,
}

impl AscendError {
    /// What this crate does not ask of CANN, and why.
    fn refused(function: &'static str, reason: &str) -> Self {
        Self { function, status: NOT_ASKED, message: reason.to_owned() }
    }

    /// True where memory ran out and nothing else is wrong.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        OUT_OF_MEMORY.contains(&self.status)
    }

    /// True where it is the group of devices that cannot go on.
    pub(crate) fn is_collective(&self) -> bool {
        self.function.starts_with("Hccl") || self.function == communicator::EARLIER_SUM
    }

    /// True where the machine has no device.
    pub(crate) fn is_no_device(&self) -> bool {
        self.status == NO_DEVICE
    }
}

impl std::fmt::Display for AscendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} answered {}", self.function, self.status)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

/// Reports what went wrong while giving something back; there is nobody to hand it to.
fn report_drop(result: Result<(), AscendError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "a device resource could not be given back");
    }
}
