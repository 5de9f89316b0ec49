//! Allocations and copies.

use super::*;
use crate::api::memory::{aclrtFree, aclrtFreeHost, aclrtMallocHost, aclrtMemcpyAsync};

#[test]
fn sizes_are_positive_multiples_of_32_within_the_device() {
    let _machine =
        Machine::with(Config { common: Common { memory_bytes: 96, ..Common::default() }, ..Config::default() });
    let mut address = 0;
    for (num_bytes, expected) in [
        (0, status::PARAM_INVALID),
        (33, status::PARAM_INVALID),
        (128, status::MEMORY_ALLOCATION),
        (96, status::SUCCESS),
        (32, status::MEMORY_ALLOCATION),
    ] {
        assert_eq!(aclrtMalloc(&raw mut address, num_bytes, 0), expected, "{num_bytes}");
    }
}

#[test]
fn memory_is_freed_once_with_its_guards_intact() {
    let _machine = Machine::new();
    let address = alloc(64);
    assert!(download(address, 16).iter().all(|value| value.is_nan()), "fresh memory");
    assert_eq!((aclrtFree(address), aclrtFree(address)), (0, status::PARAM_INVALID));
    for outside in [-1_i64, 64] {
        let address = alloc(64);
        emulator_common::memory::fill(address.wrapping_add_signed(outside), 0, 1);
        assert_eq!(aclrtFree(address), status::PARAM_INVALID, "byte {outside}");
    }
}

#[test]
fn copies_stay_inside_and_queued_ones_want_pinned_memory() {
    let machine = Machine::new();
    let (address, values) = (alloc(64), [1.0_f32; 32]);
    let from = values.as_ptr() as u64;
    assert_eq!(aclrtMemcpy(address, 128, from, 128, 1), status::PARAM_INVALID, "too long");
    assert_eq!(aclrtMemcpy(address, 32, from, 64, 1), status::PARAM_INVALID, "longer than its place");
    assert_eq!(aclrtMemcpy(address, 64, from, 64, 3), status::PARAM_INVALID, "another kind");
    assert_eq!(aclrtMemcpyAsync(address, 64, from, 64, 1, machine.stream), status::PARAM_INVALID);
    assert!(words().contains("pageable"));
    let pinned: u64 = get(|to| aclrtMallocHost(to, 64));
    emulator_common::memory::copy(from, pinned, 64);
    assert_eq!(aclrtMemcpyAsync(address, 64, pinned, 64, 1, machine.stream), 0);
    emulator_common::memory::fill(pinned, 0, 64);
    assert_eq!(machine.wait(), 0);
    assert_eq!(download(address, 16), [0.0; 16], "copied when its turn came");
    assert_eq!((aclrtFreeHost(pinned), aclrtFreeHost(pinned)), (0, status::PARAM_INVALID));
}

#[test]
fn memory_of_a_queued_copy_lives_until_its_turn() {
    let machine = Machine::new();
    let mut none = 0;
    assert_eq!(aclrtMallocHost(&raw mut none, usize::MAX), status::MEMORY_ALLOCATION, "more than a host has");
    let (address, pinned) = (alloc(64), get(|to| aclrtMallocHost(to, 64)));
    assert_eq!(aclrtMemcpyAsync(address, 64, pinned, 64, 1, machine.stream), 0);
    assert_eq!(aclrtFreeHost(pinned), 0);
    assert_eq!(machine.wait(), status::AICORE_EXCEPTION, "{}", words());
}
