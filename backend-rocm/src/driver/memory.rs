//! Memory of the device, and pinned memory of the host.

use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;

use gpu_common::range_within;

use super::sys::{DevicePointer, status};
use super::{Context, HipError, report_drop};

/// Device memory, freed when dropped.
#[derive(Debug)]
pub(crate) struct Allocation {
    context: Arc<Context>,
    address: u64,
    num_bytes: usize,
}

/// An address as the runtime takes it.
pub(super) fn device_pointer(address: u64) -> DevicePointer {
    ptr::without_provenance_mut(address as usize)
}

impl Allocation {
    /// At least one byte: the runtime answers with no memory otherwise.
    pub(crate) fn new(context: &Arc<Context>, num_bytes: usize) -> Result<Self, HipError> {
        let num_bytes = num_bytes.max(1);
        let mut address = ptr::null_mut();
        // SAFETY: the result goes to a pointer that outlives the call.
        unsafe { context.bind()?.hipMalloc(&raw mut address, num_bytes) }?;
        Ok(Self { context: context.clone(), address: address.addr() as u64, num_bytes })
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// The address of `num_bytes` from `offset` on.
    ///
    /// # Panics
    /// If they do not lie in this memory: the layers above keep to their buffers.
    pub(super) fn range(&self, offset: usize, num_bytes: usize) -> u64 {
        range_within((self.address, self.num_bytes), offset, num_bytes)
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // Work that uses the memory may still be queued.
        report_drop(self.context.synchronize());
        let address = device_pointer(self.address);
        // SAFETY: `new` allocated this address, nothing has freed it, and nothing queued needs it any more.
        report_drop(self.context.bind().and_then(|api| unsafe { api.hipFree(address) }));
    }
}

/// Host memory that the device copies to directly, freed when dropped.
#[derive(Debug)]
pub(crate) struct Pinned {
    context: Arc<Context>,
    start: NonNull<u8>,
    num_bytes: usize,
}

// SAFETY: the memory belongs to this value alone.
unsafe impl Send for Pinned {}

impl Pinned {
    pub(crate) fn new(context: &Arc<Context>, num_bytes: usize) -> Result<Self, HipError> {
        let mut start = ptr::null_mut();
        // Flags 0: cached, since the host reads it.
        // SAFETY: the result goes to a pointer that outlives the call.
        unsafe { context.bind()?.hipHostMalloc(&raw mut start, num_bytes, 0) }?;
        let pinned = NonNull::new(start.cast::<u8>()).map(|start| {
            // SAFETY: the runtime just gave `num_bytes` bytes there. From now on they have values.
            unsafe { start.write_bytes(0, num_bytes) };
            Self { context: context.clone(), start, num_bytes }
        });
        pinned.ok_or(HipError { function: "hipHostMalloc", status: status::OUT_OF_MEMORY })
    }

    /// What is in it. Borrowing it mutably to queue a copy, and waiting before that borrow ends, keeps the device away
    /// (`Stream::read`).
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `num_bytes` initialised bytes that live as long as `self`.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.num_bytes) }
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub(super) fn num_bytes(&self) -> usize {
        self.num_bytes
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let start = self.start.as_ptr().cast();
        // SAFETY: `new` allocated it, nothing has freed it, and no copy into it is left unwaited for.
        report_drop(self.context.bind().and_then(|api| unsafe { api.hipHostFree(start) }));
    }
}
