//! The GPU backend's ops on the host: every kernel as fibers, in waves of 32 and 64, with and without quantised
//! activations.
#![allow(clippy::print_stdout, reason = "the report of a test run")]
#![allow(clippy::unwrap_used)]

use conformance::harness::{Profile, run_all};
use engine_core::backend::Backend as _;
use engine_core::quant::QuantisedInputs;
use engine_core::reference::{ActivationRounding, Numerics};
use gpu_common::{GpuBackend, GpuOptions};
use gpu_host::{HostOptions, HostRuntime};

/// Two waves a block: barriers matter, and fibers stay few.
const WAVES_PER_BLOCK: u32 = 2;

fn conforms(options: HostOptions, linears: QuantisedInputs) {
    let gpu_options =
        GpuOptions { quantised_inputs: linears, waves_per_block: WAVES_PER_BLOCK, ..GpuOptions::default() };
    let backend = GpuBackend::new(HostRuntime::new(options), gpu_options).unwrap();
    assert_eq!(backend.capabilities().quantised_inputs, linears);
    let numerics = Numerics { activations: ActivationRounding::Bf16, linears, ..Numerics::default() };
    let name = format!("gpu-host, {}, order {}, {numerics}", options.profile.name(), options.order);
    let report = run_all(&backend, &Profile::new(name, numerics));
    println!("{report}");
    report.assert_passed();
}

#[test]
fn waves_of_32_weight_only() {
    conforms(
        HostOptions { profile: gpu_host::Profile::Nvidia, order: 0, ..HostOptions::default() },
        QuantisedInputs::NONE,
    );
}

#[test]
fn waves_of_32_quantised_activations() {
    conforms(
        HostOptions { profile: gpu_host::Profile::Nvidia, order: 1, ..HostOptions::default() },
        QuantisedInputs::ALL,
    );
}

#[test]
fn waves_of_64_weight_only() {
    // The shared memory of a block of AMD's.
    let options = HostOptions { profile: gpu_host::Profile::Cdna, order: 2, max_shared_bytes: 64 << 10 };
    conforms(options, QuantisedInputs::NONE);
}

#[test]
fn waves_of_64_quantised_activations() {
    let options = HostOptions { profile: gpu_host::Profile::Cdna, order: 3, max_shared_bytes: 64 << 10 };
    conforms(options, QuantisedInputs::ALL);
}
