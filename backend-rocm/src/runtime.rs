//! [`RocmRuntime`]: the driver and the images as a [`GpuRuntime`].

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use engine_core::backend::{PrepareError, StepError, Unavailable};
use gpu_common::{
    Arg, DeviceName, GpuInfo, GpuRuntime, KernelParameters, LaunchShape, Modules, NativeQueue, WideRows, WideWeights,
};

use crate::capture;
use crate::driver::{Allocation, Context, ExecutableGraph, Function, HipError, Module, Pinned, Stream};
use crate::images::{Architecture, IMAGES};
use crate::probe::{self, Reason, Usable};

/// What is read back at once, in bytes; larger results come in pieces. A row of logits fits.
const STAGING_BYTES: usize = 1 << 20;

/// An open device.
#[derive(Debug)]
pub struct RocmRuntime {
    info: GpuInfo,
    name: DeviceName,
    captures: bool,
    modules: Modules<Module>,
    context: Arc<Context>,
}

/// Device memory.
#[derive(Debug)]
pub struct RocmBuffer(Allocation);

/// A stream with pinned memory for what is read back.
#[derive(Debug)]
pub struct RocmStream {
    stream: Stream,
    staging: Option<Pinned>,
    is_capturing: bool,
}

/// A kernel and its parameters.
#[derive(Debug, Clone)]
pub struct RocmKernel {
    function: Function,
    parameters: &'static KernelParameters,
}

/// Recorded launches.
#[derive(Debug)]
pub struct RocmGraph(ExecutableGraph);

impl RocmRuntime {
    /// Opens device number `ordinal`, with HIP's runtime from a file or from where it usually is.
    ///
    /// # Errors
    /// Why it cannot be used: no runtime, one that is too old, no such device …
    pub fn open(ordinal: u32, library: Option<&Path>) -> Result<Self, Unavailable> {
        let opened = probe::find(ordinal, library).and_then(|usable| Self::with(ordinal, usable));
        opened.map_err(|reason: Reason| probe::unavailable(ordinal, &reason))
    }

    fn with(ordinal: u32, usable: Usable) -> Result<Self, Reason> {
        let Usable { runtime, device, properties, architecture } = usable;
        let total_bytes = device.total_bytes()?;
        let context = Arc::new(Context::new(device));
        let Architecture { name: architecture, wave_size, fp8 } = architecture;
        let info = GpuInfo {
            backend: "rocm".into(),
            name: properties.name,
            architecture: architecture.into(),
            wave_size,
            num_multiprocessors: properties.num_multiprocessors,
            total_bytes,
            free_bytes: context.free_bytes()?,
            max_shared_bytes: properties.max_shared_bytes,
            fp8,
            has_mma: true,
            results_are_operands: false,
            notes: Vec::new(),
        };
        let version = runtime.version();
        tracing::debug!(device = info.name, architecture, version, "opened");
        let name = DeviceName::new("rocm", ordinal, &info.name);
        let modules = Modules::new(IMAGES, architecture);
        let mut opened = Self { info, name, captures: false, modules, context };
        if runtime.can_capture() && capture::is_trusted(version, architecture) {
            opened.captures = match capture::replays_as_launched(&opened) {
                Ok(passed) => passed,
                Err(PrepareError::Device(error)) => return Err(Reason::Failed(error.to_string())),
                // The backend says which kernel it misses.
                Err(_) => false,
            };
            if !opened.captures {
                tracing::warn!(version, "replayed launches give other results than launched ones: none are recorded");
            }
        }
        Ok(opened)
    }

    /// The device to work on.
    #[cfg(feature = "hip-sys")]
    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    fn lost(&self, error: HipError) -> StepError {
        self.name.lost(error)
    }
}

impl RocmStream {
    /// Over a queue.
    pub(crate) fn over(stream: Stream) -> Self {
        Self { stream, staging: None, is_capturing: false }
    }

    /// The queue below.
    #[cfg(feature = "hip-sys")]
    pub(crate) fn queue(&self) -> &Stream {
        &self.stream
    }
}

impl GpuRuntime for RocmRuntime {
    type Buffer = RocmBuffer;
    type Stream = RocmStream;
    type Kernel = RocmKernel;
    type Graph = RocmGraph;
    type Wide = Infallible;

    fn info(&self) -> &GpuInfo {
        &self.info
    }

    fn kernel(&self, family: &'static str, name: &str) -> Result<RocmKernel, PrepareError> {
        let load = |image: &[u8]| Module::load(&self.context, image);
        let find = |module: &Arc<Module>| module.function(name);
        let (function, parameters) = self.modules.kernel(&self.name, (family, name), load, find)?;
        Ok(RocmKernel { function, parameters })
    }

    fn prepare_wide(&self, _: &[WideWeights]) -> Result<Option<Infallible>, PrepareError> {
        Ok(None)
    }

    fn wide_tile_rows(&self, wide: &Infallible, _: u32) -> u32 {
        match *wide {}
    }

    fn wide_scratch_bytes(&self, wide: &Infallible, _: u32) -> usize {
        match *wide {}
    }

    fn launch_wide(&self, _: &mut RocmStream, wide: &Infallible, _: &WideRows) -> Result<(), StepError> {
        match *wide {}
    }

    fn alloc(&self, num_bytes: usize, what: &str) -> Result<RocmBuffer, StepError> {
        let allocated = Allocation::new(&self.context, num_bytes);
        Ok(RocmBuffer(allocated.map_err(|error| self.name.alloc_error(error, what, num_bytes))?))
    }

    fn address(&self, buffer: &RocmBuffer) -> u64 {
        buffer.0.address()
    }

    fn stream(&self) -> Result<RocmStream, StepError> {
        let stream = Stream::new(&self.context).map_err(|error| self.name.alloc_error(error, "a stream", 0))?;
        Ok(RocmStream::over(stream))
    }

    fn upload(&self, stream: &mut RocmStream, to: &RocmBuffer, offset: usize, data: &[u8]) -> Result<(), StepError> {
        stream.stream.write(&to.0, offset, data).map_err(|error| self.lost(error))
    }

    fn download(
        &self,
        stream: &mut RocmStream,
        from: &RocmBuffer,
        offset: usize,
        data: &mut [u8],
    ) -> Result<(), StepError> {
        let RocmStream { stream, staging, .. } = stream;
        let staging = match staging {
            Some(staging) => staging,
            None => {
                let pinned = Pinned::new(&self.context, STAGING_BYTES);
                let failed = |error| self.name.alloc_error(error, "read-back memory", STAGING_BYTES);
                staging.insert(pinned.map_err(failed)?)
            }
        };
        stream.read(&from.0, offset, data, staging).map_err(|error| self.lost(error))
    }

    /// # Panics
    /// If the arguments are not as many, or not as large, as the kernel's parameters: a bug of the layer above.
    fn launch(
        &self,
        stream: &mut RocmStream,
        kernel: &RocmKernel,
        shape: LaunchShape,
        args: &[Arg],
    ) -> Result<(), StepError> {
        let (words, count) = kernel.parameters.words(args);
        let launched = stream.stream.launch(&kernel.function, shape, &words[..count]);
        launched.map_err(|error| self.lost(error))
    }

    fn native_queue(&self, stream: &mut RocmStream) -> Result<NativeQueue, StepError> {
        let address = stream.stream.bind().map_err(|error| self.lost(error))?;
        Ok(NativeQueue(address))
    }

    fn synchronize(&self, stream: &mut RocmStream) -> Result<(), StepError> {
        stream.stream.synchronize().map_err(|error| self.lost(error))
    }

    fn captures(&self) -> bool {
        self.captures
    }

    fn begin_capture(&self, stream: &mut RocmStream) -> Result<(), StepError> {
        stream.stream.begin_capture().map_err(|error| self.lost(error))?;
        stream.is_capturing = true;
        Ok(())
    }

    fn end_capture(&self, stream: &mut RocmStream) -> Result<Option<RocmGraph>, StepError> {
        if !std::mem::take(&mut stream.is_capturing) {
            return Ok(None);
        }
        let graph = stream.stream.end_capture().map_err(|error| self.name.alloc_error(error, "a graph", 0))?;
        Ok(Some(RocmGraph(graph)))
    }

    fn replay(&self, stream: &mut RocmStream, graph: &RocmGraph) -> Result<(), StepError> {
        stream.stream.replay(&graph.0).map_err(|error| self.lost(error))
    }
}
