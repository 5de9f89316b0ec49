//! Which passes are recorded, and which are held.
//!
//! A decode step is the same work every time but for what its tensors hold, so its work is recorded once and replayed: one
//! call of the driver in place of a thousand. Recorded work has fixed shapes. Steps are therefore padded to a few of them,
//! [buckets](Bucket), whether they are replayed or not: what a step computes does not depend on whether it was.

use super::pass::Pass;
use crate::backend::{SequenceStep, StepLimits};

/// Passes held at most. A step of a large model has some thousand launches, of a few hundred bytes each.
const MAX_HELD: usize = 32;

/// The shortest `max_seq_len` of a bucket. Below, sequences are not worth distinguishing.
const MIN_SEQ_LEN: usize = 256;

/// A size that decode steps are padded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bucket {
    /// Sequences of one token each.
    pub(super) num_seqs: usize,
    /// No sequence is longer.
    pub(super) max_seq_len: usize,
}

impl Bucket {
    /// The smallest one that takes a step of `sequences`, of which `num_rows` rows are read; `None` where that is no decode
    /// step, or too large a one.
    pub(super) fn of(sequences: &[SequenceStep<'_>], num_rows: usize, limits: &StepLimits) -> Option<Self> {
        let is_decode = sequences.iter().all(|sequence| sequence.tokens.len() == 1);
        let max_seq_len = sequences.iter().map(|sequence| sequence.context_len + 1).max()?;
        let bucket = Self {
            num_seqs: rounded(sequences.len()).min(limits.max_step_seqs()),
            max_seq_len: rounded(max_seq_len.max(MIN_SEQ_LEN)).min(limits.max_model_len),
        };
        (is_decode && (1..=bucket.num_seqs).contains(&num_rows)).then_some(bucket)
    }
}

/// The next power of two, or from 16 on three quarters of it if that is enough: at most a third is added.
fn rounded(size: usize) -> usize {
    let power = size.next_power_of_two();
    if size > 16 && size <= power / 4 * 3 { power / 4 * 3 } else { power }
}

/// What is recorded: one of these is the same work every time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Recording {
    pub(super) pass: Pass,
    pub(super) bucket: Bucket,
    /// The highest logits of every row are found too.
    pub(super) with_top: bool,
}

#[derive(Debug)]
enum State<G> {
    /// It has run, so scratch memory is there.
    Ran,
    Captured(G),
    /// Recording failed and is not tried again.
    Failed,
}

#[derive(Debug)]
struct Entry<G> {
    key: Recording,
    state: State<G>,
    last_used: u64,
}

/// Recorded passes, the least recently used one dropped for a new one.
#[derive(Debug)]
pub(super) struct CapturedPasses<G> {
    entries: Vec<Entry<G>>,
    num_uses: u64,
}

impl<G> CapturedPasses<G> {
    pub(super) fn new() -> Self {
        Self { entries: Vec::with_capacity(MAX_HELD), num_uses: 0 }
    }

    /// Takes note of a pass over a step of a bucket. True where it is to be recorded now: it has run once and is not held.
    pub(super) fn is_due(&mut self, key: Recording) -> bool {
        self.num_uses += 1;
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.key == key) else {
            self.insert(key);
            return false;
        };
        entry.last_used = self.num_uses;
        match entry.state {
            State::Ran => true,
            State::Captured(_) | State::Failed => false,
        }
    }

    /// The recorded pass, if it is held.
    pub(super) fn get(&self, key: Recording) -> Option<&G> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        match &entry.state {
            State::Captured(graph) => Some(graph),
            State::Ran | State::Failed => None,
        }
    }

    fn insert(&mut self, key: Recording) {
        if self.entries.len() == MAX_HELD {
            let oldest = self.entries.iter().enumerate().min_by_key(|(_, entry)| entry.last_used);
            if let Some(index) = oldest.map(|(index, _)| index) {
                self.entries.swap_remove(index);
            }
        }
        self.entries.push(Entry { key, state: State::Ran, last_used: self.num_uses });
    }

    /// Keeps what came of recording a pass; `None` where it failed.
    pub(super) fn keep(&mut self, key: Recording, graph: Option<G>) {
        self.set(key, graph.map_or(State::Failed, State::Captured));
    }

    /// Drops a pass that cannot be replayed any more; it has just been run again.
    pub(super) fn drop_outdated(&mut self, key: Recording) {
        self.set(key, State::Ran);
    }

    fn set(&mut self, key: Recording, state: State<G>) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.key == key) {
            entry.state = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: StepLimits =
        StepLimits { max_num_batched_tokens: 512, max_num_seqs: 100, max_model_len: 5000, block_size: 64 };

    fn decode(context_lens: &[usize]) -> Vec<SequenceStep<'static>> {
        context_lens.iter().map(|len| SequenceStep { tokens: &[1], context_len: *len, block_table: &[] }).collect()
    }

    #[test]
    fn batches_and_lengths_are_rounded_up_and_kept_to_the_limits() {
        let sizes: Vec<usize> = (1..=100).map(|n| rounded(n).min(100)).collect();
        let mut distinct = sizes.clone();
        distinct.dedup();
        assert_eq!(distinct, [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 100]);
        assert!(sizes.iter().zip(1..).all(|(size, n)| *size >= n));
        let bucket = |lens: &[usize]| Bucket::of(&decode(lens), 1, &LIMITS);
        assert_eq!(bucket(&[0]), Some(Bucket { num_seqs: 1, max_seq_len: 256 }));
        assert_eq!(bucket(&[255, 3, 9]), Some(Bucket { num_seqs: 4, max_seq_len: 256 }));
        assert_eq!(bucket(&[256]), Some(Bucket { num_seqs: 1, max_seq_len: 384 }));
        assert_eq!(bucket(&[4500; 97]), Some(Bucket { num_seqs: 100, max_seq_len: 5000 }));
    }

    #[test]
    fn only_decode_steps_that_are_read_have_a_bucket() {
        let prefill = SequenceStep { tokens: &[1, 2], context_len: 0, block_table: &[] };
        assert_eq!(Bucket::of(&[prefill], 1, &LIMITS), None);
        assert_eq!(Bucket::of(&[], 0, &LIMITS), None);
        assert_eq!(Bucket::of(&decode(&[7]), 0, &LIMITS), None);
        assert_eq!(Bucket::of(&decode(&[7]), 2, &LIMITS), None);
    }

    fn recording(pass: Pass, max_seq_len: usize) -> Recording {
        Recording { pass, bucket: Bucket { num_seqs: 4, max_seq_len }, with_top: false }
    }

    #[test]
    fn a_pass_runs_then_is_captured_then_replayed() {
        let key = recording(Pass::Model, 256);
        let mut passes = CapturedPasses::new();
        let next = |passes: &mut CapturedPasses<_>| (passes.is_due(key), passes.get(key).copied());
        assert_eq!(next(&mut passes), (false, None));
        assert_eq!(next(&mut passes), (true, None));
        passes.keep(key, Some("graph"));
        assert_eq!(next(&mut passes), (false, Some("graph")));
        for other in [recording(Pass::Draft, 256), recording(Pass::Model, 384), Recording { with_top: true, ..key }] {
            assert!(!passes.is_due(other), "another recording");
            assert_eq!(passes.get(other), None);
        }
        passes.drop_outdated(key);
        assert_eq!(next(&mut passes), (true, None));
        passes.keep(key, None);
        for _ in 0..2 {
            assert_eq!(next(&mut passes), (false, None), "what failed is not tried again");
        }
    }

    #[test]
    fn the_least_recently_used_pass_is_dropped() {
        let key = |i: usize| recording(Pass::Model, 256 + i);
        let mut passes = CapturedPasses::new();
        for i in 0..MAX_HELD {
            passes.is_due(key(i));
            passes.keep(key(i), Some(i));
        }
        passes.is_due(key(0));
        passes.is_due(key(MAX_HELD));
        assert_eq!(passes.get(key(0)), Some(&0));
        assert_eq!(passes.get(key(1)), None, "dropped for the last one");
        assert_eq!(passes.get(key(2)), Some(&2));
        assert_eq!(passes.entries.len(), MAX_HELD);
    }
}
