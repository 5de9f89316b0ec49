//! Streams: copies, launches, capture.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use gpu_common::{LaunchShape, MAX_ARGUMENTS};

use super::memory::device_pointer;
use super::sys::{self, CAPTURE_MODE_THREAD_LOCAL, STREAM_NON_BLOCKING};
use super::{Allocation, Context, ExecutableGraph, Function, HipError, Pinned, report_drop};

/// An ordered queue of work, not ordered with any other. Destroyed when dropped, after its work.
#[derive(Debug)]
pub(crate) struct Stream {
    context: Arc<Context>,
    handle: sys::Stream,
    /// False for one that belongs to somebody else.
    is_owned: bool,
}

// SAFETY: the runtime lets any thread use a stream, one at a time.
unsafe impl Send for Stream {}

impl Stream {
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self, HipError> {
        let mut handle = ptr::null_mut();
        // SAFETY: the result goes to a pointer that outlives the call.
        unsafe { context.bind()?.hipStreamCreateWithFlags(&raw mut handle, STREAM_NON_BLOCKING) }?;
        Ok(Self { context: context.clone(), handle, is_owned: true })
    }

    /// A stream of somebody else's, who answers for its life.
    #[cfg(feature = "hip-sys")]
    pub(super) fn borrowed(context: &Arc<Context>, handle: sys::Stream) -> Self {
        Self { context: context.clone(), handle, is_owned: false }
    }

    /// As the runtime knows it.
    #[cfg(feature = "hip-sys")]
    pub(super) fn handle(&self) -> sys::Stream {
        self.handle
    }

    /// Queues a copy of host bytes, which may be reused at once: copies of memory that is not pinned are over when the call
    /// returns (HIP's reference of `hipMemcpyAsync`).
    pub(crate) fn write(&mut self, to: &Allocation, offset: usize, data: &[u8]) -> Result<(), HipError> {
        let address = device_pointer(to.range(offset, data.len()));
        if data.is_empty() {
            return Ok(());
        }
        let from = data.as_ptr().cast_mut().cast();
        // SAFETY: `data.len()` bytes lie at `address` in live device memory (checked by `range`) and at `data`, which the
        // runtime only reads.
        unsafe { self.context.bind()?.hipMemcpyHtoDAsync(address, from, data.len(), self.handle) }
    }

    /// Copies to the host through pinned memory, piece by piece, and waits.
    pub(crate) fn read(
        &mut self,
        from: &Allocation,
        offset: usize,
        data: &mut [u8],
        staging: &mut Pinned,
    ) -> Result<(), HipError> {
        let mut address = from.range(offset, data.len());
        for piece in data.chunks_mut(staging.num_bytes()) {
            let to = staging.as_mut_ptr().cast::<c_void>();
            let api = self.context.bind()?;
            // SAFETY: `piece.len()` bytes lie at `address` in live device memory (checked by `range`), and as many in
            // the staging memory, which nobody reads until the wait in the next line is over.
            unsafe { api.hipMemcpyDtoHAsync(to, device_pointer(address), piece.len(), self.handle) }?;
            self.synchronize()?;
            piece.copy_from_slice(&staging.bytes()[..piece.len()]);
            address += piece.len() as u64;
        }
        Ok(())
    }

    /// Queues a kernel. `words` are the values of its arguments, each in the low bytes of a word; the caller has compared
    /// their number and sizes with the kernel's parameters, and answers for the addresses.
    pub(crate) fn launch(&mut self, function: &Function, shape: LaunchShape, words: &[u64]) -> Result<(), HipError> {
        let mut addresses = [ptr::null_mut::<c_void>(); MAX_ARGUMENTS];
        for (address, word) in addresses.iter_mut().zip(words) {
            *address = ptr::from_ref(word).cast_mut().cast();
        }
        let api = self.context.bind()?;
        let LaunchShape { grid, block, shared_bytes } = shape;
        // SAFETY: the function is alive as long as its module, which `function` holds. `addresses` leads to a value for
        // each of its parameters (`KernelParameters::words` compares them with the image's), which the runtime copies.
        unsafe {
            api.hipModuleLaunchKernel(
                function.handle(),
                grid[0],
                grid[1],
                grid[2],
                block[0],
                block[1],
                block[2],
                shared_bytes,
                self.handle,
                addresses.as_mut_ptr(),
                ptr::null_mut(),
            )
        }
    }

    /// Makes its device the calling thread's; where it is, for AMD's other libraries.
    pub(crate) fn bind(&self) -> Result<u64, HipError> {
        self.context.bind()?;
        Ok(self.handle.expose_provenance() as u64)
    }

    /// Waits for everything queued.
    pub(crate) fn synchronize(&mut self) -> Result<(), HipError> {
        // SAFETY: the handle is alive as long as `self`.
        unsafe { self.context.bind()?.hipStreamSynchronize(self.handle) }
    }

    /// Records from now on instead of running. Other threads, and other engines of the process, go on as they were.
    pub(crate) fn begin_capture(&mut self) -> Result<(), HipError> {
        // SAFETY: the handle is alive as long as `self`.
        unsafe { self.context.bind()?.hipStreamBeginCapture(self.handle, CAPTURE_MODE_THREAD_LOCAL) }
    }

    /// Ends recording.
    pub(crate) fn end_capture(&mut self) -> Result<ExecutableGraph, HipError> {
        let mut graph = ptr::null_mut();
        // SAFETY: the handle is alive as long as `self`; the result goes to a pointer that outlives the call.
        unsafe { self.context.bind()?.hipStreamEndCapture(self.handle, &raw mut graph) }?;
        ExecutableGraph::from_captured(&self.context, graph)
    }

    /// Queues recorded work.
    pub(crate) fn replay(&mut self, graph: &ExecutableGraph) -> Result<(), HipError> {
        // SAFETY: both handles are alive as long as their owners; what was recorded uses memory that its owner keeps.
        unsafe { self.context.bind()?.hipGraphLaunch(graph.handle(), self.handle) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.is_owned {
            return;
        }
        // SAFETY: `new` created it and nothing has destroyed it. Queued work still runs.
        report_drop(self.context.bind().and_then(|api| unsafe { api.hipStreamDestroy(self.handle) }));
    }
}
