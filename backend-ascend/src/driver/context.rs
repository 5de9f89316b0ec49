//! A device's context: one for each open device, bound to whichever thread makes a call.

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::library::Libraries;
use super::sys::types::{aclrtContext, aclrtMemAttr};
use super::{AscendError, report_drop};

/// An explicit context of one device.
#[derive(Debug)]
pub(crate) struct Context {
    libraries: Libraries,
    handle: aclrtContext,
    ordinal: u32,
    counts: Counts,
}

/// What a backend has asked CANN for since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AscendCounts {
    /// Pieces of device memory.
    pub allocations: u64,
    /// Executors planned: first functions of operators.
    pub plans: u64,
    /// Operators queued, recorded or put in the place of recorded ones: second functions.
    pub operators: u64,
    /// Recorded operators that were replaced.
    pub updates: u64,
    /// Recorded steps that were queued.
    pub replays: u64,
}

/// [`AscendCounts`] while they are counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) allocations: AtomicU64,
    pub(super) plans: AtomicU64,
    pub(super) operators: AtomicU64,
    pub(super) updates: AtomicU64,
    pub(super) replays: AtomicU64,
}

// SAFETY: the runtime lets any thread use a context that it has made its own; handles are numbers to us.
unsafe impl Send for Context {}
// SAFETY: as above; every call binds the context to its thread first.
unsafe impl Sync for Context {}

impl Context {
    /// A context of device number `ordinal`.
    pub(crate) fn new(libraries: Libraries, ordinal: u32) -> Result<Self, AscendError> {
        let mut handle = ptr::null_mut();
        // SAFETY: the result goes to a pointer that outlives the call; a number that is no device's is refused.
        let status = unsafe { (libraries.acl.aclrtCreateContext)(&raw mut handle, ordinal as i32) };
        libraries.check("aclrtCreateContext", status)?;
        Ok(Self { libraries, handle, ordinal, counts: Counts::default() })
    }

    pub(crate) fn libraries(&self) -> &Libraries {
        &self.libraries
    }

    /// Its device's number.
    pub(super) fn ordinal(&self) -> u32 {
        self.ordinal
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What it has asked for since it was made.
    pub(crate) fn counted(&self) -> AscendCounts {
        let Counts { allocations, plans, operators, updates, replays } = &self.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        AscendCounts {
            allocations: read(allocations),
            plans: read(plans),
            operators: read(operators),
            updates: read(updates),
            replays: read(replays),
        }
    }

    /// Makes it the calling thread's context, which every other call works in.
    pub(super) fn bind(&self) -> Result<(), AscendError> {
        // SAFETY: the handle is alive as long as `self`.
        let status = unsafe { (self.libraries.acl.aclrtSetCurrentContext)(self.handle) };
        self.libraries.check("aclrtSetCurrentContext", status)
    }

    /// Waits for everything that was queued.
    pub(super) fn synchronize(&self) -> Result<(), AscendError> {
        self.bind()?;
        // SAFETY: takes nothing; works on the context just bound.
        let status = unsafe { (self.libraries.acl.aclrtSynchronizeDevice)() };
        self.libraries.check("aclrtSynchronizeDevice", status)
    }

    /// Device memory that nobody uses, in bytes.
    pub(crate) fn free_bytes(&self) -> Result<u64, AscendError> {
        self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: both results go to integers that outlive the call.
        let status =
            unsafe { (self.libraries.acl.aclrtGetMemInfo)(aclrtMemAttr::ACL_HBM_MEM, &raw mut free, &raw mut total) };
        self.libraries.check("aclrtGetMemInfo", status)?;
        Ok(free as u64)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: `new` created it, and everything made in it holds it, so is gone.
        let status = unsafe { (self.libraries.acl.aclrtDestroyContext)(self.handle) };
        report_drop(self.libraries.check("aclrtDestroyContext", status));
    }
}
