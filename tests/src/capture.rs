//! Captured decode steps: replayed work gives what launched work gives, bit for bit, and a steady step is one replay and
//! one wait.
//!
//! Three runners take the same steps: one that replays, one whose recordings all fail, so that it launches the same padded
//! steps, and one that does not pad. Sequences join and leave, and grow across blocks and buckets.

use std::sync::Arc;

use engine_core::backend::{CacheFormat, SequenceStep, StepLimits};
use engine_core::config::ModelConfig;
use engine_core::quant::PrecisionPolicy;
use engine_core::runner::{
    GroupRunner, Runner, RunnerInfo, RunnerOptions, StepOutput, StepRunner, TopRows, WantedRows,
};
use engine_core::sampling::{SamplingError, argmax};
use engine_core::weights::Checkpoint;
use gpu_common::{GpuBackend, GpuOptions, GpuRuntime};

use serde::Serialize;

use crate::counted::{CallCount, Calls, Counted};
use crate::golden::{divisible, model_dir, relative_error};

const LIMITS: StepLimits =
    StepLimits { max_num_batched_tokens: 64, max_num_seqs: 7, max_model_len: 512, block_size: 16 };

/// Prompt lengths of the sequences that take part from each stage on; 0 for one that has left. Each stage is
/// [`STAGE_STEPS`] decode steps. The first sequence crosses the shortest bucket's 256 tokens in the second stage, and batches
/// come to 1, 2, 3, 5, the most there can be, and again 2.
const STAGES: [[usize; 7]; 6] = [
    [250, 0, 0, 0, 0, 0, 0],
    [250, 5, 0, 0, 0, 0, 0],
    [250, 5, 0, 31, 0, 0, 0],
    [250, 5, 64, 31, 1, 0, 0],
    [250, 5, 64, 31, 1, 16, 20],
    [0, 5, 0, 31, 0, 0, 0],
];
/// Enough to run, record and replay.
const STAGE_STEPS: usize = 4;

/// Steps counted once everything is recorded.
const STEADY_STEPS: usize = 16;

/// Steps of another number of rows may be cut into other tiles and parts, so that sums in f32 round to another bf16 here and
/// there: its relative step is 4e-3.
const UNPADDED_TOLERANCE: f32 = 1e-2;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CaptureReport {
    /// Decode steps that were compared.
    pub steps: u64,
    /// Passes that were recorded, of the model and of the MTP module.
    pub captures: u64,
    /// Passes that were replayed.
    pub replays: u64,
    /// Largest relative error of logits against steps that are not padded.
    pub unpadded_error: f32,
    /// Calls of a steady decode step.
    pub steady_step: Calls,
    /// Calls of the same step without capture.
    pub launched_step: Calls,
    /// Allocations on the host in all steady steps together.
    pub host_allocations: u64,
}

/// What is wrong with the figures of a report, if anything: a steady step is one replay and one read-back, and allocates
/// nothing.
pub fn fault_of(report: &CaptureReport) -> Option<String> {
    let CaptureReport { captures, replays, steady_step, host_allocations, .. } = *report;
    let expected = Calls { replays: 1, downloads: 1, uploads: steady_step.uploads, ..Calls::default() };
    if steady_step != expected {
        return Some(format!("a steady step makes {steady_step:?}"));
    }
    if host_allocations > 0 {
        return Some(format!("{STEADY_STEPS} steady steps allocate {host_allocations} times on the host"));
    }
    (captures == 0 || replays <= captures).then(|| format!("{captures} recordings are replayed {replays} times"))
}

/// A sequence, with blocks for as long as it can get.
struct Sequence {
    tokens: Vec<u32>,
    block_table: Vec<u32>,
    num_computed: usize,
}

impl Sequence {
    fn new(index: usize, prompt_len: usize) -> Self {
        let token = |i: usize| ((i + 7 * index) as u32).wrapping_mul(2_654_435_761) >> 20;
        let num_blocks = LIMITS.max_blocks_per_seq();
        // Descending, so that logical order is not physical order.
        let block_table = (0..num_blocks).rev().map(|block| (index * num_blocks + block) as u32).collect();
        Self { tokens: (0..prompt_len).map(token).collect(), block_table, num_computed: 0 }
    }

    fn step(&self, num_tokens: usize) -> SequenceStep<'_> {
        SequenceStep {
            tokens: &self.tokens[self.num_computed..][..num_tokens],
            context_len: self.num_computed,
            block_table: &self.block_table,
        }
    }
}

/// How decode steps are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steps {
    /// Recorded once and replayed.
    Replayed,
    /// Prepared as for being replayed, and launched: every recording fails.
    Launched,
    /// As they come.
    Unpadded,
}

impl Steps {
    /// A runtime that runs steps so, and the options of its backend.
    pub fn on<R: GpuRuntime>(self, runtime: R) -> (Counted<R>, GpuOptions) {
        let runtime = Counted::new(runtime);
        let runtime = if self == Self::Launched { runtime.refusing_recordings() } else { runtime };
        (runtime, GpuOptions { captures_steps: self != Self::Unpadded, ..GpuOptions::default() })
    }
}

/// A runner of one device or of a group, and what the first rank's runtime was asked for.
struct Rig {
    runner: Box<dyn StepRunner>,
    calls: Arc<CallCount>,
    output: StepOutput,
    draft: StepOutput,
}

impl Rig {
    fn new<R: GpuRuntime>(backends: Vec<GpuBackend<Counted<R>>>) -> Result<Self, String> {
        let calls = backends.first().ok_or("no device")?.runtime().calls();
        let precision = if backends.len() == 1 { PrecisionPolicy::default() } else { divisible() };
        let dir = model_dir("fp8");
        let options = RunnerOptions {
            precision,
            with_mtp: true,
            limits: LIMITS,
            num_blocks: LIMITS.max_num_seqs * LIMITS.max_blocks_per_seq(),
            cache_format: CacheFormat::Native,
            num_token_ids: None,
        };
        let loaded = ModelConfig::from_dir(&dir).map_err(engine_core::Error::from).and_then(|config| {
            let checkpoint = Checkpoint::open(&dir)?;
            GroupRunner::load(backends, &mut |_| {}, |backend, progress| {
                Runner::load(backend, &checkpoint, &config, &options, progress)
            })
        });
        let runner = loaded.map_err(|error| error.to_string())?;
        Ok(Self { runner, calls, output: StepOutput::default(), draft: StepOutput::default() })
    }

    fn step(&mut self, steps: &[SequenceStep<'_>], wanted: WantedRows<'_>) -> Result<(), String> {
        self.runner.step(steps, wanted, &mut self.output).map_err(|error| error.to_string())
    }

    fn draft(&mut self, next_tokens: &[u32], wanted: WantedRows<'_>) -> Result<(), String> {
        self.runner.draft(next_tokens, wanted, &mut self.draft).map_err(|error| error.to_string())
    }
}

/// Bits of what a step gave.
fn bits(output: &StepOutput) -> (Vec<u32>, &[u32], &[Result<u32, SamplingError>]) {
    (output.logits.iter().map(|value| value.to_bits()).collect(), &output.top_logits, &output.best_tokens)
}

/// Checks captured steps of the devices that `open` opens, one or a group. `host_allocations` tells how many allocations the process has made so far.
///
/// # Errors
/// The first difference, or what the device said.
pub fn check<R: GpuRuntime>(
    open: impl Fn(Steps) -> Result<Vec<GpuBackend<Counted<R>>>, String>,
    host_allocations: impl Fn() -> u64,
) -> Result<CaptureReport, String> {
    let rig = |steps| Rig::new(open(steps)?);
    let [mut replayed, mut launched, mut unpadded] =
        [rig(Steps::Replayed)?, rig(Steps::Launched)?, rig(Steps::Unpadded)?];
    let mut sequences: Vec<Option<Sequence>> = STAGES[0].iter().map(|_| None).collect();
    let (mut steps, mut unpadded_error) = (0, 0.0_f32);
    for (stage, prompt_lens) in STAGES.iter().enumerate() {
        let mut rigs = [&mut replayed, &mut launched, &mut unpadded];
        enter(prompt_lens, &mut sequences, &mut rigs)?;
        for step in 0..STAGE_STEPS {
            let wrong = |what: &str| Err(format!("stage {stage}, step {step}: {what}"));
            decode(&mut sequences, &mut rigs)?;
            let [replayed, launched, unpadded] = &rigs;
            if bits(&replayed.output) != bits(&launched.output) {
                return wrong("a replayed step differs from a launched one");
            }
            if bits(&replayed.draft) != bits(&launched.draft) {
                return wrong("a replayed draft differs from a launched one");
            }
            let error = relative_error(&replayed.output.logits, &unpadded.output.logits);
            if error.is_nan() || error > UNPADDED_TOLERANCE {
                return wrong(&format!("logits are {error:e} from those of a step without padding"));
            }
            unpadded_error = unpadded_error.max(error);
            steps += 1;
        }
    }
    let so_far = replayed.calls.so_far();
    let steady_step = steady(&sequences, &mut replayed, &host_allocations)?;
    let launched_step = steady(&sequences, &mut launched, &host_allocations)?;
    Ok(CaptureReport {
        steps,
        captures: so_far.captures,
        replays: so_far.replays,
        unpadded_error,
        steady_step: steady_step.0,
        launched_step: launched_step.0,
        host_allocations: steady_step.1,
    })
}

/// Sequences join, their prompts in chunks, and leave.
fn enter(prompt_lens: &[usize], sequences: &mut [Option<Sequence>], rigs: &mut [&mut Rig]) -> Result<(), String> {
    for (index, (sequence, prompt_len)) in sequences.iter_mut().zip(prompt_lens).enumerate() {
        if *prompt_len == 0 {
            *sequence = None;
            continue;
        }
        if sequence.is_some() {
            continue;
        }
        let mut joining = Sequence::new(index, *prompt_len);
        while joining.num_computed < joining.tokens.len() {
            let num_tokens = (joining.tokens.len() - joining.num_computed).min(LIMITS.max_num_batched_tokens);
            let last = num_tokens as u32 - 1;
            for rig in rigs.iter_mut() {
                rig.step(&[joining.step(num_tokens)], WantedRows::best_tokens(&[last]))?;
            }
            joining.num_computed += num_tokens;
        }
        joining.tokens.push(rigs[0].output.best_tokens[0].clone().map_err(|error| error.to_string())?);
        *sequence = Some(joining);
    }
    Ok(())
}

/// One token of every sequence, on every rig: by turns logits, top logits and best token of a row; best tokens for drafts.
fn decode(sequences: &mut [Option<Sequence>], rigs: &mut [&mut Rig]) -> Result<(), String> {
    let steps: Vec<SequenceStep<'_>> = sequences.iter().flatten().map(|sequence| sequence.step(1)).collect();
    let all: Vec<u32> = (0..steps.len() as u32).collect();
    let [logits, top, best_tokens] =
        [0, 1, 2].map(|turn| all.iter().copied().skip(turn).step_by(3).collect::<Vec<_>>());
    let inverse_temperatures: Vec<f32> = top.iter().map(|row| 1.0 + *row as f32 / 8.0).collect();
    let top_logits = TopRows { rows: &top, inverse_temperatures: &inverse_temperatures };
    let mut next_tokens = Vec::new();
    for rig in rigs.iter_mut() {
        rig.step(&steps, WantedRows { logits: &logits, top_logits, best_tokens: &best_tokens })?;
        if next_tokens.is_empty() {
            next_tokens = chosen(rig, &all)?;
        }
        rig.draft(&next_tokens, WantedRows::best_tokens(&all))?;
    }
    for (sequence, token) in sequences.iter_mut().flatten().zip(next_tokens) {
        sequence.num_computed += 1;
        sequence.tokens.push(token);
    }
    Ok(())
}

/// The token of each row: the best of its logits, of its top logits, or the best token.
fn chosen(rig: &Rig, rows: &[u32]) -> Result<Vec<u32>, String> {
    let RunnerInfo { vocab_size, num_top_logits, .. } = rig.runner.info();
    let token = |row: &u32| {
        let index = *row as usize / 3;
        match row % 3 {
            0 => argmax(&rig.output.logits[index * vocab_size..][..vocab_size]),
            1 => {
                let top = StepOutput::top_rows(&rig.output.top_logits, num_top_logits).nth(index)?;
                argmax(top.logits).map(|place| top.ids[place as usize])
            }
            _ => rig.output.best_tokens[index].clone().ok(),
        }
    };
    rows.iter().map(|row| token(row).ok_or_else(|| format!("row {row} has no highest logit"))).collect()
}

/// Calls of one greedy decode step of what is running, all steps alike, and allocations on the host in all of them.
fn steady(
    sequences: &[Option<Sequence>],
    rig: &mut Rig,
    host_allocations: &impl Fn() -> u64,
) -> Result<(Calls, u64), String> {
    const NUM_WARM: usize = 3;
    let (mut first, mut allocations) = (None, 0);
    let rows: Vec<u32> = (0..sequences.iter().flatten().count() as u32).collect();
    for step in 0..NUM_WARM + STEADY_STEPS {
        let next = |sequence: &Sequence| sequence.num_computed + step;
        let steps: Vec<SequenceStep<'_>> = sequences
            .iter()
            .flatten()
            .map(|s| SequenceStep { tokens: &[17], context_len: next(s), block_table: &s.block_table })
            .collect();
        let before = (rig.calls.so_far(), host_allocations());
        rig.step(&steps, WantedRows::best_tokens(&rows))?;
        if step < NUM_WARM {
            continue;
        }
        let calls = rig.calls.so_far().since(before.0);
        allocations += host_allocations() - before.1;
        if *first.get_or_insert(calls) != calls {
            return Err(format!("a steady step made {calls:?}, the first one {first:?}"));
        }
    }
    Ok((first.unwrap_or_default(), allocations))
}
