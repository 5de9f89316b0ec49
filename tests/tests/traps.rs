//! Every shape of the family as a small random model, held against the same model in f64 (`oracle::ModelOracle`), and
//! the list of known traps (docs/numerics.md), each with the test that catches it.
#![cfg(feature = "cpu")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use backend_cpu::{CpuBackend, CpuOptions};
use bathysphere::{Device, Engine, FinishReason, SamplingParams};
use conformance::golden::relative_error;
use conformance::oracle::ModelOracle;
use engine_core::backend::{Backend, CacheFormat, SequenceStep, StepLimits};
use engine_core::config::ModelConfig;
use engine_core::quant::PrecisionPolicy;
use engine_core::reference::{Numerics, ReferenceBackend};
use engine_core::runner::{Runner, RunnerOptions, StepOutput, StepRunner, WantedRows};
use engine_core::synth::{SynthFormat, SynthOptions, synth_checkpoint};
use engine_core::weights::Checkpoint;
use serde_json::{Value, json};
use tempfile::TempDir;

/// DeepSeek-V3's topology in small, but for an epsilon large enough that a wrong one shows. The latent of 96 + 40 is
/// a block of 128 rows and a part of one, as 576 is.
fn v3() -> Value {
    json!({
        "model_type": "deepseek_v3", "vocab_size": 160, "hidden_size": 96, "intermediate_size": 144,
        "num_hidden_layers": 3, "num_nextn_predict_layers": 1, "first_k_dense_replace": 1, "moe_layer_freq": 1,
        "num_attention_heads": 3, "q_lora_rank": 48, "kv_lora_rank": 96, "qk_nope_head_dim": 24,
        "qk_rope_head_dim": 40, "v_head_dim": 24, "n_routed_experts": 16, "n_shared_experts": 1,
        "num_experts_per_tok": 3, "moe_intermediate_size": 40, "n_group": 4, "topk_group": 2,
        "scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": true, "routed_scaling_factor": 2.5,
        "rms_norm_eps": 0.02, "rope_theta": 10000, "max_position_embeddings": 160,
        "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4, "beta_fast": 32,
            "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0},
        "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1
    })
}

fn with(mut config: Value, changes: Value) -> Value {
    let (Value::Object(keys), Value::Object(changes)) = (&mut config, changes) else { unreachable!() };
    keys.extend(changes);
    config
}

/// A random checkpoint of `config`; the directory lives as long as the returned guard.
fn checkpoint(config: &Value, format: SynthFormat) -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("model");
    let options = SynthOptions { format, layers: None, dense_layers: None, seed: 7, with_mtp: true };
    synth_checkpoint(&config.to_string(), &dir, &options, &mut |_| {}).unwrap();
    (parent, dir)
}

fn load<B: Backend>(backend: B, dir: &Path, with_mtp: bool) -> Runner<B> {
    let config = ModelConfig::from_dir(dir).unwrap();
    let limits = StepLimits { max_num_batched_tokens: 64, max_num_seqs: 2, max_model_len: 64, block_size: 4 };
    let options = RunnerOptions {
        precision: PrecisionPolicy::default(),
        with_mtp,
        limits,
        num_blocks: 16,
        cache_format: CacheFormat::Native,
        num_token_ids: None,
    };
    Runner::load(backend, &Checkpoint::open(dir).unwrap(), &config, &options, &mut |_| {}).unwrap()
}

fn cpu() -> CpuBackend {
    CpuBackend::new(CpuOptions::default()).unwrap()
}

const TOKENS: [u32; 20] = [0, 17, 93, 4, 4, 120, 7, 55, 31, 2, 99, 140, 8, 16, 64, 3, 77, 150, 12, 42];

/// Logits and draft logits of [`TOKENS`]: a prefill, then token by token.
fn run<B: Backend>(mut runner: Runner<B>) -> (Vec<f32>, Vec<f32>) {
    let (mut logits, mut drafts) = (Vec::new(), Vec::new());
    let blocks = [3, 0, 5, 1, 9];
    for range in std::iter::once(0..13).chain((13..TOKENS.len()).map(|t| t..t + 1)) {
        let step = SequenceStep { tokens: &TOKENS[range.clone()], context_len: range.start, block_table: &blocks };
        let rows: Vec<u32> = (0..range.len() as u32).collect();
        let wanted = WantedRows::logits(&rows);
        let mut chunk = StepOutput::default();
        runner.step(&[step], wanted, &mut chunk).unwrap();
        logits.append(&mut chunk.logits);
        if runner.info().has_mtp {
            runner.draft(&next_tokens()[range], wanted, &mut chunk).unwrap();
            drafts.append(&mut chunk.logits);
        }
    }
    (logits, drafts)
}

fn next_tokens() -> Vec<u32> {
    TOKENS.iter().skip(1).copied().chain([5]).collect()
}

/// f32 sums of some hundred terms through four layers err by 1e-6 of the largest logit; a wrong formula by far more
/// than 1e-4.
const TOLERANCE: f32 = 1e-4;

/// Both backends agree with the oracle on a random model of `config`, MTP module included where it has one.
fn agrees_with_the_oracle(config: &Value, format: SynthFormat) {
    let (_guard, dir) = checkpoint(config, format);
    let oracle = ModelOracle::open(&dir);
    let hidden = oracle.hidden(&TOKENS);
    let expected = oracle.logits(&hidden).to_f32();
    let has_mtp = ModelConfig::from_dir(&dir).unwrap().num_nextn_predict_layers > 0;
    let expected_drafts = if has_mtp { oracle.draft_logits(&hidden, &next_tokens()).to_f32() } else { Vec::new() };
    let reference = run(load(ReferenceBackend::new(Numerics::default()), &dir, true));
    for (backend, (logits, drafts)) in [("reference", reference), ("cpu", run(load(cpu(), &dir, true)))] {
        assert_eq!((logits.len(), drafts.len()), (expected.len(), expected_drafts.len()));
        let error = relative_error(&logits, &expected);
        println!("{backend}: relative error of the logits {error:.1e}");
        assert!(error < TOLERANCE, "{backend}: relative error of the logits {error:e}");
        if has_mtp {
            let error = relative_error(&drafts, &expected_drafts);
            println!("{backend}: relative error of the draft logits {error:.1e}");
            assert!(error < TOLERANCE, "{backend}: relative error of the draft logits {error:e}");
        }
    }
}

#[test]
fn a_model_like_v3_with_fp8_weights() {
    agrees_with_the_oracle(&v3(), SynthFormat::Fp8Block);
}

/// No low-rank queries, softmax router without groups, two shared experts, weights neither normalised nor biased.
#[test]
fn a_model_like_v2_lite() {
    let changes = json!({
        "model_type": "deepseek_v2", "q_lora_rank": null, "scoring_func": "softmax", "topk_method": "greedy",
        "norm_topk_prob": false, "routed_scaling_factor": 1.0, "n_shared_experts": 2, "num_nextn_predict_layers": 0,
        "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4, "beta_fast": 32,
            "beta_slow": 1, "mscale": 0.707, "mscale_all_dim": 0.707}
    });
    agrees_with_the_oracle(&with(v3(), changes), SynthFormat::Bf16);
}

/// Groups scored by their best expert, and a factor of 16 on weights that are not normalised.
#[test]
fn a_model_like_v2() {
    let changes = json!({
        "model_type": "deepseek_v2", "scoring_func": "softmax", "topk_method": "group_limited_greedy",
        "norm_topk_prob": false, "routed_scaling_factor": 16.0, "n_shared_experts": 2, "num_nextn_predict_layers": 0
    });
    agrees_with_the_oracle(&with(v3(), changes), SynthFormat::Fp8Block);
}

/// Direct queries with the sigmoid router, no groups, plain rope of another base.
#[test]
fn a_model_like_moonlight() {
    let changes = json!({
        "q_lora_rank": null, "n_group": 1, "topk_group": 1, "n_shared_experts": 2, "routed_scaling_factor": 2.446,
        "rope_scaling": null, "rope_theta": 50000.0, "num_nextn_predict_layers": 0
    });
    agrees_with_the_oracle(&with(v3(), changes), SynthFormat::Bf16);
}

/// YaRN whose two betas are equal: a step from one pair to the next.
#[test]
fn a_model_like_kimi_k2() {
    let changes = json!({
        "model_type": "kimi_k2", "n_group": 1, "topk_group": 1, "num_experts_per_tok": 4, "routed_scaling_factor": 2.827, "rope_theta": 50000,
        "rope_scaling": {"type": "yarn", "factor": 32, "original_max_position_embeddings": 4096, "beta_fast": 1.0,
            "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}
    });
    agrees_with_the_oracle(&with(v3(), changes), SynthFormat::Fp8Block);
}

/// Values wider than keys, an MTP module, plain rope.
#[test]
fn a_model_like_glm_4_7_flash() {
    let changes = json!({
        "model_type": "glm4_moe_lite", "v_head_dim": 56, "n_group": 1, "topk_group": 1, "rope_scaling": null,
        "rope_theta": 1000000, "routed_scaling_factor": 1.8, "eos_token_id": [1, 3, 5]
    });
    agrees_with_the_oracle(&with(v3(), changes), SynthFormat::Bf16);
}

#[test]
fn a_model_whose_head_is_its_embedding() {
    let config = with(v3(), json!({"tie_word_embeddings": true}));
    let (_guard, dir) = checkpoint(&config, SynthFormat::Bf16);
    assert!(!Checkpoint::open(&dir).unwrap().contains("lm_head.weight"));
    agrees_with_the_oracle(&config, SynthFormat::Bf16);
}

#[test]
fn experts_in_every_second_layer_and_no_shared_one() {
    let changes = json!({"moe_layer_freq": 2, "first_k_dense_replace": 0, "n_shared_experts": 0});
    agrees_with_the_oracle(&with(v3(), changes), SynthFormat::Bf16);
}

#[test]
fn a_model_of_dense_layers_only() {
    let changes = json!({"n_routed_experts": null, "num_nextn_predict_layers": 0});
    agrees_with_the_oracle(&with(v3(), changes), SynthFormat::Bf16);
}

#[test]
fn without_mtp_the_layers_past_the_main_model_are_left_alone() {
    let (_guard, dir) = checkpoint(&v3(), SynthFormat::Bf16);
    let (with_mtp, without) = (load(cpu(), &dir, true), load(cpu(), &dir, false));
    assert!(with_mtp.info().has_mtp && !without.info().has_mtp);
    let ((expected, _), (found, drafts)) = (run(with_mtp), run(without));
    assert!(expected == found, "the main model's logits are the same to the bit");
    assert!(drafts.is_empty());
}

#[test]
fn generation_ends_at_any_of_several_end_tokens() {
    let (_guard, dir) = checkpoint(&v3(), SynthFormat::Bf16);
    let greedy = SamplingParams { max_tokens: Some(12), ..SamplingParams::greedy() };
    let generate = |params: SamplingParams| {
        let engine = Engine::builder(&dir).device(Device::Cpu).build().unwrap();
        engine.generate(TOKENS.to_vec(), params).unwrap()
    };
    let free = generate(SamplingParams { ignore_eos: true, ..greedy.clone() }).token_ids;
    let end = free[5];
    let first = free.iter().position(|id| *id == end).unwrap();
    let unused = (0..160).find(|id| !free.contains(id)).unwrap();
    let config = std::fs::read_to_string(dir.join("config.json")).unwrap();
    let config = with(serde_json::from_str(&config).unwrap(), json!({"eos_token_id": [unused, end]}));
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let ended = generate(greedy);
    assert_eq!(ended.finish_reason, FinishReason::Stop);
    assert_eq!(ended.token_ids, free[..=first]);
}

/// The table of docs/numerics.md: traps 1 to 28, each with at least one test, each test in the file named.
#[test]
fn every_trap_names_a_test_that_exists() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let text = std::fs::read_to_string(root.join("docs/numerics.md")).unwrap();
    let mut traps = BTreeSet::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, number, _, tests, _] = cells[..] else { continue };
        let Ok(number) = number.parse::<u32>() else { continue };
        assert!(traps.insert(number), "trap {number} is listed twice");
        let tests: Vec<&str> = tests.split('`').filter(|part| part.contains("::")).collect();
        assert!(!tests.is_empty(), "trap {number} has no test");
        for test in tests {
            let (file, name) = test.split_once("::").unwrap();
            let source =
                std::fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("trap {number}: {file}: {e}"));
            assert!(source.contains(&format!("fn {name}()")), "trap {number}: {file} has no test {name}");
        }
    }
    assert!(traps.iter().copied().eq(1..=28), "traps listed: {traps:?}");
}
