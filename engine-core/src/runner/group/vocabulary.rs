//! The head's rows are divided among the ranks: what each found of its ids, put together.

use std::cmp::Ordering;

use super::job::RankResult;
use crate::backend::{NO_TOKEN, TopLogits};
use crate::runner::{RunnerInfo, StepOutput, WantedRows};
use crate::sampling::argmax;

/// The ids of a rank.
#[derive(Debug, Clone, Copy)]
struct Part {
    first_id: usize,
    vocab_size: usize,
    num_token_ids: usize,
    num_top: usize,
}

impl Part {
    /// A rank's logits of a row.
    fn row<'a>(&self, logits: &'a [f32], row: usize) -> &'a [f32] {
        &logits[row * self.vocab_size..][..self.vocab_size]
    }

    /// A rank's highest logits of a row.
    fn top<'a>(&self, result: &'a RankResult, row: usize) -> TopLogits<'a> {
        let num_words = TopLogits::num_words(self.num_top);
        TopLogits::from_words(&result.output.top_logits[row * num_words..][..num_words])
    }
}

/// The ids of all ranks.
pub(super) struct Vocabulary {
    parts: Vec<Part>,
    vocab_size: usize,
    num_token_ids: usize,
    /// Highest logits that every rank finds.
    num_top: usize,
    /// Those of a row.
    merged: Vec<(u32, f32)>,
}

impl Vocabulary {
    /// Of ranks that say this of themselves.
    pub(super) fn new(ranks: impl Iterator<Item = RunnerInfo>) -> Self {
        let mut all =
            Self { parts: Vec::new(), vocab_size: 0, num_token_ids: 0, num_top: usize::MAX, merged: Vec::new() };
        for RunnerInfo { vocab_size, num_token_ids, num_top_logits: num_top, .. } in ranks {
            all.parts.push(Part { first_id: all.vocab_size, vocab_size, num_token_ids, num_top });
            all.vocab_size += vocab_size;
            all.num_token_ids += num_token_ids;
            all.num_top = all.num_top.min(num_top);
        }
        all
    }

    /// What a runner of all ids says of itself, `rank` being what one of them says.
    pub(super) fn info(&self, rank: RunnerInfo) -> RunnerInfo {
        let Self { vocab_size, num_token_ids, num_top, .. } = *self;
        RunnerInfo { vocab_size, num_token_ids, num_top_logits: num_top, ..rank }
    }

    /// Rows of all logits, from every rank's logits, of which they are those from `first_row` on.
    pub(super) fn join_logits<'a>(&self, ranks: impl Iterator<Item = &'a [f32]>, first_row: usize, rows: &mut [f32]) {
        for (part, found) in self.parts.iter().zip(ranks) {
            for (row, logits) in (first_row..).zip(rows.chunks_mut(self.vocab_size)) {
                logits[part.first_id..][..part.vocab_size].copy_from_slice(part.row(found, row));
            }
        }
    }

    /// What is wanted, from what the ranks found in a job that asked for it with the same `by_top`. Ends at the first row
    /// of a best token that has no candidate, and says which of all wanted rows it is.
    pub(super) fn join(
        &mut self,
        (wanted, by_top): (WantedRows<'_>, bool),
        ranks: &[RankResult],
        output: &mut StepOutput,
    ) -> Option<usize> {
        let num_logits = wanted.logits.len();
        output.logits.resize(num_logits * self.vocab_size, 0.0);
        self.join_logits(ranks.iter().map(|rank| rank.output.logits.as_slice()), 0, &mut output.logits);
        let num_words = TopLogits::num_words(self.num_top);
        let inverse_temperatures = wanted.top_logits.inverse_temperatures;
        output.top_logits.resize(inverse_temperatures.len() * num_words, 0);
        for (row, words) in output.top_logits.chunks_mut(num_words).enumerate() {
            self.join_top(ranks, row, inverse_temperatures[row], words);
        }
        let num_before = num_logits + inverse_temperatures.len();
        let first = if by_top { inverse_temperatures.len() } else { num_logits };
        for row in output.best_tokens.len()..wanted.best_tokens.len() {
            match self.best(ranks, first + row, by_top) {
                Some(id) => output.best_tokens.push(Ok(id)),
                None => return Some(num_before + row),
            }
        }
        None
    }

    /// The highest logits of a row, and its weight.
    fn join_top(&mut self, ranks: &[RankResult], row: usize, inverse_temperature: f32, words: &mut [u32]) {
        let Self { parts, merged, num_top, .. } = self;
        let tops = || parts.iter().zip(ranks).map(|(part, rank)| (part, part.top(rank, row)));
        merged.clear();
        for (part, top) in tops() {
            let is_found = |(id, _): &(&u32, &f32)| **id != NO_TOKEN;
            let found = top.ids.iter().zip(top.logits).filter(is_found);
            merged.extend(found.map(|(id, logit)| (part.first_id as u32 + id, *logit)));
        }
        // Of equals, the lowest ids.
        let order =
            |a: &(u32, f32), b: &(u32, f32)| b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal).then(a.0.cmp(&b.0));
        merged.sort_unstable_by(order);
        let highest = merged.first().map_or(f32::NEG_INFINITY, |(_, logit)| *logit);
        // Every rank weighs against its own highest.
        let weight = |top: &TopLogits<'_>| {
            let own = top.logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            if own == f32::NEG_INFINITY {
                0.0
            } else {
                f64::from(top.total) * f64::from((own - highest) * inverse_temperature).exp()
            }
        };
        let total: f64 = tops().map(|(_, top)| weight(&top)).sum();
        merged.truncate(*num_top);
        merged.resize(*num_top, (NO_TOKEN, f32::NEG_INFINITY));
        for (place, (id, logit)) in merged.iter().enumerate() {
            words[place] = *id;
            words[*num_top + place] = logit.to_bits();
        }
        words[2 * *num_top] = (total as f32).to_bits();
    }

    /// The id of the highest logit of a row, the lowest of equals.
    fn best(&self, ranks: &[RankResult], row: usize, by_top: bool) -> Option<u32> {
        let (mut best, mut highest) = (None, f32::NEG_INFINITY);
        for (part, rank) in self.parts.iter().zip(ranks) {
            let found = if by_top {
                let top = part.top(rank, row);
                let lowest_first = |a: &(&u32, &f32), b: &(&u32, &f32)| a.1.total_cmp(b.1).then(b.0.cmp(a.0));
                top.ids
                    .iter()
                    .zip(top.logits)
                    .filter(|(id, _)| **id != NO_TOKEN)
                    .max_by(lowest_first)
                    .map(|(id, logit)| (*id, *logit))
            } else {
                let logits = part.row(&rank.output.logits, row);
                argmax(&logits[..part.num_token_ids]).map(|id| (id, logits[id as usize]))
            };
            if let Some((id, logit)) = found.filter(|(_, logit)| *logit > highest) {
                (best, highest) = (Some(part.first_id as u32 + id), logit);
            }
        }
        best
    }
}
