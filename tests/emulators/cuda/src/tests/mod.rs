//! Every rule, kept and broken on purpose, through the C functions.
#![allow(clippy::unwrap_used)]

mod cublaslt;
mod device;
mod faults;
mod launches;
mod lifetimes;
mod nccl;
mod order;
mod tensor_maps;

use std::ffi::c_void;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use emulator_common::config::Common;
use gpu_emulator::{Config, Gpu, Status, status};

use crate::api::{context, device as devices, launch, memory, module, stream};
use crate::config::{Cuda, default_config};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const AMPERE: &[u8] = include_bytes!("../../../../../tools/cubin/testdata/two.sm_80.cubin");
const HOPPER: &[u8] = include_bytes!("../../../../../tools/cubin/testdata/two.sm_90a.cubin");

/// A machine for one test, with a context for its thread.
struct Machine {
    context: u64,
    _alone: MutexGuard<'static, ()>,
}

impl Machine {
    /// Not initialised.
    fn cold(config: Config<Cuda>) -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        Cuda::slot().replace(config);
        Self { context: 0, _alone: alone }
    }

    fn with(config: Config<Cuda>) -> Self {
        let mut machine = Self::cold(config);
        assert_eq!(devices::cuInit(0), status::SUCCESS);
        machine.context = get(|to| context::cuDevicePrimaryCtxRetain(to, 0));
        assert_eq!(context::cuCtxSetCurrent(machine.context), status::SUCCESS);
        machine
    }

    fn new() -> Self {
        Self::with(default_config())
    }

    fn leaks(&self) -> Vec<String> {
        Cuda::slot().leaks()
    }
}

/// The default machine in all but these choices.
fn common(common: Common) -> Config<Cuda> {
    Config { common, ..default_config() }
}

/// The result of a function that succeeds.
fn get<T: Default>(function: impl FnOnce(*mut T) -> Status) -> T {
    let mut value = T::default();
    assert_eq!(function(&raw mut value), status::SUCCESS);
    value
}

fn alloc(num_bytes: usize) -> u64 {
    get(|to| memory::cuMemAlloc_v2(to, num_bytes))
}

fn new_stream() -> u64 {
    get(|to| stream::cuStreamCreate(to, 1))
}

fn function(name: &std::ffi::CStr) -> u64 {
    let loaded = get(|to| module::cuModuleLoadData(to, HOPPER.as_ptr().cast()));
    get(|to| module::cuModuleGetFunction(to, loaded, name.as_ptr()))
}

/// Queues a copy of floats from pageable memory.
fn upload(to: u64, values: &[f32], stream: u64) {
    let status = memory::cuMemcpyHtoDAsync_v2(to, values.as_ptr().cast(), 4 * values.len(), stream);
    assert_eq!(status, status::SUCCESS);
}

/// Waits for the stream and reads floats.
fn download(from: u64, count: usize, stream: u64) -> Vec<f32> {
    let mut values = vec![0.0_f32; count];
    let status = memory::cuMemcpyDtoHAsync_v2(values.as_mut_ptr().cast(), from, 4 * count, stream);
    assert_eq!(status, status::SUCCESS);
    values
}

/// Launches with any values for arguments.
fn launch_with(function: u64, block: u32, shared_bytes: u32, stream: u64, arguments: &[*const c_void]) -> Status {
    launch::cuLaunchKernel(function, 1, 1, 1, block, 1, 1, shared_bytes, stream, arguments.as_ptr(), ptr::null())
}

/// Launches `scale`.
fn scale(function: u64, stream: u64, x: u64, y: u64, num: u32, factor: f32) -> Status {
    let arguments = [
        ptr::from_ref(&x).cast(),
        ptr::from_ref(&y).cast(),
        ptr::from_ref(&num).cast(),
        ptr::from_ref(&factor).cast::<c_void>(),
    ];
    launch_with(function, 256, 0, stream, &arguments)
}
