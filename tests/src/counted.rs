//! A GPU runtime that counts what it is asked for, and can refuse to record.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use engine_core::backend::{PrepareError, StepError};
use gpu_common::{Arg, GpuInfo, GpuRuntime, LaunchShape, NativeQueue, WideRows, WideWeights};

/// Calls of a runtime.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Calls {
    /// Kernels launched, or recorded.
    pub launches: u64,
    /// Copies to the device.
    pub uploads: u64,
    /// Copies from the device; each waits.
    pub downloads: u64,
    /// Waits beside those of downloads.
    pub waits: u64,
    /// Allocations of device memory.
    pub allocations: u64,
    /// Recordings that were begun.
    pub captures: u64,
    /// Recordings that were queued.
    pub replays: u64,
}

impl Calls {
    /// What has come since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            launches: self.launches - earlier.launches,
            uploads: self.uploads - earlier.uploads,
            downloads: self.downloads - earlier.downloads,
            waits: self.waits - earlier.waits,
            allocations: self.allocations - earlier.allocations,
            captures: self.captures - earlier.captures,
            replays: self.replays - earlier.replays,
        }
    }
}

/// The count, which can be read while the runtime is in use.
#[derive(Debug, Default)]
pub struct CallCount {
    launches: AtomicU64,
    uploads: AtomicU64,
    downloads: AtomicU64,
    waits: AtomicU64,
    allocations: AtomicU64,
    captures: AtomicU64,
    replays: AtomicU64,
}

impl CallCount {
    /// All calls so far.
    pub fn so_far(&self) -> Calls {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Calls {
            launches: read(&self.launches),
            uploads: read(&self.uploads),
            downloads: read(&self.downloads),
            waits: read(&self.waits),
            allocations: read(&self.allocations),
            captures: read(&self.captures),
            replays: read(&self.replays),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// `R`, counted.
#[derive(Debug)]
pub struct Counted<R> {
    inner: R,
    calls: Arc<CallCount>,
    refuses_recordings: bool,
}

impl<R: GpuRuntime> Counted<R> {
    /// Counts the calls of `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, calls: Arc::default(), refuses_recordings: false }
    }

    /// The same runtime, but every recording fails: steps are prepared as for being replayed, and launched each time.
    #[must_use]
    pub fn refusing_recordings(self) -> Self {
        Self { refuses_recordings: true, ..self }
    }

    /// The count; keep it before a backend takes the runtime.
    pub fn calls(&self) -> Arc<CallCount> {
        self.calls.clone()
    }
}

impl<R: GpuRuntime> GpuRuntime for Counted<R> {
    type Buffer = R::Buffer;
    type Stream = R::Stream;
    type Kernel = R::Kernel;
    type Graph = R::Graph;
    type Wide = R::Wide;

    fn info(&self) -> &GpuInfo {
        self.inner.info()
    }

    fn kernel(&self, family: &'static str, name: &str) -> Result<R::Kernel, PrepareError> {
        self.inner.kernel(family, name)
    }

    fn alloc(&self, num_bytes: usize, what: &str) -> Result<R::Buffer, StepError> {
        count(&self.calls.allocations);
        self.inner.alloc(num_bytes, what)
    }

    fn address(&self, buffer: &R::Buffer) -> u64 {
        self.inner.address(buffer)
    }

    fn stream(&self) -> Result<R::Stream, StepError> {
        self.inner.stream()
    }

    fn upload(&self, stream: &mut R::Stream, to: &R::Buffer, offset: usize, data: &[u8]) -> Result<(), StepError> {
        count(&self.calls.uploads);
        self.inner.upload(stream, to, offset, data)
    }

    fn download(
        &self,
        stream: &mut R::Stream,
        from: &R::Buffer,
        offset: usize,
        data: &mut [u8],
    ) -> Result<(), StepError> {
        count(&self.calls.downloads);
        self.inner.download(stream, from, offset, data)
    }

    fn launch(
        &self,
        stream: &mut R::Stream,
        kernel: &R::Kernel,
        shape: LaunchShape,
        args: &[Arg],
    ) -> Result<(), StepError> {
        count(&self.calls.launches);
        self.inner.launch(stream, kernel, shape, args)
    }

    fn prepare_wide(&self, weights: &[WideWeights]) -> Result<Option<R::Wide>, PrepareError> {
        self.inner.prepare_wide(weights)
    }

    fn wide_tile_rows(&self, wide: &R::Wide, rows_per_matrix: u32) -> u32 {
        self.inner.wide_tile_rows(wide, rows_per_matrix)
    }

    fn wide_scratch_bytes(&self, wide: &R::Wide, num_rows: u32) -> usize {
        self.inner.wide_scratch_bytes(wide, num_rows)
    }

    fn launch_wide(&self, stream: &mut R::Stream, wide: &R::Wide, rows: &WideRows) -> Result<(), StepError> {
        count(&self.calls.launches);
        self.inner.launch_wide(stream, wide, rows)
    }

    fn native_queue(&self, stream: &mut R::Stream) -> Result<NativeQueue, StepError> {
        self.inner.native_queue(stream)
    }

    fn synchronize(&self, stream: &mut R::Stream) -> Result<(), StepError> {
        count(&self.calls.waits);
        self.inner.synchronize(stream)
    }

    fn captures(&self) -> bool {
        self.inner.captures()
    }

    fn begin_capture(&self, stream: &mut R::Stream) -> Result<(), StepError> {
        count(&self.calls.captures);
        if self.refuses_recordings {
            let device = self.info().name.clone();
            return Err(StepError::DeviceLost { device, reason: "this runtime refuses to record".into() });
        }
        self.inner.begin_capture(stream)
    }

    fn end_capture(&self, stream: &mut R::Stream) -> Result<Option<R::Graph>, StepError> {
        self.inner.end_capture(stream)
    }

    fn replay(&self, stream: &mut R::Stream, graph: &R::Graph) -> Result<(), StepError> {
        count(&self.calls.replays);
        self.inner.replay(stream, graph)
    }
}
