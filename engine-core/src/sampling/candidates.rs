//! The tokens that remain after `min_p`, `top_k` and `top_p`, and the draw among them.
//!
//! All three keep a beginning of the same order, likeliest first and lower ids first among equals, so what remains is
//! their shortest beginning, with the probabilities of `top_p` taken over what the other two leave.
//! Weights are `exp((logit − max) / temperature)` in f32, sums are f64 in a fixed order.

use super::softmax::{exp_nonpositive, sum};
use super::{SamplingParams, SamplingScratch};

/// Tokens ordered at first when looking for the nucleus; then four times as many, and so on.
const FIRST_CHUNK: usize = 256;

/// Logits scaled by temperature, relative to the highest, which is finite.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub(super) max: f32,
    pub(super) inverse_temperature: f32,
}

impl Scale {
    /// 1 for the highest logit, 0 for NaN.
    fn weight(self, logit: f32) -> f32 {
        exp_nonpositive((logit - self.max) * self.inverse_temperature)
    }
}

/// What a draw chooses from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Candidates {
    /// Every id, by `scratch.weights`, in id order.
    All {
        /// Sum of the weights.
        total: f64,
    },
    /// The first `len` of `scratch.keys`, likeliest first.
    Best {
        /// How many.
        len: usize,
        /// Sum of their weights.
        total: f64,
    },
}

/// Reduces `logits` to what `params` leave. At least one token remains when the highest logit is above −∞.
pub(super) fn candidates(
    logits: &[f32],
    params: &SamplingParams,
    scale: Scale,
    scratch: &mut SamplingScratch,
) -> Candidates {
    if params.top_k > 0 && params.top_k < logits.len() {
        select_top(logits, params.top_k, &mut scratch.keys);
        scratch.keys.sort_unstable();
        let weight = |&key: &u64| scale.weight(logit_of(key));
        let len = scratch.keys.partition_point(|key| weight(key) >= params.min_p);
        scratch.keys.truncate(len);
        let total = scratch.keys.iter().map(|key| f64::from(weight(key))).sum();
        return nucleus(&mut scratch.keys, params.top_p, total, scale);
    }
    let total = fill_weights(logits, params.min_p, scale, &mut scratch.weights);
    if params.top_p >= 1.0 {
        return Candidates::All { total };
    }
    // All tokens lighter than this together weigh less than half of what top_p leaves out: none is in the nucleus.
    let floor = 0.5 * (1.0 - f64::from(params.top_p)) * total / logits.len() as f64;
    scratch.keys.clear();
    for (id, (&logit, &weight)) in logits.iter().zip(&scratch.weights).enumerate() {
        if weight > 0.0 && f64::from(weight) >= floor {
            scratch.keys.push(key_of(logit, id as u32));
        }
    }
    nucleus(&mut scratch.keys, params.top_p, total, scale)
}

/// The candidate at `u` (0 ≤ u < 1) of the total weight.
pub(super) fn pick(candidates: Candidates, u: f64, scale: Scale, scratch: &SamplingScratch) -> u32 {
    match candidates {
        Candidates::All { total } => {
            let weights = scratch.weights.iter().enumerate().map(|(id, &weight)| (id as u32, weight));
            walk(weights, u * total)
        }
        Candidates::Best { len, total } => {
            let weights = scratch.keys[..len].iter().map(|&key| (id_of(key), scale.weight(logit_of(key))));
            walk(weights, u * total)
        }
    }
}

/// The first id at which the running sum exceeds `target`; rounding may leave the last one that has any weight.
fn walk(weights: impl Iterator<Item = (u32, f32)>, target: f64) -> u32 {
    let mut sum = 0.0;
    let mut last = 0;
    for (id, weight) in weights.filter(|&(_, weight)| weight > 0.0) {
        sum += f64::from(weight);
        last = id;
        if sum > target {
            break;
        }
    }
    last
}

/// Writes the weight of every id, 0 below `min_p`; returns their sum.
fn fill_weights(logits: &[f32], min_p: f32, scale: Scale, weights: &mut Vec<f32>) -> f64 {
    weights.clear();
    weights.extend(logits.iter().map(|&logit| {
        let weight = scale.weight(logit);
        if weight >= min_p { weight } else { 0.0 }
    }));
    sum(weights)
}

/// The shortest beginning of the order that weighs at least `top_p · total`. Sorts no more of `keys` than that needs.
fn nucleus(keys: &mut [u64], top_p: f32, total: f64, scale: Scale) -> Candidates {
    let wanted = f64::from(top_p) * total;
    let (mut sum, mut len, mut chunk) = (0.0, 0, FIRST_CHUNK);
    while len < keys.len() {
        let end = keys.len().min(len + chunk);
        if end < keys.len() {
            keys[len..].select_nth_unstable(end - len);
        }
        keys[len..end].sort_unstable();
        for &key in &keys[len..end] {
            sum += f64::from(scale.weight(logit_of(key)));
            len += 1;
            if sum >= wanted {
                return Candidates::Best { len, total: sum };
            }
        }
        chunk *= 4;
    }
    Candidates::Best { len, total: sum }
}

/// Leaves the keys of the `k` best logits above −∞ in `keys`, in no order, looking at each logit once.
pub(super) fn select_top(logits: &[f32], k: usize, keys: &mut Vec<u64>) {
    keys.clear();
    if k == 0 {
        return;
    }
    let room = (2 * k).max(1024);
    let mut floor = f32::MIN;
    for (id, &logit) in logits.iter().enumerate() {
        // False for NaN, so it never gets in.
        if logit >= floor {
            keys.push(key_of(logit, id as u32));
            if keys.len() == room {
                keys.select_nth_unstable(k - 1);
                keys.truncate(k);
                floor = logit_of(keys[k - 1]);
            }
        }
    }
    if keys.len() > k {
        keys.select_nth_unstable(k);
        keys.truncate(k);
    }
}

/// A number that is lower the better the token: logit descending, then id ascending.
fn key_of(logit: f32, id: u32) -> u64 {
    let bits = (logit + 0.0).to_bits(); // −0 becomes 0, its equal
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    u64::from(!ascending) << 32 | u64::from(id)
}

/// The logit in a key.
pub(super) fn logit_of(key: u64) -> f32 {
    let ascending = !((key >> 32) as u32);
    f32::from_bits(if ascending >> 31 == 1 { ascending & !(1 << 31) } else { !ascending })
}

/// The id in a key.
pub(super) fn id_of(key: u64) -> u32 {
    key as u32
}
