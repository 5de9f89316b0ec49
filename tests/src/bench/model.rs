//! Whole steps of models with random weights.

use std::path::Path;
use std::time::Instant;

use engine_core::Error;
use engine_core::backend::{Backend, CacheFormat, SequenceStep, StepLimits};
use engine_core::config::ModelConfig;
use engine_core::plan::{MemoryPlan, PlanClass, PlanRequest};
use engine_core::quant::PrecisionPolicy;
use engine_core::runner::{Runner, RunnerOptions, StepOutput, StepRunner, WantedRows};
use engine_core::synth::{SynthFormat, SynthOptions, synth_checkpoint};
use engine_core::weights::Checkpoint;

use super::report::{Cost, Row};
use super::timing::median;
use super::{BenchOptions, Scale};
use crate::harness::Rng;

const BLOCK_SIZE: usize = 64;

/// Tokens of one step at most, so also the longest prompt that is timed.
const STEP_TOKENS: usize = 4096;

/// A model to run, with random FP8 weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelShape {
    /// As reports name it.
    pub name: &'static str,
    config_json: &'static str,
    layers: Option<usize>,
    dense_layers: Option<usize>,
}

/// Moonlight whole, and as much of DeepSeek-V3 as 80 GB hold with room for the cache: one dense layer and four with experts.
const MOONLIGHT: ModelShape = ModelShape {
    name: "moonlight-16b-a3b fp8",
    config_json: include_str!("../../../models/configs/moonlight-16b-a3b.json"),
    layers: None,
    dense_layers: None,
};
const V3_SLICE: ModelShape = ModelShape {
    name: "deepseek-v3 1+4 layers fp8",
    config_json: include_str!("../../../models/configs/deepseek-v3.json"),
    layers: Some(5),
    dense_layers: Some(1),
};
const TINY: ModelShape = ModelShape {
    name: "tiny fp8",
    config_json: include_str!("../../../models/tiny-deepseek-v3-fp8/config.json"),
    layers: Some(2),
    dense_layers: Some(1),
};

/// What is run on a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// The model.
    pub shape: ModelShape,
    batches: &'static [usize],
    contexts: &'static [usize],
    prompt_len: usize,
}

impl Workload {
    /// What a scale stands for.
    pub fn of(scale: Scale) -> Vec<Self> {
        let published =
            |shape| Self { shape, batches: &[1, 32, 128], contexts: &[1024, 4096], prompt_len: STEP_TOKENS };
        match scale {
            Scale::Full => vec![published(MOONLIGHT), published(V3_SLICE)],
            Scale::Quick => vec![published(MOONLIGHT)],
            Scale::Tiny => vec![Self { shape: TINY, batches: &[1, 3], contexts: &[32], prompt_len: 64 }],
        }
    }

    fn limits(&self) -> StepLimits {
        let largest = |of: &[usize]| of.iter().copied().max().unwrap_or(1);
        StepLimits {
            max_num_batched_tokens: self.prompt_len,
            max_num_seqs: largest(self.batches),
            max_model_len: largest(self.contexts).max(self.prompt_len),
            block_size: BLOCK_SIZE,
        }
    }
}

/// Measures every workload of the scale on backends that `open` opens, one for each model. `tell` hears of each row at once.
///
/// # Errors
/// As the engine reports them.
pub fn models<B: Backend>(
    options: &BenchOptions,
    mut open: impl FnMut() -> Result<B, Error>,
    mut tell: impl FnMut(&str),
) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    for workload in Workload::of(options.scale) {
        let dir = options.dir.join(format!("bathysphere-bench-{}", std::process::id()));
        let measured = synthesise(&workload.shape, &dir, &mut tell).and_then(|()| {
            let mut bench = ModelBench::load(open()?, &workload, &dir, options)?;
            bench.measure(&workload, &mut tell)
        });
        // Whatever became of it, up to 47 GB are in the way.
        let removed = std::fs::remove_dir_all(&dir);
        rows.extend(measured?);
        if let Err(error) = removed {
            tell(&format!("{} is left behind: {error}", dir.display()));
        }
    }
    Ok(rows)
}

fn synthesise(shape: &ModelShape, dir: &Path, tell: &mut impl FnMut(&str)) -> Result<(), Error> {
    let start = Instant::now();
    let options = SynthOptions {
        format: SynthFormat::Fp8Block,
        layers: shape.layers,
        dense_layers: shape.dense_layers,
        seed: 1,
        with_mtp: false,
    };
    let report = synth_checkpoint(shape.config_json, dir, &options, &mut |_| {})?;
    let gb = report.total_bytes as f64 / 1e9;
    tell(&format!("{}: {gb:.1} GB of random weights in {:.0} s", shape.name, start.elapsed().as_secs_f64()));
    Ok(())
}

struct ModelBench<'a, B: Backend> {
    runner: Runner<B>,
    config: ModelConfig,
    plan: MemoryPlan,
    options: &'a BenchOptions,
    random: Rng,
    output: StepOutput,
}

impl<'a, B: Backend> ModelBench<'a, B> {
    fn load(backend: B, workload: &Workload, dir: &Path, options: &'a BenchOptions) -> Result<Self, Error> {
        let config = ModelConfig::from_dir(dir)?;
        let limits = workload.limits();
        let capabilities = backend.capabilities();
        let plan = MemoryPlan::new(
            &config,
            &PlanRequest {
                cache_element_bytes: capabilities.cache_element_bytes,
                act_element_bytes: capabilities.activation.num_bytes(),
                max_num_seqs: limits.max_num_seqs,
                max_model_len: limits.max_model_len,
                max_num_batched_tokens: limits.max_num_batched_tokens,
                available_bytes: capabilities.memory_bytes,
                ..PlanRequest::new(&config)
            },
        );
        plan.check()?;
        let options_of_runner = RunnerOptions {
            precision: PrecisionPolicy::default(),
            with_mtp: false,
            limits,
            num_blocks: limits.max_num_seqs * limits.max_blocks_per_seq(),
            cache_format: CacheFormat::Native,
            num_token_ids: None,
        };
        let checkpoint = Checkpoint::open(dir)?;
        let runner = Runner::load(backend, &checkpoint, &config, &options_of_runner, &mut |_| {})?;
        let random = Rng::from_name(workload.shape.name);
        Ok(Self { runner, config, plan, options, random, output: StepOutput::default() })
    }

    fn measure(&mut self, workload: &Workload, tell: &mut impl FnMut(&str)) -> Result<Vec<Row>, Error> {
        let start = Instant::now();
        let num_tokens = self.fill_cache()?;
        let seconds = start.elapsed().as_secs_f64();
        tell(&format!("{}: {num_tokens} slots of the cache written in {seconds:.1} s", workload.shape.name));
        let mut rows = vec![self.prefill(workload)?];
        for context in workload.contexts {
            for batch in workload.batches {
                rows.push(self.decode(workload, *batch, *context)?);
            }
        }
        Ok(rows)
    }

    fn random_tokens(&mut self, count: usize) -> Vec<u32> {
        let vocab_size = self.config.vocab_size;
        (0..count).map(|_| self.random.below(vocab_size) as u32).collect()
    }

    /// Writes something to every slot that decode steps will read: sequences of one block each, as many as a step takes.
    fn fill_cache(&mut self) -> Result<usize, Error> {
        let info = self.runner.info();
        let seqs_at_once = info.limits.max_step_seqs().min(info.limits.max_num_batched_tokens / BLOCK_SIZE).max(1);
        for first in (0..info.num_blocks).step_by(seqs_at_once) {
            let blocks: Vec<u32> =
                (first..info.num_blocks.min(first + seqs_at_once)).map(|block| block as u32).collect();
            let tokens = self.random_tokens(blocks.len() * BLOCK_SIZE);
            let steps: Vec<SequenceStep<'_>> = tokens
                .chunks(BLOCK_SIZE)
                .zip(blocks.chunks(1))
                .map(|(tokens, block_table)| SequenceStep { tokens, context_len: 0, block_table })
                .collect();
            self.runner.step(&steps, WantedRows::default(), &mut self.output)?;
        }
        Ok(info.num_blocks * BLOCK_SIZE)
    }

    fn prefill(&mut self, workload: &Workload) -> Result<Row, Error> {
        let len = workload.prompt_len;
        let block_table: Vec<u32> = (0..len.div_ceil(BLOCK_SIZE) as u32).collect();
        let mut seconds = Vec::new();
        // The first one grows scratch memory.
        for step in 0..1 + self.options.num_steps().div_ceil(10) {
            let tokens = self.random_tokens(len);
            let sequence = SequenceStep { tokens: &tokens, context_len: 0, block_table: &block_table };
            let last = [len as u32 - 1];
            let wanted = WantedRows::best_tokens(&last);
            let start = Instant::now();
            self.runner.step(&[sequence], wanted, &mut self.output)?;
            if step > 0 {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        let what = format!("{} prefill", workload.shape.name);
        let pairs = (len * (len + 1) / 2) as f64;
        let cost = self.cost(len, pairs, 1);
        Ok(Row::new(&what, (len, 0), median(seconds), cost, self.options.limits))
    }

    /// Steps of `batch` sequences whose new token is at position `context - 1`.
    fn decode(&mut self, workload: &Workload, batch: usize, context: usize) -> Result<Row, Error> {
        let blocks_per_seq = self.runner.info().limits.max_blocks_per_seq();
        let num_blocks = context.div_ceil(BLOCK_SIZE);
        let tables: Vec<Vec<u32>> = (0..batch)
            .map(|seq| (0..num_blocks).map(|block| (seq * blocks_per_seq + block) as u32).collect())
            .collect();
        let rows: Vec<u32> = (0..batch as u32).collect();
        let wanted = WantedRows::best_tokens(&rows);
        let mut seconds = Vec::new();
        // The first steps of a size run, record, and replay what nothing has run yet.
        const NUM_WARM: usize = 3;
        for step in 0..NUM_WARM + self.options.num_steps() {
            let tokens = self.random_tokens(batch);
            let steps: Vec<SequenceStep<'_>> = tokens
                .chunks(1)
                .zip(&tables)
                .map(|(tokens, block_table)| SequenceStep { tokens, context_len: context - 1, block_table })
                .collect();
            let start = Instant::now();
            self.runner.step(&steps, wanted, &mut self.output)?;
            if step >= NUM_WARM {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        let what = format!("{} decode", workload.shape.name);
        let cost = self.cost(batch, (batch * context) as f64, batch);
        Ok(Row::new(&what, (batch, context), median(seconds), cost, self.options.limits))
    }

    /// What a step of `num_tokens` tokens has to move and compute, when `pairs` pairs of query and key meet and the head
    /// takes `num_rows` rows. Prompts read no cache from memory: what they attend to has just been written.
    fn cost(&self, num_tokens: usize, pairs: f64, num_rows: usize) -> Cost {
        let (config, plan) = (&self.config, &self.plan);
        let class = |class| plan.class_bytes(class) as f64;
        let experts = class(PlanClass::Experts);
        let embedding = if config.tie_word_embeddings { 0.0 } else { class(PlanClass::Embedding) };
        let always = plan.weight_bytes as f64 - class(PlanClass::Mtp) - embedding - experts;
        let is_decode = num_rows == num_tokens;
        let cached = if is_decode { pairs } else { num_tokens as f64 };
        let head = (config.vocab_size * config.hidden_size) as f64;
        let dims = &config.attention;
        let (heads, rank, rope) =
            (dims.num_attention_heads as f64, dims.kv_lora_rank as f64, dims.qk_rope_head_dim as f64);
        // Absorbed, a pair takes a score of Lkv + R and a sum of Lkv; expanded, one of P + R and a sum of V.
        let absorbed = 2.0 * heads * (2.0 * rank + rope);
        let expanded = 2.0 * heads * (dims.qk_head_dim() + dims.v_head_dim) as f64;
        let per_pair = if is_decode { absorbed } else { absorbed.min(expanded) };
        let layers = config.num_hidden_layers as f64;
        Cost {
            bytes: always + experts * self.share_of_experts(num_tokens) + cached * plan.cache_bytes_per_token as f64,
            fp8_flop: 2.0 * (plan.active_parameters as f64 - head) * num_tokens as f64,
            bf16_flop: 2.0 * head * num_rows as f64 + per_pair * pairs * layers,
        }
    }

    /// The part of all experts that tokens read when each chooses at random: 1 - (1 - K/E)^T.
    fn share_of_experts(&self, num_tokens: usize) -> f64 {
        self.config.moe.as_ref().map_or(0.0, |moe| {
            let missed = 1.0 - moe.num_experts_per_tok as f64 / moe.n_routed_experts as f64;
            1.0 - missed.powf(num_tokens as f64)
        })
    }
}
