//! Linears, norms and the gated FFN.

use super::math::{dot, silu};
use super::numerics::Numerics;
use crate::backend::FfnWeights;
use crate::quant::HostWeight;

/// A linear weight as it came.
#[derive(Debug, Clone)]
pub struct ReferenceLinear {
    weight: HostWeight,
}

impl ReferenceLinear {
    pub(super) fn new(weight: HostWeight) -> Self {
        Self { weight }
    }

    pub(super) fn weight(&self) -> &HostWeight {
        &self.weight
    }

    /// `x [T, I]` to `out [T, O]`, inputs quantised and outputs rounded as `numerics` says.
    pub(super) fn forward(&self, numerics: Numerics, x: &[f32], out: &mut [f32]) {
        let mut x = x.to_vec();
        for row in x.chunks_mut(self.weight.shape().in_features) {
            numerics.quantise_input(self.weight.activation_scheme(), row);
        }
        self.forward_float(&x, out);
        numerics.round(out);
    }

    /// `x [T, I]` to `out [T, O]` without quantisation or rounding.
    pub(super) fn forward_float(&self, x: &[f32], out: &mut [f32]) {
        let shape = self.weight.shape();
        let mut row = vec![0.0; shape.in_features];
        for o in 0..shape.out_features {
            self.weight.row_f32(o, &mut row);
            for (x, out) in x.chunks(shape.in_features).zip(out.chunks_mut(shape.out_features)) {
                out[o] = dot(&row, x);
            }
        }
    }
}

/// An RMS norm.
#[derive(Debug, Clone)]
pub struct ReferenceNorm {
    weight: Vec<f32>,
    eps: f32,
}

impl ReferenceNorm {
    pub(super) fn new(weight: &[f32], eps: f32) -> Self {
        Self { weight: weight.to_vec(), eps }
    }

    /// One row. Rounds before and after the product with the weight, as the Hugging Face implementation does.
    pub(super) fn forward(&self, numerics: Numerics, x: &[f32], out: &mut [f32]) {
        let mean = x.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>() / x.len() as f64;
        let factor = (mean + f64::from(self.eps)).sqrt().recip();
        for (o, x) in out.iter_mut().zip(x) {
            *o = (f64::from(*x) * factor) as f32;
        }
        numerics.round(out);
        for (o, w) in out.iter_mut().zip(&self.weight) {
            *o *= w;
        }
        numerics.round(out);
    }
}

/// A gated FFN.
#[derive(Debug, Clone)]
pub struct ReferenceFfn {
    gate: ReferenceLinear,
    up: ReferenceLinear,
    down: ReferenceLinear,
}

impl ReferenceFfn {
    pub(super) fn new(weights: FfnWeights) -> Self {
        Self {
            gate: ReferenceLinear::new(weights.gate),
            up: ReferenceLinear::new(weights.up),
            down: ReferenceLinear::new(weights.down),
        }
    }

    /// `x [T, H]` to `out [T, H]`.
    pub(super) fn forward(&self, numerics: Numerics, x: &[f32], out: &mut [f32]) {
        let shape = self.gate.weight().shape();
        let num_tokens = x.len() / shape.in_features;
        let mut gate = vec![0.0; num_tokens * shape.out_features];
        let mut up = gate.clone();
        self.gate.forward(numerics, x, &mut gate);
        self.up.forward(numerics, x, &mut up);
        for (g, u) in gate.iter_mut().zip(&up) {
            *g = silu(*g) * u;
        }
        numerics.round(&mut gate);
        self.down.forward(numerics, &gate, out);
    }
}
