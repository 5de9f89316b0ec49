//! One step of a batch on all devices of a group.
//!
//! Every rank runs the same step over its share of the weights, the first on the caller's thread and the others on threads
//! of their own. Each comes to the logits of its part of the vocabulary; they are put together here.

mod job;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::{Arc, PoisonError};

use super::{Runner, RunnerInfo, StepOutput, StepRunner, WantedRows};
use crate::Error;
use crate::backend::{Backend, Capabilities, PrepareError, Rank, SequenceStep, StepError};
use crate::model::LoadProgress;
use crate::quant::{WeightClass, WeightFormat};
use crate::sampling::SamplingError;
use job::{Job, Peer, RankResult, SharedJob};
use vocabulary::Vocabulary;

/// The runners of a group's ranks as one.
///
/// A rank that fails takes the others with it: they may be waiting for its part of a sum. So every error is fatal, memory
/// that ran out too.
pub struct GroupRunner {
    rank: Rank,
    first: Box<dyn StepRunner>,
    others: Vec<Peer>,
    job: Arc<SharedJob>,
    results: Vec<RankResult>,
    vocabulary: Vocabulary,
    /// Of all ranks together.
    info: RunnerInfo,
}

impl std::fmt::Debug for GroupRunner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupRunner").field("info", &self.info).finish_non_exhaustive()
    }
}

impl GroupRunner {
    /// Takes the runners of all ranks, in order, with their places.
    ///
    /// # Errors
    /// [`StepError`] where a thread cannot be started.
    ///
    /// # Panics
    /// Without any rank.
    pub fn new(ranks: Vec<(Rank, Box<dyn StepRunner>)>) -> Result<Self, StepError> {
        let vocabulary = Vocabulary::new(ranks.iter().map(|(_, runner)| runner.info()));
        let results = ranks.iter().map(|_| RankResult::default()).collect();
        let mut ranks = ranks.into_iter();
        let Some((rank, first)) = ranks.next() else { panic!("a group has a rank at least") };
        let job = Arc::<SharedJob>::default();
        let others = ranks.map(|(rank, runner)| Peer::start(rank, runner, job.clone())).collect::<Result<_, _>>()?;
        let info = vocabulary.info(first.info());
        Ok(Self { rank, first, others, job, results, vocabulary, info })
    }

    /// Loads every backend of a group with `load`, the first on this thread and the others on threads of their own; alone,
    /// that is a plain [`Runner`].
    ///
    /// # Errors
    /// The first that `load` returned; a thread that cannot be started.
    ///
    /// # Panics
    /// Without any backend.
    pub fn load<B: Backend>(
        backends: Vec<B>,
        progress: &mut dyn FnMut(LoadProgress),
        load: impl Fn(B, &mut dyn FnMut(LoadProgress)) -> Result<Runner<B>, Error> + Sync,
    ) -> Result<Box<dyn StepRunner>, Error> {
        let load = |backend: B, progress: &mut dyn FnMut(LoadProgress)| {
            let rank = backend.rank().clone();
            let runner: Box<dyn StepRunner> = Box::new(load(backend, progress)?);
            Ok::<_, Error>((rank, runner))
        };
        let mut ranks = std::thread::scope(|scope| {
            let mut backends = backends.into_iter();
            let first = backends.next();
            let others: Vec<_> = backends.map(|backend| scope.spawn(|| load(backend, &mut |_| {}))).collect();
            let first = first.into_iter().map(|first| load(first, progress)).collect::<Vec<_>>();
            let others = others.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
            first.into_iter().chain(others).collect::<Result<Vec<_>, Error>>()
        })?;
        match ranks.len() {
            1 => Ok(ranks.remove(0).1),
            _ => Ok(Box::new(Self::new(ranks).map_err(PrepareError::from)?)),
        }
    }

    /// Runs a job on every rank, and leaves what they found in `results`.
    fn run(&mut self, describe: impl FnOnce(&mut Job)) -> Result<(), StepError> {
        // Whoever joined a sum of a broken group would wait for ranks that are gone.
        if let Some(error) = self.rank.failure() {
            return Err(error);
        }
        let Self { rank, first, others, job, results, .. } = self;
        describe(&mut job.write().unwrap_or_else(PoisonError::into_inner));
        others.iter().for_each(Peer::ask);
        let job = job.read().unwrap_or_else(PoisonError::into_inner);
        let mut outcome = job.run(first.as_mut(), &mut results[0]).map_err(|error| rank.fail(error.to_string()));
        for (peer, result) in others.iter().zip(&mut results[1..]) {
            outcome = peer.wait().and(outcome);
            peer.swap_result(&job, result);
        }
        // The first failure is the cause of the others.
        outcome.map_err(|error| rank.failure().unwrap_or(error))
    }

    /// Runs a job that asks for rows, and puts together what is wanted of them.
    fn run_for(
        &mut self,
        wanted: WantedRows<'_>,
        output: &mut StepOutput,
        describe: impl FnOnce(&mut Job),
    ) -> Result<(), StepError> {
        // Only rows that are held together can be asked again, for the logits of one without a candidate.
        let by_top = self.info.num_top_logits > 0 && wanted.num_rows() <= self.info.limits.max_logit_rows();
        self.run(|job| {
            describe(job);
            job.describe_rows(wanted, by_top);
        })?;
        output.best_tokens.clear();
        while let Some(row) = self.vocabulary.join((wanted, by_top), &self.results, output) {
            let mut logits = vec![0.0; self.info.vocab_size];
            if by_top {
                self.read_logits(row, &mut logits)?;
            } else {
                let found = self.results.iter().map(|rank| rank.output.logits.as_slice());
                self.vocabulary.join_logits(found, row - wanted.top_logits.rows.len(), &mut logits);
            }
            let error = SamplingError::no_candidate(&logits[..self.info.num_token_ids]);
            output.best_tokens.push(Err(error));
        }
        Ok(())
    }
}

impl Drop for GroupRunner {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.rank.fail("its thread panicked".into());
        }
    }
}

impl StepRunner for GroupRunner {
    fn capabilities(&self) -> &Capabilities {
        self.first.capabilities()
    }

    fn info(&self) -> RunnerInfo {
        self.info
    }

    fn formats(&self) -> &BTreeMap<WeightClass, WeightFormat> {
        self.first.formats()
    }

    fn step(
        &mut self,
        sequences: &[SequenceStep<'_>],
        wanted: WantedRows<'_>,
        output: &mut StepOutput,
    ) -> Result<(), StepError> {
        self.run_for(wanted, output, |job| job.describe_step(sequences))
    }

    fn draft(&mut self, next_tokens: &[u32], wanted: WantedRows<'_>, output: &mut StepOutput) -> Result<(), StepError> {
        self.run_for(wanted, output, |job| job.describe_draft(next_tokens))
    }

    fn read_logits(&mut self, index: usize, logits: &mut Vec<f32>) -> Result<(), StepError> {
        self.run(|job| job.describe_read(index))?;
        logits.resize(self.info.vocab_size, 0.0);
        self.vocabulary.join_logits(self.results.iter().map(|rank| rank.row.as_slice()), 0, logits);
        Ok(())
    }
}
