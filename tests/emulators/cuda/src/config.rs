//! What is emulated: the device, its driver, and the choices of every emulator.

use std::collections::BTreeMap;
use std::ffi::CStr;

use cubin::Image;
use emulator_common::config::{Common, Variables, take, variables};
use gpu_emulator::module::{Kernel, Module};
use gpu_emulator::{Config, Failure, Gpu, HostKernels, Limits, Nccl, Outcome, Profile, Slot, status};

use crate::abi::status_name;
use crate::cublaslt::CublasLt;
use crate::tensor_map;

/// How the environment variables begin that this library reads (`docs/emulators.md`). Nothing else of the project does.
pub const PREFIX: &str = "CUDA_EMULATOR";
/// `sm_80`, `sm_89` or `sm_90`.
const PROFILE: &str = "PROFILE";
/// What `cuDriverGetVersion` says: 12090 is 12.9.
const DRIVER: &str = "DRIVER";
/// What `cublasLtGetVersion` says: 120900 is 12.9.0.
const CUBLASLT: &str = "CUBLASLT";

/// Limits of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cuda {
    pub(crate) name: &'static str,
    /// Times ten.
    pub(crate) compute_capability: u32,
    pub(crate) num_multiprocessors: u32,
    /// Shared memory per block that a kernel may be allowed, static and dynamic, in bytes.
    pub(crate) max_shared_bytes: u32,
    /// What the library of products says of itself: no limit of a generation, but its machine's.
    pub(crate) cublaslt: usize,
}

/// Of the library of products, where nothing is chosen: the first with products of FP8 blocks.
const CUBLASLT_VERSION: usize = 120_900;

/// From the compute capability table of NVIDIA's programming guide; multiprocessors of A100, L40S and H100 SXM.
pub(crate) const PROFILES: [Cuda; 3] =
    [profile("sm_80", 80, 108, 163 << 10), profile("sm_89", 89, 142, 99 << 10), profile("sm_90", 90, 132, 227 << 10)];

const fn profile(name: &'static str, compute_capability: u32, num_multiprocessors: u32, max_shared_bytes: u32) -> Cuda {
    Cuda { name, compute_capability, num_multiprocessors, max_shared_bytes, cublaslt: CUBLASLT_VERSION }
}

/// Limits that all generations share.
pub(crate) const MAX_THREADS: u32 = 1024;
pub(crate) const MAX_REGISTERS: u32 = 65_536;
/// Shared memory per block that needs no permission, in bytes.
pub(crate) const DEFAULT_SHARED_BYTES: u32 = 48 << 10;
/// Threads that run in lockstep on every NVIDIA device.
pub(crate) const WAVE_SIZE: u32 = 32;

static DRIVER_OF_THE_PROCESS: Slot<Cuda> = Slot::new();
static KERNELS: HostKernels = HostKernels::new(Profile::Nvidia);

impl Gpu for Cuda {
    const EMULATOR: &'static str = "cuda-emulator";
    const DEFAULT_CONTEXT: u64 = 0;
    type Libraries = CublasLt;

    fn slot() -> &'static Slot<Self> {
        &DRIVER_OF_THE_PROCESS
    }

    fn from_environment() -> Result<Config<Self>, String> {
        parse(&variables(PREFIX))
    }

    fn status_name(status: gpu_emulator::Status) -> Option<&'static CStr> {
        status_name(status)
    }

    fn limits(&self) -> Limits {
        Limits {
            max_threads: MAX_THREADS,
            max_block: [1024, 1024, 64],
            max_grid: [i32::MAX as u32, 65_535, 65_535],
            default_shared_bytes: DEFAULT_SHARED_BYTES,
            max_shared_bytes: self.max_shared_bytes,
        }
    }

    fn kernels(&self) -> &'static HostKernels {
        &KERNELS
    }

    #[cfg(test)]
    fn parameters(&self, kernel: &str) -> Option<Vec<u32>> {
        gpu_emulator::two_kernels::parameters(kernel)
    }

    #[cfg(test)]
    fn run(&self, launch: &gpu_emulator::module::Launch, _: gpu_emulator::LaunchOrder) -> Result<(), String> {
        gpu_emulator::two_kernels::run(launch)
    }

    fn memory_behind(argument: &[u8]) -> Option<Result<(u64, u64), String>> {
        tensor_map::matrix_behind(argument)
    }
}

/// An image that a device can run, as the driver keeps it.
pub(crate) fn module(bytes: &[u8], gpu: &Cuda) -> Outcome<Module> {
    let image = Image::parse(bytes).map_err(|error| Failure::new(status::INVALID_IMAGE, error.to_string()))?;
    let device = gpu.compute_capability;
    if !image.runs_on(device) {
        let variant = if image.is_architecture_specific { "a" } else { "" };
        let image = format!("an image for sm_{}{variant}", image.compute_capability);
        return Err(Failure::new(status::NO_BINARY_FOR_GPU, format!("{image} on a device of sm_{device}")));
    }
    let kernels: BTreeMap<String, Kernel> =
        image.kernels.into_iter().map(|(name, kernel)| (name, described(&kernel))).collect();
    Module::new(kernels, gpu)
}

fn described(kernel: &cubin::Kernel) -> Kernel {
    let by_registers = MAX_REGISTERS / kernel.num_registers.next_multiple_of(8).max(8) / WAVE_SIZE * WAVE_SIZE;
    Kernel {
        parameters: kernel.parameters.iter().map(|parameter| parameter.num_bytes).collect(),
        shared_bytes: kernel.shared_bytes,
        stack_bytes: kernel.stack_bytes,
        num_registers: kernel.num_registers,
        max_threads: MAX_THREADS.min(kernel.max_threads.unwrap_or(MAX_THREADS)).min(by_registers),
    }
}

/// Hopper on CUDA 12.9, where nothing is chosen.
pub(crate) fn default_config() -> Config<Cuda> {
    Config { gpu: PROFILES[2], version: 12_090, common: Common::default(), nccl: Nccl::default() }
}

fn parse(variables: &Variables) -> Result<Config<Cuda>, String> {
    let Config { mut gpu, mut version, mut nccl, .. } = default_config();
    let mut cublaslt = CUBLASLT_VERSION;
    let common = Common::parse(PREFIX, variables, |name, value| match name {
        PROFILE => {
            let named = PROFILES.into_iter().find(|profile| profile.name == value);
            Some(take(named, &mut gpu, "sm_80, sm_89 or sm_90"))
        }
        DRIVER => Some(take(value.parse().ok(), &mut version, "a version such as 12090")),
        CUBLASLT => Some(take(value.parse().ok(), &mut cublaslt, "a version such as 120900")),
        _ => nccl.choose(name, value),
    })?;
    Ok(Config { gpu: Cuda { cublaslt, ..gpu }, version, common, nccl })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn variables_choose_the_device_and_its_driver() {
        let parse = |name: &str, value: &str| parse(&[(name.to_owned(), value.to_owned())].into());
        assert_eq!(parse(PROFILE, "sm_89").unwrap().gpu.compute_capability, 89);
        assert_eq!(parse(DRIVER, "11080").unwrap().version, 11_080);
        assert_eq!(parse("NCCL", "20804").unwrap().nccl.version, 20_804);
        assert_eq!(parse(CUBLASLT, "120803").unwrap().gpu.cublaslt, 120_803);
        for (name, value) in [(PROFILE, "sm_75"), (DRIVER, "new"), ("PATIENCE", "little")] {
            let error = parse(name, value).unwrap_err();
            assert!(error.contains(&format!("CUDA_EMULATOR_{name}={value}")), "{error}");
        }
    }
}
