//! The Ascend backend over emulated libraries of CANN, and without any: ops, whole runs, faults, and why a device cannot be
//! used.
//!
//! Each check runs in a process of its own (`device-check`): the libraries are one per process.
#![cfg(all(feature = "ascend", target_os = "linux"))]
#![allow(clippy::print_stdout, reason = "the report of a test run")]
#![allow(clippy::unwrap_used)]

mod emulated;
#[path = "emulated/groups.rs"]
mod groups;

use conformance::harness::not_run;
use emulated::{Emulator, Machine};

/// The names under which CANN's libraries are looked up.
const CANN: Emulator = Emulator {
    file: "libascend_emulator.so",
    libraries: &["libascendcl.so", "libnnopbase.so", "libopapi.so", "libhccl.so"],
    device: "ascend",
    prefix: "ASCEND_EMULATOR",
    failed_launch: "507015",
    lost_device: "is lost from call",
};
/// Operators that CANN 8.1 does not have.
const CANN81_LACKS: &str = include_str!("../emulators/ascend/cann81-lacks.txt");

/// Operators of attention and norms that do what several others do, the one that does most first.
const FUSED: [&str; 4] =
    ["aclnnMlaPrologV3WeightNz", "aclnnKvRmsNormRopeCache", "aclnnAddRmsNorm", "aclnnFusedInferAttentionScoreV4"];

#[test]
fn ops_on_a2_and_a3() {
    for (product, chip) in [("a2", "Ascend910B1"), ("a3", "Ascend910_9391")] {
        let outcome = CANN.check(&["ascend", "ops"], ("PRODUCT", product));
        println!("{}", outcome.text);
        outcome.expect(0, &[chip, "quantised", "0 failed"]);
    }
}

#[test]
fn the_tiny_model_agrees_with_the_goldens() {
    let outcome = CANN.check(&["ascend", "goldens"], ("PRODUCT", "a3"));
    println!("{}", outcome.text);
    outcome.expect(0, &["bf16w_bf16", "fp8 to bf16", "bf16 to int8"]);
}

#[test]
fn operators_of_a_layer_are_counted() {
    for (machine, counts) in [
        (
            CANN.installed(),
            [
                "bf16, hidden 1024: 11 operators in a dense layer, 19",
                "int8, hidden 1024: 15 operators in a dense layer, 22",
            ],
        ),
        (CANN.without(&FUSED[..1]), ["bf16, hidden 1024: 21 operators in a dense layer, 29", "bf16, hidden 128: 21"]),
        (CANN.without(&FUSED[..3]), ["bf16, hidden 1024: 26 operators in a dense layer, 34", "bf16, hidden 128: 26"]),
        (CANN.without(&FUSED), ["bf16, hidden 1024: 43 operators in a dense layer, 51", "bf16, hidden 128: 43"]),
    ] {
        let outcome = machine.check(&["ascend", "operators"], &[]);
        println!("{}", outcome.text);
        outcome.expect(0, &counts);
    }
}

/// Sizes that every fused operator takes.
#[test]
fn every_op_of_a_random_model_agrees_with_the_reference() {
    for (absent, product) in [(&FUSED[..0], "a2"), (&FUSED[..0], "a3"), (&FUSED[..3], "a2")] {
        let machine = CANN.without(absent);
        let outcome = machine.check(&["ascend", "random-model"], &[("ASCEND_EMULATOR_PRODUCT", product)]);
        println!("{}", outcome.text);
        outcome.expect(0, &["\"over_tolerance\":0"]);
    }
}

/// Attention with ever fewer fused operators: each is a substitute for the one that does more.
#[test]
fn attention_keeps_its_results_with_fewer_operators() {
    for (absent, product) in [(&FUSED[..1], "a2"), (&FUSED[..3], "a3"), (&FUSED, "a2")] {
        let outcome = CANN.without(absent).check(&["ascend", "ops", "mla/"], &[("ASCEND_EMULATOR_PRODUCT", product)]);
        outcome.expect(0, &["0 failed"]);
    }
}

/// Steps that are recorded and replayed: the same bits, and none without its updates.
#[test]
fn captured_steps_agree_with_launched_ones() {
    let outcome = CANN.check(&["ascend", "capture"], ("PRODUCT", "a2"));
    println!("{}", outcome.text);
    outcome.expect(0, &["\"precision\":\"bf16\"", "\"precision\":\"int8\"", "wide bf16", "\"replays_of_launched\":0"]);
    // A replay that is cut short is noticed.
    CANN.check(&["ascend", "capture"], ("FAULT", "replay:3")).expect(1, &["stage"]);
    // Without the functions, steps are launched.
    let machine = CANN.without(&["aclmdlRICaptureBegin"]);
    machine.check(&["ascend", "generate"], &[]).expect(0, &["\"text\":\""]);
    machine.check(&["ascend", "capture"], &[]).expect(1, &["\"replays\":0", "\"different\":[]"]);
}

/// Each run's figures are the backend's own; over all of them the emulator has seen as many.
#[test]
fn steady_decoding_allocates_nothing_and_replays_its_steps() {
    let outcome = CANN.check(&["ascend", "steady"], ("RECORD", "yes"));
    println!("{}", outcome.text);
    outcome.expect(0, &["\"allocations_per_step\":0", "\"precision\":\"bf16\"", "\"precision\":\"int8\""]);
    let report = outcome.text.lines().find(|line| line.starts_with('{')).unwrap();
    let report: serde_json::Value = serde_json::from_str(report).unwrap();
    let sum = |key: &str| report["runs"].as_array().unwrap().iter().map(|run| run[key].as_u64().unwrap()).sum::<u64>();
    let [allocations, plans, operators] = ["allocations", "plans", "operators"].map(sum);
    let record = format!("record: {allocations} allocations, {plans} executors, {operators} operators");
    outcome.expect(0, &[&record]);
}

#[test]
fn the_engine_generates_on_either_of_two_devices() {
    for (device, name) in [("ascend", "ascend:0"), ("ascend:1", "ascend:1")] {
        let outcome = CANN.check(&[device, "generate"], ("DEVICES", "2"));
        outcome.expect(0, &[&format!("\"device\":\"{name}\""), "\"text\":\""]);
    }
}

#[test]
fn without_cann_the_libraries_tried_are_named() {
    if CANN.is_shadowed() {
        not_run("without CANN the libraries tried are named", "CANN is where this machine's loader finds it");
        return;
    }
    let outcome = Machine::bare().check(&["all", "devices"], &[]);
    outcome.expect(0, &["ascend:0: not available", "libacl_rt.so or libascendcl.so", "cpu: "]);
    Machine::bare().check(&["ascend", "generate"], &[]).expect(4, &["set_env.sh", "\"is_fatal\":false"]);
}

#[test]
fn why_a_device_cannot_be_used() {
    for (variable, words) in [(("DEVICES", "0"), "sees no device"), (("PRODUCT", "310p"), "Ascend310P3")] {
        let outcome = CANN.check(&["all", "devices"], variable);
        outcome.expect(0, &["ascend:0: not available", words, "cpu: "]);
    }
    CANN.installed().check(&["ascend:1", "generate"], &[]).expect(4, &["ascend:1", "1 device,"]);
}

#[test]
fn an_old_cann_is_refused_with_the_operators_it_lacks() {
    let lacks: Vec<&str> = CANN81_LACKS.lines().collect();
    let outcome = CANN.without(&lacks).check(&["all", "devices"], &[]);
    outcome.expect(0, &["ascend:0: not available", "aclnnRotaryPositionEmbedding", "aclnnMoeInitRoutingV3", "cpu: "]);
    let outcome = CANN.without(&["aclrtFree"]).check(&["all", "devices"], &[]);
    outcome.expect(0, &["ascend:0: not available", "aclrtFree"]);
}

/// Operators with a substitute, and those that only INT8 needs.
#[test]
fn some_operators_can_be_missing() {
    let libraries = CANN.without(&["aclnnFusedInferAttentionScoreV4"]);
    libraries.check(&["ascend", "ops", "mla/bf16/batch"], &[]).expect(0, &["0 failed", "no fused attention"]);
    let libraries = CANN.without(&["aclnnGroupedMatmulSwigluQuantWeightNZ", "aclnnQuantMatmulWeightNz"]);
    libraries.check(&["ascend", "ops", "moe_experts/int8"], &[]).expect(0, &["width 64", "0 failed"]);
    libraries.check(&["ascend", "ops", "linear/int8"], &[]).expect(0, &["0 failed"]);
    let outcome = libraries.check(&["ascend", "operators"], &[]);
    outcome.expect(0, &["int8, hidden 128: 26 operators in a dense layer, 35 in one with experts"]);
    let libraries = CANN.without(&["aclnnQuantMatmulV5"]);
    libraries.check(&["ascend", "generate"], &[]).expect(0, &["\"text\":\""]);
    libraries.check(&["ascend", "ops", "linear/int8"], &[]).expect(1, &["this CANN lacks its operators"]);
}

#[test]
fn exhausted_memory_is_a_typed_error_wherever_it_happens() {
    CANN.exhausts_memory();
}

#[test]
fn a_failed_operator_loses_the_device() {
    CANN.fails_launches(&[1, 100]);
}

#[test]
fn a_lost_device_is_a_typed_error_wherever_it_happens() {
    CANN.loses_the_device(&[1, 3, 10, 50, 300, 1500, 3000, 5000]);
}

#[test]
fn two_devices_run_models_together() {
    CANN.runs_models_on_two_devices(("PRODUCT", "a2"));
}

/// `launch:N` takes away the device whose operator that is; the other one waits for it, or comes to wait.
#[test]
fn a_device_that_fails_does_not_leave_the_other_waiting() {
    CANN.ends_when_a_device_of_two_fails(&[
        ("launch:100", "device lost"),
        ("launch:600", "device lost"),
        ("launch:1100", "device lost"),
        ("collective:30", "HcclAllReduce answered 4: internal error"),
        ("sum:20", "a sum that was queued before answered 21: error cqe"),
        ("sum:60", "a sum that was queued before answered 21: error cqe"),
    ]);
}

#[test]
fn why_there_is_no_group_is_told() {
    let generate = ["ascend", "generate", "2"];
    let expect = |machine: &Machine, variable, words: &[&str]| {
        CANN.check_pair(machine, &generate, variable).expect(4, words);
    };
    let bare = CANN.installed();
    std::fs::remove_file(bare.folder().join("libhccl.so")).unwrap();
    expect(&bare, ("PRODUCT", "a2"), &["ascend:0,1", "no HCCL: libhccl.so cannot be loaded", "set_env.sh"]);
    for function in ["HcclAllReduce", "aclrtStreamAbort"] {
        expect(&CANN.without(&[function]), ("PRODUCT", "a2"), &["this CANN lacks", function, "9.0"]);
    }
    let installed = CANN.installed();
    expect(
        &installed,
        ("FAULT", "group:1"),
        &["makes no communicators: HcclCommInitAll answered 4", "injected: group 1"],
    );
    // Those that are tried when the group is made: a sum on each of two devices, small and large.
    expect(&installed, ("FAULT", "collective:2"), &["does not sum 64 values", "HcclAllReduce answered 4"]);
    expect(&installed, ("FAULT", "sum:2"), &["does not sum 1048576 values", "answered 21: error cqe"]);
    installed.check(&generate, &[]).expect(4, &["1 device"]);
    // Alone, a device needs no library.
    bare.check(&["ascend", "generate"], &[]).expect(0, &["\"text\":\""]);
    CANN.without(&["aclrtStreamAbort"]).check(&["ascend", "generate"], &[]).expect(0, &["\"text\":\""]);
}
