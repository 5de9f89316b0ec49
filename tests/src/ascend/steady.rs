//! Steady decoding: what the backend asks CANN for in each of many equal steps.

use backend_ascend::{AscendBackend, AscendCounts};
use engine_core::Error;
use engine_core::backend::{Backend, CacheFormat, SequenceStep, StepLimits};
use engine_core::config::ModelConfig;
use engine_core::convert::ConvertError;
use engine_core::quant::{Precision, PrecisionPolicy};
use engine_core::runner::{Runner, RunnerOptions, StepOutput, StepRunner, WantedRows};
use engine_core::synth::{SynthFormat, SynthOptions, synth_checkpoint};
use engine_core::weights::Checkpoint;
use serde_json::{Value, json};

/// A dense layer and two with experts, of the widths that fused attention takes.
pub(super) const MODEL: &str = r#"{"model_type": "deepseek_v3", "vocab_size": 256, "hidden_size": 128, "intermediate_size": 192,
    "num_hidden_layers": 3, "num_attention_heads": 2, "q_lora_rank": 64, "kv_lora_rank": 512, "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 64, "v_head_dim": 64, "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2,
    "moe_intermediate_size": 64, "first_k_dense_replace": 1, "n_group": 2, "topk_group": 1, "norm_topk_prob": true,
    "topk_method": "noaux_tc", "scoring_func": "sigmoid", "routed_scaling_factor": 2.5, "rope_theta": 10000,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-6}"#;
pub(super) const NUM_LAYERS: u64 = 3;
const LIMITS: StepLimits =
    StepLimits { max_num_batched_tokens: 16, max_num_seqs: 2, max_model_len: 64, block_size: 32 };
const PROMPT_LEN: usize = 16;
/// Steps until every call has come twice.
const FIRST_STEPS: usize = 3;
const STEADY_STEPS: usize = 12;

/// Decodes in bf16 and INT8: whether a steady step is one replay and an update of each layer's attention, which reads the
/// sequences' lengths when it is planned; it allocates nothing. And figures.
///
/// # Errors
/// What keeps the device from being opened, or the model from being made, loaded or run.
pub fn steady(ordinal: u32) -> Result<(bool, Value), Error> {
    let (mut passed, mut runs) = (true, Vec::new());
    for (name, precision) in [("bf16", Precision::Bf16), ("int8", Precision::Int8)] {
        let mut decoding = Decoding::new(ordinal, precision)?;
        let before = decoding.counts();
        for _ in 0..FIRST_STEPS {
            decoding.step()?;
        }
        let first = decoding.counts();
        let mut most = AscendCounts::default();
        for _ in 0..STEADY_STEPS {
            let step = decoding.step()?;
            most.allocations = most.allocations.max(step.allocations);
            most.plans = most.plans.max(step.plans);
            most.operators = most.operators.max(step.operators);
            most.updates = most.updates.max(step.updates);
            most.replays = most.replays.max(step.replays);
        }
        let updates_only =
            AscendCounts { plans: NUM_LAYERS, operators: NUM_LAYERS, updates: NUM_LAYERS, replays: 1, allocations: 0 };
        let holds = most == updates_only;
        passed &= holds;
        let total = decoding.counts();
        runs.push(json!({
            "precision": name,
            "operators_per_step": most.operators,
            "plans_per_step": most.plans,
            "updates_per_step": most.updates,
            "replays_per_step": most.replays,
            "allocations_per_step": most.allocations,
            "plans_of_first_steps": first.plans - before.plans,
            "allocations": total.allocations,
            "plans": total.plans,
            "operators": total.operators,
            "holds": holds,
        }));
    }
    Ok((passed, json!({ "check": "steady", "runs": runs })))
}

/// Two sequences that decode together.
struct Decoding {
    runner: Runner<AscendBackend>,
    output: StepOutput,
    tokens: [Vec<u32>; 2],
}

impl Decoding {
    /// Loads the model and reads both prompts.
    fn new(ordinal: u32, precision: Precision) -> Result<Self, Error> {
        let runner = load(AscendBackend::open(ordinal)?, MODEL, precision, LIMITS)?;
        let tokens = [3, 5].map(|factor| (0..PROMPT_LEN as u32).map(|i| i * factor % 256).collect());
        let mut decoding = Self { runner, output: StepOutput::default(), tokens };
        for seq in 0..2 {
            decoding.run(&[(seq, 0)])?;
        }
        Ok(decoding)
    }

    fn counts(&self) -> AscendCounts {
        self.runner.backend().counts()
    }

    /// Runs what sequences have from a position on, and appends their best tokens.
    fn run(&mut self, steps: &[(usize, usize)]) -> Result<(), Error> {
        let tables = [[0, 1], [2, 3]];
        let mut last = Vec::new();
        let sequences: Vec<SequenceStep<'_>> = steps
            .iter()
            .map(|(seq, context_len)| SequenceStep {
                tokens: &self.tokens[*seq][*context_len..],
                context_len: *context_len,
                block_table: &tables[*seq],
            })
            .collect();
        for sequence in &sequences {
            last.push(last.last().map_or(0, |row| row + 1) + sequence.tokens.len() as u32 - 1);
        }
        self.runner.step(&sequences, WantedRows::best_tokens(&last), &mut self.output)?;
        for ((seq, _), best) in steps.iter().zip(&self.output.best_tokens) {
            self.tokens[*seq].push(best.clone()?);
        }
        Ok(())
    }

    /// One token of each sequence, and what it asked for.
    fn step(&mut self) -> Result<AscendCounts, Error> {
        let before = self.counts();
        let steps = [0, 1].map(|seq| (seq, self.tokens[seq].len() - 1));
        self.run(&steps)?;
        let after = self.counts();
        Ok(AscendCounts {
            allocations: after.allocations - before.allocations,
            plans: after.plans - before.plans,
            operators: after.operators - before.operators,
            updates: after.updates - before.updates,
            replays: after.replays - before.replays,
        })
    }
}

/// A model with random weights.
pub(super) fn load<B: Backend>(
    backend: B,
    model: &str,
    precision: Precision,
    limits: StepLimits,
) -> Result<Runner<B>, Error> {
    let device = backend.capabilities().device.clone();
    let dir = std::env::temp_dir().join(format!("bathysphere-steady-{device}-{}", std::process::id()));
    let options =
        SynthOptions { format: SynthFormat::Bf16, layers: None, dense_layers: None, seed: 1, with_mtp: false };
    synth_checkpoint(model, &dir, &options, &mut |_| {})?;
    let opened = ModelConfig::from_dir(&dir).map_err(Error::from);
    let opened = opened.and_then(|config| Ok((config, Checkpoint::open(&dir)?)));
    // What is mapped stays readable.
    let removed = std::fs::remove_dir_all(&dir);
    let (config, checkpoint) = opened?;
    removed.map_err(|source| ConvertError::Io { action: "remove", path: dir, source })?;
    let options = RunnerOptions {
        precision: PrecisionPolicy::uniform(precision),
        with_mtp: false,
        limits,
        num_blocks: limits.max_num_seqs * limits.max_blocks_per_seq(),
        cache_format: CacheFormat::Native,
        num_token_ids: None,
    };
    Runner::load(backend, &checkpoint, &config, &options, &mut |_| {})
}
