//! The few formulas everything is made of.

use std::cmp::Ordering;

use crate::backend::{NO_TOKEN, TopLogits};

/// Σ a·b in f64, rounded once. Eight partial sums, so that the compiler may compute them side by side.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f64; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += f64::from(*a) * f64::from(*b);
        }
    }
    sums.iter().sum::<f64>() as f32
}

/// `out += scale · x`.
pub(super) fn axpy(scale: f32, x: &[f32], out: &mut [f64]) {
    for (o, x) in out.iter_mut().zip(x) {
        *o += f64::from(scale) * f64::from(*x);
    }
}

/// x · sigmoid(x).
pub(super) fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

/// 1 / (1 + e^−x).
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Softmax in place; the largest element is subtracted first.
pub(super) fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = x.iter().map(|v| f64::from(*v - max).exp()).sum();
    for v in x {
        *v = (f64::from(*v - max).exp() / sum) as f32;
    }
}

/// Rotates interleaved pairs (spec 3.3): `y[2i] = x[2i] cos_i − x[2i+1] sin_i`, `y[2i+1] = x[2i] sin_i + x[2i+1] cos_i`.
pub(super) fn rope(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    for (pair, (cos, sin)) in x.chunks_exact_mut(2).zip(cos.iter().zip(sin)) {
        let (a, b) = (pair[0], pair[1]);
        pair[0] = a * cos - b * sin;
        pair[1] = a * sin + b * cos;
    }
}

/// The id of the highest value, the lowest of equals; a NaN is never highest. [`NO_TOKEN`] if all are NaN or −∞.
pub(super) fn highest(values: &[f32]) -> u32 {
    let (mut best, mut highest) = (NO_TOKEN, f32::NEG_INFINITY);
    for (id, value) in values.iter().enumerate() {
        if *value > highest {
            (best, highest) = (id as u32, *value);
        }
    }
    best
}

/// The highest values and the weight of all of them, as a row of [`TopLogits`].
pub(super) fn write_top(values: &[f32], inverse_temperature: f32, words: &mut [u32]) {
    let num_top = TopLogits::num_top(words.len());
    let mut order: Vec<usize> = (0..values.len()).filter(|id| values[*id] > f32::NEG_INFINITY).collect();
    // Stable: of equals, −0 and 0 too, the lowest ids stay in front.
    order.sort_by(|a, b| values[*b].partial_cmp(&values[*a]).unwrap_or(Ordering::Equal));
    let highest = order.first().map_or(f64::NEG_INFINITY, |id| f64::from(values[*id]));
    let weight = |id: &usize| ((f64::from(values[*id]) - highest) * f64::from(inverse_temperature)).exp();
    let total: f64 = order.iter().map(weight).sum();
    let (mut ids, mut logits) = (vec![NO_TOKEN; num_top], vec![f32::NEG_INFINITY; num_top]);
    for (place, id) in order.into_iter().take(num_top).enumerate() {
        (ids[place], logits[place]) = (id as u32, values[id]);
    }
    TopLogits { ids: &ids, logits: &logits, total: total as f32 }.write_words(words);
}
