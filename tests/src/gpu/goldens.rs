//! The tiny model on a GPU against reference values of another implementation.

use engine_core::Error;
use engine_core::backend::Backend as _;
use engine_core::quant::PrecisionPolicy;
use gpu_common::GpuOptions;
use serde_json::{Value, json};

use super::Vendor;
use crate::golden::{
    GoldenMode, Goldens, MAX_ACCEPTANCE_ERROR, MAX_PERPLEXITY_ERROR, argmax_agreement, heldout, load_tiny,
};

/// Whether all bounds held, and the figures, for checkpoints of the given weights: `bf16`, `fp8`.
///
/// # Errors
/// What keeps the device from being opened, or the model from being loaded.
pub fn goldens<V: Vendor>(ordinal: u32, weights: &[&str]) -> Result<(bool, Value), Error> {
    let goldens = Goldens::load();
    let (mut passed, mut runs) = (true, Vec::new());
    for weights in weights {
        let backend = V::open(ordinal, GpuOptions::default())?;
        let mode = GoldenMode::on_gpus(*weights == "fp8", backend.capabilities().quantised_inputs);
        let mut runner = load_tiny(backend, &mode.model_dir(), &PrecisionPolicy::default())?;
        let result = heldout(&goldens, mode, ("heldout_kjv.txt", 512), &mut runner);
        let is_as_likely = (result.perplexity / result.golden_perplexity - 1.0).abs() < MAX_PERPLEXITY_ERROR;
        let acceptance_error = (result.draft_acceptance - result.golden_draft_acceptance).abs();
        let agreement = argmax_agreement(&goldens, mode, &mut runner);
        passed &= is_as_likely && acceptance_error < MAX_ACCEPTANCE_ERROR && agreement.is_within_noise();
        runs.push(json!({
            "mode": mode.name(),
            "perplexity": result.perplexity,
            "golden_perplexity": result.golden_perplexity,
            "draft_acceptance": result.draft_acceptance,
            "golden_draft_acceptance": result.golden_draft_acceptance,
            "argmax_agreement": agreement.all,
            "settled_argmax_agreement": agreement.settled,
        }));
    }
    Ok((passed, json!({ "check": "goldens", "max_perplexity_error": MAX_PERPLEXITY_ERROR, "runs": runs })))
}
