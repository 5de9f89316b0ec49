//! Multi-head latent attention in the naive form: keys and values of every head are expanded from the latents.

use engine_core::backend::CacheFormat;
use engine_core::config::{AttentionConfig, RopeConfig};
use engine_core::reference::MlaForm;

use super::dense::dot;
use super::{Linear, Matrix, Oracle, nearest_bf16, quantise_fp8, rms_norm};

/// How queries are made.
#[derive(Debug, Clone)]
pub enum Queries {
    /// One matrix.
    Direct(Linear),
    /// Down, norm, up.
    LowRank {
        /// `[Lq, H]`.
        a: Linear,
        /// `[Lq]`.
        norm: Vec<f32>,
        /// `[N (P + R), Lq]`.
        b: Linear,
    },
}

/// A layer's attention without `o_proj`.
#[derive(Debug, Clone)]
pub struct MlaOracle {
    /// Dimensions.
    pub dims: AttentionConfig,
    /// Rope and YaRN.
    pub rope: RopeConfig,
    /// Of the two inner norms.
    pub eps: f32,
    /// Query projection.
    pub queries: Queries,
    /// `[Lkv + R, H]`.
    pub kv_a: Linear,
    /// `[Lkv]`.
    pub kv_a_norm: Vec<f32>,
    /// `[N (P + V), Lkv]`.
    pub kv_b: Linear,
    /// What latents and keys go through.
    pub cache: CacheFormat,
}

impl MlaOracle {
    /// Attention of a whole sequence, from position 0: `x [len, H]` to `[len, N V]`.
    pub fn run(&self, oracle: Oracle, x: &Matrix) -> Matrix {
        let AttentionConfig { num_attention_heads: heads, qk_nope_head_dim: p, v_head_dim: v, .. } = self.dims;
        let q = self.queries(oracle, x);
        let (keys_nope_and_values, keys_pe) = self.keys_and_values(oracle, x);
        let scale = softmax_scale(&self.dims, &self.rope);
        let mut out = Matrix::zeros(x.rows(), heads * v);
        for t in 0..x.rows() {
            for head in 0..heads {
                let query = &q.row(t)[head * self.dims.qk_head_dim()..][..self.dims.qk_head_dim()];
                let kv = |s: usize| &keys_nope_and_values.row(s)[head * (p + v)..][..p + v];
                let scores =
                    (0..=t).map(|s| scale * (dot(&query[..p], &kv(s)[..p]) + dot(&query[p..], keys_pe.row(s))));
                let scores: Vec<f64> = scores.collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
                let out = &mut out.row_mut(t)[head * v..][..v];
                for (s, score) in scores.iter().enumerate() {
                    let probability = (score - largest).exp() / sum;
                    out.iter_mut().zip(&kv(s)[p..]).for_each(|(o, value)| *o += probability * value);
                }
            }
        }
        oracle.round(&mut out.data);
        out
    }

    /// `[len, N (P + R)]`, rotated.
    fn queries(&self, oracle: Oracle, x: &Matrix) -> Matrix {
        let mut q = match &self.queries {
            Queries::Direct(w) => w.apply(oracle, x),
            Queries::LowRank { a, norm, b } => {
                let low = a.apply(oracle, x);
                b.apply(oracle, &rms_norm(oracle, &low, norm, self.eps))
            }
        };
        for position in 0..q.rows() {
            for head in q.row_mut(position).chunks_mut(self.dims.qk_head_dim()) {
                let pe = &mut head[self.dims.qk_nope_head_dim..];
                rotate(pe, &self.rope, position);
                oracle.round(pe);
            }
        }
        q
    }

    /// `[len, N (P + V)]` and `[len, R]`.
    fn keys_and_values(&self, oracle: Oracle, x: &Matrix) -> (Matrix, Matrix) {
        let (rank, r) = (self.dims.kv_lora_rank, self.dims.qk_rope_head_dim);
        let kv_a = self.kv_a.apply(oracle, x);
        let (mut latents, mut keys_pe) = (Matrix::zeros(x.rows(), rank), Matrix::zeros(x.rows(), r));
        for position in 0..x.rows() {
            let (latent, pe) = kv_a.row(position).split_at(rank);
            latents.row_mut(position).copy_from_slice(latent);
            keys_pe.row_mut(position).copy_from_slice(pe);
            rotate(keys_pe.row_mut(position), &self.rope, position);
        }
        oracle.round(&mut keys_pe.data);
        let mut latents = rms_norm(oracle, &latents, &self.kv_a_norm, self.eps);
        if self.cache == CacheFormat::Fp8 {
            latents
                .data
                .chunks_mut(rank)
                .flat_map(|row| row.chunks_mut(128))
                .for_each(|group| quantise_fp8(group, false));
            oracle.round(&mut latents.data);
            keys_pe.data.iter_mut().for_each(|key| *key = nearest_bf16(*key));
        }
        let expanded = match oracle.numerics.mla_form {
            MlaForm::NonAbsorbed => self.kv_b.apply(oracle, &latents),
            // Folded into queries and outputs, kv_b never meets a quantised or rounded latent-sized product.
            MlaForm::Absorbed => self.kv_b.apply_exact(&latents),
        };
        (expanded, keys_pe)
    }
}

/// Rotates the pairs `(x[2i], x[2i + 1])` by `position · f_i` (spec 3.3).
fn rotate(x: &mut [f64], rope: &RopeConfig, position: usize) {
    let dim = x.len();
    for (i, pair) in x.chunks_exact_mut(2).enumerate() {
        let angle = position as f64 * frequency(rope, dim, i);
        let multiplier = cos_sin_multiplier(rope);
        let (sin, cos) = (angle.sin() * multiplier, angle.cos() * multiplier);
        (pair[0], pair[1]) = (pair[0] * cos - pair[1] * sin, pair[0] * sin + pair[1] * cos);
    }
}

/// Radians per position of pair `i` of `dim / 2` (spec 3.4).
fn frequency(rope: &RopeConfig, dim: usize, i: usize) -> f64 {
    let d = dim as f64;
    let plain = rope.theta.powf(-2.0 * i as f64 / d);
    let Some(yarn) = rope.yarn else { return plain };
    let n = |rotations: f64| {
        let turns = yarn.original_max_position_embeddings as f64 / (rotations * std::f64::consts::TAU);
        d * turns.ln() / (2.0 * rope.theta.ln())
    };
    let low = n(yarn.beta_fast).floor().max(0.0);
    let mut high = n(yarn.beta_slow).ceil().min(d - 1.0);
    if low == high {
        high += 0.001;
    }
    let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
    plain * (1.0 - ramp) + plain / yarn.factor * ramp
}

fn mscale(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

/// Multiplier on cos and sin where the configuration gives both mscales, as every published one does.
fn cos_sin_multiplier(rope: &RopeConfig) -> f64 {
    match rope.yarn.map(|yarn| (yarn.factor, yarn.mscale, yarn.mscale_all_dim)) {
        Some((factor, Some(numerator), Some(denominator))) => mscale(factor, numerator) / mscale(factor, denominator),
        Some(_) => unreachable!("the suite's YaRN configurations give both mscales"),
        None => 1.0,
    }
}

/// `(P + R)^(-1/2) · mscale(factor, mscale_all_dim)²`.
pub fn softmax_scale(dims: &AttentionConfig, rope: &RopeConfig) -> f64 {
    let mu = rope.yarn.map_or(1.0, |yarn| mscale(yarn.factor, yarn.mscale_all_dim.unwrap_or(0.0)));
    mu * mu / (dims.qk_head_dim() as f64).sqrt()
}
