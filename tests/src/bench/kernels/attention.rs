//! Attention of decode steps and of prompts over a paged cache.

use std::sync::Arc;

use engine_core::Error;
use engine_core::backend::{
    ActTensor, Backend, CacheFormat, CacheSpec, LayerStep, MlaPrologIo, MlaSpec, MlaWeights, QueryProjection,
    SequenceStep, StepLimits, StepMeta, Tensor,
};
use engine_core::config::{AttentionConfig, RopeConfig};
use engine_core::rope::{RopeTable, softmax_scale};

use super::super::Scale;
use super::super::report::{Cost, Row};
use super::super::timing::seconds_per_run;
use super::{KernelBench, fp8_weight};

const BLOCK_SIZE: usize = 64;
/// Layers of the cache, taken in turns.
const NUM_LAYERS: usize = 16;
/// Inputs of the projections: small, since attention itself is what is measured.
const HIDDEN_SIZE: usize = 128;

/// Attention to measure.
#[derive(Debug, Clone, Copy)]
struct Shape {
    name: &'static str,
    dims: AttentionConfig,
    batches: &'static [usize],
    context: usize,
}

const fn shape(name: &'static str, num_attention_heads: usize, batches: &'static [usize], context: usize) -> Shape {
    let dims = AttentionConfig {
        num_attention_heads,
        q_lora_rank: None,
        kv_lora_rank: 512,
        qk_nope_head_dim: 128,
        qk_rope_head_dim: 64,
        v_head_dim: 128,
    };
    Shape { name, dims, batches, context }
}

const SHAPES: [Shape; 2] = [shape("v3", 128, &[1, 32, 128], 4096), shape("moonlight", 16, &[1, 32, 128], 4096)];
const TINY_SHAPES: [Shape; 1] = [shape("tiny", 2, &[1, 3], 32)];

/// What a shape runs on.
struct Attention<B: Backend> {
    mla: B::Mla,
    cache: B::LatentCache,
    queries: B::Queries,
    meta: StepMeta<B::Buffer>,
    limits: StepLimits,
    format: CacheFormat,
}

impl<B: Backend> Attention<B> {
    fn name(&self, what: &str, shape: &Shape) -> String {
        let cache = match self.format {
            CacheFormat::Native => "",
            CacheFormat::Fp8 => " fp8 cache",
        };
        format!("{what} bf16{cache} {}, {} heads", shape.name, shape.dims.num_attention_heads)
    }
}

/// What costs are counted from: widths of a head, bytes of a cached position and of a value.
struct Size {
    heads: f64,
    rank: f64,
    nope: f64,
    rope: f64,
    v: f64,
    slot_bytes: f64,
    element_bytes: f64,
}

impl<B: Backend> KernelBench<'_, B> {
    pub(super) fn attention(&mut self) -> Result<Vec<Row>, Error> {
        let shapes: &[Shape] = match self.options.scale {
            Scale::Full | Scale::Quick => &SHAPES,
            Scale::Tiny => &TINY_SHAPES,
        };
        let mut measured = Vec::new();
        let formats = &self.backend.capabilities().cache_formats;
        for (shape, format) in shapes.iter().flat_map(|shape| formats.iter().map(move |format| (shape, *format))) {
            let mut attention = self.prepare(shape, format)?;
            self.write_cache(&mut attention)?;
            for &batch in shape.batches {
                measured.push(self.decode(shape, &mut attention, batch)?);
            }
            measured.push(self.prompt(shape, &mut attention)?);
        }
        Ok(measured)
    }

    fn prepare(&mut self, shape: &Shape, format: CacheFormat) -> Result<Attention<B>, Error> {
        let dims = shape.dims;
        let heads = dims.num_attention_heads;
        let limits = StepLimits {
            max_num_batched_tokens: 4096,
            max_num_seqs: shape.batches.iter().copied().max().unwrap_or(1),
            max_model_len: shape.context,
            block_size: BLOCK_SIZE,
        };
        let rope = RopeConfig { theta: 10_000.0, yarn: None };
        let spec = MlaSpec {
            dims,
            hidden_size: HIDDEN_SIZE,
            softmax_scale: softmax_scale(&dims, &rope),
            rope: Arc::new(RopeTable::new(&rope, dims.qk_rope_head_dim, shape.context)),
            rms_norm_eps: 1e-6,
        };
        let weights = MlaWeights {
            q: QueryProjection::Direct(fp8_weight(heads * dims.qk_head_dim(), HIDDEN_SIZE)?),
            kv_a: fp8_weight(dims.latent_width(), HIDDEN_SIZE)?,
            kv_a_norm: vec![1.0; dims.kv_lora_rank],
            kv_b: fp8_weight(heads * (dims.qk_nope_head_dim + dims.v_head_dim), dims.kv_lora_rank)?,
        };
        let cache = CacheSpec {
            num_layers: NUM_LAYERS,
            num_blocks: limits.max_num_seqs * limits.max_blocks_per_seq(),
            block_size: BLOCK_SIZE,
            kv_lora_rank: dims.kv_lora_rank,
            qk_rope_head_dim: dims.qk_rope_head_dim,
            format,
        };
        Ok(Attention {
            mla: self.backend.prepare_mla(&spec, weights)?,
            cache: self.backend.latent_cache(&cache)?,
            queries: self.backend.queries(&spec, limits.max_num_batched_tokens)?,
            meta: StepMeta::alloc(self.backend, &limits)?,
            limits,
            format,
        })
    }

    /// Gives every slot of every layer a value: sequences of one block each.
    fn write_cache(&mut self, attention: &mut Attention<B>) -> Result<(), Error> {
        let limits = attention.limits;
        let num_blocks = limits.max_num_seqs * limits.max_blocks_per_seq();
        let rows = limits.max_model_len.min(BLOCK_SIZE);
        let seqs_at_once = (limits.max_num_batched_tokens / rows).min(limits.max_num_seqs);
        let mut x = self.activations(seqs_at_once * rows, HIDDEN_SIZE)?;
        let tokens = vec![0; rows];
        let blocks: Vec<u32> = (0..num_blocks as u32).collect();
        for blocks in blocks.chunks(seqs_at_once) {
            let steps: Vec<SequenceStep<'_>> = blocks
                .chunks(1)
                .map(|block_table| SequenceStep { tokens: &tokens, context_len: 0, block_table })
                .collect();
            attention.meta.fill(self.backend, &mut self.stream, &steps)?;
            x.set_rows(blocks.len() * rows);
            (0..NUM_LAYERS).try_for_each(|layer| self.prolog(attention, layer, &x))?;
        }
        Ok(())
    }

    fn prolog(&mut self, attention: &mut Attention<B>, layer: usize, x: &ActTensor<B>) -> Result<(), Error> {
        let Attention { mla, cache, queries, meta, .. } = attention;
        let io = MlaPrologIo::<B> { x, cache, queries };
        Ok(self.backend.mla_prolog(&mut self.stream, mla, LayerStep { layer, meta }, io)?)
    }

    /// Attention of every layer in turns, of sequences of so many queries each, all `shape.context` long.
    fn seconds(
        &mut self,
        shape: &Shape,
        attention: &mut Attention<B>,
        (num_seqs, query_len): (usize, usize),
    ) -> Result<f64, Error> {
        let blocks_per_seq = attention.limits.max_blocks_per_seq();
        let tables: Vec<Vec<u32>> = (0..num_seqs)
            .map(|seq| (0..blocks_per_seq).map(|block| (seq * blocks_per_seq + block) as u32).collect())
            .collect();
        let (tokens, context_len) = (vec![0; query_len], shape.context - query_len);
        let steps: Vec<SequenceStep<'_>> =
            tables.iter().map(|block_table| SequenceStep { tokens: &tokens, context_len, block_table }).collect();
        attention.meta.fill(self.backend, &mut self.stream, &steps)?;
        let x = self.activations(num_seqs * query_len, HIDDEN_SIZE)?;
        self.prolog(attention, 0, &x)?;
        let (heads, v) = (shape.dims.num_attention_heads, shape.dims.v_head_dim);
        let mut out: ActTensor<B> = Tensor::alloc(self.backend, num_seqs * query_len, heads * v)?;
        let (backend, runs) = (self.backend, self.runs(NUM_LAYERS));
        let Attention { mla, cache, queries, meta, .. } = &*attention;
        let seconds = seconds_per_run(backend, &mut self.stream, runs, |stream, run| {
            backend.mla_attention(stream, mla, LayerStep { layer: run % NUM_LAYERS, meta }, queries, cache, &mut out)
        })?;
        Ok(seconds)
    }

    fn decode(&mut self, shape: &Shape, attention: &mut Attention<B>, batch: usize) -> Result<Row, Error> {
        let seconds = self.seconds(shape, attention, (batch, 1))?;
        let Size { heads, rank, rope, v, slot_bytes, element_bytes, .. } = self.size(shape, attention);
        let pairs = (batch * shape.context) as f64;
        // The latents of all positions, and W_UV.
        let bytes = pairs * slot_bytes + element_bytes * heads * v * rank;
        let w_uv_flop = 2.0 * batch as f64 * heads * v * rank;
        let bf16_flop = pairs * 2.0 * heads * (2.0 * rank + rope) + w_uv_flop;
        let cost = Cost { bytes, fp8_flop: 0.0, bf16_flop };
        Ok(Row::new(&attention.name("attention", shape), (batch, shape.context), seconds, cost, self.options.limits))
    }

    /// One prompt without a context, counted as keys and values of every head: what they take, and each query's share of them.
    fn prompt(&mut self, shape: &Shape, attention: &mut Attention<B>) -> Result<Row, Error> {
        let seconds = self.seconds(shape, attention, (1, shape.context))?;
        let Size { heads, rank, nope, rope, v, slot_bytes, element_bytes } = self.size(shape, attention);
        let positions = shape.context as f64;
        let pairs = positions * (positions + 1.0) / 2.0;
        let bytes = positions * slot_bytes + element_bytes * heads * (nope + v) * rank;
        let bf16_flop = 2.0 * heads * (positions * rank * (nope + v) + pairs * (nope + rope + v));
        let cost = Cost { bytes, fp8_flop: 0.0, bf16_flop };
        let what = attention.name("prompt attention", shape);
        Ok(Row::new(&what, (1, shape.context), seconds, cost, self.options.limits))
    }

    fn size(&self, shape: &Shape, attention: &Attention<B>) -> Size {
        let AttentionConfig {
            num_attention_heads, kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim, ..
        } = shape.dims;
        let element_bytes = self.backend.capabilities().cache_element_bytes;
        Size {
            heads: num_attention_heads as f64,
            rank: kv_lora_rank as f64,
            nope: qk_nope_head_dim as f64,
            rope: qk_rope_head_dim as f64,
            v: v_head_dim as f64,
            slot_bytes: attention.format.bytes_per_slot(kv_lora_rank, qk_rope_head_dim, element_bytes) as f64,
            element_bytes: element_bytes as f64,
        }
    }
}
