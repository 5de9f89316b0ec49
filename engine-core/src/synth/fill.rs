//! Random values for every kind of tensor, each row from its own generator: the bytes depend on seed, tensor name and
//! row, not on the order or the thread in which rows are made.

use half::bf16;
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use rayon::prelude::*;
use safetensors::Dtype;

use crate::quant::fp8::E4M3_TABLE;

/// What a tensor is filled with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fill {
    /// e4m3 codes, evenly distributed over the bytes that are numbers.
    Fp8Codes,
    /// f32 scales within a fifth of `middle`.
    Fp8Scales {
        /// Scale that gives the wanted standard deviation.
        middle: f32,
    },
    /// bf16, even in ±`limit`.
    Bf16Weights {
        /// √3 standard deviations.
        limit: f32,
    },
    /// bf16, 1 ± 0.1.
    NormWeights,
    /// f32, ±0.05: enough to change which experts are chosen.
    RouterBias,
}

impl Fill {
    /// Weights with standard deviation `1/√in`, so that an output is as large as its inputs.
    pub(super) fn bf16_weights(in_features: usize) -> Self {
        Fill::Bf16Weights { limit: 3f32.sqrt() * standard_deviation(in_features) }
    }

    /// Scales that give [`Fill::Fp8Codes`] the standard deviation `1/√in`.
    pub(super) fn fp8_scales(in_features: usize) -> Self {
        let mean_square = (0..=255).map(|byte| E4M3_TABLE[usize::from(without_nan(byte))].powi(2)).sum::<f32>() / 256.0;
        Fill::Fp8Scales { middle: standard_deviation(in_features) / mean_square.sqrt() }
    }

    /// Element type of the tensor.
    pub(super) fn dtype(self) -> Dtype {
        match self {
            Fill::Fp8Codes => Dtype::F8_E4M3,
            Fill::Fp8Scales { .. } | Fill::RouterBias => Dtype::F32,
            Fill::Bf16Weights { .. } | Fill::NormWeights => Dtype::BF16,
        }
    }

    /// Fills consecutive rows of `row_bytes` bytes, the first of them row `first_row` of the tensor.
    pub(super) fn rows(self, tensor_seed: u64, first_row: usize, row_bytes: usize, bytes: &mut [u8]) {
        bytes.par_chunks_mut(row_bytes).enumerate().for_each(|(i, row)| {
            let row_number = (first_row + i) as u64;
            self.row(Pcg64Mcg::seed_from_u64(mix(tensor_seed ^ mix(row_number))), row);
        });
    }

    fn row(self, mut random: Pcg64Mcg, row: &mut [u8]) {
        random.fill_bytes(row);
        match self {
            Fill::Fp8Codes => row.iter_mut().for_each(|byte| *byte = without_nan(*byte)),
            Fill::Fp8Scales { middle } => to_f32(row, middle, 0.2 * middle),
            Fill::Bf16Weights { limit } => to_bf16(row, 0.0, limit),
            Fill::NormWeights => to_bf16(row, 1.0, 0.1),
            Fill::RouterBias => to_f32(row, 0.0, 0.05),
        }
    }
}

/// One generator seed per tensor. The MTP module's embedding and head are copies of the main model's (spec section
/// 2.2), so they share its seed; where that is tied, head and embedding are one.
pub(super) fn tensor_seed(seed: u64, name: &str, is_tied: bool) -> u64 {
    let is_head_copy = name.ends_with(".shared_head.head.weight");
    let name = if is_head_copy && !is_tied {
        "lm_head.weight"
    } else if is_head_copy || name.ends_with(".embed_tokens.weight") {
        "model.embed_tokens.weight"
    } else {
        name
    };
    mix(seed ^ mix(fnv1a(name)))
}

fn standard_deviation(in_features: usize) -> f32 {
    1.0 / (in_features as f32).sqrt()
}

/// Turns the two NaN codes into ±448.
fn without_nan(byte: u8) -> u8 {
    byte - u8::from(byte & 0x7F == 0x7F)
}

/// Replaces random 16-bit patterns by bf16 values in `middle ± limit`.
fn to_bf16(row: &mut [u8], middle: f32, limit: f32) {
    let step = limit / 32768.0;
    for pair in row.chunks_exact_mut(2) {
        let number = i16::from_le_bytes([pair[0], pair[1]]);
        let value = bf16::from_f32(middle + f32::from(number) * step);
        pair.copy_from_slice(&value.to_le_bytes());
    }
}

/// Replaces random 32-bit patterns by f32 values in `middle ± limit`.
fn to_f32(row: &mut [u8], middle: f32, limit: f32) {
    let step = limit / 2_147_483_648.0;
    for word in row.chunks_exact_mut(4) {
        let number = i32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        let value = middle + number as f32 * step;
        word.copy_from_slice(&value.to_le_bytes());
    }
}

/// FNV-1a, 64 bits.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

/// The finaliser of SplitMix64: neighbouring numbers become unrelated ones.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
