//! Hopper's asynchronous machinery, used with one mistake each: the host's model finds them in every order of threads.
#![allow(clippy::unwrap_used)]

use gpu_host::{ArgValue, Profile, launch_kernel, registered_kernels};

const THREADS: u32 = 128;
/// Two boxes of 64 rows and what follows them.
const SHARED_BYTES: u32 = 2 * 64 * 128 + 16;

/// A tensor map of 64 x 128 bytes, as the emulated driver writes it.
fn map_of(bytes: &[u8]) -> ArgValue {
    let words = [0x7061_6d72_6f73_6e74, bytes.as_ptr() as u64, 128, 64, 128, 128, 64];
    let mut map = [0; ArgValue::NUM_BYTES];
    for (to, word) in map.chunks_mut(8).zip(words) {
        to.copy_from_slice(&u64::to_le_bytes(word));
    }
    ArgValue::new(&map)
}

fn launch(name: &str, map: ArgValue, order: u32) -> Result<(), String> {
    let kernels = registered_kernels(Profile::Nvidia);
    let kernel = kernels.iter().find(|kernel| kernel.name == name).unwrap();
    let mut out = vec![0.0_f32; THREADS as usize];
    let mut args = [map, ArgValue::new(&(out.as_mut_ptr() as u64).to_le_bytes())];
    // SAFETY: both parameters are given, a float per thread is written, and the map's matrix lives through the call.
    unsafe { launch_kernel(kernel, [[1; 3], [THREADS, 1, 1]], SHARED_BYTES, &mut args, order) }
}

#[test]
fn every_mistake_is_found() {
    let matrix = vec![1_u8; 64 * 128];
    for (name, reason) in [
        ("box_without_fence", "the copy engine may not know yet"),
        ("box_of_fewer_bytes", "0 arrivals and 16 bytes to come"),
        ("box_inside_the_pattern", "inside the swizzle's pattern"),
        ("barrier_for_one_more", "1 arrivals and 0 bytes to come"),
        ("barrier_for_one_less", "more arrive at a barrier than the 255"),
        ("product_without_fence", "a product without a fence"),
        ("product_not_committed", "were not committed"),
        ("product_touched", "written while their product was under way"),
        ("product_never_waited_for", "never waited for"),
    ] {
        for order in 0..4 {
            let error = launch(name, map_of(&matrix), order).unwrap_err();
            assert!(error.contains(reason), "{name}, order {order}: {error}");
        }
    }
}

#[test]
fn a_box_of_nothing_that_a_driver_described_is_found() {
    let error = launch("box_of_fewer_bytes", ArgValue::new(&[]), 0).unwrap_err();
    assert!(error.contains("no driver has described"), "{error}");
}
