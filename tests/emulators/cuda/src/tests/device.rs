//! What the machine says about itself, and what needs which state.

use super::*;
use crate::abi::device_attribute as attribute;
use crate::api::unsupported;
use crate::config::PROFILES;

#[test]
fn a_profile_shows_in_the_attributes() {
    for gpu in PROFILES {
        let common = Common { num_devices: 2, ..Common::default() };
        let _machine = Machine::with(Config { gpu, version: 12_040, common, ..default_config() });
        let read = |which| get(|to| devices::cuDeviceGetAttribute(to, which, 1)) as u32;
        let capability = 10 * read(attribute::COMPUTE_CAPABILITY_MAJOR) + read(attribute::COMPUTE_CAPABILITY_MINOR);
        assert_eq!(capability, gpu.compute_capability);
        assert_eq!(read(attribute::MAX_SHARED_MEMORY_PER_BLOCK_OPTIN), gpu.max_shared_bytes);
        assert_eq!(get(|to| devices::cuDeviceGetCount(to)), 2);
        assert_eq!(get(|to| devices::cuDriverGetVersion(to)), 12_040);
    }
}

#[test]
fn nothing_works_before_initialisation() {
    let _machine = Machine::cold(default_config());
    let mut count = 0;
    assert_eq!(devices::cuDeviceGetCount(&raw mut count), status::NOT_INITIALIZED);
    let mut address = 0;
    assert_eq!(memory::cuMemAlloc_v2(&raw mut address, 16), status::NOT_INITIALIZED);
}

#[test]
fn a_machine_without_devices_says_so_at_once() {
    let _machine = Machine::cold(common(Common { num_devices: 0, ..Common::default() }));
    assert_eq!(devices::cuInit(0), status::NO_DEVICE);
}

#[test]
fn devices_are_counted_from_zero() {
    let _machine = Machine::new();
    let mut device = 0;
    assert_eq!(devices::cuDeviceGet(&raw mut device, 1), status::INVALID_DEVICE);
    assert_eq!(devices::cuDeviceGet(&raw mut device, -1), status::INVALID_DEVICE);
}

#[test]
fn what_is_not_modelled_says_so() {
    let _machine = Machine::new();
    assert_eq!(unsupported::cuTensorMapReplaceAddress(), status::NOT_SUPPORTED);
    let mut value = 0;
    assert_eq!(devices::cuDeviceGetAttribute(&raw mut value, 9999, 0), status::NOT_SUPPORTED);
}

#[test]
fn a_thread_has_no_context_until_it_takes_one() {
    let machine = Machine::new();
    alloc(16);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut address = 0;
            assert_eq!(memory::cuMemAlloc_v2(&raw mut address, 16), status::INVALID_CONTEXT);
            assert_eq!(context::cuCtxSetCurrent(machine.context), status::SUCCESS);
            alloc(16);
        });
    });
    assert_eq!(context::cuCtxSetCurrent(12345), status::INVALID_CONTEXT);
}

#[test]
fn errors_have_names() {
    let mut text = ptr::null();
    assert_eq!(devices::cuGetErrorName(status::OUT_OF_MEMORY, &raw mut text), status::SUCCESS);
    assert!(!text.is_null());
    assert_eq!(devices::cuGetErrorName(-5, &raw mut text), status::INVALID_VALUE);
}
