//! Held-out texts: perplexity and draft acceptance, teacher-forced.

use engine_core::backend::SequenceStep;
use engine_core::runner::{StepOutput, StepRunner, WantedRows};
use engine_core::sampling::log_softmax_at;

use super::argmax;

use super::{GoldenMode, Goldens};

/// Figures of one file in windows of one length.
#[derive(Debug, Clone, Copy)]
pub struct HeldoutResult {
    /// e^(mean negative log-likelihood).
    pub perplexity: f64,
    /// Share of MTP drafts that equal the main model's argmax for the same token.
    pub draft_acceptance: f64,
    /// The golden's perplexity.
    pub golden_perplexity: f64,
    /// The golden's draft acceptance.
    pub golden_draft_acceptance: f64,
}

/// Scores `file` in windows of `window` tokens.
///
/// # Panics
/// When the device fails.
pub fn heldout(
    goldens: &Goldens,
    mode: GoldenMode,
    (file, window): (&str, usize),
    runner: &mut dyn StepRunner,
) -> HeldoutResult {
    let ids = &goldens.json.heldout.files[file].ids;
    let golden = goldens.json.heldout.modes[mode.name()][file][&format!("window_{window}")];
    let vocab = runner.info().vocab_size;
    let (mut nll, mut accepted, mut compared) = (0.0, 0, 0);
    for start in (0..ids.len() - 1).step_by(window) {
        let inputs = &ids[start..(start + window).min(ids.len() - 1)];
        let (logits, drafts) = run_window(runner, inputs);
        let choices: Vec<u32> = logits.chunks(vocab).map(argmax).collect();
        for (i, logits) in logits.chunks(vocab).enumerate() {
            nll -= log_softmax_at(logits, ids[start + i + 1] as usize);
        }
        for (draft, choice) in drafts.chunks(vocab).zip(&choices[1..]) {
            accepted += usize::from(argmax(draft) == *choice);
            compared += 1;
        }
    }
    let tokens = ids.len() - 1;
    HeldoutResult {
        perplexity: (nll / tokens as f64).exp(),
        draft_acceptance: accepted as f64 / compared as f64,
        golden_perplexity: golden.perplexity,
        golden_draft_acceptance: golden.draft_acceptance,
    }
}

/// Logits and draft logits of every row of a window run alone.
fn run_window(runner: &mut dyn StepRunner, tokens: &[u32]) -> (Vec<f32>, Vec<f32>) {
    let block_table: Vec<u32> = (0..tokens.len().div_ceil(64) as u32).collect();
    let rows: Vec<u32> = (0..tokens.len() as u32).collect();
    let wanted = WantedRows::logits(&rows);
    let (mut main, mut drafts) = (StepOutput::default(), StepOutput::default());
    let step = SequenceStep { tokens, context_len: 0, block_table: &block_table };
    runner.step(&[step], wanted, &mut main).unwrap_or_else(|e| panic!("held-out: {e}"));
    let mut next = tokens[1..].to_vec();
    next.push(0);
    runner.draft(&next, wanted, &mut drafts).unwrap_or_else(|e| panic!("held-out: MTP: {e}"));
    (main.logits, drafts.logits)
}
