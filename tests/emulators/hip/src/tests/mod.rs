//! Rules that are HIP's own, kept and broken on purpose, through the C functions. Those that all drivers of GPUs share are
//! broken in `tests/emulators/cuda/src/tests`.
#![allow(clippy::unwrap_used)]

mod device;
mod launches;
mod nccl;
mod order;

use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use emulator_common::config::Common;
use gpu_emulator::{Config, Gpu, Status, status};

use crate::api::{device as devices, memory, module, stream};
use crate::config::{Hip, PROFILES, default_config};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const GFX942: &[u8] = include_bytes!("../../../../../tools/code-object/testdata/two.gfx942.co");
const GFX1100: &[u8] = include_bytes!("../../../../../tools/code-object/testdata/two.gfx1100.co");

/// A machine for one test.
struct Machine {
    _alone: MutexGuard<'static, ()>,
}

impl Machine {
    /// Not initialised.
    fn cold(config: Config<Hip>) -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        Hip::slot().replace(config);
        Self { _alone: alone }
    }

    fn with(config: Config<Hip>) -> Self {
        let machine = Self::cold(config);
        assert_eq!(devices::hipInit(0), status::SUCCESS);
        machine
    }

    fn new() -> Self {
        Self::with(default_config())
    }

    fn leaks(&self) -> Vec<String> {
        Hip::slot().leaks()
    }
}

/// The default machine in all but these choices.
fn common(common: Common) -> Config<Hip> {
    Config { common, ..default_config() }
}

/// The result of a function that succeeds.
fn get<T: Default>(function: impl FnOnce(*mut T) -> Status) -> T {
    let mut value = T::default();
    assert_eq!(function(&raw mut value), status::SUCCESS);
    value
}

fn alloc(num_bytes: usize) -> u64 {
    get(|to| memory::hipMalloc(to, num_bytes))
}

fn new_stream() -> u64 {
    get(|to| stream::hipStreamCreateWithFlags(to, 1))
}

fn load(image: &[u8]) -> Status {
    module::hipModuleLoadData(&mut 0, image.as_ptr().cast())
}

fn function(name: &CStr) -> u64 {
    let loaded = get(|to| module::hipModuleLoadData(to, GFX942.as_ptr().cast()));
    get(|to| module::hipModuleGetFunction(to, loaded, name.as_ptr()))
}

fn upload(to: u64, values: &[f32], stream: u64) {
    let from = values.as_ptr().cast_mut().cast();
    assert_eq!(memory::hipMemcpyHtoDAsync(to, from, size_of_val(values), stream), status::SUCCESS);
}

fn download(from: u64, count: usize, stream: u64) -> Vec<f32> {
    let mut values = vec![0.0_f32; count];
    let status = memory::hipMemcpyDtoHAsync(values.as_mut_ptr().cast(), from, 4 * count, stream);
    assert_eq!(status, status::SUCCESS);
    values
}

/// Launches one kernel with any values for arguments.
fn launch(
    function: u64,
    [grid, block]: [[u32; 3]; 2],
    shared: u32,
    stream: u64,
    arguments: &[*const c_void],
) -> Status {
    let ([gx, gy, gz], [bx, by, bz]) = (grid, block);
    let (arguments, extra) = (arguments.as_ptr(), ptr::null());
    module::hipModuleLaunchKernel(function, gx, gy, gz, bx, by, bz, shared, stream, arguments, extra)
}

/// Launches `scale`.
fn scale(function: u64, stream: u64, x: u64, y: u64, num: u32, factor: f32) -> Status {
    let arguments = [
        ptr::from_ref(&x).cast(),
        ptr::from_ref(&y).cast(),
        ptr::from_ref(&num).cast(),
        ptr::from_ref(&factor).cast::<c_void>(),
    ];
    launch(function, [[1; 3], [256, 1, 1]], 0, stream, &arguments)
}
