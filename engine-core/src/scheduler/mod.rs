//! Which sequences run in the next step.
//!
//! First come, first served. A step first takes the running sequences in order of arrival (one token each when they
//! decode, a chunk when their prefill is not done), then admits waiting ones while tokens, sequences and blocks last.
//! A running sequence that finds no free block preempts the one that arrived last; a preempted sequence gives back its
//! blocks, waits at the front and is recomputed.

mod sequence;

use std::collections::VecDeque;

pub use sequence::{Sequence, SequenceId};

use crate::backend::StepLimits;
use crate::cache::BlockPool;

/// A sequence's part in a step: the next `num_tokens` tokens of `running[index]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduled {
    /// Index into [`Scheduler::running`].
    pub index: usize,
    /// Tokens to run now.
    pub num_tokens: usize,
}

/// Waiting and running sequences and the blocks they hold.
#[derive(Debug)]
pub struct Scheduler {
    limits: StepLimits,
    pool: BlockPool,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    num_preemptions: u64,
}

impl Scheduler {
    /// A scheduler over a cache of `num_blocks` blocks, enough for at least one sequence of `max_model_len`.
    pub fn new(limits: StepLimits, num_blocks: usize) -> Self {
        Self {
            limits,
            pool: BlockPool::new(num_blocks),
            waiting: VecDeque::new(),
            running: Vec::new(),
            num_preemptions: 0,
        }
    }

    /// Queues a sequence.
    pub fn add(&mut self, sequence: Sequence) {
        self.waiting.push_back(sequence);
    }

    /// True when there is nothing to run.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Sequences that hold blocks, in order of arrival.
    pub fn running(&self) -> &[Sequence] {
        &self.running
    }

    /// As [`Scheduler::running`], to record progress.
    pub fn running_mut(&mut self) -> &mut [Sequence] {
        &mut self.running
    }

    /// Blocks of the latent cache.
    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// How often a sequence had to give back its blocks.
    pub fn num_preemptions(&self) -> u64 {
        self.num_preemptions
    }

    /// Fills `step` with the next step's sequences; empty when idle, or when lent blocks leave no room. Blocks for the scheduled tokens are held on return.
    pub fn schedule(&mut self, step: &mut Vec<Scheduled>) {
        step.clear();
        let mut budget = self.limits.max_num_batched_tokens;
        let preemptions = self.num_preemptions;
        let mut index = 0;
        while index < self.running.len() && budget > 0 {
            let num_tokens = self.running[index].num_pending().min(budget);
            if !self.make_room(index, num_tokens) {
                break;
            }
            step.push(Scheduled { index, num_tokens });
            budget -= num_tokens;
            index += 1;
        }
        if self.num_preemptions == preemptions {
            self.admit(step, budget);
        }
    }

    /// Holds blocks for `num_tokens` more tokens of `running[index]`, preempting later arrivals if need be. False when
    /// that sequence was preempted itself.
    fn make_room(&mut self, index: usize, num_tokens: usize) -> bool {
        loop {
            let sequence = &mut self.running[index];
            let num_blocks = (sequence.num_computed() + num_tokens).div_ceil(self.limits.block_size);
            if self.pool.extend(sequence.block_table_mut(), num_blocks) {
                return true;
            }
            self.preempt_last();
            if index == self.running.len() {
                return false;
            }
        }
    }

    fn preempt_last(&mut self) {
        if let Some(mut sequence) = self.running.pop() {
            self.pool.release(sequence.block_table_mut());
            sequence.restart();
            self.waiting.push_front(sequence);
            self.num_preemptions += 1;
        }
    }

    fn admit(&mut self, step: &mut Vec<Scheduled>, mut budget: usize) {
        while budget > 0 && self.running.len() < self.limits.max_num_seqs {
            let Some(mut sequence) = self.waiting.pop_front() else { break };
            let num_tokens = sequence.num_pending().min(budget);
            let num_blocks = num_tokens.div_ceil(self.limits.block_size);
            if !self.pool.extend(sequence.block_table_mut(), num_blocks) {
                self.waiting.push_front(sequence);
                break;
            }
            step.push(Scheduled { index: self.running.len(), num_tokens });
            budget -= num_tokens;
            self.running.push(sequence);
        }
    }

    /// Removes the sequences for which `done` holds, running or waiting, and frees their blocks.
    pub fn retire(&mut self, mut done: impl FnMut(SequenceId) -> bool) {
        let pool = &mut self.pool;
        self.running.retain_mut(|sequence| {
            let done = done(sequence.id());
            if done {
                pool.release(sequence.block_table_mut());
            }
            !done
        });
        self.waiting.retain(|sequence| !done(sequence.id()));
    }

    /// Lends the blocks of `num_tokens` tokens for a window run beside the schedule, preempting the last arrivals where
    /// too few are free. The table comes back through [`Scheduler::return_blocks`]; until then
    /// [`Scheduler::schedule`] may find no room for anything.
    pub fn lend_blocks(&mut self, num_tokens: usize) -> Vec<u32> {
        let mut block_table = Vec::new();
        let num_blocks = num_tokens.div_ceil(self.limits.block_size);
        while !self.pool.extend(&mut block_table, num_blocks) && !self.running.is_empty() {
            self.preempt_last();
        }
        block_table
    }

    /// Takes back what [`Scheduler::lend_blocks`] lent.
    pub fn return_blocks(&mut self, mut block_table: Vec<u32>) {
        self.pool.release(&mut block_table);
    }
}

#[cfg(test)]
mod tests;
