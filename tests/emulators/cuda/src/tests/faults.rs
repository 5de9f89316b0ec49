//! Injected faults.

use emulator_common::fault::Fault;

use super::*;

fn broken(fault: Fault) -> Machine {
    Machine::with(common(Common { fault: Some(fault), ..Common::default() }))
}

#[test]
fn one_allocation_fails_and_the_device_goes_on() {
    let _machine = broken(Fault::Allocation(2));
    alloc(16);
    let mut address = 0;
    assert_eq!(memory::cuMemAlloc_v2(&raw mut address, 16), status::OUT_OF_MEMORY);
    alloc(16);
}

#[test]
fn a_failed_launch_spoils_the_context() {
    let machine = broken(Fault::Launch(2));
    let (function, stream, x) = (function(c"scale"), new_stream(), alloc(8));
    for _ in 0..2 {
        assert_eq!(scale(function, stream, x, x, 0, 1.0), status::SUCCESS);
    }
    assert_eq!(stream::cuStreamSynchronize(stream), status::LAUNCH_FAILED);
    let mut address = 0;
    assert_eq!(memory::cuMemAlloc_v2(&raw mut address, 16), status::LAUNCH_FAILED);
    assert_eq!(memory::cuMemFree_v2(x), status::LAUNCH_FAILED);
    assert_eq!(context::cuDevicePrimaryCtxRelease_v2(0), status::SUCCESS);
    assert_eq!(machine.leaks(), Vec::<String>::new(), "what a broken context held is nobody's leak");
}

#[test]
fn a_lost_device_answers_nothing() {
    // Initialising, retaining and setting the context are three calls.
    let _machine = broken(Fault::DeviceLost(4));
    let mut address = 0;
    assert_eq!(memory::cuMemAlloc_v2(&raw mut address, 16), status::UNKNOWN);
    let mut count = 0;
    assert_eq!(devices::cuDeviceGetCount(&raw mut count), status::UNKNOWN);
    let mut text = ptr::null();
    assert_eq!(devices::cuGetErrorName(status::UNKNOWN, &raw mut text), status::SUCCESS, "errors still have names");
}
