//! Memory: long contexts take what the plan said, and steady decoding takes nothing more.
#![cfg(feature = "cpu")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::alloc::System;
use std::path::Path;
use std::sync::Mutex;

use backend_cpu::{CpuBackend, CpuOptions};
use bathysphere::{Device, Engine, SamplingParams, ScoreOptions};
use conformance::golden::{load_tiny, load_tiny_group, model_dir, relative_error};
use engine_core::backend::{CacheFormat, SequenceStep, StepLimits};
use engine_core::config::ModelConfig;
use engine_core::plan::{MemoryPlan, PlanRequest};
use engine_core::quant::PrecisionPolicy;
use engine_core::reference::MlaForm;
use engine_core::runner::{Runner, RunnerOptions, StepOutput, StepRunner, WantedRows};
use engine_core::synth::{SynthFormat, SynthOptions, synth_checkpoint};
use engine_core::weights::Checkpoint;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

/// Counts what the whole process allocates.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Held by each test, since they count the same process's memory.
static ALONE: Mutex<()> = Mutex::new(());

const CHUNK: usize = 2048;

/// DeepSeek-V3's window and YaRN (40 × 4096), one head, one layer with experts.
const CONFIG: &str = r#"{
  "model_type": "deepseek_v3", "vocab_size": 256, "hidden_size": 32, "intermediate_size": 64,
  "moe_intermediate_size": 16, "num_hidden_layers": 1, "num_nextn_predict_layers": 0, "num_attention_heads": 1,
  "num_key_value_heads": 1, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16,
  "v_head_dim": 16, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 2,
  "topk_group": 1, "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": true,
  "routed_scaling_factor": 2.5, "first_k_dense_replace": 0, "moe_layer_freq": 1, "hidden_act": "silu",
  "rms_norm_eps": 1e-6, "rope_theta": 10000, "max_position_embeddings": 163840, "attention_bias": false,
  "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32,
    "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0},
  "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "bfloat16"
}"#;

/// The planned and the really held bytes of a runner, and logits of the last prefilled and four decoded tokens.
struct Outcome {
    planned: MemoryPlan,
    held_bytes: usize,
    logits: Vec<f32>,
}

fn decode_at_the_end(dir: &Path, context_len: usize, mla_form: MlaForm) -> Outcome {
    let config = ModelConfig::from_dir(dir).unwrap();
    let limits =
        StepLimits { max_num_batched_tokens: CHUNK, max_num_seqs: 1, max_model_len: context_len + 64, block_size: 64 };
    let request = PlanRequest {
        cache_element_bytes: 4,
        act_element_bytes: 4,
        max_model_len: limits.max_model_len,
        max_num_batched_tokens: CHUNK,
        ..PlanRequest::new(&config)
    };
    let memory = Region::new(ALLOCATOR);
    let checkpoint = Checkpoint::open(dir).unwrap();
    let options = RunnerOptions {
        precision: PrecisionPolicy::default(),
        with_mtp: false,
        cache_format: CacheFormat::Native,
        num_token_ids: None,
        num_blocks: limits.max_blocks_per_seq(),
        limits,
    };
    let backend = CpuBackend::new(CpuOptions { mla_form, ..CpuOptions::default() }).unwrap();
    let mut runner = Runner::load(backend, &checkpoint, &config, &options, &mut |_| {}).unwrap();
    // Descending, so that logical order is not physical order.
    let block_table: Vec<u32> = (0..limits.max_blocks_per_seq() as u32).rev().collect();
    let tokens: Vec<u32> = (0..context_len as u32 + 4).map(|i| i.wrapping_mul(2_654_435_761) >> 24).collect();
    let (mut logits, mut last) = (Vec::new(), StepOutput::default());
    let mut done = 0;
    for end in (CHUNK..=context_len).step_by(CHUNK).chain(context_len + 1..=context_len + 4) {
        let step = SequenceStep { tokens: &tokens[done..end], context_len: done, block_table: &block_table };
        runner.step(&[step], WantedRows::logits(&[(end - done) as u32 - 1]), &mut last).unwrap();
        if end >= context_len {
            logits.extend_from_slice(&last.logits);
        }
        done = end;
    }
    let held = memory.change();
    let held_bytes = held.bytes_allocated - held.bytes_deallocated;
    Outcome { planned: MemoryPlan::new(&config, &request), held_bytes, logits }
}

/// Past the 4096 positions before YaRN.
#[test]
fn absorbed_equals_non_absorbed_at_32768_tokens_in_the_planned_memory() {
    absorbed_equals_non_absorbed_in_the_planned_memory(32_768);
}

#[test]
#[ignore = "every pair of 131 072 positions is scored twice, which takes minutes"]
fn absorbed_equals_non_absorbed_at_131072_tokens_in_the_planned_memory() {
    absorbed_equals_non_absorbed_in_the_planned_memory(131_072);
}

/// Over 131 072 positions the two forms' sums of f32 drift apart by 1e-5 at most; 1e-4 catches a position read wrongly.
fn absorbed_equals_non_absorbed_in_the_planned_memory(context_len: usize) {
    let _alone = ALONE.lock().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("long");
    let options =
        SynthOptions { format: SynthFormat::Bf16, layers: None, dense_layers: None, seed: 7, with_mtp: false };
    synth_checkpoint(CONFIG, &model, &options, &mut |_| {}).unwrap();
    let absorbed = decode_at_the_end(&model, context_len, MlaForm::Absorbed);
    let expanded = decode_at_the_end(&model, context_len, MlaForm::NonAbsorbed);
    let error = relative_error(&expanded.logits, &absorbed.logits);
    println!("absorbed and non-absorbed at {context_len} tokens: relative error {error:.1e}");
    assert!(error < 1e-4, "{error:e}");
    for Outcome { planned, held_bytes, .. } in [&absorbed, &expanded] {
        // Weights are memory-mapped; everything else is allocated.
        let upper = planned.full_cache_bytes + planned.workspace_bytes;
        println!(
            "held {held_bytes}, planned cache {} + workspace {}",
            planned.full_cache_bytes, planned.workspace_bytes
        );
        assert!(*held_bytes as u64 >= planned.full_cache_bytes, "less than the cache alone");
        assert!(*held_bytes as u64 <= upper + upper / 50, "more than planned");
    }
}

/// Decoding at a steady state allocates nothing but the blocks of the thread pool's queue: one of 63 entries for as
/// many parallel loops.
#[test]
fn steady_decoding_holds_no_more_memory_step_after_step() {
    let _alone = ALONE.lock().unwrap();
    let backend = CpuBackend::new(CpuOptions::default()).unwrap();
    decodes_steadily(&mut load_tiny(backend, &model_dir("fp8"), &PrecisionPolicy::default()).unwrap());
}

#[test]
fn steady_decoding_of_a_group_holds_no_more_memory_either() {
    let _alone = ALONE.lock().unwrap();
    let ranks = CpuBackend::group(2, &CpuOptions::default()).unwrap();
    decodes_steadily(load_tiny_group(ranks, &model_dir("bf16"), &PrecisionPolicy::default()).unwrap().as_mut());
}

fn decodes_steadily(runner: &mut dyn StepRunner) {
    let blocks: Vec<Vec<u32>> = (0..4).map(|i| (i * 8..i * 8 + 8).collect()).collect();
    let mut output = StepOutput::default();
    let wanted = WantedRows { logits: &[0, 1], best_tokens: &[2, 3], ..WantedRows::default() };
    let mut step = |position: usize| {
        let tokens = [17 + position as u32];
        let sequence = |i: usize| SequenceStep { tokens: &tokens, context_len: position, block_table: &blocks[i] };
        runner.step(&[sequence(0), sequence(1), sequence(2), sequence(3)], wanted, &mut output).unwrap();
    };
    (0..100).for_each(&mut step);
    let memory = Region::new(ALLOCATOR);
    (100..300).for_each(&mut step);
    let change = memory.change();
    println!("200 steps: {change:?}");
    assert!(change.bytes_allocated <= change.bytes_deallocated + 4096, "memory grows: {change:?}");
    assert_eq!(change.reallocations, 0, "a buffer still grows: {change:?}");
    assert!(change.allocations <= 200 * 2, "steps allocate: {change:?}");
}

/// Generations, cancelled ones and scores leave nothing behind in the engine.
#[test]
fn a_thousand_short_generations_hold_no_memory() {
    let _alone = ALONE.lock().unwrap();
    let engine = Engine::builder(model_dir("fp8")).device(Device::Cpu).max_num_seqs(2).build().unwrap();
    let params = || SamplingParams { max_tokens: Some(2), seed: Some(1), logprobs: Some(3), ..Default::default() };
    let round = |i: u32| {
        let stream = engine.stream(vec![5 + i % 7, 6], params()).unwrap();
        match i % 5 {
            0 => drop(stream),
            1 => drop(engine.score(&[5, 6, 7], ScoreOptions::default()).unwrap()),
            _ => drop(stream.collect_all().unwrap()),
        }
    };
    (0..100).for_each(round);
    let memory = Region::new(ALLOCATOR);
    (0..1000).for_each(round);
    // The last ones that were dropped are taken out with the next step.
    engine.generate(vec![5, 6], params()).unwrap();
    let change = memory.change();
    println!("1000 generations: {change:?}");
    assert!(change.bytes_allocated <= change.bytes_deallocated + 16_384, "memory grows: {change:?}");
}
