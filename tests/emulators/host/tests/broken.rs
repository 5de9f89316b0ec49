//! Kernels with one mistake each, and launches with one: the host ring finds them all, and goes on.
#![allow(clippy::unwrap_used)]

use engine_core::backend::StepError;
use gpu_common::{Arg, GpuRuntime, LaunchShape};
use gpu_host::{HostMemory, HostOptions, HostRuntime, HostStream, Profile};

const NUM_THREADS: u32 = 64;
/// Waves of 32 and of 64, in all orders.
const SETTINGS: [(Profile, u32); 4] =
    [(Profile::Nvidia, 0), (Profile::Cdna, 1), (Profile::Nvidia, 2), (Profile::Cdna, 3)];

fn runtime(profile: Profile, order: u32) -> HostRuntime {
    HostRuntime::new(HostOptions { profile, order, ..HostOptions::default() })
}

fn launch(runtime: &HostRuntime, name: &str, shape: LaunchShape, args: &[Arg]) -> Result<(), StepError> {
    let kernel = runtime.kernel("broken", name).unwrap();
    runtime.launch(&mut HostStream, &kernel, shape, args)
}

fn memory(runtime: &HostRuntime) -> (HostMemory, Arg) {
    let memory = runtime.alloc(4 * NUM_THREADS as usize, "results").unwrap();
    let address = Arg::Ptr(memory.address());
    (memory, address)
}

/// What a kernel's launch is refused for, for both wave sizes and several orders.
fn expect(name: &str, reason: &str) {
    for (profile, order) in SETTINGS {
        let runtime = runtime(profile, order);
        let (_memory, address) = memory(&runtime);
        let shape = LaunchShape::linear(1, NUM_THREADS).with_shared(16);
        let error = launch(&runtime, name, shape, &[address]).unwrap_err();
        assert!(error.is_fatal() && error.to_string().contains(reason), "{name}, {profile:?}: {error}");
    }
}

#[test]
fn barriers_and_collectives_that_not_everybody_reaches() {
    expect("barrier_beside_collective", "1 wait at the block's barrier");
    expect("different_collectives", "while lanes of its wave are in a");
    expect("absent_lane", "in a wave sum");
}

/// Threads that end count as arrived, as they do on devices; those that skip a barrier and go on do not hang it either.
#[test]
fn a_barrier_waits_for_the_living_only() {
    let runtime = runtime(Profile::Nvidia, 0);
    let (memory, address) = memory(&runtime);
    launch(&runtime, "divergent_barrier", LaunchShape::linear(1, NUM_THREADS), &[address]).unwrap();
    let mut out = vec![0; 4 * NUM_THREADS as usize];
    runtime.download(&mut HostStream, &memory, 0, &mut out).unwrap();
    let expected: Vec<u8> = (0..NUM_THREADS).flat_map(u32::to_le_bytes).collect();
    assert_eq!(out, expected);
}

#[test]
fn shared_memory_beyond_what_was_asked_for() {
    expect("too_much_shared_memory", "takes 256 bytes of shared memory, the launch gave 16");
    expect("past_shared_memory", "wrote past its 16 bytes of shared memory");
    expect("copy_to_global_memory", "not among the 16 bytes of shared memory");
}

#[test]
fn accesses_that_are_not_aligned() {
    expect("misaligned_load", "4 past a multiple of 16");
    expect("misaligned_copy", "4 past a multiple of 16");
}

/// What a kernel of asynchronous copies shows, of a source that holds 0, 1, 2 ...
fn copied(name: &str, profile: Profile, order: u32) -> Vec<f32> {
    let num_values = 4 * NUM_THREADS;
    let num_bytes = 4 * num_values as usize;
    let runtime = runtime(profile, order);
    let [from, to] = ["source", "results"].map(|what| runtime.alloc(num_bytes, what).unwrap());
    let source: Vec<u8> = (0..num_values).flat_map(|i| (i as f32).to_le_bytes()).collect();
    runtime.upload(&mut HostStream, &from, 0, &source).unwrap();
    let args = [&from, &to].map(|memory| Arg::Ptr(memory.address()));
    let shape = LaunchShape::linear(1, NUM_THREADS).with_shared(num_bytes as u32);
    launch(&runtime, name, shape, &args).unwrap();
    let mut out = vec![0; num_bytes];
    runtime.download(&mut HostStream, &to, 0, &mut out).unwrap();
    out.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// A wait that is missing, that is for other groups, or for a group that was not closed: nothing has been copied.
#[test]
fn asynchronous_copies_take_place_at_the_wait_for_their_group() {
    for (profile, order) in SETTINGS {
        let source: Vec<f32> = (0..4 * NUM_THREADS).map(|i| i as f32).collect();
        assert_eq!(copied("copy_with_wait", profile, order), source);
        for name in ["copy_without_wait", "copy_with_too_short_wait", "copy_without_commit"] {
            assert!(copied(name, profile, order).iter().all(|value| value.is_nan()), "{name}");
        }
        let expected: Vec<f32> = source.iter().map(|i| if (*i as u32 / 4) % 2 == 1 { *i } else { 0.0 }).collect();
        assert_eq!(copied("copy_or_zero", profile, order), expected);
    }
}

/// RDNA3's matrix units take every row twice.
#[test]
fn rows_that_two_lanes_hold_differently() {
    let launched = |profile: Profile| {
        let runtime = runtime(profile, 0);
        let (_memory, address) = memory(&runtime);
        launch(&runtime, "uneven_operand", LaunchShape::linear(1, NUM_THREADS), &[address])
    };
    let error = launched(Profile::Rdna3).unwrap_err().to_string();
    assert!(error.contains("lanes that hold the same row of an operand"), "{error}");
    for profile in Profile::ALL.into_iter().filter(|profile| *profile != Profile::Rdna3) {
        launched(profile).unwrap();
    }
}

#[test]
fn stacks_that_are_too_deep() {
    expect("deep_stack", "used its whole stack");
}

#[test]
fn unwritten_shared_memory_is_nan() {
    let runtime = runtime(Profile::Cdna, 0);
    let (memory, address) = memory(&runtime);
    let shape = LaunchShape::linear(1, NUM_THREADS).with_shared(16);
    launch(&runtime, "unwritten_shared_memory", shape, &[address]).unwrap();
    let mut out = [0; 4];
    runtime.download(&mut HostStream, &memory, 0, &mut out).unwrap();
    assert!(f32::from_le_bytes(out).is_nan());
}

#[test]
fn writes_beside_memory() {
    let runtime = runtime(Profile::Nvidia, 0);
    let (_memory, address) = memory(&runtime);
    let args = [address, Arg::U32(NUM_THREADS)];
    launch(&runtime, "past_global_memory", LaunchShape::linear(1, 32), &args).unwrap();
    let error = runtime.synchronize(&mut HostStream).unwrap_err();
    assert!(error.to_string().contains("memory behind an allocation of 256 bytes was written"), "{error}");
}

#[test]
fn launches_with_wrong_arguments_or_shapes() {
    let runtime = runtime(Profile::Nvidia, 0);
    let (memory, address) = memory(&runtime);
    let linear = LaunchShape::linear(1, NUM_THREADS);
    let refused = |shape: LaunchShape, args: &[Arg], reason: &str| {
        let error = launch(&runtime, "past_global_memory", shape, args).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    };
    refused(linear, &[address], "arguments of [8] bytes for parameters of [8, 4]");
    refused(linear, &[Arg::U32(0), Arg::U32(0)], "arguments of [4, 4] bytes");
    refused(LaunchShape::linear(1, 48), &[address, Arg::U32(0)], "block 48 x 1 x 1");
    refused(linear.with_shared(1 << 20), &[address, Arg::U32(0)], "1048576 bytes of shared memory");
    drop(memory);
    refused(linear, &[address, Arg::U32(0)], "argument 0 points to no live memory");
}

#[test]
fn kernels_that_are_not_there() {
    let error = runtime(Profile::Nvidia, 0).kernel("broken", "absent").unwrap_err().to_string();
    assert!(error.contains("kernel absent of broken"), "{error}");
}
