//! [`GpuRuntime`] over the host's kernels.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use engine_core::backend::{PrepareError, StepError, Unsupported};
use gpu_common::{Arg, Fp8, GpuInfo, GpuRuntime, LaunchShape, NativeQueue, WideRows, WideWeights};

use crate::memory::{HostMemory, Ledger};
use crate::profile::Profile;
use crate::sys::{ArgValue, KernelInfo, launch_kernel, registered_kernels};

/// What GPU the host plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostOptions {
    /// Its kind.
    pub profile: Profile,
    /// In which order threads run: they start ascending (0), descending (1) or shuffled, and in odd orders one wave runs
    /// ahead.
    pub order: u32,
    /// Shared memory of a block at most, in bytes.
    pub max_shared_bytes: u32,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self { profile: Profile::Nvidia, order: 0, max_shared_bytes: 96 << 10 }
    }
}

/// The host as a GPU.
#[derive(Debug)]
pub struct HostRuntime {
    info: GpuInfo,
    options: HostOptions,
    kernels: BTreeMap<(String, String), HostKernel>,
    ledger: Ledger,
}

/// A kernel for the host's profile.
#[derive(Debug, Clone)]
pub struct HostKernel(Arc<KernelInfo>);

/// Launches run at once, so a stream carries nothing.
#[derive(Debug, Default)]
pub struct HostStream;

/// There are none: the host does not capture.
#[derive(Debug)]
pub enum HostGraph {}

const DEVICE: &str = "gpu-host";

impl HostRuntime {
    /// Finds the kernels of a profile.
    pub fn new(options: HostOptions) -> Self {
        let HostOptions { profile, max_shared_bytes, order: _ } = options;
        let kernels = registered_kernels(profile).into_iter();
        let by_name = |kernel: KernelInfo| ((kernel.family.clone(), kernel.name.clone()), HostKernel(Arc::new(kernel)));
        let info = GpuInfo {
            backend: DEVICE.into(),
            name: format!("GPU threads as fibers, profile {}", profile.name()),
            architecture: format!("host, profile {}", profile.name()),
            wave_size: profile.wave_size(),
            // Few enough that tests split sequences over several blocks, and many enough that they need not.
            num_multiprocessors: 4,
            total_bytes: 16 << 30,
            free_bytes: 16 << 30,
            max_shared_bytes,
            fp8: fp8(profile),
            has_mma: true,
            results_are_operands: profile == Profile::Nvidia,
            notes: Vec::new(),
        };
        Self { info, options, kernels: kernels.map(by_name).collect(), ledger: Ledger::default() }
    }

    /// What is allocated; goes on counting when the runtime is in a backend.
    pub fn ledger(&self) -> Ledger {
        self.ledger.clone()
    }
}

/// The e4m3 variant that a profile's kernels multiply.
fn fp8(profile: Profile) -> Fp8 {
    match profile {
        Profile::Nvidia | Profile::Cdna | Profile::Rdna4 => Fp8::Ocp,
        Profile::CdnaFnuz => Fp8::Fnuz,
        Profile::Rdna3 => Fp8::None,
    }
}

fn failed(reason: String) -> StepError {
    StepError::DeviceLost { device: DEVICE.into(), reason }
}

impl GpuRuntime for HostRuntime {
    type Buffer = HostMemory;
    type Stream = HostStream;
    type Kernel = HostKernel;
    type Graph = HostGraph;
    type Wide = Infallible;

    fn info(&self) -> &GpuInfo {
        &self.info
    }

    fn kernel(&self, family: &'static str, name: &str) -> Result<HostKernel, PrepareError> {
        self.kernels.get(&(family.to_owned(), name.to_owned())).cloned().ok_or_else(|| {
            PrepareError::Unsupported(Unsupported {
                backend: DEVICE.into(),
                what: format!("kernel {name} of {family}"),
                reason: format!("it was not compiled for profile {}", self.options.profile.name()),
                action: "export it in gpu-common/kernels".into(),
            })
        })
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

    fn launch_wide(&self, _: &mut HostStream, wide: &Infallible, _: &WideRows) -> Result<(), StepError> {
        match *wide {}
    }

    fn alloc(&self, num_bytes: usize, what: &str) -> Result<HostMemory, StepError> {
        HostMemory::new(num_bytes, &self.ledger).ok_or_else(|| StepError::OutOfMemory {
            device: DEVICE.into(),
            what: what.into(),
            requested_bytes: num_bytes as u64,
        })
    }

    fn address(&self, buffer: &HostMemory) -> u64 {
        buffer.address()
    }

    fn stream(&self) -> Result<HostStream, StepError> {
        Ok(HostStream)
    }

    fn upload(&self, _: &mut HostStream, to: &HostMemory, offset: usize, data: &[u8]) -> Result<(), StepError> {
        to.write(offset, data).map_err(failed)
    }

    fn download(
        &self,
        stream: &mut HostStream,
        from: &HostMemory,
        offset: usize,
        data: &mut [u8],
    ) -> Result<(), StepError> {
        self.synchronize(stream)?;
        from.read(offset, data).map_err(failed)
    }

    fn launch(
        &self,
        _: &mut HostStream,
        HostKernel(kernel): &HostKernel,
        shape: LaunchShape,
        args: &[Arg],
    ) -> Result<(), StepError> {
        let fail = |reason: String| failed(format!("{}: {reason}", kernel.name));
        let sizes: Vec<u8> = args.iter().map(|arg| arg.num_bytes() as u8).collect();
        if sizes != kernel.param_bytes {
            return Err(fail(format!("arguments of {sizes:?} bytes for parameters of {:?}", kernel.param_bytes)));
        }
        for (i, arg) in args.iter().enumerate() {
            if let Arg::Ptr(address) = arg
                && *address != 0
                && !self.ledger.holds(*address)
            {
                return Err(fail(format!("argument {i} points to no live memory")));
            }
        }
        if shape.shared_bytes > self.info.max_shared_bytes {
            return Err(fail(format!("{} bytes of shared memory", shape.shared_bytes)));
        }
        let mut values: Vec<ArgValue> = args
            .iter()
            .map(|arg| match *arg {
                Arg::Ptr(address) => ArgValue::new(&address.to_le_bytes()),
                Arg::U32(value) => ArgValue::new(&value.to_le_bytes()),
                Arg::F32(value) => ArgValue::new(&value.to_le_bytes()),
            })
            .collect();
        let LaunchShape { grid, block, shared_bytes } = shape;
        // SAFETY: number and sizes of the arguments were checked, and addresses point into live memory; that sizes and
        // offsets stay within it is what the caller vouches for (GpuRuntime::launch), and the guards check it afterwards.
        let result = unsafe { launch_kernel(kernel, [grid, block], shared_bytes, &mut values, self.options.order) };
        result.map_err(failed)
    }

    fn native_queue(&self, _: &mut HostStream) -> Result<NativeQueue, StepError> {
        Err(failed("no library of collectives knows the host's threads".into()))
    }

    fn synchronize(&self, _: &mut HostStream) -> Result<(), StepError> {
        self.ledger.check_guards().map_err(failed)
    }

    fn captures(&self) -> bool {
        false
    }

    /// Nothing is recorded: launches run at once.
    fn begin_capture(&self, _: &mut HostStream) -> Result<(), StepError> {
        Ok(())
    }

    fn end_capture(&self, _: &mut HostStream) -> Result<Option<HostGraph>, StepError> {
        Ok(None)
    }

    fn replay(&self, _: &mut HostStream, graph: &HostGraph) -> Result<(), StepError> {
        match *graph {}
    }
}
