//! Several GPUs that run the tiny model together.

use engine_core::Error;
use engine_core::quant::PrecisionPolicy;
use serde_json::{Value, json};

use super::Vendor;
use super::goldens::{MAX_ACCEPTANCE_ERROR, MAX_PERPLEXITY_ERROR};
use crate::golden::{GoldenMode, Goldens, heldout, load_tiny_group};
use crate::group::check_all_reduce;

/// Whether sums over the devices are right and the bf16 model is as good as its golden, and the figures.
///
/// # Errors
/// What keeps the devices from being opened, or the model from being loaded.
pub fn group<V: Vendor>(ordinals: &[u32]) -> Result<(bool, Value), Error> {
    let faults = check_all_reduce(&V::open_group(ordinals)?);
    let mode = GoldenMode::Bf16WeightsBf16;
    let backends = V::open_group(ordinals)?;
    let mut runner = load_tiny_group(backends, &mode.model_dir(), &PrecisionPolicy::default())?;
    let result = heldout(&Goldens::load(), mode, ("heldout_kjv.txt", 512), runner.as_mut());
    let is_as_likely = (result.perplexity / result.golden_perplexity - 1.0).abs() < MAX_PERPLEXITY_ERROR;
    let acceptance_error = (result.draft_acceptance - result.golden_draft_acceptance).abs();
    let passed = faults.is_empty() && is_as_likely && acceptance_error < MAX_ACCEPTANCE_ERROR;
    let report = json!({
        "check": "group",
        "world_size": ordinals.len(),
        "all_reduce_faults": faults,
        "mode": mode.name(),
        "perplexity": result.perplexity,
        "golden_perplexity": result.golden_perplexity,
        "draft_acceptance": result.draft_acceptance,
        "golden_draft_acceptance": result.golden_draft_acceptance,
    });
    Ok((passed, report))
}
