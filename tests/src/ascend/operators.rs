//! How many of CANN's operators each op of a decoding step takes: every one costs the host a plan and a launch.
#![allow(clippy::print_stdout, reason = "a table for who asked for it")]

use std::sync::Arc;

use backend_ascend::AscendBackend;
use engine_core::backend::{
    Backend, CacheFormat, CacheSpec, ExpertsWeights, FfnWeights, GateSpec, GateWeights, LayerStep, MlaPrologIo,
    MlaSpec, MlaWeights, QueryProjection, Routing, SequenceStep, StepLimits, StepMeta,
};
use engine_core::config::{AttentionConfig, RopeConfig, Router};
use engine_core::rope::{RopeTable, softmax_scale};
use half::bf16;
use serde_json::json;

use super::profile;
use crate::harness::{Format, Rig, Rng, Stop, TestWeight};

const WIDTH: usize = 64;
const NUM_EXPERTS: usize = 16;
const TOP_K: usize = 4;
/// A layer's hidden size, and its attention with DeepSeek-V3's widths of a head.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    hidden: usize,
    dims: AttentionConfig,
}

/// Sizes that the operator for the whole first half of attention takes, and smaller ones.
const SIZES: [Sizes; 2] = [sizes(1024, 16, 1536), sizes(128, 4, 96)];

const fn sizes(hidden: usize, heads: usize, q_lora_rank: usize) -> Sizes {
    let dims = AttentionConfig {
        num_attention_heads: heads,
        q_lora_rank: Some(q_lora_rank),
        kv_lora_rank: 512,
        qk_nope_head_dim: 128,
        qk_rope_head_dim: 64,
        v_head_dim: 128,
    };
    Sizes { hidden, dims }
}

const ROPE: RopeConfig = RopeConfig { theta: 10_000.0, yarn: None };
const BLOCK_SIZE: usize = 64;
/// Sequences that decode together.
const NUM_SEQS: usize = 2;

/// Operators of each op, and of a whole layer with experts and without.
struct Counts {
    by_op: Vec<(&'static str, u64)>,
    dense_layer: u64,
    moe_layer: u64,
}

/// Counts for bf16 and INT8 weights.
pub fn operators(backend: &AscendBackend) -> (u8, serde_json::Value) {
    let mut formats = Vec::new();
    for (name, format) in [("bf16", Format::Bf16), ("int8", Format::Int8)] {
        for sizes in SIZES {
            let profile = profile(backend);
            let counted = Rig::new(backend, &profile).and_then(|mut rig| count(&mut rig, sizes, format));
            let Counts { by_op, dense_layer, moe_layer } = match counted {
                Ok(counts) => counts,
                Err(stop) => return (1, json!({ "check": "operators", "error": format!("{stop:?}") })),
            };
            let hidden = sizes.hidden;
            println!(
                "{name}, hidden {hidden}: {dense_layer} operators in a dense layer, {moe_layer} in one with experts"
            );
            by_op.iter().for_each(|(op, count)| println!("  {op:<14} {count}"));
            formats.push(json!({
                "format": name, "hidden": hidden, "dense_layer": dense_layer, "moe_layer": moe_layer,
            }));
        }
    }
    (0, json!({ "check": "operators", "formats": formats }))
}

fn ffn(rng: &mut Rng, format: Format, hidden: usize) -> FfnWeights {
    FfnWeights {
        gate: TestWeight::random(rng, format, WIDTH, hidden).host,
        up: TestWeight::random(rng, format, WIDTH, hidden).host,
        down: TestWeight::random(rng, format, hidden, WIDTH).host,
    }
}

fn mla_weights(rng: &mut Rng, format: Format, sizes: Sizes) -> MlaWeights {
    let Sizes { hidden, dims } = sizes;
    let rank = dims.q_lora_rank.unwrap_or(0);
    let heads = dims.num_attention_heads;
    let kv_b_rows = heads * (dims.qk_nope_head_dim + dims.v_head_dim);
    MlaWeights {
        q: QueryProjection::LowRank {
            a: TestWeight::random(rng, format, rank, hidden).host,
            norm: vec![1.0; rank],
            b: TestWeight::random(rng, format, heads * dims.qk_head_dim(), rank).host,
        },
        kv_a: TestWeight::random(rng, format, dims.latent_width(), hidden).host,
        kv_a_norm: vec![1.0; dims.kv_lora_rank],
        kv_b: TestWeight::random(rng, Format::Bf16, kv_b_rows, dims.kv_lora_rank).host,
    }
}

fn mla_spec(Sizes { hidden, dims }: Sizes) -> MlaSpec {
    MlaSpec {
        dims,
        hidden_size: hidden,
        softmax_scale: softmax_scale(&dims, &ROPE),
        rope: Arc::new(RopeTable::new(&ROPE, dims.qk_rope_head_dim, 2 * BLOCK_SIZE)),
        rms_norm_eps: 1e-6,
    }
}

/// Runs the ops of a layer twice, as two layers of a step, and counts the second time: tables are there by then.
fn count(rig: &mut Rig<'_, AscendBackend>, sizes: Sizes, format: Format) -> Result<Counts, Stop> {
    let mut rng = Rng::from_name("operators");
    let backend = rig.backend;
    let Sizes { hidden, dims } = sizes;
    let spec = mla_spec(sizes);
    let mla = backend.prepare_mla(&spec, mla_weights(&mut rng, format, sizes))?;
    let heads_width = dims.num_attention_heads * dims.v_head_dim;
    let o_proj = backend.prepare_linear(TestWeight::random(&mut rng, format, hidden, heads_width).host)?;
    let norm = backend.prepare_norm(&vec![1.0; hidden], 1e-6)?;
    let dense = backend.prepare_ffn(ffn(&mut rng, format, hidden))?;
    let gate_spec = GateSpec {
        hidden_size: hidden,
        n_routed_experts: NUM_EXPERTS,
        num_experts_per_tok: TOP_K,
        router: Router::SigmoidNoAuxTc { n_group: 4, topk_group: 2 },
        norm_topk_prob: true,
        routed_scaling_factor: 2.5,
    };
    let gate_weight = TestWeight::random(&mut rng, Format::Bf16, NUM_EXPERTS, hidden).host;
    let gate_weights = GateWeights { weight: gate_weight, correction_bias: Some(vec![0.1; NUM_EXPERTS]) };
    let gate = backend.prepare_gate(&gate_spec, gate_weights)?;
    let routed = (0..NUM_EXPERTS).map(|_| ffn(&mut rng, format, hidden)).collect();
    let shared = Some(ffn(&mut rng, format, hidden));
    let experts = backend.prepare_experts(ExpertsWeights { routed, shared })?;
    let cache_spec = CacheSpec {
        num_layers: 1,
        num_blocks: NUM_SEQS,
        block_size: BLOCK_SIZE,
        kv_lora_rank: dims.kv_lora_rank,
        qk_rope_head_dim: dims.qk_rope_head_dim,
        format: CacheFormat::Native,
    };
    let (mut cache, mut queries) = (backend.latent_cache(&cache_spec)?, backend.queries(&spec, NUM_SEQS)?);
    let limits = StepLimits {
        max_num_batched_tokens: NUM_SEQS,
        max_num_seqs: NUM_SEQS,
        max_model_len: BLOCK_SIZE,
        block_size: BLOCK_SIZE,
    };
    let mut meta = StepMeta::alloc(backend, &limits)?;
    let tables = [[0], [1]];
    let sequence = |table| SequenceStep { tokens: &[0], context_len: 0, block_table: table };
    meta.fill(backend, &mut rig.stream, &tables.each_ref().map(|table| sequence(table.as_slice())))?;
    let x = rig.act_input("x", hidden, &rng.activations(profile(backend).numerics, NUM_SEQS * hidden))?;
    let mut out = rig.output::<bf16>("out", NUM_SEQS, hidden)?;
    let mut residual = rig.output::<bf16>("residual", NUM_SEQS, hidden)?;
    let mut normed = rig.output::<bf16>("normed", NUM_SEQS, hidden)?;
    let mut attended = rig.output::<bf16>("attended", NUM_SEQS, heads_width)?;
    let mut routing = Routing::alloc(backend, NUM_SEQS, TOP_K)?;
    let layer = LayerStep { layer: 0, meta: &meta };
    let stream = &mut rig.stream;
    let mut by_op = Vec::new();
    for _ in 0..2 {
        by_op.clear();
        let mut before = stream.num_operators();
        let mut counted = |op: &'static str, now: u64| by_op.push((op, now - std::mem::replace(&mut before, now)));
        let io = MlaPrologIo::<AscendBackend> { x: &x.tensor, cache: &mut cache, queries: &mut queries };
        backend.mla_prolog(stream, &mla, layer, io)?;
        counted("mla_prolog", stream.num_operators());
        backend.mla_attention(stream, &mla, layer, &queries, &cache, &mut attended.tensor)?;
        counted("mla_attention", stream.num_operators());
        backend.linear(stream, &o_proj, &attended.tensor, &mut out.tensor)?;
        counted("o_proj", stream.num_operators());
        backend.add_rms_norm(stream, &norm, &out.tensor, &mut residual.tensor, &mut normed.tensor)?;
        counted("add_rms_norm", stream.num_operators());
        backend.ffn(stream, &dense, &x.tensor, &mut out.tensor)?;
        counted("ffn", stream.num_operators());
        backend.moe_gate(stream, &gate, &x.tensor, &mut routing)?;
        counted("moe_gate", stream.num_operators());
        backend.moe_experts(stream, &experts, &x.tensor, &routing, &mut out.tensor)?;
        counted("moe_experts", stream.num_operators());
    }
    backend.synchronize(stream)?;
    let of = |op: &str| by_op.iter().find(|(name, _)| *name == op).map_or(0, |(_, count)| *count);
    // Sums with their norms come twice in a layer.
    let attention = 2 * of("add_rms_norm") + of("mla_prolog") + of("mla_attention") + of("o_proj");
    let (dense_layer, moe_layer) = (attention + of("ffn"), attention + of("moe_gate") + of("moe_experts"));
    Ok(Counts { by_op, dense_layer, moe_layer })
}
