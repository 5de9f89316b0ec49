//! What is emulated: the device, its runtime, and the choices of every emulator.

use std::collections::BTreeMap;
use std::ffi::CStr;

use code_object::CodeObject;
use emulator_common::config::{Common, Variables, take, variables};
use gpu_emulator::module::{Kernel, Module};
use gpu_emulator::{Config, Failure, Gpu, HostKernels, Limits, Nccl, Outcome, Profile, Slot, Status, status};

/// How the environment variables begin that this library reads (`docs/emulators.md`). Nothing else of the project does.
pub const PREFIX: &str = "HIP_EMULATOR";
/// `gfx942`, `gfx950`, `gfx1100`, or `gfx906`, which no backend is made for.
const PROFILE: &str = "PROFILE";
/// What `hipRuntimeGetVersion` says: 70253211 is 7.2, build 53211.
const VERSION: &str = "VERSION";
/// `known`, or `moved`: the structure of properties is laid out as in no version.
const PROPERTIES: &str = "PROPERTIES";

/// A device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hip {
    pub(crate) name: &'static str,
    /// Architecture, and the state of its features.
    pub(crate) gcn_arch_name: &'static str,
    pub(crate) product: &'static str,
    /// The host's kernels for it.
    pub(crate) host: Profile,
    pub(crate) num_multiprocessors: u32,
    /// Local data share of a block, in bytes.
    pub(crate) shared_bytes: u32,
    pub(crate) has_moved_properties: bool,
}

/// From AMD's table of hardware specifications: MI300X, MI350X, RX 7900 XTX, MI50.
pub(crate) const PROFILES: [Hip; 4] = [
    Hip {
        name: "gfx942",
        gcn_arch_name: "gfx942:sramecc+:xnack-",
        product: "Emulated Instinct MI300X",
        host: Profile::CdnaFnuz,
        num_multiprocessors: 304,
        shared_bytes: 64 << 10,
        has_moved_properties: false,
    },
    Hip {
        name: "gfx950",
        gcn_arch_name: "gfx950:sramecc+:xnack-",
        product: "Emulated Instinct MI350X",
        host: Profile::Cdna,
        num_multiprocessors: 256,
        shared_bytes: 160 << 10,
        has_moved_properties: false,
    },
    Hip {
        name: "gfx1100",
        gcn_arch_name: "gfx1100",
        product: "Emulated Radeon RX 7900 XTX",
        host: Profile::Rdna3,
        num_multiprocessors: 48,
        shared_bytes: 64 << 10,
        has_moved_properties: false,
    },
    Hip {
        name: "gfx906",
        gcn_arch_name: "gfx906:sramecc+:xnack-",
        product: "Emulated Instinct MI50",
        host: Profile::Cdna,
        num_multiprocessors: 60,
        shared_bytes: 64 << 10,
        has_moved_properties: false,
    },
];

/// Threads of a block on every device.
pub(crate) const MAX_THREADS: u32 = 1024;
/// Threads of a grid along an axis stay below this.
pub(crate) const MAX_GRID_THREADS: u64 = 1 << 32;

static DRIVER_OF_THE_PROCESS: Slot<Hip> = Slot::new();
static CDNA3: HostKernels = HostKernels::new(Profile::CdnaFnuz);
static CDNA4: HostKernels = HostKernels::new(Profile::Cdna);
static RDNA3: HostKernels = HostKernels::new(Profile::Rdna3);

impl Hip {
    /// Threads that run in lockstep.
    pub(crate) fn wave_size(&self) -> u32 {
        self.host.wave_size()
    }
}

/// The context of a device: contexts are made with the devices, and nobody holds them.
pub(crate) fn context_of(device: u32) -> u64 {
    u64::from(device) + 1
}

impl Gpu for Hip {
    const EMULATOR: &'static str = "hip-emulator";
    /// That of device 0.
    const DEFAULT_CONTEXT: u64 = 1;
    type Libraries = ();

    fn slot() -> &'static Slot<Self> {
        &DRIVER_OF_THE_PROCESS
    }

    fn from_environment() -> Result<Config<Self>, String> {
        parse(&variables(PREFIX))
    }

    fn status_name(status: Status) -> Option<&'static CStr> {
        Some(match status {
            status::SUCCESS => c"hipSuccess",
            status::INVALID_VALUE => c"hipErrorInvalidValue",
            status::OUT_OF_MEMORY => c"hipErrorOutOfMemory",
            status::NOT_INITIALIZED => c"hipErrorNotInitialized",
            status::NO_DEVICE => c"hipErrorNoDevice",
            status::INVALID_DEVICE => c"hipErrorInvalidDevice",
            status::INVALID_IMAGE => c"hipErrorInvalidImage",
            status::INVALID_CONTEXT => c"hipErrorInvalidContext",
            status::NO_BINARY_FOR_GPU => c"hipErrorNoBinaryForGpu",
            status::INVALID_HANDLE => c"hipErrorInvalidHandle",
            status::ILLEGAL_STATE => c"hipErrorIllegalState",
            status::NOT_FOUND => c"hipErrorNotFound",
            status::NOT_READY => c"hipErrorNotReady",
            status::ILLEGAL_ADDRESS => c"hipErrorIllegalAddress",
            status::LAUNCH_OUT_OF_RESOURCES => c"hipErrorLaunchOutOfResources",
            status::LAUNCH_TIMEOUT => c"hipErrorLaunchTimeOut",
            status::LAUNCH_FAILED => c"hipErrorLaunchFailure",
            status::NOT_SUPPORTED => c"hipErrorNotSupported",
            status::STREAM_CAPTURE_UNSUPPORTED => c"hipErrorStreamCaptureUnsupported",
            status::STREAM_CAPTURE_INVALIDATED => c"hipErrorStreamCaptureInvalidated",
            status::STREAM_CAPTURE_WRONG_THREAD => c"hipErrorStreamCaptureWrongThread",
            status::UNKNOWN => c"hipErrorUnknown",
            _ => return None,
        })
    }

    fn limits(&self) -> Limits {
        Limits {
            max_threads: MAX_THREADS,
            max_block: [MAX_THREADS; 3],
            max_grid: [i32::MAX as u32, 65_536, 65_536],
            // Nothing is asked for permission.
            default_shared_bytes: self.shared_bytes,
            max_shared_bytes: self.shared_bytes,
        }
    }

    fn kernels(&self) -> &'static HostKernels {
        match self.host {
            Profile::CdnaFnuz => &CDNA3,
            Profile::Rdna3 => &RDNA3,
            Profile::Cdna | Profile::Nvidia | Profile::Rdna4 => &CDNA4,
        }
    }

    #[cfg(test)]
    fn parameters(&self, kernel: &str) -> Option<Vec<u32>> {
        gpu_emulator::two_kernels::parameters(kernel)
    }

    #[cfg(test)]
    fn run(&self, launch: &gpu_emulator::module::Launch, _: gpu_emulator::LaunchOrder) -> Result<(), String> {
        gpu_emulator::two_kernels::run(launch)
    }

    fn memory_behind(_: &[u8]) -> Option<Result<(u64, u64), String>> {
        None
    }
}

/// A code object that a device can run, as the runtime keeps it.
pub(crate) fn module(bytes: &[u8], gpu: &Hip) -> Outcome<Module> {
    let image = CodeObject::parse(bytes).map_err(|error| Failure::new(status::INVALID_IMAGE, error.to_string()))?;
    if !image.runs_on(gpu.gcn_arch_name) {
        let message = format!("a code object for {} on a device of {}", image.target, gpu.gcn_arch_name);
        return Err(Failure::new(status::NO_BINARY_FOR_GPU, message));
    }
    let mut kernels = BTreeMap::new();
    for (name, kernel) in &image.kernels {
        if kernel.wave_size != gpu.wave_size() {
            let message =
                format!("kernel {name}: waves of {}, the device's have {}", kernel.wave_size, gpu.wave_size());
            return Err(Failure::new(status::INVALID_IMAGE, message));
        }
        kernels.insert(name.clone(), described(kernel));
    }
    Module::new(kernels, gpu)
}

fn described(kernel: &code_object::Kernel) -> Kernel {
    Kernel {
        parameters: kernel.parameters.iter().map(|parameter| parameter.num_bytes).collect(),
        shared_bytes: kernel.shared_bytes,
        stack_bytes: kernel.scratch_bytes,
        num_registers: kernel.num_vgprs,
        max_threads: MAX_THREADS.min(kernel.max_threads),
    }
}

/// An MI300X on HIP 7.13, where nothing is chosen.
pub(crate) fn default_config() -> Config<Hip> {
    Config { gpu: PROFILES[0], version: 71_300_000, common: Common::default(), nccl: Nccl::default() }
}

fn parse(variables: &Variables) -> Result<Config<Hip>, String> {
    let Config { mut gpu, mut version, mut nccl, .. } = default_config();
    let mut has_moved_properties = false;
    let common = Common::parse(PREFIX, variables, |name, value| match name {
        PROFILE => {
            let named = PROFILES.into_iter().find(|profile| profile.name == value);
            Some(take(named, &mut gpu, "gfx942, gfx950, gfx1100 or gfx906"))
        }
        VERSION => Some(take(value.parse().ok(), &mut version, "a version such as 70253211")),
        PROPERTIES => {
            let known = [("known", false), ("moved", true)].into_iter().find(|(layout, _)| *layout == value);
            Some(take(known.map(|(_, moved)| moved), &mut has_moved_properties, "known or moved"))
        }
        _ => nccl.choose(name, value),
    })?;
    Ok(Config { gpu: Hip { has_moved_properties, ..gpu }, version, common, nccl })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn variables_choose_the_device_and_its_runtime() {
        let parse = |name: &str, value: &str| parse(&[(name.to_owned(), value.to_owned())].into());
        assert_eq!(parse(PROFILE, "gfx1100").unwrap().gpu.wave_size(), 32);
        assert_eq!(parse(VERSION, "50221153").unwrap().version, 50_221_153);
        assert!(parse(PROPERTIES, "moved").unwrap().gpu.has_moved_properties);
        for (name, value) in [(PROFILE, "gfx90"), (VERSION, "new"), (PROPERTIES, "lost")] {
            let error = parse(name, value).unwrap_err();
            assert!(error.contains(&format!("HIP_EMULATOR_{name}={value}")), "{error}");
        }
    }
}
