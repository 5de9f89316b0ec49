//! Communicators: sums over the devices of a group, through HCCL.
//!
//! HCCL has nothing to end a sum to which a rank never comes: a device that waits for it waits until HCCL's own timeout. So
//! the streams of a group are known here, and their work is discarded when a rank fails ([`Communicator::abort`]). What HCCL
//! keeps on streams of its own is beyond reach.

use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::context::Context;
use super::library::{self, Absence};
use super::stream::Handle;
use super::sys::hccl::Hccl;
use super::sys::types::{HcclComm, HcclDataType, HcclReduceOp};
use super::{AscendError, report_drop};

/// Status of a sum that is asked for after its group has failed; none of HCCL's.
const FAILED_BEFORE: i32 = -1;

/// What is at fault where a sum comes to nothing after it was queued.
pub(super) const EARLIER_SUM: &str = "a sum that was queued before";

/// One rank of a group. Ended when dropped: its streams hold it, so after their work.
pub(crate) struct Communicator {
    hccl: Arc<Hccl>,
    handle: HcclComm,
    context: Arc<Context>,
    is_aborted: AtomicBool,
    /// Streams that sums may be queued on.
    streams: Mutex<Vec<Weak<Handle>>>,
}

// SAFETY: HCCL lets any thread use a communicator whose device it works on, one at a time for each; a rank has one thread.
unsafe impl Send for Communicator {}
// SAFETY: as above; what is shared besides has its own lock.
unsafe impl Sync for Communicator {}

impl std::fmt::Debug for Communicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Communicator").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl Communicator {
    /// One for each of these devices, in order: the ranks of one group. No device may come twice.
    pub(crate) fn of_group(contexts: &[&Arc<Context>]) -> Result<Vec<Arc<Self>>, Absence> {
        let Some(first) = contexts.first() else { return Ok(Vec::new()) };
        if let Some(Err(error)) = contexts.iter().map(|context| context.libraries().stream_abort()).find(Result::is_err)
        {
            return Err(error);
        }
        let hccl = Arc::new(library::collectives()?);
        let mut devices: Vec<i32> = contexts.iter().map(|context| context.ordinal() as i32).collect();
        let mut handles = vec![ptr::null_mut(); devices.len()];
        first.bind().map_err(Absence::Failed)?;
        // SAFETY: both arrays have an entry for each device and outlive the call.
        let status =
            unsafe { (hccl.HcclCommInitAll)(devices.len() as u32, devices.as_mut_ptr(), handles.as_mut_ptr()) };
        check(&hccl, first, "HcclCommInitAll", status).map_err(Absence::Failed)?;
        let owned = |(handle, context): (HcclComm, &&Arc<Context>)| {
            let (hccl, context) = (hccl.clone(), (*context).clone());
            Arc::new(Self { hccl, handle, context, is_aborted: AtomicBool::new(false), streams: Mutex::default() })
        };
        Ok(handles.into_iter().zip(contexts).map(owned).collect())
    }

    /// Takes note of a stream that sums will be queued on.
    pub(super) fn register(&self, stream: &Arc<Handle>) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|stream| stream.strong_count() > 0);
        streams.push(Arc::downgrade(stream));
    }

    /// Queues a sum over all ranks of `count` bf16 values, which replaces them.
    ///
    /// In place: HCCL's reference says nothing about it, PyTorch's backend for Ascend sums so.
    pub(super) fn all_reduce(&self, stream: &Handle, x: *mut c_void, count: usize) -> Result<(), AscendError> {
        self.check_alive()?;
        self.context.bind()?;
        let (bf16, sum) = (HcclDataType::HCCL_DATA_TYPE_BFP16, HcclReduceOp::HCCL_REDUCE_SUM);
        // SAFETY: `count` values lie at `x` in device memory that is freed after what is queued (the stream checked it);
        // communicator and stream are alive as long as they are borrowed, and of the device just bound.
        let status = unsafe { (self.hccl.HcclAllReduce)(x, x, count as u64, bf16, sum, self.handle, stream.raw()) };
        self.check("HcclAllReduce", status)?;
        if self.is_aborted.load(Ordering::SeqCst) {
            // The abort may have missed what was queued after it looked.
            stream.abort()?;
        }
        self.check_alive()
    }

    /// After a wait: sums that did not come about leave no other trace.
    pub(super) fn check_sums(&self) -> Result<(), AscendError> {
        self.check_alive()?;
        let mut status = 0;
        // SAFETY: the communicator is alive; the result goes to an integer that outlives the call.
        let asked = unsafe { (self.hccl.HcclGetCommAsyncError)(self.handle, &raw mut status) };
        self.check("HcclGetCommAsyncError", asked)?;
        self.check(EARLIER_SUM, status)
    }

    /// Refuses further sums. From any thread.
    pub(crate) fn refuse(&self) {
        self.is_aborted.store(true, Ordering::SeqCst);
    }

    /// Discards what is queued on its streams, so that nobody waits for ranks that are gone. From any thread, after
    /// [`Communicator::refuse`].
    pub(crate) fn abort(&self) {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for stream in streams.iter().filter_map(Weak::upgrade) {
            if let Err(error) = stream.abort() {
                tracing::warn!(%error, "a stream's work could not be aborted");
            }
        }
    }

    fn check_alive(&self) -> Result<(), AscendError> {
        if !self.is_aborted.load(Ordering::SeqCst) {
            return Ok(());
        }
        let message = "a rank of its group has failed".to_owned();
        Err(AscendError { function: "HcclAllReduce", status: FAILED_BEFORE, message })
    }

    fn check(&self, function: &'static str, status: i32) -> Result<(), AscendError> {
        check(&self.hccl, &self.context, function, status)
    }
}

/// Turns a status into a result, with HCCL's words for it and those that CANN left on the calling thread.
fn check(hccl: &Hccl, context: &Context, function: &'static str, status: i32) -> Result<(), AscendError> {
    if status == 0 {
        return Ok(());
    }
    let error = context.libraries().error(function, status);
    // SAFETY: takes any number.
    let words = unsafe { (hccl.HcclGetErrorString)(status) };
    if words.is_null() {
        return Err(error);
    }
    // SAFETY: not null, so a text of the library's own that ends with a zero and stays.
    let words = unsafe { CStr::from_ptr(words) }.to_string_lossy();
    let message = if error.message.is_empty() { words.into_owned() } else { format!("{words}; {}", error.message) };
    Err(AscendError { message, ..error })
}

impl Drop for Communicator {
    fn drop(&mut self) {
        report_drop(self.context.bind());
        // SAFETY: `of_group` made it, nobody else has it, and the streams that it was used on are gone.
        let status = unsafe { (self.hccl.HcclCommDestroy)(self.handle) };
        report_drop(self.check("HcclCommDestroy", status));
    }
}
