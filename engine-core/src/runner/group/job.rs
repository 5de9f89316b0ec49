//! What the ranks of a group are asked to do, and the threads that do it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use crate::backend::{Rank, SequenceStep, StepError};
use crate::runner::{StepOutput, StepRunner, TopRows, WantedRows};

/// A job, written by the first rank before it asks the others: the same for all.
pub(super) type SharedJob = RwLock<Job>;

/// The inputs of a call, owned; used again step after step.
#[derive(Default)]
pub(super) struct Job {
    call: Call,
    tokens: Vec<u32>,
    blocks: Vec<u32>,
    sequences: Vec<SequenceSize>,
    logits: Vec<u32>,
    top_logits: Vec<u32>,
    inverse_temperatures: Vec<f32>,
}

/// Which method of [`StepRunner`].
#[derive(Default)]
enum Call {
    #[default]
    Step,
    Draft,
    ReadLogits(usize),
}

struct SequenceSize {
    num_tokens: usize,
    context_len: usize,
    num_blocks: usize,
}

/// What a rank found, and its memory between steps.
#[derive(Default)]
pub(super) struct RankResult {
    pub(super) output: StepOutput,
    /// Of [`StepRunner::read_logits`].
    pub(super) row: Vec<f32>,
    sequences: Vec<SequenceStep<'static>>,
}

impl Job {
    pub(super) fn describe_step(&mut self, sequences: &[SequenceStep<'_>]) {
        self.call = Call::Step;
        self.tokens.clear();
        self.blocks.clear();
        self.sequences.clear();
        for SequenceStep { tokens, context_len, block_table } in sequences {
            self.tokens.extend_from_slice(tokens);
            self.blocks.extend_from_slice(block_table);
            let (num_tokens, num_blocks) = (tokens.len(), block_table.len());
            self.sequences.push(SequenceSize { num_tokens, context_len: *context_len, num_blocks });
        }
    }

    pub(super) fn describe_draft(&mut self, next_tokens: &[u32]) {
        self.call = Call::Draft;
        next_tokens.clone_into(&mut self.tokens);
    }

    pub(super) fn describe_read(&mut self, index: usize) {
        self.call = Call::ReadLogits(index);
    }

    /// Rows are wanted of every rank, each having a part of the ids. No rank can tell which token is the best: the rows of
    /// best tokens are asked for with their highest logits if `by_top`, else with all of them.
    pub(super) fn describe_rows(&mut self, wanted: WantedRows<'_>, by_top: bool) {
        let WantedRows { logits, top_logits: TopRows { rows, inverse_temperatures }, best_tokens } = wanted;
        logits.clone_into(&mut self.logits);
        rows.clone_into(&mut self.top_logits);
        inverse_temperatures.clone_into(&mut self.inverse_temperatures);
        if by_top {
            self.top_logits.extend_from_slice(best_tokens);
            self.inverse_temperatures.resize(self.top_logits.len(), 1.0);
        } else {
            self.logits.extend_from_slice(best_tokens);
        }
    }

    pub(super) fn run(&self, runner: &mut dyn StepRunner, result: &mut RankResult) -> Result<(), StepError> {
        let wanted = WantedRows {
            logits: &self.logits,
            top_logits: TopRows { rows: &self.top_logits, inverse_temperatures: &self.inverse_temperatures },
            best_tokens: &[],
        };
        match self.call {
            Call::Step => self.step(runner, wanted, result),
            Call::Draft => runner.draft(&self.tokens, wanted, &mut result.output),
            Call::ReadLogits(index) => runner.read_logits(index, &mut result.row),
        }
    }

    fn step(
        &self,
        runner: &mut dyn StepRunner,
        wanted: WantedRows<'_>,
        result: &mut RankResult,
    ) -> Result<(), StepError> {
        let mut sequences = std::mem::take(&mut result.sequences);
        let (mut tokens, mut blocks) = (self.tokens.as_slice(), self.blocks.as_slice());
        for size in &self.sequences {
            let (own_tokens, more_tokens) = tokens.split_at(size.num_tokens);
            let (block_table, more_blocks) = blocks.split_at(size.num_blocks);
            sequences.push(SequenceStep { tokens: own_tokens, context_len: size.context_len, block_table });
            (tokens, blocks) = (more_tokens, more_blocks);
        }
        let outcome = runner.step(&sequences, wanted, &mut result.output);
        result.sequences = SequenceStep::emptied(sequences);
        outcome
    }
}

/// A rank on a thread of its own.
pub(super) struct Peer {
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
}

/// Where the first rank and another one meet.
#[derive(Default)]
struct Mailbox {
    message: Mutex<Message>,
    changed: Condvar,
    /// Of the last job that is done.
    result: Mutex<RankResult>,
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

impl Peer {
    /// # Errors
    /// [`StepError`] where the thread cannot be started.
    pub(super) fn start(rank: Rank, runner: Box<dyn StepRunner>, job: Arc<SharedJob>) -> Result<Self, StepError> {
        let mailbox = Arc::<Mailbox>::default();
        let own = mailbox.clone();
        let index = rank.index();
        let thread = std::thread::Builder::new()
            .name(format!("bathysphere-rank-{index}"))
            .spawn(move || serve(&rank, runner, &job, &own))
            .map_err(|error| StepError::Communicator { rank: index, reason: format!("no thread: {error}") })?;
        Ok(Self { mailbox, thread: Some(thread) })
    }

    /// Tells it that there is a job.
    pub(super) fn ask(&self) {
        self.mailbox.put(Message::Run);
    }

    /// Waits until it has done its job.
    pub(super) fn wait(&self) -> Result<(), StepError> {
        let message = self.mailbox.wait_while(|message| matches!(message, Message::Idle | Message::Run));
        if let Message::Done(result) = message { result } else { Ok(()) }
    }

    /// Takes what it found in its last job, and leaves `result` for it to use again. A row that was read does not replace
    /// what was found before: more of that may be put together yet.
    pub(super) fn swap_result(&self, job: &Job, result: &mut RankResult) {
        let mut found = lock(&self.mailbox.result);
        match job.call {
            Call::Step | Call::Draft => std::mem::swap(&mut *found, result),
            Call::ReadLogits(_) => std::mem::swap(&mut found.row, &mut result.row),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.mailbox.put(Message::Stop);
        // A thread that panicked has said so, and has nothing to add.
        self.thread.take().map(JoinHandle::join);
    }
}

/// Runs jobs until there are no more.
fn serve(rank: &Rank, mut runner: Box<dyn StepRunner>, job: &SharedJob, mailbox: &Mailbox) {
    let _last_word = LastWord { rank, mailbox };
    while matches!(mailbox.wait_while(|message| matches!(message, Message::Idle | Message::Done(_))), Message::Run) {
        let outcome = {
            let job = job.read().unwrap_or_else(PoisonError::into_inner);
            job.run(runner.as_mut(), &mut lock(&mailbox.result))
        };
        mailbox.put(Message::Done(outcome.map_err(|error| rank.fail(error.to_string()))));
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
        *lock(&self.message) = message;
        self.changed.notify_all();
    }

    /// Takes the first message that is not waited over.
    fn wait_while(&self, waits: impl Fn(&Message) -> bool) -> Message {
        let message = self.changed.wait_while(lock(&self.message), |message| waits(message));
        std::mem::take(&mut *message.unwrap_or_else(PoisonError::into_inner))
    }
}

/// A message is replaced as a whole, and a result counts once its job is done: what a panic leaves is no half of either.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
