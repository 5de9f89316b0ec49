//! The GPU backend's ops on the host: every kernel as fibers, as devices of each profile run it, with and without quantised
//! activations.
#![allow(clippy::print_stdout, reason = "the report of a test run")]
#![allow(clippy::unwrap_used)]

use conformance::harness::{Profile as Tolerances, run_selected};
use engine_core::backend::Backend as _;
use engine_core::quant::QuantisedInputs;
use engine_core::reference::{ActivationRounding, Numerics};
use gpu_common::{GpuBackend, GpuOptions};
use gpu_host::{HostOptions, HostRuntime, Profile};

/// Two waves a block: barriers matter, and fibers stay few.
const WAVES_PER_BLOCK: u32 = 2;

/// Shared memory of a block of AMD's.
const AMD_SHARED_BYTES: u32 = 64 << 10;
/// Everything, and what matrix units compute.
const ALL_CASES: [&str; 1] = [""];
const MATRIX_CASES: [&str; 4] = ["linear", "ffn", "mla", "moe_experts"];

fn conforms(options: HostOptions, linears: QuantisedInputs, prefixes: &[&str]) {
    let gpu_options =
        GpuOptions { quantised_inputs: linears, waves_per_block: WAVES_PER_BLOCK, ..GpuOptions::default() };
    let backend = GpuBackend::new(HostRuntime::new(options), gpu_options).unwrap();
    assert_eq!(backend.capabilities().quantised_inputs, linears);
    let numerics = Numerics { activations: ActivationRounding::Bf16, linears, ..Numerics::default() };
    let name = format!("gpu-host, {}, order {}, {numerics}", options.profile.name(), options.order);
    for prefix in prefixes {
        let report = run_selected(&backend, &Tolerances::new(name.clone(), numerics), prefix);
        assert!(!report.rows().is_empty(), "no case is called {prefix}");
        println!("{report}");
        report.assert_passed();
    }
}

#[test]
fn nvidia_weight_only() {
    let options = HostOptions { profile: Profile::Nvidia, order: 0, ..HostOptions::default() };
    conforms(options, QuantisedInputs::NONE, &ALL_CASES);
}

#[test]
fn nvidia_quantised_activations() {
    let options = HostOptions { profile: Profile::Nvidia, order: 1, ..HostOptions::default() };
    conforms(options, QuantisedInputs::ALL, &ALL_CASES);
}

#[test]
fn cdna_weight_only() {
    let options = HostOptions { profile: Profile::Cdna, order: 2, max_shared_bytes: AMD_SHARED_BYTES };
    conforms(options, QuantisedInputs::NONE, &ALL_CASES);
}

#[test]
fn cdna_quantised_activations() {
    let options = HostOptions { profile: Profile::Cdna, order: 3, max_shared_bytes: AMD_SHARED_BYTES };
    conforms(options, QuantisedInputs::ALL, &ALL_CASES);
}

/// Weights are encoded anew, activations are quantised to another kind of FP8: the results are the same.
#[test]
fn cdna_fnuz_quantised_activations() {
    let options = HostOptions { profile: Profile::CdnaFnuz, order: 0, max_shared_bytes: AMD_SHARED_BYTES };
    conforms(options, QuantisedInputs::ALL, &ALL_CASES);
}

#[test]
fn rdna3() {
    let options = HostOptions { profile: Profile::Rdna3, order: 1, max_shared_bytes: AMD_SHARED_BYTES };
    conforms(options, QuantisedInputs { fp8: false, int8: true }, &MATRIX_CASES);
}

#[test]
fn rdna4() {
    let options = HostOptions { profile: Profile::Rdna4, order: 2, max_shared_bytes: AMD_SHARED_BYTES };
    conforms(options, QuantisedInputs::ALL, &MATRIX_CASES);
}
