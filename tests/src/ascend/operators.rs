//! How many of CANN's operators each op of a decoding step takes: every one costs the host a plan and a launch.
#![allow(clippy::print_stdout, reason = "a table for who asked for it")]

use std::sync::Arc;

use backend_ascend::AscendBackend;
use engine_core::backend::{
    Backend, CacheSpec, ExpertsWeights, FfnWeights, GateSpec, GateWeights, LayerStep, MlaPrologIo, MlaSpec, MlaWeights,
    QueryProjection, Routing, SequenceStep, StepLimits, StepMeta,
};
use engine_core::config::{AttentionConfig, RopeConfig, Router};
use engine_core::rope::{RopeTable, softmax_scale};
use half::bf16;
use serde_json::json;

use super::profile;
use crate::harness::{Format, Rig, Rng, Stop, TestWeight};

const HIDDEN: usize = 128;
const WIDTH: usize = 64;
const NUM_EXPERTS: usize = 16;
const TOP_K: usize = 4;
/// Widths of DeepSeek-V3, with fewer heads.
const DIMS: AttentionConfig = AttentionConfig {
    num_attention_heads: 4,
    q_lora_rank: Some(96),
    kv_lora_rank: 512,
    qk_nope_head_dim: 128,
    qk_rope_head_dim: 64,
    v_head_dim: 128,
};
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
        let profile = profile(backend);
        let counted = Rig::new(backend, &profile).and_then(|mut rig| count(&mut rig, format));
        match counted {
            Ok(Counts { by_op, dense_layer, moe_layer }) => {
                println!("{name}: {dense_layer} operators in a dense layer, {moe_layer} in one with experts");
                by_op.iter().for_each(|(op, count)| println!("  {op:<14} {count}"));
                formats.push(json!({ "format": name, "dense_layer": dense_layer, "moe_layer": moe_layer }));
            }
            Err(stop) => return (1, json!({ "check": "operators", "error": format!("{stop:?}") })),
        }
    }
    (0, json!({ "check": "operators", "formats": formats }))
}

fn ffn(rng: &mut Rng, format: Format, width: usize) -> FfnWeights {
    FfnWeights {
        gate: TestWeight::random(rng, format, width, HIDDEN).host,
        up: TestWeight::random(rng, format, width, HIDDEN).host,
        down: TestWeight::random(rng, format, HIDDEN, width).host,
    }
}

fn mla_weights(rng: &mut Rng, format: Format) -> MlaWeights {
    let rank = DIMS.q_lora_rank.unwrap_or(0);
    let heads = DIMS.num_attention_heads;
    let kv_b_rows = heads * (DIMS.qk_nope_head_dim + DIMS.v_head_dim);
    MlaWeights {
        q: QueryProjection::LowRank {
            a: TestWeight::random(rng, format, rank, HIDDEN).host,
            norm: vec![1.0; rank],
            b: TestWeight::random(rng, format, heads * DIMS.qk_head_dim(), rank).host,
        },
        kv_a: TestWeight::random(rng, format, DIMS.latent_width(), HIDDEN).host,
        kv_a_norm: vec![1.0; DIMS.kv_lora_rank],
        kv_b: TestWeight::random(rng, Format::Bf16, kv_b_rows, DIMS.kv_lora_rank).host,
    }
}

fn mla_spec() -> MlaSpec {
    MlaSpec {
        dims: DIMS,
        hidden_size: HIDDEN,
        softmax_scale: softmax_scale(&DIMS, &ROPE),
        rope: Arc::new(RopeTable::new(&ROPE, DIMS.qk_rope_head_dim, 2 * BLOCK_SIZE)),
        rms_norm_eps: 1e-6,
    }
}

/// Runs the ops of a layer twice, as two layers of a step, and counts the second time: tables are there by then.
fn count(rig: &mut Rig<'_, AscendBackend>, format: Format) -> Result<Counts, Stop> {
    let mut rng = Rng::from_name("operators");
    let backend = rig.backend;
    let spec = mla_spec();
    let mla = backend.prepare_mla(&spec, mla_weights(&mut rng, format))?;
    let heads_width = DIMS.num_attention_heads * DIMS.v_head_dim;
    let o_proj = backend.prepare_linear(TestWeight::random(&mut rng, format, HIDDEN, heads_width).host)?;
    let norm = backend.prepare_norm(&[1.0; HIDDEN], 1e-6)?;
    let dense = backend.prepare_ffn(ffn(&mut rng, format, WIDTH))?;
    let gate_spec = GateSpec {
        hidden_size: HIDDEN,
        n_routed_experts: NUM_EXPERTS,
        num_experts_per_tok: TOP_K,
        router: Router::SigmoidNoAuxTc { n_group: 4, topk_group: 2 },
        norm_topk_prob: true,
        routed_scaling_factor: 2.5,
    };
    let gate_weight = TestWeight::random(&mut rng, Format::Bf16, NUM_EXPERTS, HIDDEN).host;
    let gate_weights = GateWeights { weight: gate_weight, correction_bias: Some(vec![0.1; NUM_EXPERTS]) };
    let gate = backend.prepare_gate(&gate_spec, gate_weights)?;
    let routed = (0..NUM_EXPERTS).map(|_| ffn(&mut rng, format, WIDTH)).collect();
    let shared = Some(ffn(&mut rng, format, WIDTH));
    let experts = backend.prepare_experts(ExpertsWeights { routed, shared })?;
    let cache_spec = CacheSpec {
        num_layers: 1,
        num_blocks: NUM_SEQS,
        block_size: BLOCK_SIZE,
        kv_lora_rank: DIMS.kv_lora_rank,
        qk_rope_head_dim: DIMS.qk_rope_head_dim,
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
    let x = rig.act_input("x", HIDDEN, &rng.activations(profile(backend).numerics, NUM_SEQS * HIDDEN))?;
    let mut out = rig.output::<bf16>("out", NUM_SEQS, HIDDEN)?;
    let mut attended = rig.output::<bf16>("attended", NUM_SEQS, heads_width)?;
    let mut routing = Routing::alloc(backend, NUM_SEQS, TOP_K)?;
    let layer = LayerStep { layer: 0, meta: &meta };
    let stream = &mut rig.stream;
    let mut by_op = Vec::new();
    for _ in 0..2 {
        by_op.clear();
        let mut before = stream.num_operators();
        let mut counted = |op: &'static str, now: u64| by_op.push((op, now - std::mem::replace(&mut before, now)));
        backend.rms_norm(stream, &norm, &x.tensor, &mut out.tensor)?;
        counted("rms_norm", stream.num_operators());
        let io = MlaPrologIo::<AscendBackend> { x: &x.tensor, cache: &mut cache, queries: &mut queries };
        backend.mla_prolog(stream, &mla, layer, io)?;
        counted("mla_prolog", stream.num_operators());
        backend.mla_attention(stream, &mla, layer, &queries, &cache, &mut attended.tensor)?;
        counted("mla_attention", stream.num_operators());
        backend.linear(stream, &o_proj, &attended.tensor, &mut out.tensor)?;
        counted("o_proj", stream.num_operators());
        backend.add(stream, &x.tensor, &mut out.tensor)?;
        counted("add", stream.num_operators());
        backend.ffn(stream, &dense, &x.tensor, &mut out.tensor)?;
        counted("ffn", stream.num_operators());
        backend.moe_gate(stream, &gate, &x.tensor, &mut routing)?;
        counted("moe_gate", stream.num_operators());
        backend.moe_experts(stream, &experts, &x.tensor, &routing, &mut out.tensor)?;
        counted("moe_experts", stream.num_operators());
    }
    backend.synchronize(stream)?;
    let of = |op: &str| by_op.iter().find(|(name, _)| *name == op).map_or(0, |(_, count)| *count);
    // Norms and sums come twice in a layer.
    let attention = 2 * (of("rms_norm") + of("add")) + of("mla_prolog") + of("mla_attention") + of("o_proj");
    let (dense_layer, moe_layer) = (attention + of("ffn"), attention + of("moe_gate") + of("moe_experts"));
    Ok(Counts { by_op, dense_layer, moe_layer })
}
