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
    conforms_with(options, GpuOptions { quantised_inputs: linears, ..GpuOptions::default() }, prefixes);
}

fn conforms_with(options: HostOptions, gpu_options: GpuOptions, prefixes: &[&str]) {
    let linears = gpu_options.quantised_inputs;
    let gpu_options = GpuOptions { waves_per_block: WAVES_PER_BLOCK, ..gpu_options };
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

/// Prompts attend to keys and values of every head, from so many queries on, in so much memory.
fn prompts(profile: Profile, order: u32, min_queries: u32, expanded_bytes: u64, prefixes: &[&str]) {
    let max_shared_bytes = match profile {
        Profile::Nvidia => HostOptions::default().max_shared_bytes,
        Profile::Cdna | Profile::CdnaFnuz | Profile::Rdna3 | Profile::Rdna4 => AMD_SHARED_BYTES,
    };
    let gpu_options = GpuOptions {
        quantised_inputs: QuantisedInputs::NONE,
        min_expanded_queries: Some(min_queries),
        expanded_bytes,
        ..GpuOptions::default()
    };
    conforms_with(HostOptions { profile, order, max_shared_bytes }, gpu_options, prefixes);
}

/// All that is not decoding, of all widths.
#[test]
fn nvidia_prompts() {
    prompts(Profile::Nvidia, 0, 2, 256 << 20, &["mla/bf16", "mla/fp8-cache/bf16"]);
}

/// Memory for a head or two of narrow ones, latents in chunks of a tile or two, some sequences absorbed.
#[test]
fn nvidia_prompts_in_little_memory() {
    prompts(Profile::Nvidia, 1, 10, 24 << 10, &["mla/bf16", "mla/fp8-cache/bf16"]);
}

#[test]
fn cdna_prompts() {
    prompts(Profile::Cdna, 2, 10, 256 << 20, &["mla/bf16/long", "mla/bf16/mixed", "mla/fp8-cache/bf16/mixed"]);
}

/// Of DeepSeek's widths, too.
#[test]
fn cdna_fnuz_prompts_in_little_memory() {
    prompts(Profile::CdnaFnuz, 3, 2, 400 << 10, &["mla/bf16/long", "mla/bf16/mixed", "mla/fp8-cache/bf16/mixed"]);
}

#[test]
fn rdna_prompts() {
    for (profile, order) in [(Profile::Rdna3, 0), (Profile::Rdna4, 1)] {
        prompts(profile, order, 2, 256 << 20, &["mla/bf16/verify", "mla/bf16/mixed", "mla/fp8-cache/bf16/mixed"]);
    }
}
