//! The CUDA backend over the emulated driver, and without any: ops, whole runs, faults, and why a device cannot be used.
//!
//! Each check runs in a process of its own (`device-check`): the driver is one per process.
#![cfg(all(feature = "cuda", target_os = "linux"))]
#![allow(clippy::print_stdout, reason = "the report of a test run")]
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, str};

use tempfile::TempDir;

/// A folder with the emulated driver in it, or with none.
struct Driver(TempDir);

/// What a check said and how it ended.
struct Outcome {
    status: Option<i32>,
    text: String,
}

impl Driver {
    fn emulated() -> Self {
        let driver = Self::absent();
        std::os::unix::fs::symlink(emulator(), driver.0.path().join("libcuda.so.1")).unwrap();
        driver
    }

    fn absent() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// The emulated driver without one of its functions.
    fn without(function: &str) -> Self {
        let mut library = fs::read(emulator()).unwrap();
        let name = format!("\0{function}\0").into_bytes();
        let places: Vec<usize> =
            library.windows(name.len()).enumerate().filter(|(_, bytes)| *bytes == name).map(|(at, _)| at).collect();
        assert!(!places.is_empty(), "{function} is a symbol of the emulator");
        for at in places {
            library[at + 1] = b'x';
        }
        let driver = Self::absent();
        fs::write(driver.0.path().join("libcuda.so.1"), library).unwrap();
        driver
    }

    fn check(&self, words: &[&str], variables: &[(&str, &str)]) -> Outcome {
        let output = Command::new(env!("CARGO_BIN_EXE_device-check"))
            .args(words)
            .env("LD_LIBRARY_PATH", self.0.path())
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        Outcome { status: output.status.code(), text }
    }
}

impl Outcome {
    fn expect(&self, status: i32, words: &[&str]) {
        let as_expected = self.status == Some(status) && words.iter().all(|word| self.text.contains(word));
        assert!(as_expected, "status {status} and {words:?} expected, got {:?} and:\n{}", self.status, self.text);
    }
}

/// The emulated driver, which cargo builds because this package depends on it.
fn emulator() -> PathBuf {
    let binary = std::env::current_exe().unwrap();
    let folder = binary.parent().unwrap();
    let places = [folder.join("libcuda_emulator.so"), folder.join("../libcuda_emulator.so")];
    places.into_iter().find(|place| place.is_file()).expect("cargo builds the emulator beside this binary")
}

fn conforms(profile: &str) {
    let outcome = Driver::emulated().check(&["cuda", "ops"], &[("CUDA_EMULATOR_PROFILE", profile)]);
    println!("{}", outcome.text);
    outcome.expect(0, &[profile, "quantised linear inputs", "weight-only linears", "0 failed"]);
}

#[test]
fn ops_on_sm_80() {
    conforms("sm_80");
}

#[test]
fn ops_on_sm_89() {
    conforms("sm_89");
}

#[test]
fn ops_on_sm_90() {
    conforms("sm_90");
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
            Driver::emulated().check(&["cuda", "ops", case], &variables)
        };
        without("sm_90").expect(1, &[&format!("injected: kernel {kernel}"), "device lost"]);
        without("sm_89").expect(0, &["0 failed"]);
    }
    let few_rows = ["cuda", "ops", "linear/fp8/576x136/rows 17"];
    Driver::emulated().check(&few_rows, &[("CUDA_EMULATOR_FAULT", "kernel:linear_fp8_wgmma")]).expect(0, &["0 failed"]);
}

#[test]
fn the_runtime_keeps_its_promises() {
    for profile in ["sm_80", "sm_89", "sm_90"] {
        let outcome = Driver::emulated().check(&["cuda", "runtime"], &[("CUDA_EMULATOR_PROFILE", profile)]);
        outcome.expect(0, &["copies", "recordings", "refusals", "exhaustion"]);
    }
}

#[test]
fn the_engine_generates_on_either_of_two_devices() {
    for device in ["cuda", "cuda:1"] {
        let outcome = Driver::emulated().check(&[device, "generate"], &[("CUDA_EMULATOR_DEVICES", "2")]);
        outcome.expect(
            0,
            &[
                &format!("\"device\":\"cuda:{}\"", &device[4..].trim_start_matches(':').parse().unwrap_or(0)),
                "\"text\":\"",
            ],
        );
    }
}

#[test]
fn the_tiny_model_agrees_with_the_goldens() {
    let outcome = Driver::emulated().check(&["cuda", "goldens"], &[]);
    println!("{}", outcome.text);
    outcome.expect(0, &["bf16w_bf16", "fp8w_w8a8_absorb"]);
}

/// Replayed steps against launched ones, and what a steady step asks of the driver.
#[test]
fn captured_steps_are_launched_steps() {
    let outcome = Driver::emulated().check(&["cuda", "capture"], &[]);
    println!("{}", outcome.text);
    outcome.expect(0, &["\"steady_step\":{\"launches\":0,", "\"replays\":1}", "\"host_allocations\":0"]);
}

/// The step after the prompt runs, the next is recorded, the others are replayed: faults in each of them.
#[test]
fn faults_while_recording_and_replaying_are_typed_and_leak_nothing() {
    let driver = Driver::emulated();
    let fault = |fault: String| driver.check(&["cuda", "generate"], &[("CUDA_EMULATOR_FAULT", &fault)]);
    let expect_lost = |outcome: &Outcome, reason: &str, at: u32| {
        outcome.expect(3, &["device lost", reason, "\"is_fatal\":true"]);
        let text = &outcome.text;
        assert!(!text.contains("leaked") && !text.contains("panicked"), "{at}: {text}");
    };
    // Of the prompt, of the first step, of replays: each has more than a hundred launches.
    for launch in [120, 250, 400, 550, 700] {
        expect_lost(&fault(format!("launch:{launch}")), "CUDA_ERROR_LAUNCH_FAILED", launch);
    }
    // The last call whose loss ends the generation: after it, only memory is given back.
    let (mut lost, mut unnoticed) = (1_u32, 50_000);
    while unnoticed - lost > 1 {
        let middle = lost.midpoint(unnoticed);
        match fault(format!("lost:{middle}")).status {
            Some(0) => unnoticed = middle,
            _ => lost = middle,
        }
    }
    // Replayed steps are a dozen calls each. The step before them was recorded, launch by launch.
    for before in (0..72).step_by(9).chain((90..330).step_by(40)) {
        let call = lost - before;
        expect_lost(&fault(format!("lost:{call}")), "CUDA_ERROR_UNKNOWN", call);
    }
}

/// The script for machines with a GPU, from end to end at sizes for an emulated one.
#[test]
fn the_script_for_a_machine_with_a_gpu_runs() {
    let driver = Driver::emulated();
    let folder = TempDir::new().unwrap();
    let report = folder.path().join("report.json");
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tools/device-check.sh"))
        .args(["--tiny", "--dir"])
        .arg(folder.path())
        .arg("--report")
        .arg(&report)
        .env("DEVICE_CHECK", env!("CARGO_BIN_EXE_device-check"))
        .env("LD_LIBRARY_PATH", driver.0.path())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    println!("{text}");
    assert!(output.status.success(), "{text}");
    let report: serde_json::Value = serde_json::from_str(&fs::read_to_string(report).unwrap()).unwrap();
    assert_eq!((&report["scale"], &report["failed"]), (&"tiny".into(), &0.into()));
    let checks: Vec<&str> = report["checks"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    for check in ["devices", "runtime", "generate", "capture", "sanitizer", "kernels", "baseline", "bench"] {
        assert!(checks.contains(&check), "{check} is among {checks:?}");
    }
}

#[test]
fn devices_are_listed() {
    let driver = Driver::emulated();
    driver
        .check(&["all", "devices"], &[("CUDA_EMULATOR_DEVICES", "2")])
        .expect(0, &["cuda:0: Emulated", "cuda:1: Emulated"]);
    driver.check(&["cuda:2", "generate"], &[("CUDA_EMULATOR_DEVICES", "2")]).expect(4, &["cuda:2", "2 devices"]);
}

/// A machine with a real driver cannot play one without: its loader looks in more places than ours.
fn machine_has_driver() -> bool {
    Command::new("ldconfig").arg("-p").output().is_ok_and(|output| {
        let list = String::from_utf8_lossy(&output.stdout).into_owned();
        list.contains("libcuda.so")
    })
}

#[test]
fn without_a_driver_the_reason_is_told() {
    if machine_has_driver() {
        println!("NOT RUN, a driver is there: this machine has libcuda.so where its loader finds it");
        return;
    }
    let driver = Driver::absent();
    driver
        .check(&["all", "devices"], &[])
        .expect(0, &["cuda:0: not available", "libcuda.so.1 cannot be loaded", "cpu: "]);
    driver.check(&["cuda", "generate"], &[]).expect(4, &["libcuda.so.1 cannot be loaded", "\"is_fatal\":false"]);
}

#[test]
fn without_a_device_the_reason_is_told() {
    let none = [("CUDA_EMULATOR_DEVICES", "0")];
    let driver = Driver::emulated();
    driver.check(&["all", "devices"], &none).expect(0, &["cuda:0: not available", "sees no device", "cpu: "]);
    driver.check(&["cuda", "generate"], &none).expect(4, &["sees no device"]);
}

#[test]
fn an_old_driver_is_refused_with_both_versions() {
    let old = [("CUDA_EMULATOR_DRIVER", "11080")];
    Driver::emulated()
        .check(&["all", "devices"], &old)
        .expect(0, &["cuda:0: not available", "CUDA 11.8", "12.0 or later"]);
}

#[test]
fn a_driver_without_a_function_is_refused_by_its_name() {
    for function in ["cuGraphLaunch", "cuInit"] {
        let outcome = Driver::without(function).check(&["all", "devices"], &[]);
        outcome.expect(0, &["cuda:0: not available", &format!("has no function {function}"), "cpu: "]);
    }
}

/// Allocations of weights, of the cache, of a step: whichever fails, the error says so and is not fatal.
#[test]
fn exhausted_memory_is_a_typed_error_wherever_it_happens() {
    for nth in ["1", "2", "20", "60"] {
        let fault = format!("alloc:{nth}");
        let outcome = Driver::emulated().check(&["cuda", "generate"], &[("CUDA_EMULATOR_FAULT", &fault)]);
        if nth == "1" {
            // The first one belongs to opening.
            outcome.expect(outcome.status.filter(|status| [3, 4].contains(status)).unwrap_or(3), &["out of memory"]);
        } else {
            outcome.expect(3, &["out of memory asking for", "\"is_fatal\":false"]);
        }
    }
}

#[test]
fn a_small_device_is_refused_while_loading() {
    let outcome = Driver::emulated().check(&["cuda", "generate"], &[("CUDA_EMULATOR_MEMORY", "3000000")]);
    outcome.expect(3, &["\"is_fatal\":false"]);
}

#[test]
fn a_failed_launch_loses_the_device() {
    for nth in ["launch:1", "launch:100"] {
        let outcome = Driver::emulated().check(&["cuda", "generate"], &[("CUDA_EMULATOR_FAULT", nth)]);
        outcome.expect(3, &["device lost", "CUDA_ERROR_LAUNCH_FAILED", "\"is_fatal\":true"]);
    }
}

/// From the first calls to the last: whatever is under way, the error is typed and nothing panics.
#[test]
fn a_lost_device_is_a_typed_error_wherever_it_happens() {
    for call in [1_u32, 3, 10, 50, 300, 1500, 3000] {
        let fault = format!("lost:{call}");
        let outcome = Driver::emulated().check(&["cuda", "generate"], &[("CUDA_EMULATOR_FAULT", &fault)]);
        assert!(!outcome.text.contains("panicked"), "{call}: {}", outcome.text);
        match outcome.status {
            // Lost while it was being opened.
            Some(4) => outcome.expect(4, &["CUDA_ERROR_UNKNOWN", "cuda:0"]),
            _ => outcome.expect(3, &["device lost", "CUDA_ERROR_UNKNOWN", "\"is_fatal\":true"]),
        }
    }
}

#[test]
fn the_emulator_is_the_driver_that_was_loaded() {
    assert!(Path::new(&emulator()).is_file());
    let outcome = Driver::emulated().check(&["all", "devices"], &[("CUDA_EMULATOR_PROFILE", "sm_75")]);
    outcome.expect(0, &["cuda-emulator: CUDA_EMULATOR_PROFILE=sm_75", "cuda:0: not available"]);
}
