//! Prompts: logits where stored, argmax everywhere, MTP drafts, greedy continuations.

use super::argmax;
use engine_core::backend::SequenceStep;
use engine_core::runner::{StepOutput, StepRunner, WantedRows};

use super::{Findings, GoldenMode, Goldens, relative_error};

/// A step may differ from the golden's greedy token only where its gap is below this.
const TIE_GAP: f32 = 0.01;

/// Largest relative error of logits in f32 arithmetic. The golden's own arithmetic is f32 with another order of sums
/// over five layers; 1e-3 is a hundred times what is seen.
const LOGIT_TOLERANCE: f32 = 1e-3;

/// A sequence of the greedy run.
struct Run<'a> {
    name: &'a str,
    tokens: Vec<u32>,
    prompt_len: usize,
    block_table: Vec<u32>,
}

/// All prompts of a mode, in f32 arithmetic: prefill each (the long ones in chunks), compare logits and drafts, then
/// decode all together as one batch, greedily, and compare every token.
///
/// # Panics
/// When the device fails.
pub fn check_prompts(goldens: &Goldens, mode: GoldenMode, runner: &mut dyn StepRunner) -> Findings {
    let mut findings = Findings::default();
    let mut runs = Vec::new();
    let mut first_block = 0;
    for prompt in &goldens.json.prompts {
        let golden = goldens.result(mode, &prompt.name);
        let num_blocks = (prompt.ids.len() + golden.greedy.len()).div_ceil(64) as u32;
        let block_table: Vec<u32> = (first_block..first_block + num_blocks).collect();
        first_block += num_blocks;
        let mut run = Run { name: &prompt.name, tokens: prompt.ids.clone(), prompt_len: prompt.ids.len(), block_table };
        let next = prefill(goldens, mode, runner, &run, &mut findings);
        push_greedy(goldens, mode, &mut run, &next, &mut findings);
        runs.push(run);
    }
    let steps = goldens.result(mode, runs[0].name).greedy.len();
    for _ in 1..steps {
        let sequences: Vec<SequenceStep<'_>> = runs
            .iter()
            .map(|run| SequenceStep {
                tokens: &run.tokens[run.tokens.len() - 1..],
                context_len: run.tokens.len() - 1,
                block_table: &run.block_table,
            })
            .collect();
        let rows: Vec<u32> = (0..runs.len() as u32).collect();
        let mut output = StepOutput::default();
        runner.step(&sequences, WantedRows::logits(&rows), &mut output).unwrap_or_else(|e| panic!("decode: {e}"));
        let vocab = runner.info().vocab_size;
        for (run, logits) in runs.iter_mut().zip(output.logits.chunks(vocab)) {
            push_greedy(goldens, mode, run, logits, &mut findings);
        }
    }
    findings
}

/// Shares of prompt positions, over all prompts of a mode, whose argmax equals the golden's: for modes whose rounding makes
/// logits incomparable.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ArgmaxAgreement {
    /// Of all positions. Two correct engines differ in as many as two goldens of the same weights do, which is some three per
    /// cent (docs/numerics.md).
    pub all: f64,
    /// Of the positions at which all goldens of the same weights have one argmax, whatever they round.
    pub settled: f64,
}

impl ArgmaxAgreement {
    /// Two goldens of the FP8 weights agree in 96.9 % of the 2 422 positions; a share of that size has a standard error of
    /// 0.35 %.
    const MIN_ALL: f64 = 0.96;
    const MIN_SETTLED: f64 = 0.985;

    /// True where the shares are those of an engine that differs from the golden in rounding alone (docs/numerics.md).
    pub fn is_within_noise(self) -> bool {
        self.settled >= Self::MIN_SETTLED && self.all >= Self::MIN_ALL
    }

    /// # Panics
    /// Where it is not.
    pub fn assert_within_noise(self) {
        assert!(self.is_within_noise(), "{self:?}");
    }
}

/// Runs all prompts and compares the argmax of every position with the golden of `mode`.
///
/// # Panics
/// When the device fails.
pub fn argmax_agreement(goldens: &Goldens, mode: GoldenMode, runner: &mut dyn StepRunner) -> ArgmaxAgreement {
    let vocab = runner.info().vocab_size;
    let (mut all, mut settled) = (Share::default(), Share::default());
    for prompt in &goldens.json.prompts {
        let block_table: Vec<u32> = (0..prompt.ids.len().div_ceil(64) as u32).collect();
        let rows: Vec<u32> = (0..prompt.ids.len() as u32).collect();
        let step = SequenceStep { tokens: &prompt.ids, context_len: 0, block_table: &block_table };
        let mut output = StepOutput::default();
        runner.step(&[step], WantedRows::logits(&rows), &mut output).unwrap_or_else(|e| panic!("{}: {e}", prompt.name));
        let golden = |mode| goldens.result(mode, &prompt.name).prompt_argmax.as_slice();
        for (position, logits) in output.logits.chunks(vocab).enumerate() {
            let expected = golden(mode)[position];
            let is_equal = argmax(logits) == expected;
            all.count(is_equal);
            if mode.same_weights().iter().all(|other| golden(*other)[position] == expected) {
                settled.count(is_equal);
            }
        }
    }
    ArgmaxAgreement { all: all.value(), settled: settled.value() }
}

#[derive(Debug, Default)]
struct Share {
    equal: u32,
    compared: u32,
}

impl Share {
    fn count(&mut self, is_equal: bool) {
        self.equal += u32::from(is_equal);
        self.compared += 1;
    }

    fn value(&self) -> f64 {
        f64::from(self.equal) / f64::from(self.compared)
    }
}

/// Compares the greedy choice with the golden and goes on with the golden's token, so that one tie does not hide the
/// rest.
fn push_greedy(goldens: &Goldens, mode: GoldenMode, run: &mut Run<'_>, logits: &[f32], findings: &mut Findings) {
    let golden = goldens.result(mode, run.name);
    let step = run.tokens.len() - run.prompt_len;
    let (found, expected) = (argmax(logits), golden.greedy[step]);
    if found != expected {
        let gap = golden.gaps[step];
        let message = format!("{}: step {step}: greedy token {found}, golden {expected}, gap {gap}", run.name);
        if gap < TIE_GAP { findings.notes.push(message) } else { findings.failures.push(message) }
    }
    run.tokens.push(expected);
}

/// Runs the prompt with the MTP module beside it; returns the logits of its last token.
fn prefill(
    goldens: &Goldens,
    mode: GoldenMode,
    runner: &mut dyn StepRunner,
    run: &Run<'_>,
    findings: &mut Findings,
) -> Vec<f32> {
    let golden = goldens.result(mode, run.name);
    let vocab = runner.info().vocab_size;
    let (mut logits, mut drafts) = (Vec::new(), Vec::new());
    // 700 is no multiple of the block size: chunks begin inside blocks.
    for (index, tokens) in run.tokens.chunks(700).enumerate() {
        let context_len = index * 700;
        let step = SequenceStep { tokens, context_len, block_table: &run.block_table };
        let rows: Vec<u32> = (0..tokens.len() as u32).collect();
        let wanted = WantedRows::logits(&rows);
        let mut chunk = StepOutput::default();
        runner.step(&[step], wanted, &mut chunk).unwrap_or_else(|e| panic!("{}: {e}", run.name));
        logits.extend_from_slice(&chunk.logits);
        let next: Vec<u32> =
            (1..=tokens.len()).map(|i| run.tokens.get(context_len + i).copied().unwrap_or(golden.greedy[0])).collect();
        runner.draft(&next, wanted, &mut chunk).unwrap_or_else(|e| panic!("{}: draft: {e}", run.name));
        drafts.extend_from_slice(&chunk.logits);
    }
    let row = |of: &[f32], position: usize| of[position * vocab..][..vocab].to_vec();
    let compare = |what: &str, name: String, found: Vec<f32>, findings: &mut Findings| {
        let (_, all) = goldens.f32(&name);
        let error = relative_error(&found, &all);
        findings.notes.push(format!("{}: {what}: relative error {error:.1e}", run.name));
        findings.expect(error < LOGIT_TOLERANCE, || format!("{}: {what}: relative error {error:e}", run.name));
    };
    let stored: Vec<f32> = golden.logit_positions.iter().flat_map(|p| row(&logits, *p)).collect();
    compare("logits", format!("{}/{}/logits", mode.name(), run.name), stored, findings);
    let draft = row(&drafts, golden.mtp.logits_slot);
    compare("MTP logits", format!("{}/{}/mtp_logits", mode.name(), run.name), draft, findings);
    compare_argmax(run.name, "argmax", &logits, vocab, &golden.prompt_argmax, findings);
    compare_argmax(run.name, "MTP argmax", &drafts, vocab, &golden.mtp.argmax_prompt_slots, findings);
    row(&logits, run.prompt_len - 1)
}

/// Every row's argmax, ties (within twice the logit tolerance of the largest logit) aside.
fn compare_argmax(name: &str, what: &str, logits: &[f32], vocab: usize, golden: &[u32], findings: &mut Findings) {
    for (position, (logits, golden)) in logits.chunks(vocab).zip(golden).enumerate() {
        let best = logits[argmax(logits) as usize];
        let gap = best - logits[*golden as usize];
        findings.expect(gap <= 2.0 * LOGIT_TOLERANCE * best.abs(), || {
            format!("{name}: {what} at {position} is {}, golden {golden}, {gap} apart", argmax(logits))
        });
    }
}
