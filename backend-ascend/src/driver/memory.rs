//! Memory of the device, and pinned memory of the host.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::context::Context;
use super::sys::types::{aclrtMemMallocPolicy, aclrtMemcpyKind};
use super::{AscendError, report_drop};

/// Operators read whole units of this many bytes, so the runtime wants lengths in multiples of it.
const UNIT_BYTES: usize = 32;

/// Device memory, freed when dropped. It begins at a multiple of 64 bytes.
#[derive(Debug)]
pub(crate) struct Allocation {
    context: Arc<Context>,
    start: NonNull<c_void>,
    num_bytes: usize,
}

// SAFETY: device memory belongs to no thread.
unsafe impl Send for Allocation {}
// SAFETY: as above; what is in it changes by queued work only.
unsafe impl Sync for Allocation {}

impl Allocation {
    /// At least one byte: the runtime knows no empty memory. Contents are unspecified.
    pub(crate) fn new(context: &Arc<Context>, num_bytes: usize) -> Result<Self, AscendError> {
        context.bind()?;
        let mut start = ptr::null_mut();
        let padded = num_bytes.max(1).checked_next_multiple_of(UNIT_BYTES).unwrap_or(usize::MAX);
        let acl = &context.libraries().acl;
        // SAFETY: the result goes to a pointer that outlives the call.
        let status =
            unsafe { (acl.aclrtMalloc)(&raw mut start, padded, aclrtMemMallocPolicy::ACL_MEM_MALLOC_HUGE_FIRST) };
        context.libraries().check("aclrtMalloc", status)?;
        match NonNull::new(start) {
            Some(start) => {
                context.counts().allocations.fetch_add(1, Ordering::Relaxed);
                Ok(Self { context: context.clone(), start, num_bytes })
            }
            None => Err(context.libraries().error("aclrtMalloc", super::OUT_OF_MEMORY[0])),
        }
    }

    /// Memory that holds `data`, copied before this returns.
    pub(crate) fn from_bytes(context: &Arc<Context>, data: &[u8]) -> Result<Self, AscendError> {
        let allocation = Self::new(context, data.len())?;
        allocation.write(0, data)?;
        Ok(allocation)
    }

    /// Copies host bytes to `offset`, at once: for memory that nothing queued uses.
    ///
    /// # Panics
    /// As [`Allocation::range`].
    pub(crate) fn write(&self, offset: usize, data: &[u8]) -> Result<(), AscendError> {
        let to = self.range(offset, data.len());
        if data.is_empty() {
            return Ok(());
        }
        self.context.bind()?;
        let acl = &self.context.libraries().acl;
        let kind = aclrtMemcpyKind::ACL_MEMCPY_HOST_TO_DEVICE;
        // SAFETY: `data.len()` bytes lie at `to` in live device memory (checked by `range`) and at `data`.
        let status = unsafe { (acl.aclrtMemcpy)(to, data.len(), data.as_ptr().cast(), data.len(), kind) };
        self.context.libraries().check("aclrtMemcpy", status)
    }

    pub(crate) fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// The address of `num_bytes` from `offset` on.
    ///
    /// # Panics
    /// If they do not lie in this memory: the layers above keep to their buffers.
    pub(super) fn range(&self, offset: usize, num_bytes: usize) -> *mut c_void {
        let end = offset.checked_add(num_bytes);
        assert!(
            end.is_some_and(|end| end <= self.num_bytes),
            "{num_bytes} bytes from byte {offset} of a buffer of {} bytes",
            self.num_bytes
        );
        self.start.as_ptr().wrapping_byte_add(offset)
    }

    pub(super) fn num_bytes(&self) -> usize {
        self.num_bytes
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // Work that uses the memory may still be queued.
        report_drop(self.context.synchronize());
        // SAFETY: `new` allocated this address, nothing has freed it, and nothing queued needs it any more.
        let status = unsafe { (self.context.libraries().acl.aclrtFree)(self.start.as_ptr()) };
        report_drop(self.context.libraries().check("aclrtFree", status));
    }
}

/// Host memory that the device copies from and to, freed when dropped.
#[derive(Debug)]
pub(super) struct Pinned {
    context: Arc<Context>,
    start: NonNull<u8>,
    num_bytes: usize,
}

// SAFETY: the memory belongs to this value alone.
unsafe impl Send for Pinned {}

impl Pinned {
    pub(super) fn new(context: &Arc<Context>, num_bytes: usize) -> Result<Self, AscendError> {
        context.bind()?;
        let mut start = ptr::null_mut();
        // SAFETY: the result goes to a pointer that outlives the call.
        let status = unsafe { (context.libraries().acl.aclrtMallocHost)(&raw mut start, num_bytes) };
        context.libraries().check("aclrtMallocHost", status)?;
        let Some(start) = NonNull::new(start.cast::<u8>()) else {
            return Err(context.libraries().error("aclrtMallocHost", super::OUT_OF_MEMORY[1]));
        };
        // SAFETY: the runtime just gave `num_bytes` bytes there. From now on they have values.
        unsafe { start.write_bytes(0, num_bytes) };
        Ok(Self { context: context.clone(), start, num_bytes })
    }

    /// What is in it. The stream keeps the device away while this borrow lasts.
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `num_bytes` initialised bytes that live as long as `self`.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.num_bytes) }
    }

    /// As [`Pinned::bytes`], to be written.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `num_bytes` initialised bytes that live as long as `self`, and nobody else has them.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.num_bytes) }
    }

    pub(super) fn num_bytes(&self) -> usize {
        self.num_bytes
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Queued copies may still use it.
        report_drop(self.context.synchronize());
        // SAFETY: `new` allocated it, nothing has freed it, and nothing queued needs it any more.
        let status = unsafe { (self.context.libraries().acl.aclrtFreeHost)(self.start.as_ptr().cast()) };
        report_drop(self.context.libraries().check("aclrtFreeHost", status));
    }
}
