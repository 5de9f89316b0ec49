//! [`CudaRuntime`]: the driver and the images as a [`GpuRuntime`].

use std::fmt::Display;
use std::sync::Arc;

use cudarc::driver::sys::CUdevice_attribute as Attribute;
use engine_core::backend::{PrepareError, StepError, Unavailable};
use gpu_common::{
    Arg, DeviceName, Fp8, GpuInfo, GpuRuntime, KernelParameters, LaunchShape, Modules, NativeQueue, WideRows,
    WideWeights,
};

use crate::cublaslt::{CublasLt, CublasLtReason, PromptProducts};
use crate::driver::{Allocation, Context, DriverError, ExecutableGraph, Function, Module, Pinned, Stream};
use crate::images::IMAGES;
use crate::probe::{self, Reason, Usable};
use crate::wide::{self, CudaWide, WideLaunch};

/// What is read back at once, in bytes; larger results come in pieces. A row of logits fits.
const STAGING_BYTES: usize = 1 << 20;

/// An open device.
#[derive(Debug)]
pub struct CudaRuntime {
    info: GpuInfo,
    name: DeviceName,
    modules: Modules<Module>,
    cublaslt: Result<CublasLt, CublasLtReason>,
    context: Arc<Context>,
}

/// Device memory.
#[derive(Debug)]
pub struct CudaBuffer(Allocation);

/// A stream with pinned memory for what is read back.
#[derive(Debug)]
pub struct CudaStream {
    stream: Stream,
    staging: Option<Pinned>,
    is_capturing: bool,
}

/// A kernel and its parameters.
#[derive(Debug, Clone)]
pub struct CudaKernel {
    function: Function,
    parameters: &'static KernelParameters,
}

/// Recorded launches.
#[derive(Debug)]
pub struct CudaGraph(ExecutableGraph);

impl CudaRuntime {
    /// Opens device number `ordinal`. Where cuBLASLt is asked for and cannot be used, our own kernels run.
    ///
    /// # Errors
    /// Why it cannot be used: no driver, one that is too old, no such device …
    pub fn open(ordinal: u32, prompt_products: PromptProducts) -> Result<Self, Unavailable> {
        let opened = probe::find(ordinal).and_then(|usable| Ok(Self::with(ordinal, usable, prompt_products)?));
        opened.map_err(|reason: Reason| probe::unavailable(ordinal, &reason))
    }

    fn with(ordinal: u32, usable: Usable, prompt_products: PromptProducts) -> Result<Self, DriverError> {
        let Usable { device, compute_capability, architecture } = usable;
        let context = Arc::new(Context::retain(device)?);
        let cublaslt = CublasLt::open(prompt_products, (&context, architecture));
        if let Err(reason) = &cublaslt
            && *reason != CublasLtReason::NotAsked
        {
            tracing::warn!(ordinal, %reason, "prompts of FP8 are computed by our own kernels");
        }
        let info = GpuInfo {
            backend: "cuda".into(),
            name: device.name()?,
            architecture: architecture.into(),
            wave_size: device.attribute(Attribute::CU_DEVICE_ATTRIBUTE_WARP_SIZE)?,
            num_multiprocessors: device.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            total_bytes: device.total_bytes()?,
            free_bytes: context.free_bytes()?,
            max_shared_bytes: device.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            fp8: if compute_capability >= (8, 9) { Fp8::Ocp } else { Fp8::None },
            has_mma: true,
            results_are_operands: true,
            notes: match &cublaslt {
                Ok(library) => vec![format!("prompts of FP8 by cuBLASLt {}", library.version())],
                Err(CublasLtReason::NotAsked) => Vec::new(),
                Err(reason) => vec![format!("prompts of FP8 by our own kernels: {reason}")],
            },
        };
        tracing::debug!(device = info.name, architecture, "opened");
        let name = DeviceName::new("cuda", ordinal, &info.name);
        Ok(Self { info, name, modules: Modules::new(IMAGES, architecture), cublaslt, context })
    }

    /// NVIDIA's library of products.
    ///
    /// # Errors
    /// Why it is not used.
    pub fn cublaslt(&self) -> Result<&CublasLt, &CublasLtReason> {
        self.cublaslt.as_ref()
    }

    pub(crate) fn lost(&self, error: impl Display) -> StepError {
        self.name.lost(error)
    }
}

impl GpuRuntime for CudaRuntime {
    type Buffer = CudaBuffer;
    type Stream = CudaStream;
    type Kernel = CudaKernel;
    type Graph = CudaGraph;
    type Wide = CudaWide;

    fn info(&self) -> &GpuInfo {
        &self.info
    }

    fn kernel(&self, family: &'static str, name: &str) -> Result<CudaKernel, PrepareError> {
        let load = |image: &[u8]| Module::load(&self.context, image);
        let find = |module: &Arc<Module>| module.function(name);
        let (function, parameters) = self.modules.kernel(&self.name, (family, name), load, find)?;
        function.permit_shared(self.info.max_shared_bytes).map_err(|error| self.lost(error))?;
        Ok(CudaKernel { function, parameters })
    }

    fn prepare_wide(&self, weights: &[WideWeights]) -> Result<Option<CudaWide>, PrepareError> {
        if self.modules.architecture() != wide::ARCHITECTURE || !wide::suits(weights) {
            return Ok(None);
        }
        let [small, medium, large] = wide::kernel_names(weights.len() as u32);
        let kernel = |name: String| self.kernel(wide::FAMILY, &name);
        let kernels = [kernel(small)?, kernel(medium)?, kernel(large)?];
        let prepared = CudaWide::new(kernels, weights, self.prepare_for_library(weights)?);
        prepared.map(Some).map_err(|error| PrepareError::Device(self.lost(error)))
    }

    fn wide_tile_rows(&self, _: &CudaWide, rows_per_matrix: u32) -> u32 {
        wide::tile_rows(rows_per_matrix)
    }

    fn wide_scratch_bytes(&self, wide: &CudaWide, num_rows: u32) -> usize {
        wide.library().map_or(0, |weight| weight.scratch_bytes(num_rows))
    }

    fn launch_wide(&self, stream: &mut CudaStream, wide: &CudaWide, rows: &WideRows) -> Result<(), StepError> {
        let left = match wide.library() {
            Some(weight) => self.multiply_in_library(stream, weight, rows)?,
            None => Some(*rows),
        };
        let Some(rows) = left else { return Ok(()) };
        let launch = wide.launch(&rows, self.info.num_multiprocessors).map_err(|error| self.lost(error))?;
        let WideLaunch { kernel, shape, maps, words } = launch;
        let launched = stream.stream.launch(&kernel.function, shape, (&maps, &words));
        launched.map_err(|error| self.lost(error))
    }

    fn alloc(&self, num_bytes: usize, what: &str) -> Result<CudaBuffer, StepError> {
        let allocated = Allocation::new(&self.context, num_bytes);
        Ok(CudaBuffer(allocated.map_err(|error| self.name.alloc_error(error, what, num_bytes))?))
    }

    fn address(&self, buffer: &CudaBuffer) -> u64 {
        buffer.0.address()
    }

    fn stream(&self) -> Result<CudaStream, StepError> {
        let stream = Stream::new(&self.context).map_err(|error| self.name.alloc_error(error, "a stream", 0))?;
        Ok(CudaStream { stream, staging: None, is_capturing: false })
    }

    fn upload(&self, stream: &mut CudaStream, to: &CudaBuffer, offset: usize, data: &[u8]) -> Result<(), StepError> {
        stream.stream.write(&to.0, offset, data).map_err(|error| self.lost(error))
    }

    fn download(
        &self,
        stream: &mut CudaStream,
        from: &CudaBuffer,
        offset: usize,
        data: &mut [u8],
    ) -> Result<(), StepError> {
        let CudaStream { stream, staging, .. } = stream;
        let staging = match staging {
            Some(staging) => staging,
            None => {
                let pinned = Pinned::new(&self.context, STAGING_BYTES);
                staging.insert(pinned.map_err(|error| self.name.alloc_error(error, "read-back memory", STAGING_BYTES))?)
            }
        };
        stream.read(&from.0, offset, data, staging).map_err(|error| self.lost(error))
    }

    /// # Panics
    /// If the arguments are not as many, or not as large, as the kernel's parameters: a bug of the layer above.
    fn launch(
        &self,
        stream: &mut CudaStream,
        kernel: &CudaKernel,
        shape: LaunchShape,
        args: &[Arg],
    ) -> Result<(), StepError> {
        let (words, count) = kernel.parameters.words(args);
        let launched = stream.stream.launch(&kernel.function, shape, (&[], &words[..count]));
        launched.map_err(|error| self.lost(error))
    }

    fn native_queue(&self, stream: &mut CudaStream) -> Result<NativeQueue, StepError> {
        let address = stream.stream.bind().map_err(|error| self.lost(error))?;
        Ok(NativeQueue(address))
    }

    fn synchronize(&self, stream: &mut CudaStream) -> Result<(), StepError> {
        stream.stream.synchronize().map_err(|error| self.lost(error))
    }

    fn captures(&self) -> bool {
        true
    }

    fn begin_capture(&self, stream: &mut CudaStream) -> Result<(), StepError> {
        stream.stream.begin_capture().map_err(|error| self.lost(error))?;
        stream.is_capturing = true;
        Ok(())
    }

    fn end_capture(&self, stream: &mut CudaStream) -> Result<Option<CudaGraph>, StepError> {
        if !std::mem::take(&mut stream.is_capturing) {
            return Ok(None);
        }
        let graph = stream.stream.end_capture().map_err(|error| self.name.alloc_error(error, "a graph", 0))?;
        Ok(Some(CudaGraph(graph)))
    }

    fn replay(&self, stream: &mut CudaStream, graph: &CudaGraph) -> Result<(), StepError> {
        stream.stream.replay(&graph.0).map_err(|error| self.lost(error))
    }
}
