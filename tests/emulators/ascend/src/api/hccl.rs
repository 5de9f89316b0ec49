//! Collectives.

use std::ffi::{CStr, c_char};

use emulator_common::collective::{Call, Element};

use super::{entries, read_all, write};
use crate::abi::{Status, hccl};
use crate::machine::{Failure, Outcome};

/// `HcclDataType`, and `HcclReduceOp`.
const FP32: u32 = 4;
const BFP16: u32 = 11;
const SUM: u32 = 0;

entries! {
    fn HcclCommInitAll(machine, num_devices: u32, devices: *const i32, communicators: *mut u64) {
        let devices = read_all("devices", devices, u64::from(num_devices))
            .map_err(|failure| Failure::new(hccl::PTR, failure.message))?;
        if devices.is_empty() {
            return Err(Failure::new(hccl::PARA, "a group of no devices"));
        }
        let made = machine.new_communicators(&devices)?;
        made.into_iter().enumerate().try_for_each(|(rank, handle)| write(communicators.wrapping_add(rank), handle))
    }

    fn HcclCommDestroy(machine, communicator: u64) {
        machine.destroy_communicator(communicator)
    }

    fn HcclGetCommAsyncError(machine, communicator: u64, error: *mut Status) {
        let found = machine.async_error(communicator)?;
        write(error, found)
    }

    fn HcclAllReduce(
        machine,
        from: u64,
        to: u64,
        count: u64,
        data_type: u32,
        operation: u32,
        communicator: u64,
        stream: u64,
    ) {
        let element = element(data_type)?;
        if operation != SUM {
            return Err(Failure::new(hccl::NOT_SUPPORT, format!("operation {operation} is not modelled")));
        }
        let call = Call { from, to, count: count as usize, element };
        machine.all_reduce(communicator, stream, call)
    }
}

fn element(data_type: u32) -> Outcome<Element> {
    match data_type {
        BFP16 => Ok(Element::Bf16),
        FP32 => Ok(Element::F32),
        other => Err(Failure::new(hccl::NOT_SUPPORT, format!("values of type {other} are not modelled"))),
    }
}

/// What a result stands for.
// SAFETY: the name is that of HCCL's function, with its parameter.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "HCCL's own name")]
pub(crate) extern "C" fn HcclGetErrorString(result: Status) -> *const c_char {
    words(result).as_ptr()
}

fn words(result: Status) -> &'static CStr {
    match result {
        hccl::SUCCESS => c"no error",
        hccl::PARA => c"parameter error",
        hccl::PTR => c"empty pointer",
        hccl::INTERNAL => c"internal error",
        hccl::NOT_SUPPORT => c"feature not support",
        hccl::RUNTIME => c"call runtime api fail",
        hccl::REMOTE => c"error cqe",
        _ => c"unknown error",
    }
}
