//! What the machine says about itself, and threads' devices.

use super::*;
use crate::api::device::attribute;
use crate::properties::PROPERTIES_BYTES;

#[test]
fn a_profile_shows_in_the_structure_and_in_the_attributes() {
    for gpu in PROFILES {
        let common = Common { num_devices: 2, ..Common::default() };
        let _machine = Machine::with(Config { gpu, version: 60_342_131, common, ..default_config() });
        let mut structure = [0_u8; PROPERTIES_BYTES];
        assert_eq!(devices::hipGetDevicePropertiesR0600(&raw mut structure, 1), status::SUCCESS);
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| structure[at + i]));
        let read = |which| get(|to| devices::hipDeviceGetAttribute(to, which, 1)) as u32;
        assert_eq!((word(308), read(attribute::WARP_SIZE)), (gpu.wave_size(), gpu.wave_size()));
        assert_eq!((word(296), read(attribute::MAX_SHARED_MEMORY_PER_BLOCK)), (gpu.shared_bytes, gpu.shared_bytes));
        assert_eq!(word(388), read(attribute::MULTIPROCESSOR_COUNT));
        assert!(structure[1160..].starts_with(gpu.name.as_bytes()));
        assert_eq!(get(|to| devices::hipGetDeviceCount(to)), 2);
        assert_eq!(get(|to| devices::hipRuntimeGetVersion(to)), 60_342_131);
    }
}

#[test]
fn nothing_works_before_initialisation() {
    let _machine = Machine::cold(default_config());
    assert_eq!(devices::hipGetDeviceCount(&mut 0), status::NOT_INITIALIZED);
    assert_eq!(memory::hipMalloc(&mut 0, 16), status::NOT_INITIALIZED);
    assert_eq!(get(|to| devices::hipRuntimeGetVersion(to)), 71_300_000, "which needs no device");
}

#[test]
fn a_machine_without_devices_says_so_at_once() {
    let _machine = Machine::cold(common(Common { num_devices: 0, ..Common::default() }));
    assert_eq!(devices::hipInit(0), status::INVALID_DEVICE);
    assert_eq!(devices::hipGetDeviceCount(&mut 7), status::NO_DEVICE);
}

#[test]
fn a_thread_works_on_the_first_device_until_it_chooses_another() {
    let machine = Machine::with(common(Common { num_devices: 2, ..Common::default() }));
    assert_eq!(get(|to| devices::hipGetDevice(to)), 0);
    let (first, stream) = (alloc(16), new_stream());
    assert_eq!(devices::hipSetDevice(1), status::SUCCESS);
    let second = alloc(16);
    assert_eq!(memory::hipFree(first), status::INVALID_VALUE, "memory of another device");
    assert_eq!(stream::hipStreamSynchronize(stream), status::INVALID_HANDLE, "a stream of another device");
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(memory::hipFree(first), status::SUCCESS));
    });
    assert_eq!(memory::hipFree(second), status::SUCCESS);
    assert_eq!(devices::hipSetDevice(2), status::INVALID_DEVICE);
    assert_eq!(devices::hipSetDevice(-1), status::INVALID_DEVICE);
    assert_eq!(machine.leaks(), ["1 stream"]);
}
