//! The reference backend against the goldens, in every mode.

use conformance::golden::{
    Findings, GoldenMode, Goldens, argmax_agreement, check_prompts, check_trace, heldout, load_tiny,
};
use engine_core::quant::PrecisionPolicy;
use engine_core::reference::{ActivationRounding, LinearNumerics, MlaForm, Numerics, ReferenceBackend};
use engine_core::runner::Runner;

fn numerics(mode: GoldenMode) -> Numerics {
    let exact = Numerics::default();
    match mode {
        GoldenMode::Bf16WeightsF32 | GoldenMode::Fp8WeightsF32 => exact,
        GoldenMode::Bf16WeightsBf16 => Numerics { activations: ActivationRounding::Bf16, ..exact },
        GoldenMode::Fp8WeightsW8A8 => {
            Numerics { linears: LinearNumerics::QuantisedActivations, mla_form: MlaForm::NonAbsorbed, ..exact }
        }
        GoldenMode::Fp8WeightsW8A8Absorbed => {
            Numerics { linears: LinearNumerics::QuantisedActivations, ..exact }
        }
    }
}

fn load(mode: GoldenMode, numerics: Numerics) -> Runner<ReferenceBackend> {
    load_tiny(ReferenceBackend::new(numerics), &mode.model_dir(), &PrecisionPolicy::default())
        .unwrap_or_else(|e| panic!("{}: {e}", mode.name()))
}

fn passed(findings: &Findings) {
    findings.notes.iter().for_each(|note| println!("{note}"));
    assert!(findings.failures.is_empty(), "{:#?}", findings.failures);
}

#[test]
fn prompts_and_trace_in_f32() {
    let goldens = Goldens::load();
    for mode in [GoldenMode::Bf16WeightsF32, GoldenMode::Fp8WeightsF32] {
        let mut runner = load(mode, numerics(mode));
        passed(&check_prompts(&goldens, mode, &mut runner));
    }
    let mut runner = load(GoldenMode::Bf16WeightsF32, numerics(GoldenMode::Bf16WeightsF32));
    passed(&check_trace(&goldens, GoldenMode::Bf16WeightsF32, &mut runner, 1e-4));
}

#[test]
fn heldout_perplexity_in_every_mode() {
    let goldens = Goldens::load();
    for mode in [
        GoldenMode::Bf16WeightsF32,
        GoldenMode::Fp8WeightsF32,
        GoldenMode::Bf16WeightsBf16,
        GoldenMode::Fp8WeightsW8A8,
        GoldenMode::Fp8WeightsW8A8Absorbed,
    ] {
        let mut runner = load(mode, numerics(mode));
        for case in [("heldout_rust.txt", 512), ("heldout_kjv.txt", 512)] {
            let result = heldout(&goldens, mode, case, &mut runner);
            println!("{} {case:?}: {result:.4?}", mode.name());
        }
        println!("{} argmax agreement {:.4}", mode.name(), argmax_agreement(&goldens, mode, &mut runner));
    }
}
