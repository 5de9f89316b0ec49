//! What is asked of the rows of a step, and what comes of it.

use crate::sampling::SamplingError;

/// Rows of a step of which something is wanted. Their order is free, a row may stand in both lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WantedRows<'a> {
    /// Rows whose logits are read back: `vocab_size` numbers each.
    pub logits: &'a [u32],
    /// Rows of which the id of the highest logit is enough: one number each.
    pub best_tokens: &'a [u32],
}

impl<'a> WantedRows<'a> {
    /// Logits of these rows and nothing else.
    pub fn logits(rows: &'a [u32]) -> Self {
        Self { logits: rows, best_tokens: &[] }
    }

    /// How many are wanted, of both kinds together.
    pub fn num_rows(&self) -> usize {
        self.logits.len() + self.best_tokens.len()
    }
}

/// What [`WantedRows`] asked for. Used again step after step, it stops growing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepOutput {
    /// `[M, vocab_size]`, in the order of [`WantedRows::logits`].
    pub logits: Vec<f32>,
    /// In the order of [`WantedRows::best_tokens`]: what [`argmax`](crate::sampling::argmax) gives over the ids that
    /// stand for a token, or [`SamplingError::NoCandidate`].
    pub best_tokens: Vec<Result<u32, SamplingError>>,
}
