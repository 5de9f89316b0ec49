//! Multi-head latent attention, absorbed: W_UK is folded into the queries, W_UV into the result, and attention runs on the
//! latents as one key head of width Lkv + R.
//!
//! W_UK and W_UV are bf16 whatever the checkpoint holds: the absorbed form has no input to quantise, and products per head
//! are small. They are widened head by head while loading.

mod attention;
mod prolog;

use std::sync::Arc;

use engine_core::backend::{CacheFormat, CacheSpec, MlaSpec, MlaWeights, PrepareError, QueryProjection, StepError};
use engine_core::config::AttentionConfig;
use engine_core::quant::HostWeight;
use engine_core::rope::{DeviceRopeTables, RopeTable};
use half::bf16;

use crate::device::{Device, Memory};
use crate::linear::GpuLinear;
use crate::matrix::{Matrices, ROW_MULTIPLE};
use crate::norm::GpuNorm;
use crate::product::TILE;
use crate::runtime::GpuRuntime;

use attention::AttentionKernels;

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
    native_cache: CacheKernels<R::Kernel>,
    fp8_cache: CacheKernels<R::Kernel>,
}

/// What writes and reads a cache of one format.
#[derive(Debug)]
struct CacheKernels<K> {
    write_latents: K,
    attention: AttentionKernels<K>,
}

impl<K: Clone + Send + Sync> CacheKernels<K> {
    fn new<R: GpuRuntime<Kernel = K>>(
        device: &Device<R>,
        widths: &Widths,
        format: CacheFormat,
    ) -> Result<Self, PrepareError> {
        let write_latents = match format {
            CacheFormat::Native => "write_latents",
            CacheFormat::Fp8 => "write_latents_fp8",
        };
        Ok(Self {
            write_latents: device.runtime().kernel("mla_prolog", write_latents)?,
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
    /// Of a latent and of a query: the padded rank and the padded rotated part.
    latent: u32,
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

/// Queries of a step: per token and head the absorbed part and the rotated part, `[T, N, latent width]`.
#[derive(Debug)]
pub struct GpuQueries<R: GpuRuntime> {
    memory: Memory<R>,
}

impl<R: GpuRuntime> GpuQueries<R> {
    pub(crate) fn new(device: &Device<R>, spec: &MlaSpec, max_num_tokens: usize) -> Result<Self, PrepareError> {
        let widths = Widths::new(device, &spec.dims)?;
        let num_values = max_num_tokens.saturating_mul(widths.num_heads as usize * widths.latent as usize);
        Ok(Self { memory: device.memory(num_values.saturating_mul(2), "queries")? })
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
            native_cache: CacheKernels::new(device, &widths, CacheFormat::Native)?,
            fp8_cache: CacheKernels::new(device, &widths, CacheFormat::Fp8)?,
        })
    }

    fn cache_kernels(&self, cache: &GpuLatentCache<R>) -> &CacheKernels<R::Kernel> {
        match cache.format {
            CacheFormat::Native => &self.native_cache,
            CacheFormat::Fp8 => &self.fp8_cache,
        }
    }
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
