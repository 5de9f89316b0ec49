//! Memory and handles: bounds, use after the end, leaks.

use super::*;
use crate::api::{event, graph};

#[test]
fn copies_stay_inside_one_allocation() {
    let _machine = Machine::new();
    let (address, stream) = (alloc(100), new_stream());
    let bytes = [0_u8; 64];
    let write = |to, count| memory::cuMemcpyHtoDAsync_v2(to, bytes.as_ptr().cast(), count, stream);
    assert_eq!(write(address + 36, 64), status::SUCCESS);
    assert_eq!(write(address + 37, 64), status::INVALID_VALUE, "one byte too far");
    assert_eq!(write(address - 1, 1), status::INVALID_VALUE, "before the start");
    assert_eq!(write(bytes.as_ptr() as u64, 1), status::INVALID_VALUE, "host memory");
    assert_eq!(memory::cuMemsetD8Async(address + 90, 0, 11, stream), status::INVALID_VALUE);
    let mut back = [0_u8; 64];
    let read = memory::cuMemcpyDtoHAsync_v2(back.as_mut_ptr().cast(), address + 99, 2, stream);
    assert_eq!(read, status::INVALID_VALUE);
}

#[test]
fn fresh_memory_is_nan() {
    let _machine = Machine::new();
    let (address, stream) = (alloc(8), new_stream());
    assert!(download(address, 2, stream).iter().all(|value| value.is_nan()));
}

#[test]
fn freed_memory_is_gone() {
    let _machine = Machine::new();
    let (address, stream) = (alloc(16), new_stream());
    assert_eq!(memory::cuMemFree_v2(address + 4), status::INVALID_VALUE, "not the start");
    assert_eq!(memory::cuMemFree_v2(address), status::SUCCESS);
    assert_eq!(memory::cuMemFree_v2(address), status::INVALID_VALUE, "twice");
    assert_eq!(memory::cuMemsetD8Async(address, 0, 1, stream), status::INVALID_VALUE, "used after the free");
}

#[test]
fn writes_around_an_allocation_are_found_when_it_is_freed() {
    let _machine = Machine::new();
    for outside in [-1_i64, 16] {
        let address = alloc(16);
        emulator_common::memory::fill(address.wrapping_add_signed(outside), 0, 1);
        assert_eq!(memory::cuMemFree_v2(address), status::INVALID_VALUE, "byte {outside}");
    }
}

#[test]
fn freeing_waits_for_queued_work() {
    let _machine = Machine::new();
    let (a, b, stream) = (alloc(8), alloc(8), new_stream());
    upload(a, &[1.0, 2.0], stream);
    assert_eq!(memory::cuMemcpyDtoDAsync_v2(b, a, 8, stream), status::SUCCESS);
    assert_eq!(memory::cuMemFree_v2(a), status::SUCCESS);
    assert_eq!(download(b, 2, stream), [1.0, 2.0]);
}

#[test]
fn handles_end_with_what_they_stand_for() {
    let _machine = Machine::new();
    let stream = new_stream();
    let event: u64 = get(|to| event::cuEventCreate(to, 0));
    assert_eq!(event::cuEventRecord(stream, event), status::INVALID_HANDLE, "taken for one another");
    assert_eq!(event::cuEventDestroy_v2(event), status::SUCCESS);
    assert_eq!(event::cuEventRecord(event, stream), status::INVALID_HANDLE);
    assert_eq!(stream::cuStreamDestroy_v2(stream), status::SUCCESS);
    assert_eq!(stream::cuStreamSynchronize(stream), status::INVALID_HANDLE);
    let loaded: u64 = get(|to| module::cuModuleLoadData(to, HOPPER.as_ptr().cast()));
    let function: u64 = get(|to| module::cuModuleGetFunction(to, loaded, c"zero".as_ptr()));
    assert_eq!(module::cuModuleUnload(loaded), status::SUCCESS);
    let mut value = 0;
    assert_eq!(module::cuFuncGetAttribute(&raw mut value, 4, function), status::INVALID_HANDLE);
    assert_eq!(graph::cuGraphDestroy(7), status::INVALID_HANDLE);
}

#[test]
fn what_is_not_given_back_is_a_leak() {
    let machine = Machine::new();
    let (address, stream) = (alloc(48), new_stream());
    let event: u64 = get(|to| event::cuEventCreate(to, 0));
    let pinned: u64 = get(|to| memory::cuMemHostAlloc(to, 32, 0));
    let leaks = machine.leaks().join("; ");
    for expected in ["48 bytes of device memory", "1 stream", "1 event", "32 bytes of pinned", "primary context"] {
        assert!(leaks.contains(expected), "{expected} in {leaks}");
    }
    assert_eq!(memory::cuMemFreeHost(pinned), status::SUCCESS);
    assert_eq!(memory::cuMemFree_v2(address), status::SUCCESS);
    assert_eq!(event::cuEventDestroy_v2(event), status::SUCCESS);
    assert_eq!(stream::cuStreamDestroy_v2(stream), status::SUCCESS);
    assert_eq!(context::cuDevicePrimaryCtxRelease_v2(0), status::SUCCESS);
    assert_eq!(machine.leaks(), Vec::<String>::new());
}

#[test]
fn a_context_that_ends_with_memory_in_it_leaks() {
    let machine = Machine::new();
    alloc(8);
    assert_eq!(context::cuDevicePrimaryCtxRelease_v2(0), status::SUCCESS);
    assert!(machine.leaks().join("").contains("8 bytes of device memory"));
    assert_eq!(context::cuDevicePrimaryCtxRelease_v2(0), status::INVALID_CONTEXT, "nobody holds it any more");
}

#[test]
fn memory_is_as_large_as_it_is_said_to_be() {
    let _machine = Machine::with(common(Common { memory_bytes: 100, ..Common::default() }));
    let first = alloc(60);
    let mut address = 0;
    assert_eq!(memory::cuMemAlloc_v2(&raw mut address, 41), status::OUT_OF_MEMORY);
    assert_eq!(memory::cuMemAlloc_v2(&raw mut address, 0), status::INVALID_VALUE);
    let (mut free, mut total) = (0, 0);
    assert_eq!(memory::cuMemGetInfo_v2(&raw mut free, &raw mut total), status::SUCCESS);
    assert_eq!((free, total), (40, 100));
    assert_eq!(memory::cuMemFree_v2(first), status::SUCCESS);
    alloc(100);
}
