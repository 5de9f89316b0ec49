//! To INT4 in groups along the input.

use rayon::prelude::*;

use super::{amax, for_each_row, round_small, scale_for};
use crate::quant::{HostWeight, INT4_GROUP, Int4GroupWeight, WeightError};

/// Levels that the largest magnitude of a group may be mapped to, tried in this order. Seven clips nothing; 7.5 clips
/// both ends by half a step, 8 puts a negative extreme on −8; beyond 8.5 nothing is gained on normal weights.
const LEVELS: [f32; 4] = [7.0, 7.5, 8.0, 8.5];

/// A zero weight in both nibbles.
const ZERO_PAIR: u8 = 0x88;

/// Per group of [`INT4_GROUP`] inputs the candidate scale with the least squared error.
pub(super) fn quantise(weight: &HostWeight) -> Result<Int4GroupWeight, WeightError> {
    let shape = weight.shape();
    let row_bytes = Int4GroupWeight::row_bytes(shape.in_features);
    let groups = shape.in_features.div_ceil(INT4_GROUP);
    // Columns of padding up to a multiple of eight keep this value.
    let mut packed = vec![ZERO_PAIR; shape.out_features * row_bytes];
    let mut scales = vec![1.0f32; shape.out_features * groups];
    let rows = packed.par_chunks_mut(row_bytes.max(1)).zip(scales.par_chunks_mut(groups.max(1)));
    for_each_row(weight, f32::MAX, rows, |real, (row, scales): (&mut [u8], &mut [f32])| {
        let groups = real.chunks(INT4_GROUP).zip(row.chunks_mut(INT4_GROUP / 2));
        for ((real, bytes), scale) in groups.zip(scales) {
            *scale = best_scale(real);
            pack(real, *scale, bytes);
        }
    })?;
    Int4GroupWeight::new(shape, INT4_GROUP, packed.into(), scales.into())
}

/// The candidate with the least squared error; the first of equals.
fn best_scale(group: &[f32]) -> f32 {
    let amax = amax(group);
    let mut best = (f64::INFINITY, 1.0);
    for levels in LEVELS {
        let scale = scale_for(amax, levels);
        // In f64 the square of no f32 vanishes or overflows.
        let error = squared_error_in_steps(group, scale) * f64::from(scale).powi(2);
        if error < best.0 {
            best = (error, scale);
        }
    }
    best.1
}

/// Sum of `(q - w / scale)²`, in eight partial sums so that it vectorises.
fn squared_error_in_steps(group: &[f32], scale: f32) -> f64 {
    let squared_miss = |x: &f32| {
        let step = x / scale;
        (code(step) - step).powi(2)
    };
    let (octets, rest) = group.as_chunks::<8>();
    let mut sums = [0.0f32; 8];
    for octet in octets {
        for (sum, x) in sums.iter_mut().zip(octet) {
            *sum += squared_miss(x);
        }
    }
    f64::from(sums.iter().sum::<f32>() + rest.iter().map(squared_miss).sum::<f32>())
}

/// Writes `round(w / scale) + 8` as nibbles, the even column low.
fn pack(group: &[f32], scale: f32, bytes: &mut [u8]) {
    for (pair, byte) in group.chunks(2).zip(bytes) {
        let low = nibble(pair[0] / scale);
        let high = pair.get(1).map_or(8, |x| nibble(x / scale));
        *byte = low | high << 4;
    }
}

fn nibble(step: f32) -> u8 {
    (code(step) + 8.0) as u8
}

/// The nearest 4-bit integer, ties to even.
fn code(step: f32) -> f32 {
    round_small(step).clamp(-8.0, 7.0)
}
