//! Logits to token ids: [`SamplingParams`] (what a request asks for) and [`Sampler`] (one sequence's draws).
//!
//! The order is vLLM's: `logit_bias` and penalties, temperature, `min_p`, `top_k`, `top_p`, then one draw. Below
//! [`GREEDY_TEMPERATURE`] the highest logit wins and nothing is drawn.

mod candidates;
mod error;
mod params;
mod penalties;
mod sampler;
mod softmax;
#[cfg(test)]
mod tests;

pub use error::SamplingError;
pub use params::{GREEDY_TEMPERATURE, SamplingParams};
pub use sampler::{History, SampledToken, Sampler, SamplingScratch, TokenLogprob};
pub use softmax::{argmax, log_softmax_at, log_sum_exp};
