//! The reference backend against the goldens, in every mode.

#![allow(clippy::print_stdout)]

use conformance::golden::{
    GoldenMode, Goldens, argmax_agreement, check_prompts, check_trace, heldout, load_tiny, load_tiny_with_cache,
};
use engine_core::backend::CacheFormat;
use engine_core::quant::{PrecisionPolicy, QuantisedInputs};
use engine_core::reference::{ActivationRounding, MlaForm, Numerics, ReferenceBackend};
use engine_core::runner::Runner;

/// In the rounded modes 0.5 %, of which the goldens' own noise is 0.3 % (docs/numerics.md): a second text would say nothing
/// that this one, and f32 on both, do not.
const MAX_ROUNDED_ERROR: f64 = 5e-3;
const ROUNDED_TEXT: &str = "heldout_kjv.txt";

fn numerics(mode: GoldenMode) -> Numerics {
    let exact = Numerics::default();
    match mode {
        GoldenMode::Bf16WeightsF32 | GoldenMode::Fp8WeightsF32 => exact,
        GoldenMode::Bf16WeightsBf16 => Numerics { activations: ActivationRounding::Bf16, ..exact },
        GoldenMode::Fp8WeightsW8A8 => {
            Numerics { linears: QuantisedInputs::ALL, mla_form: MlaForm::NonAbsorbed, ..exact }
        }
        GoldenMode::Fp8WeightsW8A8Absorbed => Numerics { linears: QuantisedInputs::ALL, ..exact },
    }
}

fn load(mode: GoldenMode) -> Runner<ReferenceBackend> {
    load_tiny(ReferenceBackend::new(numerics(mode)), &mode.model_dir(), &PrecisionPolicy::default())
        .unwrap_or_else(|e| panic!("{}: {e}", mode.name()))
}

#[test]
fn prompts_with_bf16_weights_in_f32() {
    let mode = GoldenMode::Bf16WeightsF32;
    check_prompts(&Goldens::load(), mode, &mut load(mode)).assert_none();
}

#[test]
fn prompts_with_fp8_weights_in_f32() {
    let mode = GoldenMode::Fp8WeightsF32;
    check_prompts(&Goldens::load(), mode, &mut load(mode)).assert_none();
}

/// Sums in another order than the golden's give 1e-6 after five layers; 1e-4 catches any wrong formula.
#[test]
fn hidden_states_and_router_choices_in_f32() {
    let mode = GoldenMode::Bf16WeightsF32;
    check_trace(&Goldens::load(), mode, &mut load(mode), 1e-4).assert_none();
}

/// Four significant digits in f32, of both texts.
#[test]
fn heldout_perplexity_in_f32() {
    for mode in [GoldenMode::Bf16WeightsF32, GoldenMode::Fp8WeightsF32] {
        check_heldout(&mut load(mode), mode, &["heldout_rust.txt", "heldout_kjv.txt"], 5e-5);
    }
}

#[test]
fn heldout_perplexity_in_bf16() {
    check_rounded(GoldenMode::Bf16WeightsBf16);
}

#[test]
fn heldout_perplexity_in_w8a8() {
    check_rounded(GoldenMode::Fp8WeightsW8A8);
}

#[test]
fn heldout_perplexity_in_w8a8_absorbed() {
    check_rounded(GoldenMode::Fp8WeightsW8A8Absorbed);
}

/// The FP8 latent cache costs the model no more than the modes' noise, in both ways in which GPUs compute.
#[test]
fn heldout_perplexity_with_an_fp8_cache() {
    for mode in [GoldenMode::Bf16WeightsBf16, GoldenMode::Fp8WeightsW8A8Absorbed] {
        let backend = ReferenceBackend::new(numerics(mode));
        let mut runner =
            load_tiny_with_cache(backend, &mode.model_dir(), &PrecisionPolicy::default(), CacheFormat::Fp8)
                .unwrap_or_else(|e| panic!("{}: {e}", mode.name()));
        check_heldout(&mut runner, mode, &[ROUNDED_TEXT], MAX_ROUNDED_ERROR);
    }
}

fn check_rounded(mode: GoldenMode) {
    let mut runner = load(mode);
    check_heldout(&mut runner, mode, &[ROUNDED_TEXT], MAX_ROUNDED_ERROR);
    let agreement = argmax_agreement(&Goldens::load(), mode, &mut runner);
    println!("{}: {agreement:?}", mode.name());
    agreement.assert_within_noise();
}

fn check_heldout(runner: &mut Runner<ReferenceBackend>, mode: GoldenMode, texts: &[&str], tolerance: f64) {
    let goldens = Goldens::load();
    for text in texts {
        let case = (*text, 512);
        let result = heldout(&goldens, mode, case, runner);
        println!("{} {case:?}: {result:?}", mode.name());
        let error = (result.perplexity / result.golden_perplexity - 1.0).abs();
        assert!(error < tolerance, "{} {case:?}: perplexity off by {error:e}: {result:?}", mode.name());
        // 0.60 to 0.68 in the goldens; a draft flips with its argmax.
        let drafts = (result.draft_acceptance - result.golden_draft_acceptance).abs();
        assert!(drafts < 0.02, "{} {case:?}: {result:?}", mode.name());
    }
}
