//! The CPU backend's ops, on every instruction set of this processor and in both forms of attention.
#![cfg(feature = "cpu")]
#![allow(clippy::print_stdout, reason = "the report of a test run")]
#![allow(clippy::unwrap_used)]

use backend_cpu::{CpuBackend, CpuOptions, MlaForm, SimdLevel};
use conformance::harness::{NO_FP8_CACHE, NO_TOP_LOGITS, Profile, run_all};
use engine_core::reference::Numerics;

fn conforms(options: CpuOptions) {
    let numerics = Numerics { mla_form: options.mla_form, ..Numerics::default() };
    let name = format!("cpu, {}, {numerics}", options.simd.unwrap_or_else(SimdLevel::detect));
    let profile = Profile::new(name, numerics).with_unsupported(&[NO_FP8_CACHE, NO_TOP_LOGITS]);
    let report = run_all(&CpuBackend::new(options).unwrap(), &profile);
    println!("{report}");
    report.assert_passed();
}

#[test]
fn on_every_instruction_set() {
    for level in SimdLevel::ALL {
        if SimdLevel::available().any(|available| available == level) {
            conforms(CpuOptions { simd: Some(level), ..CpuOptions::default() });
        } else {
            println!("cpu, {level}: not run, this processor does not have it");
        }
    }
}

#[test]
fn without_absorption() {
    conforms(CpuOptions { mla_form: MlaForm::NonAbsorbed, ..CpuOptions::default() });
}
