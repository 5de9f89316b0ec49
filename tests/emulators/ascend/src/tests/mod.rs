//! Rules, kept and broken on purpose, through the C functions.
#![allow(clippy::unwrap_used)]

mod attention;
mod capture;
mod collective;
mod interface;
mod memory;
mod operators;
mod protocol;
mod repetition;
mod rules;

use std::sync::{Mutex, MutexGuard, PoisonError};

use emulator_common::config::Common;
use emulator_common::fault::Fault;

use crate::abi::{Status, status};
use crate::api::descriptor::{aclCreateScalar, aclCreateTensor};
use crate::api::memory::{aclrtMalloc, aclrtMemcpy};
use crate::api::runtime::{aclGetRecentErrMsg, aclInit, aclrtCreateContext, aclrtCreateStream, aclrtSynchronizeStream};
use crate::config::Config;
use crate::machine;
use crate::ops::elementwise::{aclnnInplaceMuls, aclnnInplaceMulsGetWorkspaceSize};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const F32: i32 = 0;
const I8: i32 = 2;
const BF16: i32 = 27;

/// A machine for one test, with a context and a stream.
struct Machine {
    context: u64,
    stream: u64,
    _alone: MutexGuard<'static, ()>,
}

impl Machine {
    fn with(config: Config) -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        machine::replace(config);
        assert_eq!(aclInit(std::ptr::null()), status::SUCCESS);
        let context = get(|to| aclrtCreateContext(to, 0));
        Self { context, stream: get(|to| aclrtCreateStream(to)), _alone: alone }
    }

    fn new() -> Self {
        Self::with(Config::default())
    }

    fn leaks(&self) -> String {
        machine::lock().unwrap().as_ref().unwrap().all_leaks().join("; ")
    }

    fn wait(&self) -> Status {
        aclrtSynchronizeStream(self.stream)
    }
}

fn broken(fault: Fault) -> Machine {
    Machine::with(Config { common: Common { fault: Some(fault), ..Common::default() }, ..Config::default() })
}

/// The result of a function that succeeds.
fn get<T: Default>(function: impl FnOnce(*mut T) -> Status) -> T {
    let mut value = T::default();
    assert_eq!(function(&raw mut value), status::SUCCESS);
    value
}

fn alloc(num_bytes: usize) -> u64 {
    get(|to| aclrtMalloc(to, num_bytes, 0))
}

/// Device memory that holds floats.
fn upload(values: &[f32]) -> u64 {
    let bytes = size_of_val(values);
    let address = alloc(bytes.next_multiple_of(32));
    assert_eq!(aclrtMemcpy(address, bytes, values.as_ptr() as u64, bytes, 1), status::SUCCESS);
    address
}

fn download(address: u64, count: usize) -> Vec<f32> {
    let mut values = vec![0.0_f32; count];
    assert_eq!(aclrtMemcpy(values.as_mut_ptr() as u64, 4 * count, address, 4 * count, 2), status::SUCCESS);
    values
}

/// A dense tensor.
fn tensor(address: u64, data_type: i32, dims: &[i64]) -> u64 {
    let strides: Vec<i64> = (0..dims.len()).map(|axis| dims[axis + 1..].iter().product()).collect();
    let storage = [dims.iter().product::<i64>()];
    let rank = dims.len() as u64;
    aclCreateTensor(dims.as_ptr(), rank, data_type, strides.as_ptr(), 0, 2, storage.as_ptr(), 1, address)
}

/// Plans `x *= 2`.
fn plan_doubling(x: u64) -> (Status, u64) {
    let factor = aclCreateScalar(&raw const TWO, F32);
    let (mut bytes, mut executor) = (0, 0);
    let status = aclnnInplaceMulsGetWorkspaceSize(x, factor, &raw mut bytes, &raw mut executor);
    (status, executor)
}

static TWO: f32 = 2.0;

fn run_doubling(executor: u64, stream: u64) -> Status {
    aclnnInplaceMuls(0, 0, executor, stream)
}

/// What the last failure on this thread said.
fn words() -> String {
    let text = aclGetRecentErrMsg();
    if text.is_null() { String::new() } else { crate::api::text(text) }
}
