//! The CUDA backend over the emulated driver, and without any: ops, whole runs, faults, and why a device cannot be used.
//!
//! Each check runs in a process of its own (`device-check`): the driver is one per process.
#![cfg(all(feature = "cuda", target_os = "linux"))]
#![allow(clippy::print_stdout, reason = "the report of a test run")]
#![allow(clippy::unwrap_used)]

mod emulated;
#[path = "emulated/groups.rs"]
mod groups;
#[path = "emulated/nccl.rs"]
mod nccl;

use std::fs;
use std::process::Command;

use conformance::harness::not_run;
use emulated::{Emulator, Machine};
use tempfile::TempDir;

const CUDA: Emulator = Emulator {
    file: "libcuda_emulator.so",
    libraries: &["libcuda.so.1", "libnccl.so.2", "libcublasLt.so.13"],
    device: "cuda",
    prefix: "CUDA_EMULATOR",
    failed_launch: "CUDA_ERROR_LAUNCH_FAILED",
    lost_device: "CUDA_ERROR_UNKNOWN",
};

/// `linears` are what those with FP8 and INT8 weights do, where they may.
fn conforms(profile: &str, linears: &str) {
    let outcome = CUDA.check(&["cuda", "ops"], ("PROFILE", profile));
    println!("{}", outcome.text);
    outcome.expect(0, &[profile, linears, "linears: weight-only,", "0 failed"]);
}

#[test]
fn ops_on_sm_80() {
    conforms("sm_80", "linears: quantised inputs of int8,");
}

#[test]
fn ops_on_sm_89() {
    conforms("sm_89", "linears: quantised inputs,");
}

#[test]
fn ops_on_sm_90() {
    conforms("sm_90", "linears: quantised inputs,");
}

/// A kernel that cannot be launched is missed where it is used, and nowhere else.
#[test]
fn prompts_of_fp8_go_through_hoppers_own_kernels_on_hopper_alone() {
    for (kernel, case) in [
        ("linear_fp8_wgmma", "linear/fp8/576x136/rows 100"),
        ("gate_up_fp8_wgmma", "ffn/fp8/hidden 160 width 320/rows 130"),
        ("gate_up_fp8_wgmma", "moe_experts/fp8/shared 1/2 of 8, same for all/rows 150"),
        ("linear_fp8_wgmma", "moe_experts/fp8/shared 1/2 of 8, same for all/rows 150"),
    ] {
        let fault = format!("kernel:{kernel}");
        let without = |profile: &str| {
            let variables = [("CUDA_EMULATOR_PROFILE", profile), ("CUDA_EMULATOR_FAULT", &fault)];
            CUDA.installed().check(&["cuda", "ops", case], &variables)
        };
        without("sm_90").expect(1, &[&format!("injected: kernel {kernel}"), "device lost"]);
        without("sm_89").expect(0, &["0 failed"]);
    }
    let few_rows = ["cuda", "ops", "linear/fp8/576x136/rows 17"];
    CUDA.installed().check(&few_rows, &[("CUDA_EMULATOR_FAULT", "kernel:linear_fp8_wgmma")]).expect(0, &["0 failed"]);
}

/// The cases of FP8 products, and both ways of every shape side by side.
#[test]
fn cublaslt_computes_what_our_own_kernels_compute() {
    let outcome = CUDA.installed().check(&["cuda", "cublaslt", "--tiny"], &[]);
    println!("{}", outcome.text);
    outcome.expect(0, &["0 failed", "prompts of FP8 by cuBLASLt 12.9.0", "64 rows: ours", "67 rows: ours"]);
    assert!(!outcome.text.contains("WRONG") && !outcome.text.contains("BOTH ARE OURS"), "{}", outcome.text);
}

/// Work that cannot be queued, or fails, is missed where it is used, and nowhere else.
#[test]
fn cublaslt_is_used_where_it_is_asked_for_alone() {
    let with = |words: &[&str], fault: &str| CUDA.installed().check(words, &[("CUDA_EMULATOR_FAULT", fault)]);
    let (asked, unasked) = (["cuda", "cublaslt", "--tiny"], ["cuda", "ops", "linear/fp8/160x256/rows 1"]);
    with(&asked, "kernel:cublasLtMatmul").expect(3, &["injected: kernel cublasLtMatmul", "device lost"]);
    with(&asked, "kernel:arrange_scales").expect(3, &["injected: kernel arrange_scales", "device lost"]);
    with(&asked, "product:1").expect(1, &["injected: product 1", "cublasLtMatmul answered 14", "device lost"]);
    for fault in ["kernel:cublasLtMatmul", "kernel:arrange_scales", "product:1"] {
        with(&unasked, fault).expect(0, &["0 failed"]);
    }
    // What is left of rows in fours, and shapes for which the library has nothing, are our own kernels' business.
    let outcome = with(&asked, "kernel:linear_fp8_wgmma");
    outcome.expect(3, &["linear/fp8/576x136/rows 131", "injected: kernel linear_fp8_wgmma64"]);
    for fault in ["algorithm:1", "algorithm:2"] {
        with(&asked, fault).expect(1, &["0 failed", "BOTH ARE OURS"]);
    }
}

#[test]
fn why_cublaslt_is_not_used_is_told_and_our_own_kernels_run() {
    let check = |machine: &Machine, variable| machine.check(&["cuda", "cublaslt", "--tiny"], &[variable]);
    let expect = |machine: &Machine, variable, reason: &str| {
        let outcome = check(machine, variable);
        let note = format!("prompts of FP8 by our own kernels: {reason}");
        outcome.expect(4, &["0 failed", &note, &format!("\"error\":\"{reason}")]);
    };
    let version = ("CUDA_EMULATOR_CUBLASLT", "120900");
    if CUDA.is_shadowed() {
        not_run("without cuBLASLt", "it is where this machine's loader finds it");
    } else {
        let bare = CUDA.installed();
        fs::remove_file(bare.folder().join("libcublasLt.so.13")).unwrap();
        expect(&bare, version, "no cuBLASLt: none of libcublasLt.so.13, libcublasLt.so.12");
    }
    let installed = CUDA.installed();
    let lacking = CUDA.without(&["cublasLtMatmulAlgoGetHeuristic"]);
    expect(&lacking, version, "cuBLASLt has no function cublasLtMatmulAlgoGetHeuristic; install CUDA 12.9");
    let old = ("CUDA_EMULATOR_CUBLASLT", "120803");
    expect(&installed, old, "cuBLASLt is version 12.8.3, needed is 12.9.0");
    let ada = ("CUDA_EMULATOR_PROFILE", "sm_89");
    expect(&installed, ada, "cuBLASLt multiplies blocks of FP8 on sm_90a only, and this device is sm_89");
}

#[test]
fn the_runtime_keeps_its_promises() {
    for profile in ["sm_80", "sm_89", "sm_90"] {
        let outcome = CUDA.check(&["cuda", "runtime"], ("PROFILE", profile));
        outcome.expect(0, &["copies", "recordings", "refusals", "exhaustion"]);
    }
}

#[test]
fn the_engine_generates_on_either_of_two_devices() {
    for device in ["cuda", "cuda:1"] {
        let outcome = CUDA.check(&[device, "generate"], ("DEVICES", "2"));
        outcome.expect(
            0,
            &[
                &format!("\"device\":\"cuda:{}\"", &device[4..].trim_start_matches(':').parse().unwrap_or(0)),
                "\"text\":\"",
            ],
        );
    }
}

fn agrees_with_the_goldens(profile: &str, weights: &str, mode: &str) {
    let outcome = CUDA.check(&["cuda", "goldens", weights], ("PROFILE", profile));
    println!("{}", outcome.text);
    outcome.expect(0, &[mode]);
}

#[test]
fn the_tiny_model_in_bf16_agrees_with_the_goldens() {
    agrees_with_the_goldens("sm_89", "bf16", "bf16w_bf16");
}

#[test]
fn the_tiny_model_in_fp8_agrees_with_the_goldens() {
    agrees_with_the_goldens("sm_90", "fp8", "fp8w_w8a8_absorb");
}

/// A kernel that cannot be launched is missed by long prompts, and by nothing else.
#[test]
fn long_prompts_attend_to_keys_and_values_of_every_head() {
    let variables = [("CUDA_EMULATOR_PROFILE", "sm_80"), ("CUDA_EMULATOR_FAULT", "kernel:attend_expanded")];
    let without = |case: &str| CUDA.installed().check(&["cuda", "ops", case], &variables);
    without("mla/bf16/mixed/q_lora").expect(1, &["injected: kernel attend_expanded", "device lost"]);
    without("mla/bf16/verify/q_lora, 4 heads 16/8/16/blocks of 4").expect(0, &["0 failed"]);
}

/// Replayed steps against launched ones, and what a steady step asks of the driver.
#[test]
fn captured_steps_are_launched_steps() {
    let outcome = CUDA.installed().check(&["cuda", "capture"], &[]);
    println!("{}", outcome.text);
    outcome.expect(0, &["\"steady_step\":{\"launches\":0,", "\"replays\":1}", "\"host_allocations\":0"]);
}

/// The step after the prompt runs, the next is recorded, the others are replayed: faults in each of them.
#[test]
fn faults_while_recording_and_replaying_are_typed_and_leak_nothing() {
    // Of the prompt, of the first step, of replays: each has more than a hundred launches.
    CUDA.fails_launches(&[120, 250, 400, 550, 700]);
    // The last call whose loss ends the generation: after it, only memory is given back.
    let (mut lost, mut unnoticed) = (1_u32, 50_000);
    while unnoticed - lost > 1 {
        let middle = lost.midpoint(unnoticed);
        match CUDA.generate_with(&format!("lost:{middle}")).status {
            Some(0) => unnoticed = middle,
            _ => lost = middle,
        }
    }
    // Replayed steps are a dozen calls each. The step before them was recorded, launch by launch.
    let before: Vec<u32> = (0..72).step_by(9).chain((90..330).step_by(40)).map(|before| lost - before).collect();
    CUDA.loses_the_device(&before);
}

/// The script for machines with a GPU, from end to end at sizes for an emulated one.
#[test]
fn the_script_for_a_machine_with_a_gpu_runs() {
    let driver = CUDA.installed();
    let folder = TempDir::new().unwrap();
    let report = folder.path().join("report.json");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tools/device-check.sh");
    let mut command = Command::new(script);
    command.args(["--tiny", "--dir"]).arg(folder.path()).arg("--report").arg(&report);
    let outcome = driver.run(command.env("DEVICE_CHECK", env!("CARGO_BIN_EXE_device-check")));
    println!("{}", outcome.text);
    outcome.expect(0, &[]);
    let report: serde_json::Value = serde_json::from_str(&fs::read_to_string(report).unwrap()).unwrap();
    assert_eq!((&report["scale"], &report["failed"]), (&"tiny".into(), &0.into()));
    let checks: Vec<&str> = report["checks"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    for check in ["devices", "runtime", "generate", "capture", "sanitizer", "kernels", "cublaslt", "baseline", "bench"]
    {
        assert!(checks.contains(&check), "{check} is among {checks:?}");
    }
}

#[test]
fn devices_are_listed() {
    let driver = CUDA.installed();
    driver
        .check(&["all", "devices"], &[("CUDA_EMULATOR_DEVICES", "2")])
        .expect(0, &["cuda:0: Emulated", "cuda:1: Emulated"]);
    driver.check(&["cuda:2", "generate"], &[("CUDA_EMULATOR_DEVICES", "2")]).expect(4, &["cuda:2", "2 devices"]);
}

#[test]
fn without_a_driver_the_reason_is_told() {
    if CUDA.is_shadowed() {
        not_run("without a driver the reason is told", "a driver is where this machine's loader finds it");
        return;
    }
    let driver = Machine::bare();
    driver
        .check(&["all", "devices"], &[])
        .expect(0, &["cuda:0: not available", "libcuda.so.1 cannot be loaded", "cpu: "]);
    driver.check(&["cuda", "generate"], &[]).expect(4, &["libcuda.so.1 cannot be loaded", "\"is_fatal\":false"]);
}

#[test]
fn without_a_device_the_reason_is_told() {
    let none = [("CUDA_EMULATOR_DEVICES", "0")];
    let driver = CUDA.installed();
    driver.check(&["all", "devices"], &none).expect(0, &["cuda:0: not available", "sees no device", "cpu: "]);
    driver.check(&["cuda", "generate"], &none).expect(4, &["sees no device"]);
}

#[test]
fn an_old_driver_is_refused_with_both_versions() {
    let old = [("CUDA_EMULATOR_DRIVER", "11080")];
    CUDA.installed()
        .check(&["all", "devices"], &old)
        .expect(0, &["cuda:0: not available", "CUDA 11.8", "12.0 or later"]);
}

#[test]
fn a_driver_without_a_function_is_refused_by_its_name() {
    for function in ["cuGraphLaunch", "cuInit"] {
        let outcome = CUDA.without(&[function]).check(&["all", "devices"], &[]);
        outcome.expect(0, &["cuda:0: not available", &format!("has no function {function}"), "cpu: "]);
    }
}

#[test]
fn exhausted_memory_is_a_typed_error_wherever_it_happens() {
    CUDA.exhausts_memory();
}

#[test]
fn a_failed_launch_loses_the_device() {
    CUDA.fails_launches(&[1, 100]);
}

#[test]
fn a_lost_device_is_a_typed_error_wherever_it_happens() {
    CUDA.loses_the_device(&[1, 3, 10, 50, 300, 1500, 3000]);
}

#[test]
fn the_emulator_is_the_driver_that_was_loaded() {
    assert!(CUDA.path().is_file());
    let outcome = CUDA.check(&["all", "devices"], ("PROFILE", "sm_75"));
    outcome.expect(0, &["cuda-emulator: CUDA_EMULATOR_PROFILE=sm_75", "cuda:0: not available"]);
}

#[test]
fn two_devices_run_models_together() {
    CUDA.runs_models_on_two_devices(("PROFILE", "sm_90"));
}

#[test]
fn two_devices_replay_recorded_steps_together() {
    CUDA.captures_on_two_devices("sm_90");
}

#[test]
fn a_device_that_fails_does_not_leave_the_other_waiting() {
    CUDA.ends_when_a_device_of_two_fails(&[
        ("launch:100", "device lost"),
        ("launch:600", "device lost"),
        ("launch:1100", "device lost"),
        ("collective:30", "ncclAllReduce answered 2"),
        ("sum:20", "a sum that was queued before answered 6"),
        ("sum:60", "a sum that was queued before answered 6"),
    ]);
}

#[test]
fn why_there_is_no_group_is_told() {
    CUDA.tells_why_there_is_no_group("NCCL");
}
