//! The tiny model against reference values that this project did not compute (`tests/goldens/`, made with
//! transformers): greedy continuations, logits, MTP drafts, hidden states, router choices, held-out perplexity.
//!
//! Every check is generic over the backend and returns a [`Findings`] that the caller prints and asserts on.

mod data;
mod heldout;
mod prompts;
mod trace;

pub use data::{GoldenMode, Goldens, model_dir};
pub use heldout::{HeldoutResult, heldout};
pub use prompts::{ArgmaxAgreement, argmax_agreement, check_prompts};
pub use trace::check_trace;

use engine_core::backend::{Backend, CacheFormat, StepLimits};
use engine_core::config::ModelConfig;
use engine_core::quant::{Precision, PrecisionPolicy, WeightClass};
use engine_core::runner::{GroupRunner, Runner, RunnerOptions, StepRunner};
use engine_core::weights::Checkpoint;

/// What a check measured and what it found wrong.
#[derive(Debug, Default)]
pub struct Findings {
    /// Measurements, for the log.
    pub notes: Vec<String>,
    /// Violations; empty when the check passed.
    pub failures: Vec<String>,
}

impl Findings {
    /// Records a failure unless `ok`.
    pub fn expect(&mut self, ok: bool, message: impl FnOnce() -> String) {
        if !ok {
            self.failures.push(message());
        }
    }

    /// Prints the measurements and panics with the failures, if any.
    ///
    /// # Panics
    /// When something was wrong.
    #[allow(clippy::print_stdout)]
    pub fn assert_none(&self) {
        self.notes.iter().for_each(|note| println!("{note}"));
        assert!(self.failures.is_empty(), "{:#?}", self.failures);
    }
}

/// Loads one of the two tiny models, MTP module included, for windows of 2048 tokens and 16 sequences.
///
/// # Errors
/// As the engine reports them.
pub fn load_tiny<B: Backend>(
    backend: B,
    dir: &std::path::Path,
    precision: &PrecisionPolicy,
) -> Result<Runner<B>, engine_core::Error> {
    load_tiny_with_cache(backend, dir, precision, CacheFormat::Native)
}

/// As [`load_tiny`], with a latent cache of `cache_format`.
///
/// # Errors
/// As the engine reports them.
pub fn load_tiny_with_cache<B: Backend>(
    backend: B,
    dir: &std::path::Path,
    precision: &PrecisionPolicy,
    cache_format: CacheFormat,
) -> Result<Runner<B>, engine_core::Error> {
    let config = ModelConfig::from_dir(dir)?;
    let checkpoint = Checkpoint::open(dir)?;
    Runner::load(backend, &checkpoint, &config, &tiny_options(precision, cache_format), &mut |_| {})
}

/// As [`load_tiny`], onto the ranks of a group.
///
/// # Errors
/// As the engine reports them.
pub fn load_tiny_group<B: Backend>(
    backends: Vec<B>,
    dir: &std::path::Path,
    precision: &PrecisionPolicy,
) -> Result<Box<dyn StepRunner>, engine_core::Error> {
    let config = ModelConfig::from_dir(dir)?;
    let checkpoint = Checkpoint::open(dir)?;
    let options = tiny_options(precision, CacheFormat::Native);
    GroupRunner::load(backends, &mut |_| {}, |backend, progress| {
        Runner::load(backend, &checkpoint, &config, &options, progress)
    })
}

/// The precisions in which the FP8 tiny model can be divided among the ranks of a group: its heads do not end with FP8
/// blocks.
pub fn divisible() -> PrecisionPolicy {
    PrecisionPolicy::default().with(WeightClass::Attention, Precision::Bf16)
}

fn tiny_options(precision: &PrecisionPolicy, cache_format: CacheFormat) -> RunnerOptions {
    let limits = StepLimits { max_num_batched_tokens: 2048, max_num_seqs: 16, max_model_len: 2048, block_size: 64 };
    RunnerOptions {
        precision: precision.clone(),
        with_mtp: true,
        limits,
        num_blocks: 128,
        cache_format,
        num_token_ids: None,
    }
}

/// How far perplexity, and the share of accepted drafts, may be from the golden in modes that round (docs/numerics.md).
pub(crate) const MAX_PERPLEXITY_ERROR: f64 = 5e-3;
pub(crate) const MAX_ACCEPTANCE_ERROR: f64 = 0.02;

/// Largest |a − b| over the largest |b|.
pub fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let error = found.iter().zip(expected).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    if found.iter().all(|v| v.is_finite()) { error / scale } else { f32::NAN }
}

/// The most likely token; an impossible id when the logits are no numbers.
pub(crate) fn argmax(logits: &[f32]) -> u32 {
    engine_core::sampling::argmax(logits).unwrap_or(u32::MAX)
}
