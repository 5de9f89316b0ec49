//! The Ascend backend over emulated libraries of CANN, and without any: ops, whole runs, faults, and why a device cannot be
//! used.
//!
//! Each check runs in a process of its own (`device-check`): the libraries are one per process.
#![cfg(all(feature = "ascend", target_os = "linux"))]
#![allow(clippy::print_stdout, reason = "the report of a test run")]
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::{fs, str};

use conformance::harness::not_run;
use tempfile::TempDir;

/// The names under which CANN's libraries are looked up.
const LIBRARIES: [&str; 3] = ["libascendcl.so", "libnnopbase.so", "libopapi.so"];
/// Operators that CANN 8.1 does not have.
const CANN81_LACKS: &str = include_str!("../emulators/ascend/cann81-lacks.txt");

/// A folder with the emulated libraries in it, or with none.
struct Libraries(TempDir);

/// What a check said and how it ended.
struct Outcome {
    status: Option<i32>,
    text: String,
}

impl Libraries {
    fn absent() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn emulated() -> Self {
        let libraries = Self::absent();
        LIBRARIES.iter().for_each(|name| symlink(emulator(), libraries.0.path().join(name)).unwrap());
        libraries
    }

    /// The emulated libraries without some of their functions.
    fn without(functions: &[&str]) -> Self {
        let mut library = fs::read(emulator()).unwrap();
        for function in functions {
            let name = format!("\0{function}\0").into_bytes();
            let places: Vec<usize> =
                library.windows(name.len()).enumerate().filter(|(_, bytes)| *bytes == name).map(|(at, _)| at).collect();
            assert!(!places.is_empty(), "{function} is a symbol of the emulator");
            places.into_iter().for_each(|at| library[at + 1] = b'x');
        }
        let libraries = Self::absent();
        // One file under all names: one machine.
        let changed = libraries.0.path().join("emulator.so");
        fs::write(&changed, &library).unwrap();
        LIBRARIES.iter().for_each(|name| symlink(&changed, libraries.0.path().join(name)).unwrap());
        libraries
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

/// The emulator, which cargo builds because this package depends on it.
fn emulator() -> PathBuf {
    let binary = std::env::current_exe().unwrap();
    let folder = binary.parent().unwrap();
    let places = [folder.join("libascend_emulator.so"), folder.join("../libascend_emulator.so")];
    places.into_iter().find(|place| place.is_file()).expect("cargo builds the emulator beside this binary")
}

#[test]
fn ops_on_a2_and_a3() {
    for (product, chip) in [("a2", "Ascend910B1"), ("a3", "Ascend910_9391")] {
        let outcome = Libraries::emulated().check(&["ascend", "ops"], &[("ASCEND_EMULATOR_PRODUCT", product)]);
        println!("{}", outcome.text);
        outcome.expect(0, &[chip, "quantised linear inputs", "0 failed"]);
    }
}

#[test]
fn the_tiny_model_agrees_with_the_goldens() {
    let outcome = Libraries::emulated().check(&["ascend", "goldens"], &[("ASCEND_EMULATOR_PRODUCT", "a3")]);
    println!("{}", outcome.text);
    outcome.expect(0, &["bf16w_bf16", "fp8 to bf16", "bf16 to int8"]);
}

#[test]
fn operators_of_a_layer_are_counted() {
    let outcome = Libraries::emulated().check(&["ascend", "operators"], &[]);
    println!("{}", outcome.text);
    outcome.expect(0, &["bf16: 26 operators in a dense layer, 34 in one with experts", "int8: 31", "40 in one"]);
}

#[test]
fn the_engine_generates_on_either_of_two_devices() {
    for (device, name) in [("ascend", "ascend:0"), ("ascend:1", "ascend:1")] {
        let outcome = Libraries::emulated().check(&[device, "generate"], &[("ASCEND_EMULATOR_DEVICES", "2")]);
        outcome.expect(0, &[&format!("\"device\":\"{name}\""), "\"text\":\""]);
    }
}

#[test]
fn without_cann_the_libraries_tried_are_named() {
    let found = Command::new("ldconfig").arg("-p").output();
    if found.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("libascendcl.so")) {
        not_run("without CANN the libraries tried are named", "CANN is where this machine's loader finds it");
        return;
    }
    let outcome = Libraries::absent().check(&["all", "devices"], &[]);
    outcome.expect(0, &["ascend:0: not available", "libacl_rt.so or libascendcl.so", "cpu: "]);
    Libraries::absent().check(&["ascend", "generate"], &[]).expect(4, &["set_env.sh", "\"is_fatal\":false"]);
}

#[test]
fn why_a_device_cannot_be_used() {
    for (variable, words) in
        [(("ASCEND_EMULATOR_DEVICES", "0"), "sees no device"), (("ASCEND_EMULATOR_PRODUCT", "310p"), "Ascend310P3")]
    {
        let outcome = Libraries::emulated().check(&["all", "devices"], &[variable]);
        outcome.expect(0, &["ascend:0: not available", words, "cpu: "]);
    }
    Libraries::emulated().check(&["ascend:1", "generate"], &[]).expect(4, &["ascend:1", "1 device,"]);
}

#[test]
fn an_old_cann_is_refused_with_the_operators_it_lacks() {
    let lacks: Vec<&str> = CANN81_LACKS.lines().collect();
    let outcome = Libraries::without(&lacks).check(&["all", "devices"], &[]);
    outcome.expect(0, &["ascend:0: not available", "aclnnRotaryPositionEmbedding", "aclnnMoeInitRoutingV3", "cpu: "]);
    let outcome = Libraries::without(&["aclrtFree"]).check(&["all", "devices"], &[]);
    outcome.expect(0, &["ascend:0: not available", "aclrtFree"]);
}

/// Operators with a substitute, and those that only INT8 needs.
#[test]
fn some_operators_can_be_missing() {
    let libraries = Libraries::without(&["aclnnFusedInferAttentionScoreV4"]);
    libraries.check(&["ascend", "ops", "mla/bf16/batch"], &[]).expect(0, &["0 failed", "no fused attention"]);
    let libraries = Libraries::without(&["aclnnQuantMatmulV5"]);
    libraries.check(&["ascend", "generate"], &[]).expect(0, &["\"text\":\""]);
    libraries.check(&["ascend", "ops", "linear/int8"], &[]).expect(1, &["this CANN lacks its operators"]);
}

#[test]
fn exhausted_memory_is_a_typed_error_wherever_it_happens() {
    for nth in ["1", "2", "20", "60", "150"] {
        let fault = format!("alloc:{nth}");
        let outcome = Libraries::emulated().check(&["ascend", "generate"], &[("ASCEND_EMULATOR_FAULT", &fault)]);
        outcome.expect(if nth == "1" { 4 } else { 3 }, &["out of memory asking for", "\"is_fatal\":false"]);
    }
    let outcome = Libraries::emulated().check(&["ascend", "generate"], &[("ASCEND_EMULATOR_MEMORY", "3000000")]);
    outcome.expect(3, &["\"is_fatal\":false"]);
}

#[test]
fn a_failed_operator_loses_the_device() {
    for nth in ["launch:1", "launch:100"] {
        let outcome = Libraries::emulated().check(&["ascend", "generate"], &[("ASCEND_EMULATOR_FAULT", nth)]);
        outcome.expect(3, &["device lost", "507015", "injected", "\"is_fatal\":true"]);
    }
}

/// From the first calls to the last: whatever is under way, the error is typed and nothing panics.
#[test]
fn a_lost_device_is_a_typed_error_wherever_it_happens() {
    for call in [1_u32, 3, 10, 50, 300, 1500, 3000, 9000] {
        let fault = format!("lost:{call}");
        let outcome = Libraries::emulated().check(&["ascend", "generate"], &[("ASCEND_EMULATOR_FAULT", &fault)]);
        assert!(!outcome.text.contains("panicked"), "{call}: {}", outcome.text);
        match outcome.status {
            // Lost while it was being opened.
            Some(4) => outcome.expect(4, &["507010", "ascend:0"]),
            _ => outcome.expect(3, &["device lost", "is lost from call", "\"is_fatal\":true"]),
        }
    }
}
