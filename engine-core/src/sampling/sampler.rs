//! One sequence's choice of tokens.

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64;

use super::candidates::{Scale, draw, draw_from_top, fill_top, id_of, logit_of, select_top};
use super::penalties::{apply_bias, apply_penalties};
use super::{SamplingError, SamplingParams, argmax, log_sum_exp};
use crate::backend::TopLogits;

/// Chooses the tokens of one sequence. It draws once per token (never, if greedy) from a generator of its own, so
/// neither the batch nor speculation changes what a seed gives.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
    /// Ids that end the sequence.
    ends: Vec<u32>,
    num_token_ids: Option<u32>,
    rng: Pcg64,
}

/// The tokens so far, for the penalties and `min_tokens`.
#[derive(Debug, Clone, Copy, Default)]
pub struct History<'a> {
    /// The prompt.
    pub prompt: &'a [u32],
    /// What was generated.
    pub output: &'a [u32],
}

/// A chosen token.
#[derive(Debug, Clone, PartialEq)]
pub struct SampledToken {
    /// Its id.
    pub id: u32,
    /// Its log-probability under the model, if [`SamplingParams::logprobs`] asks for it.
    pub logprob: Option<f32>,
    /// The likeliest tokens under the model, best first; as many as [`SamplingParams::logprobs`] says.
    pub top_logprobs: Vec<TokenLogprob>,
}

impl SampledToken {
    /// A token of which nothing else is told.
    pub fn without_logprobs(id: u32) -> Self {
        Self { id, logprob: None, top_logprobs: Vec::new() }
    }
}

/// A token and its log-probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLogprob {
    /// The token's id.
    pub id: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// Room for the intermediate values of [`Sampler::sample`]; grows to a few vocabularies once, then is reused. One
/// serves any number of samplers, one after the other.
#[derive(Debug, Default)]
pub struct SamplingScratch {
    /// Weight per id.
    pub(super) weights: Vec<f32>,
    /// Candidates as sortable numbers.
    pub(super) keys: Vec<u64>,
    /// Occurrences per id, all zero between calls.
    counts: Vec<u32>,
    /// The logits as the model gave them.
    model_logits: Vec<f32>,
}

impl Sampler {
    /// A sampler for a new sequence. `params` must have passed [`SamplingParams::validate`]; `eos_token_ids` are the
    /// checkpoint's; `fallback_seed` is used where `params` have no seed.
    pub fn new(params: SamplingParams, eos_token_ids: &[u32], fallback_seed: u64) -> Self {
        let mut ends = params.stop_token_ids.clone();
        if !params.ignore_eos {
            ends.extend_from_slice(eos_token_ids);
        }
        let rng = Pcg64::seed_from_u64(params.seed.unwrap_or(fallback_seed));
        Self { params, ends, num_token_ids: None, rng }
    }

    /// Never chooses an id of `num_token_ids` or above: the model's `vocab_size` exceeds the ids that have a token
    /// (spec section 8; [`Tokenizer::vocab_size`](crate::tokenizer::Tokenizer::vocab_size)).
    #[must_use]
    pub fn with_num_token_ids(mut self, num_token_ids: u32) -> Self {
        self.num_token_ids = Some(num_token_ids);
        self
    }

    /// What the request asked for.
    pub fn params(&self) -> &SamplingParams {
        &self.params
    }

    /// True for the ids that end the sequence: end of sentence, unless ignored, and `stop_token_ids`.
    pub fn ends_sequence(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// True when the token after `num_generated` ones is the highest logit's and nothing else is told of it: then
    /// [`argmax`] over the ids that stand for a token gives what [`Sampler::sample`] would.
    pub fn takes_best(&self, num_generated: usize) -> bool {
        self.params.is_greedy() && self.takes_logits_as_they_are(num_generated)
    }

    /// True when the token after `num_generated` ones is drawn and nothing else is told of it: then
    /// [`Sampler::sample_top`] may do with the `num_top` highest logits.
    pub fn takes_top(&self, num_generated: usize, num_top: usize) -> bool {
        let is_enough = num_top > 0 && self.params.top_k <= num_top;
        !self.params.is_greedy() && is_enough && self.takes_logits_as_they_are(num_generated)
    }

    /// True when the request changes no logit and asks for no log-probabilities.
    fn takes_logits_as_they_are(&self, num_generated: usize) -> bool {
        let forbids_ends = num_generated < self.params.min_tokens && !self.ends.is_empty();
        self.params.takes_logits_as_they_are() && !forbids_ends
    }

    /// What logits are multiplied by before a draw.
    pub fn inverse_temperature(&self) -> f32 {
        1.0 / self.params.temperature
    }

    /// Chooses the next token from `logits` (`[vocab_size]`), which are changed. NaN is never chosen.
    ///
    /// # Errors
    /// [`SamplingError::NoCandidate`] when every logit is NaN or −∞.
    pub fn sample(
        &mut self,
        logits: &mut [f32],
        history: History<'_>,
        scratch: &mut SamplingScratch,
    ) -> Result<SampledToken, SamplingError> {
        let mut chosen = SampledToken::without_logprobs(0);
        let model = self.params.logprobs.map(|_| ModelDistribution::of(logits, scratch));
        let with_token = self.num_token_ids.map_or(logits.len(), |n| logits.len().min(n as usize));
        let logits = &mut logits[..with_token];
        if let (Some(n), Some(model)) = (self.params.logprobs, &model) {
            chosen.top_logprobs = model.top(logits, n, scratch);
        }
        self.apply_request(logits, history, scratch);
        chosen.id = self.choose(logits, scratch)?;
        chosen.logprob = model.map(|model| model.logprob(scratch.model_logits[chosen.id as usize]));
        Ok(chosen)
    }

    /// Chooses the next token from the highest logits of the ids that stand for a token, `top` being taken at
    /// [`Sampler::inverse_temperature`]; for a sampler of which [`Sampler::takes_top`] is true. `None` where they do not
    /// decide: the draw falls on a token past them, or there is none. Nothing is drawn then, and [`Sampler::sample`] of the
    /// whole row makes the same draw.
    pub fn sample_top(&mut self, top: TopLogits<'_>, scratch: &mut SamplingScratch) -> Option<u32> {
        fill_top(top, &mut scratch.keys);
        let best = *scratch.keys.first()?;
        if logit_of(best) == f32::INFINITY {
            return Some(id_of(best));
        }
        let scale = Scale { max: logit_of(best), inverse_temperature: self.inverse_temperature() };
        let mut rng = self.rng.clone();
        let id = draw_from_top(top, &self.params, uniform(&mut rng), scale, scratch)?;
        self.rng = rng;
        Some(id)
    }

    /// Everything that changes single logits: bias, ends that `min_tokens` forbids, penalties.
    fn apply_request(&self, logits: &mut [f32], history: History<'_>, scratch: &mut SamplingScratch) {
        apply_bias(&self.params, logits);
        if history.output.len() < self.params.min_tokens {
            for &id in &self.ends {
                if let Some(logit) = logits.get_mut(id as usize) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        apply_penalties(&self.params, history, logits, &mut scratch.counts);
    }

    fn choose(&mut self, logits: &[f32], scratch: &mut SamplingScratch) -> Result<u32, SamplingError> {
        let best = argmax(logits).ok_or_else(|| SamplingError::no_candidate(logits))?;
        let max = logits[best as usize];
        // A logit of +∞ is certain whatever the temperature.
        if self.params.is_greedy() || max == f32::INFINITY {
            return Ok(best);
        }
        let scale = Scale { max, inverse_temperature: self.inverse_temperature() };
        Ok(draw(logits, &self.params, uniform(&mut self.rng), scale, scratch))
    }
}

/// A number from 0 to below 1 in steps of 2^−53.
fn uniform(rng: &mut Pcg64) -> f64 {
    const STEP: f64 = 1.0 / (1_u64 << 53) as f64;
    (rng.next_u64() >> 11) as f64 * STEP
}

/// The model's own distribution, before a request changes the logits.
struct ModelDistribution {
    log_sum_exp: f64,
}

impl ModelDistribution {
    /// Keeps a copy of the logits in `scratch`.
    fn of(logits: &[f32], scratch: &mut SamplingScratch) -> Self {
        scratch.model_logits.clear();
        scratch.model_logits.extend_from_slice(logits);
        Self { log_sum_exp: log_sum_exp(logits) }
    }

    fn logprob(&self, logit: f32) -> f32 {
        (f64::from(logit) - self.log_sum_exp) as f32
    }

    /// The `n` likeliest ids, best first.
    fn top(&self, logits: &[f32], n: usize, scratch: &mut SamplingScratch) -> Vec<TokenLogprob> {
        select_top(logits, n, &mut scratch.keys);
        scratch.keys.sort_unstable();
        scratch.keys.iter().map(|&key| TokenLogprob { id: id_of(key), logprob: self.logprob(logit_of(key)) }).collect()
    }
}
