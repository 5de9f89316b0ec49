//! A random model of sizes that every fused operator takes, each op of its steps held against the reference.

use engine_core::Error;
use engine_core::backend::{CacheFormat, Checked, SequenceStep, StepLimits};
use engine_core::config::ModelConfig;
use engine_core::quant::{Precision, PrecisionPolicy};
use engine_core::runner::{Runner, RunnerOptions, StepOutput, StepRunner, WantedRows};
use engine_core::synth::{SynthFormat, SynthOptions, synth_checkpoint};
use engine_core::weights::Checkpoint;

use backend_ascend::AscendBackend;
use serde_json::json;

/// DeepSeek-V3's attention with 16 heads, two layers, of which the second has experts.
const CONFIG: &str = r#"{
  "model_type": "deepseek_v3", "vocab_size": 256, "hidden_size": 1024, "intermediate_size": 128,
  "moe_intermediate_size": 64, "num_hidden_layers": 2, "num_nextn_predict_layers": 0, "num_attention_heads": 16,
  "num_key_value_heads": 16, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
  "v_head_dim": 128, "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 2,
  "topk_group": 1, "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": true,
  "routed_scaling_factor": 2.5, "first_k_dense_replace": 1, "moe_layer_freq": 1, "hidden_act": "silu",
  "rms_norm_eps": 1e-6, "rope_theta": 10000, "max_position_embeddings": 4096, "attention_bias": false,
  "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "bfloat16"
}"#;

const BLOCK_SIZE: usize = 16;
const MAX_LEN: usize = 160;
const BLOCKS_PER_SEQ: usize = MAX_LEN / BLOCK_SIZE;

/// Tokens of two sequences in each step: prompts, decoding, a verification, a chunk of a prompt beside a decoding token.
const STEPS: [[usize; 2]; 5] = [[40, 20], [1, 1], [3, 1], [1, 100], [1, 1]];

/// Runs the steps with weights in bf16 and INT8: whether every result is within its tolerance, and the figures.
///
/// # Errors
/// What keeps the device from being opened, or the model from being made, loaded or run.
pub fn random_model(ordinal: u32) -> Result<(bool, serde_json::Value), Error> {
    let folder = std::env::temp_dir().join(format!("bathysphere-random-model-{}", std::process::id()));
    let options =
        SynthOptions { format: SynthFormat::Bf16, layers: None, dense_layers: None, seed: 11, with_mtp: false };
    let made = synth_checkpoint(CONFIG, &folder, &options, &mut |_| {})?;
    let outcome = [Precision::Auto, Precision::Int8].map(|precision| run(ordinal, &made.path, precision));
    let removed = std::fs::remove_dir_all(&made.path);
    let (mut passed, mut runs) = (removed.is_ok(), Vec::new());
    for run in outcome {
        let (holds, figures) = run?;
        passed &= holds;
        runs.push(figures);
    }
    Ok((passed, json!({ "check": "random-model", "runs": runs })))
}

fn run(ordinal: u32, folder: &std::path::Path, precision: Precision) -> Result<(bool, serde_json::Value), Error> {
    let backend = Checked::new(AscendBackend::open(ordinal)?);
    let (config, checkpoint) = (ModelConfig::from_dir(folder)?, Checkpoint::open(folder)?);
    let limits =
        StepLimits { max_num_batched_tokens: 128, max_num_seqs: 2, max_model_len: MAX_LEN, block_size: BLOCK_SIZE };
    let name = format!("{precision:?}");
    let precision = PrecisionPolicy::uniform(precision);
    let num_blocks = 2 * BLOCKS_PER_SEQ;
    let options = RunnerOptions {
        precision,
        with_mtp: false,
        limits,
        num_blocks,
        cache_format: CacheFormat::Native,
        num_token_ids: None,
    };
    let mut runner = Runner::load(backend, &checkpoint, &config, &options, &mut |_| {})?;
    let tokens: Vec<u32> = (0..MAX_LEN as u32).map(|i| 2 + i * 37 % 251).collect();
    // Blocks of the two sequences take turns.
    let tables = [0, 1].map(|seq| (0..BLOCKS_PER_SEQ as u32).map(|block| 2 * block + seq).collect::<Vec<u32>>());
    let mut lengths = [0; 2];
    let mut output = StepOutput::default();
    for counts in STEPS {
        let sequence = |seq: usize| {
            let (first, num_blocks) = (lengths[seq], (lengths[seq] + counts[seq]).div_ceil(BLOCK_SIZE));
            let tokens = &tokens[first..first + counts[seq]];
            SequenceStep { tokens, context_len: first, block_table: &tables[seq][..num_blocks] }
        };
        let last = [counts[0] as u32 - 1, (counts[0] + counts[1]) as u32 - 1];
        runner.step(&[sequence(0), sequence(1)], WantedRows::logits(&last), &mut output)?;
        lengths = [lengths[0] + counts[0], lengths[1] + counts[1]];
    }
    let checked = runner.backend();
    let holds = checked.num_mismatches() == 0 && checked.num_compared() > 0;
    let figures = json!({
        "precision": name,
        "compared": checked.num_compared(),
        "over_tolerance": checked.num_mismatches(),
        "first": checked.first_mismatch().map(|mismatch| mismatch.to_string()),
    });
    Ok((holds, figures))
}
