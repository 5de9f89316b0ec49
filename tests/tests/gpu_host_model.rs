//! The tiny model on the GPU backend, on the host.
#![allow(clippy::print_stdout, reason = "figures of a test run")]
#![allow(clippy::unwrap_used)]

use conformance::golden::{GoldenMode, Goldens, argmax_agreement, heldout, load_tiny};
use engine_core::backend::SequenceStep;
use engine_core::quant::PrecisionPolicy;
use engine_core::runner::{Runner, StepOutput, StepRunner, WantedRows};
use gpu_common::{GpuBackend, GpuOptions};
use gpu_host::{HostOptions, HostRuntime, Ledger, Profile};

fn load(mode: GoldenMode, profile: Profile) -> (Runner<GpuBackend<HostRuntime>>, Ledger) {
    let runtime = HostRuntime::new(HostOptions { profile, ..HostOptions::default() });
    let ledger = runtime.ledger();
    let options = GpuOptions { quantised_inputs: mode.quantised_inputs(), waves_per_block: 2, ..GpuOptions::default() };
    let backend = GpuBackend::new(runtime, options).unwrap();
    (load_tiny(backend, &mode.model_dir(), &PrecisionPolicy::default()).unwrap(), ledger)
}

/// Bounds of the rounded modes (docs/numerics.md): half a per cent of perplexity, the noise floor of argmaxes and drafts.
fn check(mode: GoldenMode, profile: Profile) {
    let goldens = Goldens::load();
    let (mut runner, _) = load(mode, profile);
    let agreement = argmax_agreement(&goldens, mode, &mut runner);
    println!("{}, {}: {agreement:?}", mode.name(), profile.name());
    let result = heldout(&goldens, mode, ("heldout_kjv.txt", 512), &mut runner);
    println!("{}, {}: {result:?}", mode.name(), profile.name());
    agreement.assert_within_noise();
    assert!((result.perplexity / result.golden_perplexity - 1.0).abs() < 5e-3, "{result:?}");
    assert!((result.draft_acceptance - result.golden_draft_acceptance).abs() < 0.02, "{result:?}");
}

#[test]
fn bf16_weights() {
    check(GoldenMode::Bf16WeightsBf16, Profile::Nvidia);
}

#[test]
fn fp8_weights_with_quantised_activations() {
    check(GoldenMode::Fp8WeightsW8A8Absorbed, Profile::CdnaFnuz);
}

/// Scratch memory grows with the largest step, and steps like those before take none.
#[test]
fn steady_decoding_allocates_nothing() {
    let (mut runner, ledger) = load(GoldenMode::Fp8WeightsW8A8Absorbed, Profile::Nvidia);
    let block_tables = [[0, 1, 2, 3], [4, 5, 6, 7]];
    let mut decode = |context_len: usize| {
        let step = |block_table| SequenceStep { tokens: &[7], context_len, block_table };
        let steps = block_tables.each_ref().map(|table| step(table.as_slice()));
        let mut output = StepOutput::default();
        runner.step(&steps, WantedRows::logits(&[0, 1]), &mut output).unwrap();
        runner.draft(&[8, 9], WantedRows::logits(&[0, 1]), &mut output).unwrap();
        ledger.num_allocations()
    };
    let after_first = decode(0);
    // Longer sequences are cut into more parts.
    for context_len in [1, 2, 3, 63, 64, 65, 127, 128, 200, 254] {
        assert_eq!(decode(context_len), after_first, "a step at {context_len} allocated");
    }
}
