//! Every barrier of the GPU kernels is needed, and the host ring would notice if it were missing: each is left out in turn,
//! in a process of its own, and some case must fail in some order of threads.
#![allow(clippy::print_stdout, reason = "the table of a test run")]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use conformance::harness::{Profile, run_selected};
use engine_core::quant::QuantisedInputs;
use engine_core::reference::{ActivationRounding, Numerics};
use gpu_common::{GpuBackend, GpuOptions};
use gpu_host::{Barrier, HostOptions, HostRuntime, barriers, skip_barrier};

/// Cases that reach every kernel with a barrier, by the start of their names.
const CASES: [&str; 11] = [
    "rms_norm/eps 1e-6/64x257",
    "add_rms_norm/eps 1e-5/17x48",
    "linear/int8/160x256/rows 64",
    "ffn/fp8/hidden 160 width 320/rows 33",
    "argmax",
    "top_logits/20 of distinct/4001",
    "mla/bf16/long/q_lora, 4 heads",
    "mla/fp8-cache/bf16/long/q_lora, 4 heads",
    PROMPTS,
    "moe_gate/bf16/sigmoid, 4 of 8 groups/8 of 64, bias, normalised/rows 33",
    "moe_experts/bf16/shared 1/2 of 8, random/rows 33",
];

/// The case of which all prompts attend to keys and values of every head.
const PROMPTS: &str = "mla/bf16/mixed/q_lora, 4 heads";
const MIN_EXPANDED_QUERIES: u32 = 10;

const ORDERS: [u32; 4] = [0, 1, 2, 3];
/// Waves of 32 and of 64.
const PROFILES: [gpu_host::Profile; 2] = [gpu_host::Profile::Nvidia, gpu_host::Profile::Cdna];

/// Says to the test binary that it is a child and what it is to run: file, line, case, order, name of the profile, by lines.
const TASK: &str = "GPU_HOST_BARRIER_TASK";

/// Failed cases of `prefix`.
fn num_failures(prefix: &str, order: u32, profile: gpu_host::Profile) -> usize {
    let options = GpuOptions {
        quantised_inputs: QuantisedInputs::ALL,
        waves_per_block: 2,
        min_expanded_queries: (prefix == PROMPTS).then_some(MIN_EXPANDED_QUERIES),
        ..GpuOptions::default()
    };
    let runtime = HostRuntime::new(HostOptions { profile, order, ..HostOptions::default() });
    let backend = GpuBackend::new(runtime, options).unwrap();
    let numerics =
        Numerics { activations: ActivationRounding::Bf16, linears: QuantisedInputs::ALL, ..Numerics::default() };
    let report = run_selected(&backend, &Profile::new("barriers", numerics), prefix);
    assert!(!report.rows().is_empty(), "no case is called {prefix}");
    report.failures().count()
}

/// What a child does; alone it does nothing.
#[test]
fn without_one_barrier() {
    let Ok(task) = std::env::var(TASK) else { return };
    let [file, line, case, order, profile] = *task.lines().collect::<Vec<_>>() else { panic!("task {task:?}") };
    skip_barrier(&Barrier { file: file.into(), line: line.parse().unwrap() }).unwrap();
    assert_eq!(
        num_failures(case, order.parse().unwrap(), PROFILES.into_iter().find(|found| found.name() == profile).unwrap()),
        0
    );
}

/// True where a child passes. One that dies of a wild address does not.
fn passes_without(barrier: &Barrier, case: &str, order: u32, profile: gpu_host::Profile) -> bool {
    let task = format!("{}\n{}\n{case}\n{order}\n{}", barrier.file, barrier.line, profile.name());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "without_one_barrier"])
        .env(TASK, task)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    child.unwrap().success()
}

/// Every barrier, with the cases that come to it.
fn reached() -> BTreeMap<Barrier, Vec<&'static str>> {
    let mut reached: BTreeMap<Barrier, Vec<&'static str>> = BTreeMap::new();
    for (case, profile) in CASES.into_iter().flat_map(|case| PROFILES.map(|profile| (case, profile))) {
        // What a thread has seen stays seen, so each case has its own.
        let run = move || {
            assert_eq!(num_failures(case, 0, profile), 0, "{case} as it is");
            barriers()
        };
        for barrier in std::thread::spawn(run).join().unwrap() {
            let cases = reached.entry(barrier).or_default();
            if cases.last() != Some(&case) {
                cases.push(case);
            }
        }
    }
    reached
}

#[test]
fn no_barrier_can_be_left_out() {
    let none = Barrier { file: "none".into(), line: 0 };
    assert!(passes_without(&none, CASES[0], 0, PROFILES[0]), "a child passes where nothing is left out");
    let reached = reached();
    let mut unnoticed = Vec::new();
    for (barrier, cases) in &reached {
        let runs = cases.iter().flat_map(|case| ORDERS.map(|order| (*case, order)));
        let mut runs = runs.flat_map(|(case, order)| PROFILES.map(|profile| (case, order, profile)));
        match runs.find(|(case, order, profile)| !passes_without(barrier, case, *order, *profile)) {
            Some((case, order, profile)) => println!("{barrier}: order {order}, {}: {case}", profile.name()),
            None => unnoticed.push(barrier.to_string()),
        }
    }
    println!("{} barriers, {} unnoticed", reached.len(), unnoticed.len());
    assert!(unnoticed.is_empty() && reached.len() > 14, "left out without a failure: {unnoticed:?}");
}
