//! What a vendor's emulator brings, and one emulated machine.

use std::ffi::CStr;
use std::fmt::Debug;

use emulator_common::config::{Common, take};

use crate::driver::Slot;
use crate::kernels::{HostKernels, LaunchOrder};
use crate::module::Launch;
use crate::status::Status;

/// A kind of device of one vendor, and what makes that vendor's driver different from others'.
pub trait Gpu: Debug + Copy + Send + Sync + 'static {
    /// How this emulator calls itself when it speaks.
    const EMULATOR: &'static str;
    /// The context of a thread that took none; 0 where there is none for it.
    const DEFAULT_CONTEXT: u64;

    /// What the vendor's other libraries hold; `()` where there are none.
    type Libraries: Libraries;

    /// The one driver of the process.
    fn slot() -> &'static Slot<Self>;

    /// The machine that the environment asks for.
    ///
    /// # Errors
    /// A message where there is no such machine.
    fn from_environment() -> Result<Config<Self>, String>;

    /// The name of a status.
    fn status_name(status: Status) -> Option<&'static CStr>;

    /// Limits of a launch.
    fn limits(&self) -> Limits;

    /// Which of the kernels compiled for the host this device runs.
    fn kernels(&self) -> &'static HostKernels;

    /// Sizes in bytes of a kernel's parameters, if the host has the kernel.
    fn parameters(&self, kernel: &str) -> Option<Vec<u32>> {
        self.kernels().parameters(kernel)
    }

    /// Runs a kernel to its end.
    ///
    /// # Errors
    /// What went wrong in it: a barrier that not all threads reach, shared memory that it did not ask for …
    fn run(&self, launch: &Launch, order: LaunchOrder) -> Result<(), String> {
        self.kernels().run(launch, order)
    }

    /// Address and size of the memory behind an argument that describes memory without being its address.
    fn memory_behind(argument: &[u8]) -> Option<Result<(u64, u64), String>>;
}

/// What libraries beside the driver hold for their callers.
pub trait Libraries: Debug + Default + Send {
    /// What was not given back.
    fn leaks(&self) -> Vec<String>;
}

impl Libraries for () {
    fn leaks(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Limits that a launch keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Threads of a block.
    pub max_threads: u32,
    /// Threads of a block along each axis.
    pub max_block: [u32; 3],
    /// Blocks along each axis.
    pub max_grid: [u32; 3],
    /// Shared memory per block, static and dynamic, that needs no permission, in bytes.
    pub default_shared_bytes: u32,
    /// Shared memory per block that a kernel may be allowed, static and dynamic, in bytes.
    pub max_shared_bytes: u32,
}

/// One emulated machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config<G> {
    /// All its devices.
    pub gpu: G,
    /// What the driver says of itself.
    pub version: i32,
    /// How many devices, how large, and what goes wrong.
    pub common: Common,
    /// The library of collectives.
    pub nccl: Nccl,
}

/// The library of collectives, and how long a device waits for its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nccl {
    /// What `ncclGetVersion` says: 22100 is 2.21.0.
    pub version: i32,
    /// Seconds after which a rank that did not come is reported as a hang.
    pub patience_s: u64,
}

impl Default for Nccl {
    fn default() -> Self {
        Self { version: 22_100, patience_s: 60 }
    }
}

impl Nccl {
    /// Takes `NCCL` (a version) and `PATIENCE` (seconds); `None` for another name.
    pub fn choose(&mut self, name: &str, value: &str) -> Option<Result<(), &'static str>> {
        match name {
            "NCCL" => Some(take(value.parse().ok(), &mut self.version, "a version such as 22100")),
            "PATIENCE" => Some(take(value.parse().ok(), &mut self.patience_s, "a number of seconds")),
            _ => None,
        }
    }
}
