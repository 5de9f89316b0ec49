//! Multi-head latent attention. Most sequences attend in [absorbed](absorbed) form: W_UK is folded into the queries, W_UV into
//! the result, and attention runs on the latents as one key head of width Lkv + R. Sequences with many queries in a step, which
//! prompts have, attend in [expanded](expanded) form, on keys and values of every head. [`runs`] says who does what; both
//! halves of attention ask it.
//!
//! W_UK and W_UV are bf16 whatever the checkpoint holds: the absorbed form has no input to quantise, and products per head
//! are small. They are widened head by head while loading.

mod absorbed;
mod expanded;
mod prolog;
mod runs;

use std::sync::Arc;

use engine_core::backend::{
    CacheFormat, CacheSpec, LayerStep, MlaSpec, MlaWeights, PrepareError, QueryProjection, StepError, StepLayout,
    Tensor,
};
use engine_core::config::AttentionConfig;
use engine_core::quant::HostWeight;
use engine_core::rope::{DeviceRopeTables, RopeTable};
use half::bf16;

use crate::device::{Device, Memory};
use crate::linear::GpuLinear;
use crate::matrix::{Matrices, ROW_MULTIPLE};
use crate::norm::GpuNorm;
use crate::product::TILE;
use crate::runtime::{Arg, GpuRuntime};
use crate::scratch::GpuStream;

use absorbed::AttentionKernels;
use expanded::Expansion;
use runs::{Form, Run, runs};

/// A prepared layer's attention.
#[derive(Debug)]
pub struct GpuMla<R: GpuRuntime> {
    widths: Widths,
    softmax_scale: f32,
    q: Projection<R>,
    kv_a: GpuLinear<R>,
    kv_a_norm: GpuNorm<R>,
    /// `[N][Lkv, P]`.
    w_uk: GpuLinear<R>,
    /// `[N][V, Lkv]`.
    w_uv: GpuLinear<R>,
    rope: Arc<RopeMemory<R>>,
    split_queries: R::Kernel,
    /// `None` where this device or these widths leave the absorbed form alone.
    expansion: Option<Expansion<R::Kernel>>,
    native_cache: CacheKernels<R::Kernel>,
    fp8_cache: CacheKernels<R::Kernel>,
}

/// What writes and reads a cache of one format.
#[derive(Debug)]
struct CacheKernels<K> {
    write_latents: K,
    gather_latents: K,
    attention: AttentionKernels<K>,
}

impl<K: Clone + Send + Sync> CacheKernels<K> {
    fn new<R: GpuRuntime<Kernel = K>>(
        device: &Device<R>,
        widths: &Widths,
        format: CacheFormat,
    ) -> Result<Self, PrepareError> {
        let (write_latents, gather_latents) = match format {
            CacheFormat::Native => ("write_latents", "gather_latents"),
            CacheFormat::Fp8 => ("write_latents_fp8", "gather_latents_fp8"),
        };
        Ok(Self {
            write_latents: device.runtime().kernel("mla_prolog", write_latents)?,
            gather_latents: device.runtime().kernel("mla_expanded", gather_latents)?,
            attention: AttentionKernels::new(device, widths, format)?,
        })
    }
}

#[derive(Debug)]
enum Projection<R: GpuRuntime> {
    Direct(GpuLinear<R>),
    LowRank { a: GpuLinear<R>, norm: GpuNorm<R>, b: GpuLinear<R> },
}

/// Sizes of a head and of a latent. Padded ones are filled up with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Widths {
    num_heads: u32,
    nope: u32,
    padded_nope: u32,
    rope: u32,
    rank: u32,
    padded_rank: u32,
    v: u32,
    /// Of a latent and of an absorbed query: the padded rank and the padded rotated part.
    latent: u32,
}

impl Widths {
    fn padded_rope(&self) -> u32 {
        self.latent - self.padded_rank
    }

    /// Of a value in an expanded head.
    fn padded_v(&self) -> u32 {
        self.v.next_multiple_of(TILE)
    }

    /// Of a query that is not absorbed, and of its key.
    fn head(&self) -> u32 {
        self.padded_nope + self.padded_rope()
    }

    /// Values of memory for a token's queries, in either form.
    fn queries(&self) -> u32 {
        self.num_heads * self.latent.max(self.head())
    }
}

impl Widths {
    fn new<R: GpuRuntime>(device: &Device<R>, dims: &AttentionConfig) -> Result<Self, PrepareError> {
        let size = |size: usize, what: &str| device.kernel_size(size, what);
        let rank = size(dims.kv_lora_rank, "a latent")?;
        let rope = size(dims.qk_rope_head_dim, "rotated values")?;
        let nope = size(dims.qk_nope_head_dim, "a head")?;
        let padded_rank = latent_part(rank);
        Ok(Self {
            num_heads: size(dims.num_attention_heads, "heads")?,
            nope,
            padded_nope: nope.next_multiple_of(ROW_MULTIPLE as u32),
            rope,
            rank,
            padded_rank,
            v: size(dims.v_head_dim, "a head")?,
            latent: padded_rank + rope.next_multiple_of(TILE),
        })
    }
}

/// The sums over latents are inputs of a product, so their rows are whole vectors of those.
fn latent_part(rank: u32) -> u32 {
    rank.next_multiple_of(ROW_MULTIPLE as u32)
}

/// Bytes of a slot of the cache, whole vectors: bf16 values, or what fp8_slot.h describes.
fn slot_bytes(format: CacheFormat, padded_rank: u32, padded_rope: u32) -> u32 {
    let num_bytes = format.bytes_per_slot(padded_rank as usize, padded_rope as usize, size_of::<bf16>());
    num_bytes.next_multiple_of(16) as u32
}

/// Latent KV of all layers: `[layer][slot]`, see [`slot_bytes`].
#[derive(Debug)]
pub struct GpuLatentCache<R: GpuRuntime> {
    memory: Memory<R>,
    layer_bytes: u64,
    format: CacheFormat,
}

impl<R: GpuRuntime> GpuLatentCache<R> {
    pub(crate) fn new(device: &Device<R>, spec: &CacheSpec) -> Result<Self, PrepareError> {
        let rank = device.kernel_size(spec.kv_lora_rank, "a latent")?;
        let rope = device.kernel_size(spec.qk_rope_head_dim, "rotated values")?;
        let slot_bytes = slot_bytes(spec.format, latent_part(rank), rope.next_multiple_of(TILE)) as usize;
        // Sizes no device has end in an error of the allocation.
        let layer_bytes = spec.num_blocks.saturating_mul(spec.block_size).saturating_mul(slot_bytes);
        let memory = device.memory(layer_bytes.saturating_mul(spec.num_layers), "the latent cache")?;
        Ok(Self { memory, layer_bytes: layer_bytes as u64, format: spec.format })
    }

    fn layer(&self, layer: usize) -> u64 {
        self.memory.address() + self.layer_bytes * layer as u64
    }
}

/// Queries of a step, those of each run from its first token's place on: `[tokens, N]` of the absorbed part or what it is made
/// from, and the rotated part.
#[derive(Debug)]
pub struct GpuQueries<R: GpuRuntime> {
    memory: Memory<R>,
    token_bytes: u64,
}

impl<R: GpuRuntime> GpuQueries<R> {
    pub(crate) fn new(device: &Device<R>, spec: &MlaSpec, max_num_tokens: usize) -> Result<Self, PrepareError> {
        let widths = Widths::new(device, &spec.dims)?;
        let token_bytes = 2 * widths.queries() as usize;
        let memory = device.memory(max_num_tokens.saturating_mul(token_bytes), "queries")?;
        Ok(Self { memory, token_bytes: token_bytes as u64 })
    }

    /// Where those of a run begin.
    fn of_run(&self, run: &Run) -> u64 {
        self.memory.address() + u64::from(run.tokens.start) * self.token_bytes
    }
}

/// cos and sin on the device, `[max_len, R / 2]` each.
#[derive(Debug)]
pub(crate) struct RopeMemory<R: GpuRuntime> {
    cos: Memory<R>,
    sin: Memory<R>,
}

impl<R: GpuRuntime> RopeMemory<R> {
    fn new(device: &Device<R>, table: &RopeTable) -> Result<Self, StepError> {
        let (cos, sin) = table.as_slices();
        let upload = |values: &[f32]| device.uploaded(bytemuck::cast_slice(values), "rope tables");
        Ok(Self { cos: upload(cos)?, sin: upload(sin)? })
    }
}

/// The tables that layers share.
pub(crate) type RopeTables<R> = DeviceRopeTables<RopeMemory<R>>;

impl<R: GpuRuntime> GpuMla<R> {
    pub(crate) fn new(
        device: &Device<R>,
        tables: &RopeTables<R>,
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
        let widths = Widths::new(device, &spec.dims)?;
        let eps = spec.rms_norm_eps;
        let q = match &weights.q {
            QueryProjection::Direct(weight) => Projection::Direct(GpuLinear::new(device, weight)?),
            QueryProjection::LowRank { a, norm, b } => Projection::LowRank {
                a: GpuLinear::new(device, a)?,
                norm: GpuNorm::new(device, norm, eps)?,
                b: GpuLinear::new(device, b)?,
            },
        };
        let (w_uk, w_uv) = absorbed_weights(device, &spec.dims, &weights.kv_b)?;
        Ok(Self {
            widths,
            softmax_scale: spec.softmax_scale,
            q,
            kv_a: GpuLinear::new(device, &weights.kv_a)?,
            kv_a_norm: GpuNorm::new(device, &weights.kv_a_norm, eps)?,
            w_uk: GpuLinear::of_matrices(device, w_uk)?,
            w_uv: GpuLinear::of_matrices(device, w_uv)?,
            rope: tables.get(&spec.rope, || RopeMemory::new(device, &spec.rope))?,
            split_queries: device.runtime().kernel("mla_prolog", "split_queries")?,
            expansion: Expansion::new(device, &widths)?,
            native_cache: CacheKernels::new(device, &widths, CacheFormat::Native)?,
            fp8_cache: CacheKernels::new(device, &widths, CacheFormat::Fp8)?,
        })
    }

    /// Causal attention over the cache, `out [T, N · V]`.
    pub(crate) fn attention(
        &self,
        device: &Device<R>,
        stream: &mut GpuStream<R>,
        step: LayerStep<'_, R::Buffer>,
        (queries, cache): (&GpuQueries<R>, &GpuLatentCache<R>),
        out: u64,
    ) -> Result<(), StepError> {
        for run in self.runs(step.meta.host()) {
            let token_bytes = 2 * u64::from(self.widths.num_heads * self.widths.v);
            let addresses = [queries.of_run(&run), out + u64::from(run.tokens.start) * token_bytes];
            match (run.form, &self.expansion) {
                (Form::Expanded, Some(expansion)) => {
                    self.attend_expanded((device, expansion), stream, (step, &run), cache, addresses)?;
                }
                (Form::Absorbed, _) | (Form::Expanded, None) => {
                    self.attend_absorbed(device, stream, (step, &run), cache, addresses)?;
                }
            }
        }
        Ok(())
    }

    /// The sequences of a step by form of attention.
    fn runs<'a>(&'a self, layout: &'a StepLayout) -> impl Iterator<Item = Run> + 'a {
        runs(layout, |query_len, seq_len| match &self.expansion {
            Some(expansion) if expansion.suits(query_len, seq_len) => Form::Expanded,
            Some(_) | None => Form::Absorbed,
        })
    }

    /// The factor of scores, for weights that are powers of two.
    fn scale_arg(&self) -> Arg {
        Arg::F32(self.softmax_scale * std::f32::consts::LOG2_E)
    }

    fn cache_kernels(&self, cache: &GpuLatentCache<R>) -> &CacheKernels<R::Kernel> {
        match cache.format {
            CacheFormat::Native => &self.native_cache,
            CacheFormat::Fp8 => &self.fp8_cache,
        }
    }
}

/// `block_table`, `seq_lens` and `query_start_loc` of a step's sequences from `first` on.
fn sequence_args<R: GpuRuntime>(device: &Device<R>, step: LayerStep<'_, R::Buffer>, first: usize) -> [Arg; 3] {
    let (meta, first) = (step.meta, first as u64);
    let max_blocks = meta.host().max_blocks_per_seq as u64;
    let address = |tensor: &Tensor<R::Buffer, u32>, from: u64| {
        Arg::Ptr(device.runtime().address(tensor.buffer()) + from * size_of::<u32>() as u64)
    };
    [
        address(&meta.block_table, first * max_blocks),
        address(&meta.seq_lens, first),
        address(&meta.query_start_loc, first),
    ]
}

/// `kv_b` per head: P rows of W_UK, which are turned to `[Lkv, P]`, then V rows of W_UV.
fn absorbed_weights<R: GpuRuntime>(
    device: &Device<R>,
    dims: &AttentionConfig,
    kv_b: &HostWeight,
) -> Result<(Matrices<R>, Matrices<R>), PrepareError> {
    let AttentionConfig { num_attention_heads: heads, kv_lora_rank: rank, .. } = *dims;
    let (p, v) = (dims.qk_nope_head_dim, dims.v_head_dim);
    let mut row = vec![0.0; rank];
    let w_uk = Matrices::computed(device, (heads, rank, p), |head, matrix, stride| {
        for i in 0..p {
            kv_b.row_f32(head * (p + v) + i, &mut row);
            for (l, value) in row.iter().enumerate() {
                matrix[l * stride + i] = bf16::from_f32(*value);
            }
        }
    })?;
    let w_uv = Matrices::computed(device, (heads, v, rank), |head, matrix, stride| {
        for j in 0..v {
            kv_b.row_f32(head * (p + v) + p + j, &mut row);
            for (to, value) in matrix[j * stride..].iter_mut().zip(&row) {
                *to = bf16::from_f32(*value);
            }
        }
    })?;
    Ok((w_uk, w_uv))
}

#[cfg(test)]
mod tests {
    use engine_core::backend::StepLayout;

    use super::Widths;

    /// A step of sequences of so many queries and positions.
    pub(super) fn layout(sequences: &[(u32, u32)]) -> StepLayout {
        let mut layout = StepLayout { query_start_loc: vec![0], ..StepLayout::default() };
        for (query_len, seq_len) in sequences {
            layout.query_start_loc.push(layout.query_start_loc.last().copied().unwrap_or(0) + query_len);
            layout.seq_lens.push(*seq_len);
            layout.max_query_len = layout.max_query_len.max(*query_len as usize);
            layout.max_seq_len = layout.max_seq_len.max(*seq_len as usize);
        }
        layout
    }

    /// DeepSeek's widths on an H100: see docs/gpu-kernels.md.
    pub(super) const WIDTHS: Widths = Widths {
        num_heads: 128,
        nope: 128,
        padded_nope: 128,
        rope: 64,
        rank: 512,
        padded_rank: 512,
        v: 128,
        latent: 576,
    };
}
