//! Checks of the Ascend backend that its libraries, real or emulated, run: `device-check ascend:0 …`.

mod capture;
mod operators;
mod random_model;
mod steady;

pub use capture::capture;
pub use operators::operators;
pub use random_model::random_model;
pub use steady::steady;

use backend_ascend::AscendBackend;
use engine_core::Error;
use engine_core::backend::Backend;
use engine_core::quant::{Precision, PrecisionPolicy, QuantisedInputs};
use engine_core::reference::{ActivationRounding, Numerics};
use serde_json::json;

use crate::golden::{GoldenMode, Goldens, MAX_PERPLEXITY_ERROR, argmax_agreement, heldout, load_tiny};
use crate::group::check_group;
use crate::harness::{DeclaredUnsupported, NO_FP8_CACHE, NO_TOP_LOGITS, Profile};

/// The text whose perplexity is compared, and the length of its windows.
const HELDOUT: (&str, usize) = ("heldout_kjv.txt", 512);

/// Formats that Atlas A2 and A3 have no units for. The engine converts them while loading, so no model meets these
/// refusals; f32 linears are for heads only.
const UNSUPPORTED: [DeclaredUnsupported; 11] = {
    const fn format(prefix: &'static str) -> DeclaredUnsupported {
        DeclaredUnsupported { prefix, reason: "converted to bf16 or INT8 while loading" }
    }
    [
        format("linear/fp8"),
        format("linear/int4"),
        format("ffn/f32"),
        format("ffn/fp8"),
        format("ffn/int4"),
        format("mla/f32"),
        format("mla/fp8"),
        format("mla/int4"),
        format("moe_experts/f32"),
        format("moe_experts/fp8"),
        format("moe_experts/int4"),
    ]
};

/// What the backend rounds: activations and the cache to bf16, inputs of INT8 linears per token.
pub fn profile(backend: &AscendBackend) -> Profile {
    let numerics =
        Numerics { activations: ActivationRounding::Bf16, linears: QuantisedInputs::ALL, ..Numerics::default() };
    let name = format!("ascend, {}, {numerics}", backend.capabilities().device);
    let absent = [NO_FP8_CACHE, NO_TOP_LOGITS];
    Profile::new(name, numerics).with_unsupported(&UNSUPPORTED).with_unsupported(&absent)
}

/// One way to run the tiny model, and how far from the golden it may be.
struct Run {
    name: &'static str,
    checkpoint: GoldenMode,
    precision: Precision,
    /// What it is compared with.
    golden: GoldenMode,
    max_perplexity_error: f64,
    /// Where rounding leaves argmaxes comparable.
    min_agreement: f64,
}

/// How far the perplexity of INT8 may be from that of bf16.
const MAX_INT8_ERROR: f64 = 1.5e-2;

/// bf16 keeps to the bounds of all devices (docs/numerics.md). INT8 is a coarser format: its perplexity may be 1.5 % from
/// that of bf16, and its argmaxes are stated, not judged.
const RUNS: [Run; 3] = [
    Run {
        name: "bf16",
        checkpoint: GoldenMode::Bf16WeightsBf16,
        precision: Precision::Auto,
        golden: GoldenMode::Bf16WeightsBf16,
        max_perplexity_error: MAX_PERPLEXITY_ERROR,
        min_agreement: 0.97,
    },
    Run {
        name: "fp8 to bf16",
        checkpoint: GoldenMode::Fp8WeightsF32,
        precision: Precision::Auto,
        golden: GoldenMode::Fp8WeightsF32,
        max_perplexity_error: MAX_PERPLEXITY_ERROR,
        min_agreement: 0.97,
    },
    Run {
        name: "bf16 to int8",
        checkpoint: GoldenMode::Bf16WeightsBf16,
        precision: Precision::Int8,
        golden: GoldenMode::Bf16WeightsBf16,
        max_perplexity_error: MAX_INT8_ERROR,
        min_agreement: 0.0,
    },
];

/// The tiny model in bf16 and INT8 against the goldens: whether all bounds held, and the figures.
///
/// # Errors
/// What keeps the device from being opened, or the model from being loaded.
///
/// # Panics
/// When the device fails.
pub fn goldens(ordinal: u32) -> Result<(bool, serde_json::Value), Error> {
    let goldens = Goldens::load();
    let (mut passed, mut runs) = (true, Vec::new());
    for run in RUNS {
        let backend = AscendBackend::open(ordinal)?;
        let policy = PrecisionPolicy::uniform(run.precision);
        let mut runner = load_tiny(backend, &run.checkpoint.model_dir(), &policy)?;
        let agreement = argmax_agreement(&goldens, run.golden, &mut runner).all;
        let result = heldout(&goldens, run.golden, HELDOUT, &mut runner);
        let error = (result.perplexity / result.golden_perplexity - 1.0).abs();
        let holds = error < run.max_perplexity_error && agreement >= run.min_agreement;
        passed &= holds;
        runs.push(json!({
            "run": run.name,
            "golden": run.golden.name(),
            "perplexity": result.perplexity,
            "golden_perplexity": result.golden_perplexity,
            "max_error": run.max_perplexity_error,
            "argmax_agreement": agreement,
            "holds": holds,
        }));
    }
    Ok((passed, json!({ "check": "goldens", "runs": runs })))
}

/// Several NPUs that run the tiny model together in bf16 and INT8: whether all is right, and the figures.
///
/// # Errors
/// As [`check_group`].
///
/// # Panics
/// When an NPU fails.
pub fn group(ordinals: &[u32]) -> Result<(bool, serde_json::Value), Error> {
    let precisions = [(Precision::Auto, MAX_PERPLEXITY_ERROR), (Precision::Int8, MAX_INT8_ERROR)];
    check_group(|| AscendBackend::open_group(ordinals), &precisions)
}
