//! The tokens that remain after `min_p`, `top_k` and `top_p`, and the draw among them.
//!
//! All three keep a beginning of the same order, likeliest first and lower ids first among equals, so what remains is
//! their shortest beginning, with the probabilities of `top_p` taken over what the other two leave. The draw walks that
//! order too, so it looks at the likeliest tokens alone: few of them mostly, and those that a device finds
//! ([`TopLogits`]) are mostly enough.
//! Weights are `exp((logit − max) / temperature)` in f32, sums are f64 in a fixed order.

use super::softmax::{exp_nonpositive, sum};
use super::{SamplingParams, SamplingScratch};
use crate::backend::{NO_TOKEN, TopLogits};

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

/// How the tokens that remain are drawn from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Draw {
    /// `top_p` leaves some tokens, and the draw is among them.
    Nucleus,
    /// `top_p` is off: the draw is among all that the other two leave.
    All,
}

impl Draw {
    pub(super) fn of(params: &SamplingParams) -> Self {
        if params.top_p < 1.0 { Draw::Nucleus } else { Draw::All }
    }

    /// The share of what `min_p` and `top_k` leave that a beginning must weigh to decide a draw at `u`.
    fn share(self, params: &SamplingParams, u: f64) -> f64 {
        match self {
            Draw::Nucleus => f64::from(params.top_p),
            Draw::All => u,
        }
    }
}

/// A beginning of the order: the first `len` of `scratch.keys`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Beginning {
    /// How many.
    pub(super) len: usize,
    /// Sum of their weights.
    pub(super) total: f64,
}

/// The id at `u` (0 ≤ u < 1) of what `params` leave of `logits`, of which one is above −∞.
pub(super) fn draw(
    logits: &[f32],
    params: &SamplingParams,
    u: f64,
    scale: Scale,
    scratch: &mut SamplingScratch,
) -> u32 {
    let draw = Draw::of(params);
    let beginning = candidates(logits, params, draw.share(params, u), scale, scratch);
    pick(draw, beginning, u, scale, &scratch.keys)
}

/// As [`draw`], from the likeliest tokens that a device found, which are in `scratch.keys` in order ([`fill_top`]); `None`
/// where they do not decide it.
pub(super) fn draw_from_top(
    top: TopLogits<'_>,
    params: &SamplingParams,
    u: f64,
    scale: Scale,
    scratch: &mut SamplingScratch,
) -> Option<u32> {
    let draw = Draw::of(params);
    let keys = &mut scratch.keys;
    let weight = |&key: &u64| scale.weight(logit_of(key));
    // Fewer than there is room for are all that there are.
    let mut is_all = keys.len() < top.ids.len();
    if params.top_k > 0 && params.top_k <= keys.len() {
        keys.truncate(params.top_k);
        is_all = true;
    }
    let len = keys.partition_point(|key| weight(key) >= params.min_p);
    is_all |= len < keys.len();
    keys.truncate(len);
    // The row's weight says nothing of what these two leave of it.
    if !is_all && (params.top_k > 0 || params.min_p > 0.0) {
        return None;
    }
    let total = match is_all {
        true => keys.iter().map(|key| f64::from(weight(key))).sum(),
        false => f64::from(top.total),
    };
    let wanted = draw.share(params, u) * total;
    let beginning = beginning(keys, wanted, scale);
    (is_all || beginning.total >= wanted).then(|| pick(draw, beginning, u, scale, keys))
}

/// Leaves the tokens that a device found in `keys`, likeliest first.
pub(super) fn fill_top(top: TopLogits<'_>, keys: &mut Vec<u64>) {
    keys.clear();
    let found = top.ids.iter().zip(top.logits).filter(|(id, _)| **id != NO_TOKEN);
    keys.extend(found.map(|(id, logit)| key_of(*logit, *id)));
    keys.sort_unstable();
}

/// The shortest beginning of what `params` leave that weighs `share` of it. A token at least, when the highest logit is
/// above −∞.
pub(super) fn candidates(
    logits: &[f32],
    params: &SamplingParams,
    share: f64,
    scale: Scale,
    scratch: &mut SamplingScratch,
) -> Beginning {
    if params.top_k > 0 && params.top_k < logits.len() {
        select_top(logits, params.top_k, &mut scratch.keys);
        scratch.keys.sort_unstable();
        let weight = |&key: &u64| scale.weight(logit_of(key));
        let len = scratch.keys.partition_point(|key| weight(key) >= params.min_p);
        scratch.keys.truncate(len);
        let total: f64 = scratch.keys.iter().map(|key| f64::from(weight(key))).sum();
        return beginning(&mut scratch.keys, share * total, scale);
    }
    let total = fill_weights(logits, params.min_p, scale, &mut scratch.weights);
    // All tokens lighter than this together weigh less than half of what is left out: none is in the beginning.
    let floor = 0.5 * (1.0 - share) * total / logits.len() as f64;
    scratch.keys.clear();
    for (id, (&logit, &weight)) in logits.iter().zip(&scratch.weights).enumerate() {
        if weight > 0.0 && f64::from(weight) >= floor {
            scratch.keys.push(key_of(logit, id as u32));
        }
    }
    beginning(&mut scratch.keys, share * total, scale)
}

/// The candidate at `u` of the total weight.
fn pick(draw: Draw, beginning: Beginning, u: f64, scale: Scale, keys: &[u64]) -> u32 {
    let keys = &keys[..beginning.len];
    let reached = match draw {
        // It ends where `u` is.
        Draw::All => None,
        Draw::Nucleus => {
            let mut sum = 0.0;
            keys.iter().position(|key| {
                sum += f64::from(scale.weight(logit_of(*key)));
                sum > u * beginning.total
            })
        }
    };
    // Rounding may leave the last one.
    id_of(keys[reached.unwrap_or(keys.len() - 1)])
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

/// The shortest beginning of the order that weighs at least `wanted`, a token at least. Sorts no more of `keys` than that
/// needs.
fn beginning(keys: &mut [u64], wanted: f64, scale: Scale) -> Beginning {
    let (mut total, mut len, mut chunk) = (0.0, 0, FIRST_CHUNK);
    while len < keys.len() {
        let end = keys.len().min(len + chunk);
        if end < keys.len() {
            keys[len..].select_nth_unstable(end - len);
        }
        keys[len..end].sort_unstable();
        for &key in &keys[len..end] {
            total += f64::from(scale.weight(logit_of(key)));
            len += 1;
            if total >= wanted {
                return Beginning { len, total };
            }
        }
        chunk *= 4;
    }
    Beginning { len, total }
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
