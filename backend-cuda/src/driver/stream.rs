//! Streams: copies, launches, capture.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUstream, CUstream_flags, CUstreamCaptureMode};
use gpu_common::{LaunchShape, MAX_ARGUMENTS};

use super::{Allocation, Context, DriverError, ExecutableGraph, Function, Pinned, TensorMap, check, report_drop};

/// An ordered queue of work, not ordered with any other. Destroyed when dropped, after its work.
#[derive(Debug)]
pub(crate) struct Stream {
    context: Arc<Context>,
    handle: CUstream,
}

// SAFETY: the driver lets any thread use a stream, one at a time.
unsafe impl Send for Stream {}

impl Stream {
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self, DriverError> {
        context.bind()?;
        let mut handle = ptr::null_mut();
        let flags = CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the result goes to a pointer that outlives the call.
        check("cuStreamCreate", unsafe { sys::cuStreamCreate(&raw mut handle, flags) })?;
        Ok(Self { context: context.clone(), handle })
    }

    /// Queues a copy of host bytes, which may be reused at once: the driver copies pageable memory before it returns.
    pub(crate) fn write(&mut self, to: &Allocation, offset: usize, data: &[u8]) -> Result<(), DriverError> {
        let address = to.range(offset, data.len());
        if data.is_empty() {
            return Ok(());
        }
        self.context.bind()?;
        // SAFETY: `data.len()` bytes lie at `address` in live device memory (checked by `range`) and at `data`.
        let status = unsafe { sys::cuMemcpyHtoDAsync_v2(address, data.as_ptr().cast(), data.len(), self.handle) };
        check("cuMemcpyHtoDAsync_v2", status)
    }

    /// Copies to the host through pinned memory, piece by piece, and waits.
    pub(crate) fn read(
        &mut self,
        from: &Allocation,
        offset: usize,
        data: &mut [u8],
        staging: &mut Pinned,
    ) -> Result<(), DriverError> {
        let mut address = from.range(offset, data.len());
        for piece in data.chunks_mut(staging.num_bytes()) {
            self.context.bind()?;
            let to = staging.as_mut_ptr().cast::<c_void>();
            // SAFETY: `piece.len()` bytes lie at `address` in live device memory (checked by `range`), and as many in
            // the staging memory, which nobody reads until the wait in the next line is over.
            let status = unsafe { sys::cuMemcpyDtoHAsync_v2(to, address, piece.len(), self.handle) };
            check("cuMemcpyDtoHAsync_v2", status)?;
            self.synchronize()?;
            piece.copy_from_slice(&staging.bytes()[..piece.len()]);
            address += piece.len() as u64;
        }
        Ok(())
    }

    /// Queues a kernel. `maps` are its first arguments, `words` the values of the others, each in the low bytes of a word;
    /// the caller has compared their number and sizes with the kernel's parameters, and answers for the addresses.
    pub(crate) fn launch(
        &mut self,
        function: &Function,
        shape: LaunchShape,
        (maps, words): (&[TensorMap], &[u64]),
    ) -> Result<(), DriverError> {
        let mut addresses = [ptr::null_mut::<c_void>(); MAX_ARGUMENTS];
        let word = |word: &u64| ptr::from_ref(word).cast_mut().cast();
        let arguments = maps.iter().map(TensorMap::as_argument).chain(words.iter().map(word));
        for (address, argument) in addresses.iter_mut().zip(arguments) {
            *address = argument;
        }
        self.context.bind()?;
        let LaunchShape { grid, block, shared_bytes } = shape;
        // SAFETY: the function is alive as long as its module, which `function` holds. `addresses` leads to a value for
        // each of its parameters (`KernelParameters::words` compares them with the image's), which the driver copies.
        let status = unsafe {
            sys::cuLaunchKernel(
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
        };
        check("cuLaunchKernel", status)
    }

    /// Makes its context the calling thread's; where it is, for NVIDIA's other libraries.
    pub(crate) fn bind(&self) -> Result<u64, DriverError> {
        self.context.bind()?;
        Ok(self.handle.expose_provenance() as u64)
    }

    /// Waits for everything queued.
    pub(crate) fn synchronize(&mut self) -> Result<(), DriverError> {
        self.context.bind()?;
        // SAFETY: the handle is alive as long as `self`.
        check("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(self.handle) })
    }

    /// Records from now on instead of running. Other threads, and other engines of the process, go on as they were.
    pub(crate) fn begin_capture(&mut self) -> Result<(), DriverError> {
        self.context.bind()?;
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the handle is alive as long as `self`.
        check("cuStreamBeginCapture_v2", unsafe { sys::cuStreamBeginCapture_v2(self.handle, mode) })
    }

    /// Ends recording.
    pub(crate) fn end_capture(&mut self) -> Result<ExecutableGraph, DriverError> {
        self.context.bind()?;
        let mut graph = ptr::null_mut();
        // SAFETY: the handle is alive as long as `self`; the result goes to a pointer that outlives the call.
        check("cuStreamEndCapture", unsafe { sys::cuStreamEndCapture(self.handle, &raw mut graph) })?;
        ExecutableGraph::from_captured(&self.context, graph)
    }

    /// Queues recorded work.
    pub(crate) fn replay(&mut self, graph: &ExecutableGraph) -> Result<(), DriverError> {
        self.context.bind()?;
        // SAFETY: both handles are alive as long as their owners; what was recorded uses memory that its owner keeps.
        check("cuGraphLaunch", unsafe { sys::cuGraphLaunch(graph.handle(), self.handle) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        report_drop(self.context.bind());
        // SAFETY: `new` created it and nothing has destroyed it. Queued work still runs.
        report_drop(check("cuStreamDestroy_v2", unsafe { sys::cuStreamDestroy_v2(self.handle) }));
    }
}
