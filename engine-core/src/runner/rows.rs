//! What is asked of the rows of a step, and what comes of it.

use std::ops::Range;

use crate::backend::TopLogits;
use crate::sampling::SamplingError;

/// Rows of a step of which something is wanted. Their order is free, a row may stand in several lists.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct WantedRows<'a> {
    /// Rows whose logits are read back: `vocab_size` numbers each.
    pub logits: &'a [u32],
    /// Rows of which the highest logits are wanted; none where [`RunnerInfo::num_top_logits`](super::RunnerInfo) is 0.
    pub top_logits: TopRows<'a>,
    /// Rows of which the id of the highest logit is enough: one number each.
    pub best_tokens: &'a [u32],
}

/// Rows of which the highest logits are wanted, and how their totals are taken.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TopRows<'a> {
    /// The rows.
    pub rows: &'a [u32],
    /// What logits are multiplied by in [`TopLogits::total`], a positive number per row.
    pub inverse_temperatures: &'a [f32],
}

impl<'a> WantedRows<'a> {
    /// Logits of these rows and nothing else.
    pub fn logits(rows: &'a [u32]) -> Self {
        Self { logits: rows, ..Self::default() }
    }

    /// Best tokens of these rows and nothing else.
    pub fn best_tokens(rows: &'a [u32]) -> Self {
        Self { best_tokens: rows, ..Self::default() }
    }

    /// How many are wanted, of all kinds together.
    pub fn num_rows(&self) -> usize {
        self.logits.len() + self.top_logits.rows.len() + self.best_tokens.len()
    }

    /// Where each kind lies among all of them.
    pub(super) fn kinds(&self) -> RowKinds {
        let first_top = self.logits.len();
        let first_best = first_top + self.top_logits.rows.len();
        RowKinds { logits: 0..first_top, top: first_top..first_best, best: first_best..self.num_rows() }
    }
}

/// Rows of all kinds, one kind after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowKinds {
    pub(super) logits: Range<usize>,
    pub(super) top: Range<usize>,
    pub(super) best: Range<usize>,
}

/// The rows of a kind that lie in a chunk of all rows.
pub(super) struct KindPart {
    /// The first of them, counted from the beginning of the chunk.
    pub(super) first_row: usize,
    /// Which of its kind they are.
    pub(super) outputs: Range<usize>,
}

impl KindPart {
    /// `None` where there are none.
    pub(super) fn of(kind: &Range<usize>, chunk: &Range<usize>) -> Option<Self> {
        let rows = kind.start.max(chunk.start)..kind.end.min(chunk.end);
        let outputs = || rows.start - kind.start..rows.end - kind.start;
        (!rows.is_empty()).then(|| Self { first_row: rows.start - chunk.start, outputs: outputs() })
    }

    /// Where the values of these rows lie, `width` of them a row.
    pub(super) fn values(&self, width: usize) -> Range<usize> {
        self.outputs.start * width..self.outputs.end * width
    }
}

/// What [`WantedRows`] asked for. Used again step after step, it stops growing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepOutput {
    /// `[M, vocab_size]`, in the order of [`WantedRows::logits`].
    pub logits: Vec<f32>,
    /// `[M, 2 K + 1]`, in the order of [`WantedRows::top_logits`]: rows of [`TopLogits`] over the ids that stand for a
    /// token, K being [`RunnerInfo::num_top_logits`](super::RunnerInfo).
    pub top_logits: Vec<u32>,
    /// In the order of [`WantedRows::best_tokens`]: what [`argmax`](crate::sampling::argmax) gives over the ids that
    /// stand for a token, or [`SamplingError::NoCandidate`].
    pub best_tokens: Vec<Result<u32, SamplingError>>,
}

impl StepOutput {
    /// The rows of `top_logits`, `num_top` logits each.
    pub fn top_rows(top_logits: &[u32], num_top: usize) -> impl Iterator<Item = TopLogits<'_>> {
        top_logits.chunks(TopLogits::num_words(num_top)).map(TopLogits::from_words)
    }
}
