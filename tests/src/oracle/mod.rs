//! The operations once more, straight from the formulas of the model's papers and code, in f64.
//!
//! Nothing here calls `engine_core`'s arithmetic: the reference backend itself is held against these functions. They
//! know no blocks, slots, steps or absorption; attention runs over a whole sequence at once, in the naive form.

mod dense;
mod mla;
mod model;
mod moe;

pub use dense::{Linear, argmax, ffn, highest, rms_norm, weight};
pub use mla::{MlaOracle, Queries, softmax_scale};
pub use model::ModelOracle;
pub use moe::{Choice, GateOracle, experts};

use engine_core::quant::QuantisedInputs;
use engine_core::reference::{ActivationRounding, Numerics};
use half::bf16;

/// What happens to the input of a quantised linear when activations are quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputQuantisation {
    /// Nothing.
    None,
    /// e4m3 per group of 128.
    Fp8 {
        /// Scales rounded up to powers of two.
        ue8m0: bool,
    },
    /// i8 per token.
    Int8,
}

/// A row-major f64 matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Elements per row.
    pub cols: usize,
    /// Row after row.
    pub data: Vec<f64>,
}

impl Matrix {
    /// Zeros.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self { cols, data: vec![0.0; rows * cols] }
    }

    /// Widens f32 values.
    pub fn from_f32(cols: usize, values: &[f32]) -> Self {
        Self { cols, data: values.iter().map(|v| f64::from(*v)).collect() }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.data.len() / self.cols
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[f64] {
        &self.data[row * self.cols..][..self.cols]
    }

    /// One row, writable.
    pub fn row_mut(&mut self, row: usize) -> &mut [f64] {
        &mut self.data[row * self.cols..][..self.cols]
    }

    /// Nearest f32 values.
    pub fn to_f32(&self) -> Vec<f32> {
        self.data.iter().map(|v| *v as f32).collect()
    }
}

/// Rounds what the numerics in force round, and nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Oracle {
    /// What is rounded.
    pub numerics: Numerics,
}

impl Oracle {
    /// Rounds the result of an op.
    pub fn round(self, values: &mut [f64]) {
        match self.numerics.activations {
            ActivationRounding::F32 => {}
            ActivationRounding::Bf16 => {
                values.iter_mut().for_each(|v| *v = nearest_bf16(*v));
            }
        }
    }

    fn quantise(self, scheme: InputQuantisation, row: &mut [f64]) {
        let QuantisedInputs { fp8, int8 } = self.numerics.linears;
        match scheme {
            InputQuantisation::Fp8 { ue8m0 } if fp8 => {
                row.chunks_mut(128).for_each(|group| quantise_fp8(group, ue8m0));
            }
            InputQuantisation::Int8 if int8 => quantise_int8(row),
            InputQuantisation::Fp8 { .. } | InputQuantisation::Int8 | InputQuantisation::None => {}
        }
    }
}

fn nearest_bf16(x: f64) -> f64 {
    f64::from(bf16::from_f32(x as f32).to_f32())
}

fn amax(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |m, v| v.abs().max(m))
}

/// One group of an FP8 linear's input, or of an FP8 cache's latent (spec section 4); the scale is kept in f32.
fn quantise_fp8(group: &mut [f64], ue8m0: bool) {
    let scale = f64::from((amax(group).max(1e-4) / 448.0) as f32);
    let scale = if ue8m0 { scale.log2().ceil().exp2() } else { scale };
    for v in group {
        *v = nearest_e4m3(*v / scale) * scale;
    }
}

/// Nearest value of 3 mantissa bits and 2^-9 as the smallest step, ties to even, at most 448.
fn nearest_e4m3(x: f64) -> f64 {
    let exponent = if x == 0.0 { -6.0 } else { x.abs().log2().floor().max(-6.0) };
    let step = (exponent - 3.0).exp2();
    ((x / step).round_ties_even() * step).clamp(-448.0, 448.0)
}

fn quantise_int8(row: &mut [f64]) {
    let scale = f64::from((amax(row) / 127.0) as f32);
    if scale == 0.0 {
        return;
    }
    for v in row {
        *v = (*v / scale).round_ties_even().clamp(-127.0, 127.0) * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_e4m3_on_values_worked_out_by_hand() {
        // 17 lies between 16 and 18, nearest even mantissa is 16; 19 between 18 and 20 goes to 20.
        for (x, nearest) in [(17.0, 16.0), (19.0, 20.0), (447.0, 448.0), (1e9, 448.0), (0.0, 0.0), (-0.3, -0.3125)] {
            assert_eq!(nearest_e4m3(x), nearest, "{x}");
        }
        assert_eq!(nearest_e4m3(2f64.powi(-10) * 0.9), 0.0);
        assert_eq!(nearest_e4m3(2f64.powi(-10) * 1.1), 2f64.powi(-9));
    }
}
