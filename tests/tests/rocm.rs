//! The ROCm backend over the emulated HIP runtime, and without any: ops, whole runs, faults, and why a device cannot be
//! used.
//!
//! Three devices: CDNA 3 (waves of 64, FP8 is FNUZ), CDNA 4 (waves of 64, FP8 is OCP), RDNA 3 (waves of 32, no FP8). What one
//! of them showed, and what does not depend on the device, the others do not show again.
#![cfg(all(feature = "rocm", target_os = "linux"))]
#![allow(clippy::print_stdout, reason = "the report of a test run")]
#![allow(clippy::unwrap_used)]

mod emulated;
#[path = "emulated/groups.rs"]
mod groups;
#[path = "emulated/nccl.rs"]
mod nccl;

use std::path::Path;

use conformance::harness::not_run;
use emulated::{Emulator, Machine};

const HIP: Emulator = Emulator {
    file: "libhip_emulator.so",
    libraries: &["libamdhip64.so.7", "librccl.so.1"],
    device: "rocm",
    prefix: "HIP_EMULATOR",
    failed_launch: "719 (hipErrorLaunchFailure)",
    lost_device: "999 (hipErrorUnknown)",
};

const DEVICES: [&str; 3] = ["gfx942", "gfx950", "gfx1100"];

/// Debian's HIP 5.2, where its package is installed: a real runtime, which is too old, on a machine without a device.
const DEBIANS: &str = "/usr/lib/x86_64-linux-gnu/libamdhip64.so.5";

fn conforms(profile: &str, product: &str) {
    let outcome = HIP.check(&["rocm", "ops"], ("PROFILE", profile));
    println!("{}", outcome.text);
    outcome.expect(0, &[product, profile, "linears: weight-only,", "0 failed"]);
}

#[test]
fn ops_on_gfx942() {
    conforms("gfx942", "Instinct MI300X");
}

#[test]
fn ops_on_gfx950() {
    conforms("gfx950", "Instinct MI350X");
}

#[test]
fn ops_on_gfx1100() {
    conforms("gfx1100", "Radeon RX 7900 XTX");
}

#[test]
fn the_runtime_keeps_its_promises() {
    for profile in DEVICES {
        let outcome = HIP.check(&["rocm", "runtime"], ("PROFILE", profile));
        outcome.expect(0, &["copies", "recordings", "refusals", "exhaustion", "\"captures\":true"]);
    }
}

#[test]
fn the_engine_generates_on_either_of_two_devices() {
    for (device, name) in [("rocm", "rocm:0"), ("rocm:1", "rocm:1")] {
        let outcome = HIP.check(&[device, "generate"], ("DEVICES", "2"));
        outcome.expect(0, &[&format!("\"device\":\"{name}\""), "\"text\":\""]);
    }
}

fn agrees_with_the_goldens(profile: &str, mode: &str) {
    let outcome = HIP.check(&["rocm", "goldens", "fp8"], ("PROFILE", profile));
    println!("{}", outcome.text);
    outcome.expect(0, &[mode]);
}

#[test]
fn the_tiny_model_with_quantised_inputs_agrees_with_the_goldens() {
    agrees_with_the_goldens("gfx942", "fp8w_w8a8_absorb");
}

#[test]
fn the_tiny_model_with_widened_weights_agrees_with_the_goldens() {
    agrees_with_the_goldens("gfx1100", "fp8w_f32");
}

/// A kernel that cannot be launched is missed by long prompts, and by nothing else.
#[test]
fn long_prompts_attend_to_keys_and_values_of_every_head() {
    let variables = [("HIP_EMULATOR_PROFILE", "gfx950"), ("HIP_EMULATOR_FAULT", "kernel:attend_expanded")];
    let without = |case: &str| HIP.installed().check(&["rocm", "ops", case], &variables);
    without("mla/bf16/mixed/q_lora").expect(4, &["injected: kernel attend_expanded", "device lost"]);
    without("mla/bf16/verify/q_lora, 4 heads 16/8/16/blocks of 4").expect(0, &["0 failed"]);
}

/// Replayed steps against launched ones, and what a steady step asks of the driver.
#[test]
fn captured_steps_are_launched_steps() {
    let outcome = HIP.check(&["rocm", "capture"], ("PROFILE", "gfx950"));
    println!("{}", outcome.text);
    outcome.expect(0, &["\"steady_step\":{\"launches\":0,", "\"replays\":1}", "\"host_allocations\":0"]);
}

/// Versions of HIP whose recordings are known to go wrong record nothing, and all else works.
#[test]
fn launches_are_recorded_on_versions_that_replay_them_well() {
    for (profile, version, captures) in [
        ("gfx942", "60342131", false),
        ("gfx942", "70253211", false),
        ("gfx950", "70226015", false),
        ("gfx950", "70253211", true),
    ] {
        let variables = [("HIP_EMULATOR_PROFILE", profile), ("HIP_EMULATOR_VERSION", version)];
        let outcome = HIP.installed().check(&["rocm", "runtime"], &variables);
        outcome.expect(0, &[&format!("\"captures\":{captures}")]);
    }
    let without = HIP.without(&["hipGraphLaunch"]).check(&["rocm", "runtime"], &[]);
    without.expect(0, &["\"captures\":false"]);
}

/// A runtime that replays wrongly, whatever its version, is found out when the device is opened.
#[test]
fn wrong_replays_are_found_before_any_is_trusted() {
    for replay in ["replay:1", "replay:3"] {
        HIP.check(&["rocm", "runtime"], ("FAULT", replay)).expect(0, &["\"captures\":false"]);
    }
    // From then on nothing is tried: this one is never reached.
    HIP.check(&["rocm", "generate"], ("FAULT", "replay:1")).expect(0, &["\"text\":\""]);
}

#[test]
fn devices_are_listed() {
    let machine = HIP.installed();
    let two = [("HIP_EMULATOR_DEVICES", "2")];
    machine.check(&["all", "devices"], &two).expect(0, &["rocm:0: Emulated", "rocm:1: Emulated"]);
    machine.check(&["rocm:2", "generate"], &two).expect(4, &["rocm:2", "2 devices"]);
}

#[test]
fn without_a_runtime_the_names_that_were_tried_are_told() {
    if HIP.is_shadowed() || Path::new("/opt/rocm/lib/libamdhip64.so").exists() {
        not_run("without a runtime the names that were tried are told", "HIP is where this machine's loader finds it");
        return;
    }
    let machine = Machine::bare();
    let tried = "libamdhip64.so.7, libamdhip64.so.6, libamdhip64.so, /opt/rocm/lib/libamdhip64.so";
    machine.check(&["all", "devices"], &[]).expect(0, &["rocm:0: not available", tried, "cpu: "]);
    machine.check(&["rocm", "generate"], &[]).expect(4, &["install ROCm 6.0", "\"is_fatal\":false"]);
}

#[test]
fn a_runtime_that_is_named_is_the_only_one_tried() {
    let named = [("HIP_LIB", "/nowhere/libamdhip64.so")];
    let outcome = HIP.installed().check(&["rocm", "runtime"], &named);
    outcome.expect(4, &["none of /nowhere/libamdhip64.so can be loaded"]);
}

#[test]
fn why_a_device_cannot_be_used() {
    for (variable, words) in [
        (("DEVICES", "0"), "sees no device (it answered 100)"),
        (("PROFILE", "gfx906"), "its architecture is gfx906:sramecc+:xnack-"),
        (("VERSION", "50422804"), "version 5.4, needed is 6.0"),
        (("PROPERTIES", "moved"), "laid out in another way: its name is"),
    ] {
        HIP.check(&["all", "devices"], variable).expect(0, &["rocm:0: not available", words, "cpu: "]);
    }
}

#[test]
fn a_runtime_without_a_function_is_refused() {
    // ROCm 6 brought the first one; a version without it is older, whatever it says.
    for (function, words) in
        [("hipGetDevicePropertiesR0600", "needed is 6.0"), ("hipMalloc", "has no function hipMalloc")]
    {
        let outcome = HIP.without(&[function]).check(&["all", "devices"], &[]);
        outcome.expect(0, &["rocm:0: not available", words, "cpu: "]);
    }
}

#[test]
fn a_real_runtime_is_asked_for_its_version_and_devices() {
    if !Path::new(DEBIANS).exists() {
        not_run("a real runtime is asked for its version and devices", "Debian's libamdhip64-5 is not installed");
        return;
    }
    let outcome = Machine::bare().check(&["rocm", "runtime"], &[("HIP_LIB", DEBIANS)]);
    outcome.expect(4, &["the HIP runtime is version 5.2, needed is 6.0", "sees no device (it answered 100)"]);
}

#[test]
fn exhausted_memory_is_a_typed_error_wherever_it_happens() {
    HIP.exhausts_memory();
}

#[test]
fn a_failed_launch_loses_the_device() {
    HIP.fails_launches(&[1, 100, 400, 700]);
}

#[test]
fn a_lost_device_is_a_typed_error_wherever_it_happens() {
    HIP.loses_the_device(&[1, 3, 10, 50, 300, 1500, 3000]);
}

#[test]
fn what_the_emulator_does_not_understand_it_refuses() {
    let outcome = HIP.check(&["all", "devices"], ("PROFILE", "gfx90a"));
    outcome.expect(0, &["hip-emulator: HIP_EMULATOR_PROFILE=gfx90a", "rocm:0: not available"]);
}

#[test]
fn two_devices_run_models_together() {
    HIP.runs_models_on_two_devices(("PROFILE", "gfx950"));
}

#[test]
fn two_devices_replay_recorded_steps_together() {
    HIP.captures_on_two_devices("gfx950");
}

#[test]
fn a_device_that_fails_does_not_leave_the_other_waiting() {
    HIP.ends_when_a_device_of_two_fails(&[
        // The trials of recordings come first.
        ("launch:800", "device lost"),
        ("launch:1100", "device lost"),
        ("launch:1600", "device lost"),
        ("collective:30", "ncclAllReduce answered 2"),
        ("sum:20", "a sum that was queued before answered 6"),
        ("sum:60", "a sum that was queued before answered 6"),
    ]);
}

#[test]
fn why_there_is_no_group_is_told() {
    HIP.tells_why_there_is_no_group("RCCL");
}
