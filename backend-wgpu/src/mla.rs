//! Attention: the absorbed form for every step. Queries are moved into the latent space, attention runs over the paged
//! latent cache as it lies, and W_UV brings the result back.

use std::sync::Arc;

use engine_core::backend::{
    CacheSpec, LayerStep, MlaSpec, MlaWeights, PrepareError, QueryProjection, StepError, StepLayout,
};
use engine_core::config::AttentionConfig;
use engine_core::quant::HostWeight;

use crate::gpu::{Gpu, WgpuBuffer};
use crate::kernels::{ATTENTION_LANES, Kernel};
use crate::matmul::{Matmul, Placement, Product};
use crate::options::MatmulStyle;
use crate::params::{AbsorbParams, AttentionParams, LatentWriteParams, MergeParams, QueryRopeParams};
use crate::pipelines::{Pipeline, Pipelines};
use crate::rows::{Norm, groups_for};
use crate::stream::{Dispatch, WgpuStream};

/// Workgroups along one dimension of a grid.
const MAX_GROUPS: usize = 65_535;
/// Positions of a split at least.
const MIN_SPLIT: usize = 256;

/// A layer's attention without `o_proj`.
#[derive(Debug)]
pub struct Mla {
    dims: AttentionConfig,
    softmax_scale: f32,
    query: Query,
    kv_a: Matmul,
    kv_a_norm: Norm,
    kv_b: Matmul,
    rope: Arc<WgpuBuffer>,
    latent_write: Arc<Pipeline>,
    query_rope: Arc<Pipeline>,
    absorb: Vec<Tiled>,
    attention: Vec<Attention>,
    merge: Arc<Pipeline>,
    target_groups: usize,
}

#[derive(Debug)]
enum Query {
    Direct(Matmul),
    LowRank { a: Matmul, norm: Norm, b: Matmul },
}

/// A kernel for tiles of `rows` rows.
#[derive(Debug)]
struct Tiled {
    rows: usize,
    pipeline: Arc<Pipeline>,
}

#[derive(Debug)]
struct Attention {
    rows: usize,
    whole: Arc<Pipeline>,
    split: Arc<Pipeline>,
}

/// The queries of a step in latent space, `[T, N, Lkv + R]`.
#[derive(Debug)]
pub struct Queries {
    buffer: WgpuBuffer,
    max_num_tokens: usize,
}

/// Paged pool of latent KV, a buffer per layer: `[slot, Lkv + R]`.
#[derive(Debug)]
pub struct LatentCache {
    layers: Vec<WgpuBuffer>,
}

impl LatentCache {
    pub(crate) fn new(gpu: &Arc<Gpu>, spec: &CacheSpec) -> Result<Self, PrepareError> {
        let num_bytes = 4 * (spec.num_slots() * spec.latent_width()) as u64;
        let most = gpu.max_binding_bytes();
        if num_bytes > most {
            let what = format!("a latent cache of {} tokens", spec.num_slots());
            let fitting = most / (4 * spec.latent_width()) as u64;
            let reason = format!("a layer of it takes {num_bytes} bytes, the device binds at most {most} at once");
            return Err(gpu.unsupported(what, reason, &format!("lower num_cache_tokens to {fitting}")));
        }
        let layers =
            (0..spec.num_layers).map(|_| gpu.storage(num_bytes, "the latent cache")).collect::<Result<_, _>>()?;
        Ok(Self { layers })
    }
}

impl Queries {
    pub(crate) fn new(gpu: &Arc<Gpu>, spec: &MlaSpec, max_num_tokens: usize) -> Result<Self, PrepareError> {
        if max_num_tokens > MAX_GROUPS {
            let reason = format!("a grid has at most {MAX_GROUPS} workgroups in one dimension");
            let what = format!("steps of {max_num_tokens} tokens");
            return Err(gpu.unsupported(what, reason, "lower max_num_batched_tokens"));
        }
        let width = spec.dims.num_attention_heads * spec.dims.latent_width();
        let buffer = gpu.storage(4 * (max_num_tokens * width) as u64, "queries; lower max_num_batched_tokens")?;
        Ok(Self { buffer, max_num_tokens })
    }
}

impl Mla {
    pub(crate) fn new(
        gpu: &Arc<Gpu>,
        pipelines: &Pipelines,
        spec: &MlaSpec,
        weights: MlaWeights,
        rope: Arc<WgpuBuffer>,
    ) -> Result<Self, PrepareError> {
        let matmul = |weight: HostWeight| Matmul::dense(gpu, pipelines, weight);
        let norm = |weight: &[f32]| Norm::new(gpu, pipelines, weight, spec.rms_norm_eps);
        let query = match weights.q {
            QueryProjection::Direct(weight) => Query::Direct(matmul(weight)?),
            QueryProjection::LowRank { a, norm: weight, b } => {
                Query::LowRank { a: matmul(a)?, norm: norm(&weight)?, b: matmul(b)? }
            }
        };
        let kv_b = matmul(weights.kv_b)?;
        if kv_b.matrix.slabs.len() > 1 {
            let reason = format!("the device binds at most {} bytes at once", gpu.max_binding_bytes());
            return Err(gpu.unsupported("kv_b_proj in one piece".into(), reason, "choose another adapter"));
        }
        let format = kv_b.matrix.format;
        let absorb = [1, 8].map(|rows| {
            let pipeline = pipelines.get(gpu, Kernel::Absorb { format, rows })?;
            Ok(Tiled { rows: rows as usize, pipeline })
        });
        let (most_rows, target_groups) = match gpu.tuning.matmul {
            MatmulStyle::Tiles => (8, 256),
            MatmulStyle::Lanes => (16, 8),
        };
        let attention = [4, most_rows].map(|rows| attention(gpu, pipelines, &spec.dims, rows));
        Ok(Self {
            dims: spec.dims,
            softmax_scale: spec.softmax_scale,
            query,
            kv_a: matmul(weights.kv_a)?,
            kv_a_norm: norm(&weights.kv_a_norm)?,
            kv_b,
            rope,
            latent_write: pipelines.get(gpu, Kernel::LatentWrite)?,
            query_rope: pipelines.get(gpu, Kernel::QueryRope)?,
            absorb: absorb.into_iter().collect::<Result<_, PrepareError>>()?,
            attention: attention.into_iter().collect::<Result<_, PrepareError>>()?,
            merge: pipelines.get(gpu, Kernel::Merge)?,
            target_groups,
        })
    }

    /// Queries of `x [T, H]`, and the step's latents into the cache.
    pub(crate) fn prolog(
        &self,
        stream: &mut WgpuStream,
        step: LayerStep<'_, WgpuBuffer>,
        (x, num_rows): (&WgpuBuffer, usize),
        cache: &LatentCache,
        queries: &Queries,
    ) -> Result<(), StepError> {
        if num_rows == 0 {
            return Ok(());
        }
        let gpu = stream.gpu().clone();
        let capacity = queries.max_num_tokens;
        let q = match &self.query {
            Query::Direct(weight) => {
                let q = stream.scratch.q.get(&gpu, capacity * weight.num_outputs())?;
                weight.run(stream, Product { x, y: &q, num_rows })?;
                q
            }
            Query::LowRank { a, norm, b } => {
                let low = stream.scratch.q_a.get(&gpu, capacity * a.num_outputs())?;
                let normed = stream.scratch.q_a_normed.get(&gpu, capacity * a.num_outputs())?;
                let q = stream.scratch.q.get(&gpu, capacity * b.num_outputs())?;
                a.run(stream, Product { x, y: &low, num_rows })?;
                norm.run(stream, num_rows, &low, &normed)?;
                b.run(stream, Product { x: &normed, y: &q, num_rows })?;
                q
            }
        };
        let kv_a = stream.scratch.kv_a.get(&gpu, capacity * self.kv_a.num_outputs())?;
        self.kv_a.run(stream, Product { x, y: &kv_a, num_rows })?;
        self.write_latents(stream, step, &kv_a, num_rows, cache)?;
        self.move_queries(stream, step, &q, num_rows, queries)
    }

    fn write_latents(
        &self,
        stream: &mut WgpuStream,
        step: LayerStep<'_, WgpuBuffer>,
        kv_a: &WgpuBuffer,
        num_rows: usize,
        cache: &LatentCache,
    ) -> Result<(), StepError> {
        let params = LatentWriteParams {
            kv_lora_rank: self.dims.kv_lora_rank as u32,
            rope_dim: self.dims.qk_rope_head_dim as u32,
            eps: self.kv_a_norm.eps,
        };
        let (positions, slots) = (step.meta.positions.buffer(), step.meta.slot_mapping.buffer());
        stream.dispatch(Dispatch {
            pipeline: &self.latent_write,
            buffers: &[kv_a, &self.kv_a_norm.weight, &self.rope, positions, slots, &cache.layers[step.layer]],
            params: bytemuck::bytes_of(&params),
            groups: [num_rows as u32, 1, 1],
        })
    }

    /// Absorption of W_UK, and rope.
    fn move_queries(
        &self,
        stream: &mut WgpuStream,
        step: LayerStep<'_, WgpuBuffer>,
        q: &WgpuBuffer,
        num_rows: usize,
        queries: &Queries,
    ) -> Result<(), StepError> {
        let (dims, kv_b) = (&self.dims, &self.kv_b.matrix);
        let heads = dims.num_attention_heads;
        let slab = &kv_b.slabs[0];
        let tiled = &self.absorb[usize::from(num_rows > 1)];
        let params = AbsorbParams {
            num_tokens: num_rows as u32,
            num_heads: heads as u32,
            nope_dim: dims.qk_nope_head_dim as u32,
            q_row: (heads * dims.qk_head_dim()) as u32,
            q_head: dims.qk_head_dim() as u32,
            kv_lora_rank: dims.kv_lora_rank as u32,
            latent_width: dims.latent_width() as u32,
            w_head: (dims.qk_nope_head_dim + dims.v_head_dim) as u32,
            w_row: kv_b.row_words() as u32,
            scale_row: kv_b.scale_row() as u32,
            scale_group: kv_b.scale_group as u32,
        };
        let lanes = stream.gpu().tuning.plain_lanes() as usize;
        stream.dispatch(Dispatch {
            pipeline: &tiled.pipeline,
            buffers: &[q, &slab.values, &slab.scales, &queries.buffer],
            params: bytemuck::bytes_of(&params),
            groups: [dims.kv_lora_rank.div_ceil(4 * lanes) as u32, num_rows.div_ceil(tiled.rows) as u32, heads as u32],
        })?;
        let params = QueryRopeParams {
            num_tokens: num_rows as u32,
            num_heads: heads as u32,
            nope_dim: dims.qk_nope_head_dim as u32,
            rope_dim: dims.qk_rope_head_dim as u32,
            kv_lora_rank: dims.kv_lora_rank as u32,
        };
        stream.dispatch(Dispatch {
            pipeline: &self.query_rope,
            buffers: &[q, &self.rope, step.meta.positions.buffer(), &queries.buffer],
            params: bytemuck::bytes_of(&params),
            groups: groups_for(num_rows * heads * dims.qk_rope_head_dim / 2),
        })
    }

    /// Attention of the step's queries, `out [T, N V]`.
    pub(crate) fn attend(
        &self,
        stream: &mut WgpuStream,
        step: LayerStep<'_, WgpuBuffer>,
        queries: &Queries,
        cache: &LatentCache,
        out: &WgpuBuffer,
    ) -> Result<(), StepError> {
        let layout = step.meta.host();
        let (num_tokens, dims) = (layout.num_tokens(), &self.dims);
        if num_tokens == 0 || layout.num_seqs() == 0 {
            return Ok(());
        }
        let gpu = stream.gpu().clone();
        let (heads, rank) = (dims.num_attention_heads, dims.kv_lora_rank);
        let attended = stream.scratch.attended.get(&gpu, queries.max_num_tokens * heads * rank)?;
        self.attend_latents(stream, step, queries, &cache.layers[step.layer], &attended)?;
        let placement = Placement {
            x_row: heads * rank,
            y_row: heads * dims.v_head_dim,
            heads,
            x_head: rank,
            y_head: dims.v_head_dim,
            w_head: dims.qk_nope_head_dim + dims.v_head_dim,
            w_first: dims.qk_nope_head_dim,
            num_outputs: dims.v_head_dim,
        };
        self.kv_b.run_placed(stream, Product { x: &attended, y: out, num_rows: num_tokens }, placement)
    }

    fn attend_latents(
        &self,
        stream: &mut WgpuStream,
        step: LayerStep<'_, WgpuBuffer>,
        queries: &Queries,
        cache: &WgpuBuffer,
        attended: &WgpuBuffer,
    ) -> Result<(), StepError> {
        let (layout, dims, meta) = (step.meta.host(), &self.dims, step.meta);
        let heads = dims.num_attention_heads;
        let most_rows = layout.max_query_len * heads;
        let kernel = self.attention.iter().find(|kernel| kernel.rows >= most_rows);
        let kernel = kernel.unwrap_or(&self.attention[self.attention.len() - 1]);
        let num_tiles = most_rows.div_ceil(kernel.rows);
        let num_splits = self.num_splits(layout, num_tiles);
        let num_rows = layout.num_tokens() * heads;
        let mut params = AttentionParams {
            num_heads: heads as u32,
            num_rows: num_rows as u32,
            latent_width: dims.latent_width() as u32,
            kv_lora_rank: dims.kv_lora_rank as u32,
            block_size: layout.block_size as u32,
            max_blocks: layout.max_blocks_per_seq as u32,
            num_splits: num_splits as u32,
            softmax_scale: self.softmax_scale,
            first_tile: 0,
        };
        let inputs = [
            &queries.buffer,
            cache,
            meta.positions.buffer(),
            meta.block_table.buffer(),
            meta.seq_lens.buffer(),
            meta.query_start_loc.buffer(),
        ];
        let gpu = stream.gpu().clone();
        // Splits are made only while there are fewer workgroups than wanted.
        let most_parts = self.target_groups * kernel.rows;
        let (pipeline, parts, stats) = if num_splits > 1 {
            let parts = stream.scratch.parts.get(&gpu, most_parts * dims.kv_lora_rank)?;
            (&kernel.split, Some(parts), Some(stream.scratch.stats.get(&gpu, 2 * most_parts)?))
        } else {
            (&kernel.whole, None, None)
        };
        let [q, cache, positions, blocks, lens, starts] = inputs;
        let whole = [q, cache, positions, blocks, lens, starts, attended];
        let split;
        let buffers: &[&WgpuBuffer] = match (&parts, &stats) {
            (Some(parts), Some(stats)) => {
                split = [q, cache, positions, blocks, lens, starts, parts, stats];
                &split
            }
            _ => &whole,
        };
        for first_tile in (0..num_tiles).step_by(MAX_GROUPS) {
            params.first_tile = first_tile as u32;
            let tiles = (num_tiles - first_tile).min(MAX_GROUPS);
            stream.dispatch(Dispatch {
                pipeline,
                buffers,
                params: bytemuck::bytes_of(&params),
                groups: [tiles as u32, layout.num_seqs() as u32, num_splits as u32],
            })?;
        }
        let (Some(parts), Some(stats)) = (&parts, &stats) else { return Ok(()) };
        let params =
            MergeParams { num_rows: num_rows as u32, cols: dims.kv_lora_rank as u32, num_splits: num_splits as u32 };
        stream.dispatch(Dispatch {
            pipeline: &self.merge,
            buffers: &[parts, stats, attended],
            params: bytemuck::bytes_of(&params),
            groups: groups_for(num_rows * dims.kv_lora_rank),
        })
    }

    /// Parts that the positions are cut into, so that a small step still fills the device.
    fn num_splits(&self, layout: &StepLayout, num_tiles: usize) -> usize {
        let wanted = self.target_groups / (num_tiles * layout.num_seqs());
        wanted.min(layout.max_seq_len.div_ceil(MIN_SPLIT)).max(1)
    }
}

fn attention(gpu: &Gpu, pipelines: &Pipelines, dims: &AttentionConfig, rows: u32) -> Result<Attention, PrepareError> {
    let quads = (dims.kv_lora_rank as u32).div_ceil(4 * ATTENTION_LANES);
    let vectorised = dims.latent_width().is_multiple_of(4);
    let kernel = |split| pipelines.get(gpu, Kernel::Attention { rows, quads, vectorised, split });
    Ok(Attention { rows: rows as usize, whole: kernel(false)?, split: kernel(true)? })
}
