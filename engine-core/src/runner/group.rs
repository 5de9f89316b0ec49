//! One step of a batch on all devices of a group.
//!
//! Every rank runs the same step over its share of the weights, the first on the caller's thread and the others on threads
//! of their own. All come to the same logits; those of the first are what the caller gets.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use super::{Runner, RunnerInfo, StepOutput, StepRunner, TopRows, WantedRows};
use crate::Error;
use crate::backend::{Backend, Capabilities, PrepareError, Rank, SequenceStep, StepError};
use crate::model::LoadProgress;
use crate::quant::{WeightClass, WeightFormat};

/// The runners of a group's ranks as one.
///
/// A rank that fails takes the others with it: they may be waiting for its part of a sum. So every error is fatal, memory
/// that ran out too.
pub struct GroupRunner {
    rank: Rank,
    first: Box<dyn StepRunner>,
    others: Vec<Peer>,
    job: Arc<Job>,
}

/// Another rank.
struct Peer {
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
}

/// What the others are to do, written by the first before it asks them.
type Job = RwLock<JobInputs>;

/// The inputs of a step or draft, owned; used again step after step.
#[derive(Default)]
struct JobInputs {
    is_draft: bool,
    tokens: Vec<u32>,
    blocks: Vec<u32>,
    sequences: Vec<SequenceSize>,
    logits: Vec<u32>,
    top_logits: Vec<u32>,
    inverse_temperatures: Vec<f32>,
    best_tokens: Vec<u32>,
}

struct SequenceSize {
    num_tokens: usize,
    context_len: usize,
    num_blocks: usize,
}

/// Where the first rank and another one meet.
#[derive(Default)]
struct Mailbox {
    state: Mutex<Message>,
    changed: Condvar,
}

#[derive(Default)]
enum Message {
    /// Nothing to do, nothing to tell.
    #[default]
    Idle,
    /// There is a job.
    Run,
    /// What came of it.
    Done(Result<(), StepError>),
    /// There will be no other job.
    Stop,
}

impl std::fmt::Debug for GroupRunner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupRunner").field("world_size", &self.rank.world_size()).finish_non_exhaustive()
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
        let mut ranks = ranks.into_iter();
        let Some((rank, first)) = ranks.next() else { panic!("a group has a rank at least") };
        let job = Arc::<Job>::default();
        let others = ranks.map(|(rank, runner)| Peer::start(rank, runner, job.clone())).collect::<Result<_, _>>()?;
        Ok(Self { rank, first, others, job })
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

    /// Runs a job on every rank: `first` on this one.
    fn run(
        &mut self,
        describe: impl FnOnce(&mut JobInputs),
        first: impl FnOnce(&mut dyn StepRunner) -> Result<(), StepError>,
    ) -> Result<(), StepError> {
        // A broken group would leave whoever joins a sum waiting for ranks that are gone.
        if let Some(error) = self.rank.failure() {
            return Err(error);
        }
        describe(&mut self.job.write().unwrap_or_else(PoisonError::into_inner));
        self.others.iter().for_each(|peer| peer.mailbox.put(Message::Run));
        let mut result = first(self.first.as_mut()).map_err(|error| self.rank.fail(error.to_string()));
        for peer in &self.others {
            result = peer.mailbox.wait_until_done().and(result);
        }
        // The first failure is the cause of the others.
        result.map_err(|error| self.rank.failure().unwrap_or(error))
    }
}

impl Drop for GroupRunner {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.rank.fail("its thread panicked".into());
        }
        self.others.iter().for_each(|peer| peer.mailbox.put(Message::Stop));
        // A thread that panicked has said so, and has nothing to add.
        self.others.iter_mut().filter_map(|peer| peer.thread.take()).for_each(|thread| drop(thread.join()));
    }
}

impl StepRunner for GroupRunner {
    fn capabilities(&self) -> &Capabilities {
        self.first.capabilities()
    }

    fn info(&self) -> RunnerInfo {
        self.first.info()
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
        self.run(|job| job.describe_step(sequences, wanted), |first| first.step(sequences, wanted, output))
    }

    fn draft(&mut self, next_tokens: &[u32], wanted: WantedRows<'_>, output: &mut StepOutput) -> Result<(), StepError> {
        self.run(|job| job.describe_draft(next_tokens, wanted), |first| first.draft(next_tokens, wanted, output))
    }

    fn read_logits(&mut self, index: usize, logits: &mut Vec<f32>) -> Result<(), StepError> {
        self.first.read_logits(index, logits).map_err(|error| self.rank.fail(error.to_string()))
    }
}

impl JobInputs {
    fn describe_step(&mut self, sequences: &[SequenceStep<'_>], wanted: WantedRows<'_>) {
        self.is_draft = false;
        self.tokens.clear();
        self.blocks.clear();
        self.sequences.clear();
        for SequenceStep { tokens, context_len, block_table } in sequences {
            self.tokens.extend_from_slice(tokens);
            self.blocks.extend_from_slice(block_table);
            let (num_tokens, num_blocks) = (tokens.len(), block_table.len());
            self.sequences.push(SequenceSize { num_tokens, context_len: *context_len, num_blocks });
        }
        self.describe_rows(wanted);
    }

    fn describe_draft(&mut self, next_tokens: &[u32], wanted: WantedRows<'_>) {
        self.is_draft = true;
        next_tokens.clone_into(&mut self.tokens);
        self.describe_rows(wanted);
    }

    /// Every rank runs the head for the same rows: how many there are decides how a step is padded.
    fn describe_rows(&mut self, wanted: WantedRows<'_>) {
        let WantedRows { logits, top_logits: TopRows { rows, inverse_temperatures }, best_tokens } = wanted;
        logits.clone_into(&mut self.logits);
        rows.clone_into(&mut self.top_logits);
        inverse_temperatures.clone_into(&mut self.inverse_temperatures);
        best_tokens.clone_into(&mut self.best_tokens);
    }

    fn run(&self, runner: &mut dyn StepRunner, scratch: &mut PeerScratch) -> Result<(), StepError> {
        let wanted = WantedRows {
            logits: &self.logits,
            top_logits: TopRows { rows: &self.top_logits, inverse_temperatures: &self.inverse_temperatures },
            best_tokens: &self.best_tokens,
        };
        if self.is_draft {
            return runner.draft(&self.tokens, wanted, &mut scratch.output);
        }
        let mut sequences = std::mem::take(&mut scratch.sequences);
        let (mut tokens, mut blocks) = (self.tokens.as_slice(), self.blocks.as_slice());
        for size in &self.sequences {
            let (own_tokens, more_tokens) = tokens.split_at(size.num_tokens);
            let (block_table, more_blocks) = blocks.split_at(size.num_blocks);
            sequences.push(SequenceStep { tokens: own_tokens, context_len: size.context_len, block_table });
            (tokens, blocks) = (more_tokens, more_blocks);
        }
        let result = runner.step(&sequences, wanted, &mut scratch.output);
        scratch.sequences = SequenceStep::emptied(sequences);
        result
    }
}

/// A rank's own memory, used again step after step.
#[derive(Default)]
struct PeerScratch {
    sequences: Vec<SequenceStep<'static>>,
    output: StepOutput,
}

impl Peer {
    fn start(rank: Rank, runner: Box<dyn StepRunner>, job: Arc<Job>) -> Result<Self, StepError> {
        let mailbox = Arc::<Mailbox>::default();
        let own = mailbox.clone();
        let index = rank.index();
        let thread = std::thread::Builder::new()
            .name(format!("bathysphere-rank-{index}"))
            .spawn(move || serve(rank, runner, &job, &own))
            .map_err(|error| StepError::Communicator { rank: index, reason: format!("no thread: {error}") })?;
        Ok(Self { mailbox, thread: Some(thread) })
    }
}

/// Runs jobs until there are no more.
fn serve(rank: Rank, mut runner: Box<dyn StepRunner>, job: &Job, mailbox: &Mailbox) {
    let _guard = LastWord { rank: &rank, mailbox };
    let mut scratch = PeerScratch::default();
    while mailbox.wait_for_job() {
        let result = job.read().unwrap_or_else(PoisonError::into_inner).run(runner.as_mut(), &mut scratch);
        mailbox.put(Message::Done(result.map_err(|error| rank.fail(error.to_string()))));
    }
}

/// Answers for a rank that panics, so that nobody waits for it.
struct LastWord<'a> {
    rank: &'a Rank,
    mailbox: &'a Mailbox,
}

impl Drop for LastWord<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = self.rank.fail("its thread panicked".into());
            self.mailbox.put(Message::Done(Err(error)));
        }
    }
}

impl Mailbox {
    fn put(&self, message: Message) {
        *lock(&self.state) = message;
        self.changed.notify_all();
    }

    /// False when there will be no other.
    fn wait_for_job(&self) -> bool {
        let waits = |message: &mut Message| matches!(message, Message::Idle | Message::Done(_));
        let mut message = self.changed.wait_while(lock(&self.state), waits).unwrap_or_else(PoisonError::into_inner);
        let is_job = matches!(*message, Message::Run);
        *message = Message::Idle;
        is_job
    }

    fn wait_until_done(&self) -> Result<(), StepError> {
        let waits = |message: &mut Message| matches!(message, Message::Idle | Message::Run);
        let mut message = self.changed.wait_while(lock(&self.state), waits).unwrap_or_else(PoisonError::into_inner);
        match std::mem::take(&mut *message) {
            Message::Done(result) => result,
            Message::Idle | Message::Run | Message::Stop => Ok(()),
        }
    }
}

/// A message is replaced as a whole, so that one left by a rank that panicked is one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
