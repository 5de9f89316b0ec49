//! Multi-head latent attention. Absorbed, W_UK is folded into the queries, W_UV into the result, and attention runs on the
//! latents as one key head of width Lkv + R; prompts are attended with keys and values of every head where the device has an
//! operator for it ([`form`]).
//!
//! W_UK and W_UV are bf16 whatever the checkpoint holds. Where the first half is a sequence of operators ([`first_half`]),
//! rotated values keep the checkpoint's order of pairs in queries and cache: of the operator's modes that Atlas A2 and A3
//! have, it is the one that fits interleaved pairs. Operators that do more leave the first values of all pairs before the
//! second ones; a layer that uses one of them keeps to that order in all its steps.

mod attention;
mod first_half;
mod form;
mod prolog;
mod step;
mod tables;

use std::ops::Range;
use std::sync::Arc;

use engine_core::backend::{CacheSpec, MlaSpec, MlaWeights, PrepareError, QueryProjection};
use engine_core::config::AttentionConfig;
use engine_core::quant::HostWeight;

use crate::device::{Device, Matrix};
use crate::driver::{Allocation, DataType, View};
use crate::linear::{AscendLinear, computed, computes, refused};
use crate::norm::AscendNorm;

use first_half::FirstHalf;
use form::Forms;
pub(crate) use tables::Tables;
use tables::{Masks, RopeMemory};

/// A prepared layer's attention.
#[derive(Debug)]
pub struct AscendMla {
    dims: AttentionConfig,
    softmax_scale: f32,
    q: Projection,
    kv_a: AscendLinear,
    kv_a_norm: AscendNorm,
    /// `[N, P, Lkv]`.
    w_uk: Matrix,
    /// `[N, V, Lkv]`.
    w_uv: Matrix,
    rope: Arc<RopeMemory>,
    masks: Arc<Masks>,
    forms: Forms,
    first_half: FirstHalf,
}

#[derive(Debug)]
enum Projection {
    Direct(Box<AscendLinear>),
    LowRank(Box<LowRank>),
}

/// Down, norm, up.
#[derive(Debug)]
struct LowRank {
    a: AscendLinear,
    norm: AscendNorm,
    b: AscendLinear,
}

/// Latent KV of all layers in bf16: `kv_c [layers, blocks, block size, Lkv]` and `k_pe [layers, blocks, block size, R]`.
#[derive(Debug)]
pub struct AscendLatentCache {
    spec: CacheSpec,
    latents: Allocation,
    keys: Allocation,
}

impl AscendLatentCache {
    pub(crate) fn new(device: &Device, spec: &CacheSpec) -> Result<Self, PrepareError> {
        // Sizes no device has end in an error of the allocation.
        let slots = spec.num_blocks.saturating_mul(spec.block_size).saturating_mul(spec.num_layers);
        let alloc = |width: usize| device.alloc(slots.saturating_mul(2 * width), "the latent cache");
        Ok(Self { spec: *spec, latents: alloc(spec.kv_lora_rank)?, keys: alloc(spec.qk_rope_head_dim)? })
    }

    /// Both parts of a layer, `[blocks, block size, width]`.
    fn layer(&self, layer: usize) -> [View; 2] {
        let CacheSpec { num_layers, num_blocks, block_size, kv_lora_rank, qk_rope_head_dim, .. } = self.spec;
        let part = |memory: &Allocation, width: usize| {
            View::new(memory.address(), DataType::Bf16, [num_layers, num_blocks, block_size, width])
                .narrowed(0, layer, 1)
                .reshaped([num_blocks, block_size, width])
        };
        [part(&self.latents, kv_lora_rank), part(&self.keys, qk_rope_head_dim)]
    }
}

/// Queries of a step in bf16: absorbed `[T, N, Lkv]` and rotated `[T, N, R]`. Tokens that are attended with expanded keys have
/// plain ones of width P where their absorbed ones would begin.
#[derive(Debug)]
pub struct AscendQueries {
    absorbed: Allocation,
    rotated: Allocation,
}

impl AscendQueries {
    pub(crate) fn new(device: &Device, spec: &MlaSpec, max_num_tokens: usize) -> Result<Self, PrepareError> {
        let rows = max_num_tokens.saturating_mul(spec.dims.num_attention_heads);
        let alloc = |width: usize| device.alloc(rows.saturating_mul(2 * width), "queries");
        Ok(Self { absorbed: alloc(spec.dims.kv_lora_rank)?, rotated: alloc(spec.dims.qk_rope_head_dim)? })
    }

    /// Both parts of the first `num_tokens` rows.
    fn views(&self, dims: &AttentionConfig, num_tokens: usize) -> [View; 2] {
        let part = |memory: &Allocation, width: usize| {
            View::new(memory.address(), DataType::Bf16, [num_tokens, dims.num_attention_heads, width])
        };
        [part(&self.absorbed, dims.kv_lora_rank), part(&self.rotated, dims.qk_rope_head_dim)]
    }

    /// Plain queries of some rows, `[rows, N, P]`.
    fn plain(&self, dims: &AttentionConfig, rows: Range<usize>) -> View {
        let (heads, rank, p) = (dims.num_attention_heads, dims.kv_lora_rank, dims.qk_nope_head_dim);
        let memory = View::new(self.absorbed.address(), DataType::Bf16, [rows.end * heads * rank]);
        memory.narrowed(0, rows.start * heads * rank, rows.len() * heads * p).reshaped([rows.len(), heads, p])
    }
}

impl AscendMla {
    pub(crate) fn new(
        device: &Device,
        tables: &Tables,
        spec: &MlaSpec,
        weights: &MlaWeights,
    ) -> Result<Self, PrepareError> {
        let rope_dim = spec.dims.qk_rope_head_dim;
        if spec.rope.max_len() > 0 && 2 * spec.rope.cos(0).len() != rope_dim {
            return Err(device.unsupported(
                format!("attention with {rope_dim} rotated values per head"),
                format!("the rope table has {}", 2 * spec.rope.cos(0).len()),
                "build the table with qk_rope_head_dim of the same configuration",
            ));
        }
        let first_half = FirstHalf::choose(device, spec, weights);
        let linear = |weight: &HostWeight| match computes(device, weight.format()) {
            true if first_half.is_whole => AscendLinear::packed(device, weight),
            true => AscendLinear::new(device, weight),
            false => Err(refused(device, weight.format())),
        };
        let eps = spec.rms_norm_eps;
        let q = match &weights.q {
            QueryProjection::Direct(weight) => Projection::Direct(Box::new(linear(weight)?)),
            QueryProjection::LowRank { a, norm, b } => {
                let (a, norm, b) = (linear(a)?, AscendNorm::new(device, norm, eps)?, linear(b)?);
                Projection::LowRank(Box::new(LowRank { a, norm, b }))
            }
        };
        let kv_a = linear(&weights.kv_a)?;
        let [w_uk, w_uv] = absorbed_weights(device, &spec.dims, &weights.kv_b)?;
        Ok(Self {
            dims: spec.dims,
            softmax_scale: spec.softmax_scale,
            q,
            kv_a,
            kv_a_norm: AscendNorm::new(device, &weights.kv_a_norm, eps)?,
            w_uk,
            w_uv,
            rope: tables.rope(device, &spec.rope)?,
            masks: tables.masks(device)?,
            first_half,
            forms: Forms::new(&spec.dims, device.has_fused_attention),
        })
    }
}

/// `kv_b` per head: P rows of W_UK, then V rows of W_UV.
fn absorbed_weights(device: &Device, dims: &AttentionConfig, kv_b: &HostWeight) -> Result<[Matrix; 2], PrepareError> {
    let AttentionConfig { num_attention_heads: heads, kv_lora_rank: rank, .. } = *dims;
    let (p, v) = (dims.qk_nope_head_dim, dims.v_head_dim);
    let rows = |first: usize, count: usize| -> Vec<f32> {
        let mut values = vec![0.0; heads * count * rank];
        for (i, row) in values.chunks_mut(rank).enumerate() {
            kv_b.row_f32(i / count * (p + v) + first + i % count, row);
        }
        values
    };
    Ok([
        computed(device, [heads, p, rank], &rows(0, p), "W_UK")?,
        computed(device, [heads, v, rank], &rows(p, v), "W_UV")?,
    ])
}
