//! A runtime with what preparing and running share: memory with its address, uploads, launches.

use std::sync::{Mutex, PoisonError};

use engine_core::backend::{PrepareError, StepError, Unsupported};
use engine_core::quant::QuantisedInputs;

use crate::options::GpuOptions;
use crate::runtime::{Arg, Fp8, GpuInfo, GpuRuntime, LaunchShape};

/// Device memory and where it lies.
#[derive(Debug)]
pub(crate) struct Memory<R: GpuRuntime> {
    buffer: R::Buffer,
    address: u64,
}

impl<R: GpuRuntime> Memory<R> {
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    pub(crate) fn arg(&self) -> Arg {
        Arg::Ptr(self.address)
    }
}

/// Writes bytes at an offset of memory that is being filled.
pub(crate) type Write<'a> = dyn FnMut(usize, &[u8]) -> Result<(), StepError> + 'a;

#[derive(Debug)]
pub(crate) struct Device<R: GpuRuntime> {
    runtime: R,
    options: GpuOptions,
    /// For what is uploaded while loading. Weights are complete before anything that uses them is queued elsewhere.
    uploads: Mutex<R::Stream>,
}

impl<R: GpuRuntime> Device<R> {
    pub(crate) fn new(runtime: R, options: GpuOptions) -> Result<Self, StepError> {
        let uploads = Mutex::new(runtime.stream()?);
        Ok(Self { runtime, options, uploads })
    }

    pub(crate) fn runtime(&self) -> &R {
        &self.runtime
    }

    pub(crate) fn info(&self) -> &GpuInfo {
        self.runtime.info()
    }

    pub(crate) fn options(&self) -> GpuOptions {
        self.options
    }

    /// Linears whose inputs are quantised: those chosen, for which there are units.
    pub(crate) fn quantised_inputs(&self) -> QuantisedInputs {
        let QuantisedInputs { fp8, int8 } = self.options.quantised_inputs;
        let has_fp8 = match self.info().fp8 {
            Fp8::None => false,
            Fp8::Ocp | Fp8::Fnuz => true,
        };
        QuantisedInputs { fp8: fp8 && has_fp8, int8 }
    }

    /// Waves of an ordinary block.
    pub(crate) fn waves(&self) -> u32 {
        self.options.waves_per_block
    }

    /// Threads of an ordinary block.
    pub(crate) fn threads(&self) -> u32 {
        self.waves() * self.info().wave_size
    }

    /// A refusal in this device's name.
    pub(crate) fn unsupported(
        &self,
        what: impl Into<String>,
        reason: impl Into<String>,
        action: impl Into<String>,
    ) -> PrepareError {
        let GpuInfo { backend, name, .. } = self.info();
        PrepareError::Unsupported(Unsupported {
            backend: format!("{backend} ({name})"),
            what: what.into(),
            reason: reason.into(),
            action: action.into(),
        })
    }

    /// A size that a kernel takes as 32 bits.
    pub(crate) fn kernel_size(&self, size: usize, what: &str) -> Result<u32, PrepareError> {
        u32::try_from(size).map_err(|_| {
            self.unsupported(
                format!("{what} of {size}"),
                format!("its kernels count to {}", u32::MAX),
                "the checkpoint is damaged, or made for something else",
            )
        })
    }

    pub(crate) fn memory(&self, num_bytes: usize, what: &str) -> Result<Memory<R>, StepError> {
        let buffer = self.runtime.alloc(num_bytes.max(1), what)?;
        let address = self.runtime.address(&buffer);
        Ok(Memory { buffer, address })
    }

    /// Fills memory piece by piece.
    pub(crate) fn fill(
        &self,
        memory: &Memory<R>,
        pieces: impl FnOnce(&mut Write<'_>) -> Result<(), StepError>,
    ) -> Result<(), StepError> {
        // A panic while uploading leaves a stream that is as good as before.
        let mut stream = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        pieces(&mut |offset, data| self.runtime.upload(&mut stream, &memory.buffer, offset, data))?;
        self.runtime.synchronize(&mut stream)
    }

    /// Memory that holds `data`.
    pub(crate) fn uploaded(&self, data: &[u8], what: &str) -> Result<Memory<R>, StepError> {
        let memory = self.memory(data.len(), what)?;
        self.fill(&memory, |write| write(0, data))?;
        Ok(memory)
    }

    pub(crate) fn launch(
        &self,
        queue: &mut R::Stream,
        kernel: &R::Kernel,
        shape: LaunchShape,
        args: &[Arg],
    ) -> Result<(), StepError> {
        if shape.grid.contains(&0) {
            return Ok(());
        }
        self.runtime.launch(queue, kernel, shape, args)
    }
}
