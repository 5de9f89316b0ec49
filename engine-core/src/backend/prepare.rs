//! What a backend is given at load time.

use std::sync::Arc;

use crate::config::{AttentionConfig, Router};
use crate::quant::HostWeight;
use crate::rope::RopeTable;

/// A gated FFN: `down(silu(gate x) ⊙ up x)`.
#[derive(Debug, Clone)]
pub struct FfnWeights {
    /// `[I, H]`.
    pub gate: HostWeight,
    /// `[I, H]`.
    pub up: HostWeight,
    /// `[H, I]`.
    pub down: HostWeight,
}

/// What all layers' attention has in common.
#[derive(Debug, Clone)]
pub struct MlaSpec {
    /// Dimensions.
    pub dims: AttentionConfig,
    /// H.
    pub hidden_size: usize,
    /// σ, the factor on the scores (spec 3.4).
    pub softmax_scale: f32,
    /// cos and sin of every position up to the longest window.
    pub rope: Arc<RopeTable>,
    /// Epsilon of the two inner norms.
    pub rms_norm_eps: f32,
}

/// How queries are made from the hidden state.
#[derive(Debug, Clone)]
pub enum QueryProjection {
    /// One matrix `[N (P + R), H]`.
    Direct(HostWeight),
    /// Down, norm, up.
    LowRank {
        /// `[Lq, H]`.
        a: HostWeight,
        /// Norm weight `[Lq]`.
        norm: Vec<f32>,
        /// `[N (P + R), Lq]`.
        b: HostWeight,
    },
}

/// A layer's attention weights, without `o_proj`.
#[derive(Debug, Clone)]
pub struct MlaWeights {
    /// Queries.
    pub q: QueryProjection,
    /// `kv_a_proj_with_mqa`, `[Lkv + R, H]`.
    pub kv_a: HostWeight,
    /// Norm weight of the latent, `[Lkv]`.
    pub kv_a_norm: Vec<f32>,
    /// `kv_b_proj`, `[N (P + V), Lkv]`: per head P rows of W_UK, then V rows of W_UV.
    pub kv_b: HostWeight,
}

/// The router's rules.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GateSpec {
    /// H.
    pub hidden_size: usize,
    /// E.
    pub n_routed_experts: usize,
    /// K.
    pub num_experts_per_tok: usize,
    /// Scores and selection.
    pub router: Router,
    /// Divide the chosen weights by their sum (+ 1e-20).
    pub norm_topk_prob: bool,
    /// Factor on the chosen weights.
    pub routed_scaling_factor: f32,
}

/// A layer's router weights.
#[derive(Debug, Clone)]
pub struct GateWeights {
    /// `[E, H]`, bf16 or f32; evaluated in f32.
    pub weight: HostWeight,
    /// `e_score_correction_bias`, `[E]`, for the sigmoid router.
    pub correction_bias: Option<Vec<f32>>,
}

/// A layer's experts.
#[derive(Debug, Clone)]
pub struct ExpertsWeights {
    /// E experts of equal shape.
    pub routed: Vec<FfnWeights>,
    /// All shared experts as one FFN.
    pub shared: Option<FfnWeights>,
}
