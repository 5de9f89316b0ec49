//! The engine's thread: takes requests, runs steps, hands out tokens.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, TryRecvError};

use super::active::{Active, RowOutput, TextFacts};
use super::logits::LogitRun;
use super::request::CheckedRequest;
use super::stream::Sink;
use crate::backend::{SequenceStep, StepError, TopLogits};
use crate::runner::{RunnerInfo, StepOutput, StepRunner, TopRows, WantedRows};
use crate::sampling::{SamplingError, SamplingScratch};
use crate::scheduler::{Scheduled, Scheduler, Sequence, SequenceId};

/// What handles send to the thread.
#[derive(Debug)]
pub(super) enum Command {
    /// Generate.
    Generate { request: CheckedRequest, sink: Sink },
    /// Compute the logits of a whole window.
    Logits { run: LogitRun },
    /// A consumer of logits has room for more, or left: look again.
    LogitsTaken,
}

pub(super) struct Worker {
    runner: Box<dyn StepRunner>,
    commands: Receiver<Command>,
    text: TextFacts,
    scheduler: Scheduler,
    active: HashMap<SequenceId, Active>,
    /// Windows run beside the schedule, in order of arrival; at most one of them holds blocks.
    logit_runs: Vec<LogitRun>,
    num_requests: u64,
    scratch: StepScratch,
}

/// Reused from step to step, so that decoding allocates nothing.
#[derive(Default)]
struct StepScratch {
    step: Vec<Scheduled>,
    sequences: Vec<SequenceStep<'static>>,
    /// Sequences whose token is sampled from logits.
    sampled: Draws,
    /// Sequences whose token is drawn from the highest logits.
    top: Draws,
    inverse_temperatures: Vec<f32>,
    /// Sequences whose token is the best one.
    best: Draws,
    output: StepOutput,
    sampling: SamplingScratch,
    /// Logits of a sequence whose highest ones did not do.
    whole_row: Vec<f32>,
    finished: Vec<SequenceId>,
}

/// Sequences that are up to date with a step and so get a token.
#[derive(Default)]
struct Draws {
    /// Entries of the step.
    entries: Vec<usize>,
    /// Their last rows.
    rows: Vec<u32>,
}

/// What came of a row.
enum Row<'a> {
    Logits(&'a mut [f32]),
    Top(TopLogits<'a>),
    Best(Result<u32, SamplingError>),
}

impl Draws {
    fn clear(&mut self) {
        self.entries.clear();
        self.rows.clear();
    }
}

impl Worker {
    pub(super) fn new(runner: Box<dyn StepRunner>, commands: Receiver<Command>, text: TextFacts) -> Self {
        let info = runner.info();
        Self {
            scheduler: Scheduler::new(info.limits, info.num_blocks),
            runner,
            commands,
            text,
            active: HashMap::new(),
            logit_runs: Vec::new(),
            num_requests: 0,
            scratch: StepScratch::default(),
        }
    }

    /// Serves until every handle is gone, or the device is.
    pub(super) fn run(mut self) {
        while self.take_commands() {
            self.drop_finished();
            if let Err(error) = self.run_logits().and_then(|()| self.step()) {
                tracing::error!(%error, "a step failed");
                if error.is_fatal() {
                    // What still waits in the channel ends with this error too.
                    while let Ok(command) = self.commands.try_recv() {
                        self.accept(command);
                    }
                }
                self.fail_generations(&error);
                if error.is_fatal() {
                    self.logit_runs.iter().for_each(|run| run.fail(error.clone()));
                    return;
                }
            }
        }
    }

    /// Waits for a command when there is nothing to run, then takes all that are there. False when no handle is left.
    fn take_commands(&mut self) -> bool {
        if self.scheduler.is_idle() && !self.logit_runs.iter().any(LogitRun::is_ready) {
            match self.commands.recv() {
                Ok(command) => self.accept(command),
                Err(_) => return false,
            }
        }
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.accept(command),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
            }
        }
    }

    /// Takes out what nobody waits for any more.
    fn drop_finished(&mut self) {
        let active = &self.active;
        self.scheduler.retire(|id| active.get(&id).is_none_or(Active::is_cancelled));
        self.active.retain(|_, active| !active.is_cancelled());
        for run in self.logit_runs.extract_if(.., |run| run.is_over()) {
            self.scheduler.return_blocks(run.into_blocks());
        }
    }

    fn accept(&mut self, command: Command) {
        match command {
            Command::Generate { request, sink } => {
                let id = SequenceId(self.num_requests);
                self.num_requests += 1;
                let capacity = request.prompt.len() + request.max_tokens;
                let sequence = Sequence::new(id, &request.prompt, capacity);
                self.active.insert(id, Active::new(request, sink, &self.text, id.0));
                self.scheduler.add(sequence);
            }
            Command::Logits { run } => self.logit_runs.push(run),
            Command::LogitsTaken => {}
        }
    }

    /// Runs one chunk of a window whose consumer waits for it, the one in the cache first. Windows whose consumers are
    /// behind give their blocks to whoever can use them and start over later.
    fn run_logits(&mut self) -> Result<(), StepError> {
        let ready = |run: &LogitRun| run.is_ready() && !run.is_over();
        let in_cache = self.logit_runs.iter().position(|run| ready(run) && run.has_blocks());
        let next = in_cache.or_else(|| self.logit_runs.iter().position(ready));
        if next.is_some() || !self.scheduler.is_idle() {
            for (index, run) in self.logit_runs.iter_mut().enumerate() {
                if Some(index) != next {
                    self.scheduler.return_blocks(run.restart(Vec::new()));
                }
            }
        }
        let Some(index) = next else { return Ok(()) };
        let run = &mut self.logit_runs[index];
        if !run.has_blocks() {
            run.restart(self.scheduler.lend_blocks(run.num_tokens()));
        }
        match run.step(self.runner.as_mut()) {
            Err(error) if !error.is_fatal() => {
                let run = self.logit_runs.remove(index);
                run.fail(error);
                self.scheduler.return_blocks(run.into_blocks());
                Ok(())
            }
            result => result,
        }
    }

    /// Runs one step of what the scheduler chooses, and draws its tokens.
    fn step(&mut self) -> Result<(), StepError> {
        let scratch = &mut self.scratch;
        self.scheduler.schedule(&mut scratch.step);
        if scratch.step.is_empty() {
            // Idle, or a window of logits holds the blocks.
            return Ok(());
        }
        let mut sequences: Vec<SequenceStep<'_>> = std::mem::take(&mut scratch.sequences);
        scratch.sampled.clear();
        scratch.top.clear();
        scratch.inverse_temperatures.clear();
        scratch.best.clear();
        let num_top = self.runner.info().num_top_logits;
        let mut row = 0;
        for (entry, scheduled) in scratch.step.iter().enumerate() {
            let sequence = &self.scheduler.running()[scheduled.index];
            row += scheduled.num_tokens;
            if scheduled.num_tokens == sequence.num_pending() {
                let active = self.active.get(&sequence.id());
                let takes_top = active.and_then(|active| active.takes_top(num_top));
                scratch.inverse_temperatures.extend(takes_top);
                let draws = match takes_top {
                    Some(_) => &mut scratch.top,
                    None if active.is_some_and(Active::takes_best) => &mut scratch.best,
                    None => &mut scratch.sampled,
                };
                draws.entries.push(entry);
                draws.rows.push(row as u32 - 1);
            }
            sequences.push(SequenceStep {
                tokens: sequence.pending(scheduled.num_tokens),
                context_len: sequence.num_computed(),
                block_table: sequence.block_table(),
            });
        }
        let wanted = WantedRows {
            logits: &scratch.sampled.rows,
            top_logits: TopRows { rows: &scratch.top.rows, inverse_temperatures: &scratch.inverse_temperatures },
            best_tokens: &scratch.best.rows,
        };
        let result = self.runner.step(&sequences, wanted, &mut scratch.output);
        scratch.sequences = SequenceStep::emptied(sequences);
        result?;
        for scheduled in &scratch.step {
            self.scheduler.running_mut()[scheduled.index].advance(scheduled.num_tokens);
        }
        self.sample()
    }

    /// Hands a token to every sequence that is up to date, and retires those that are finished.
    fn sample(&mut self) -> Result<(), StepError> {
        let scratch = &mut self.scratch;
        let RunnerInfo { vocab_size, num_top_logits, .. } = self.runner.info();
        scratch.finished.clear();
        let StepOutput { logits, top_logits, best_tokens } = &mut scratch.output;
        let logits = logits.chunks_mut(vocab_size).map(Row::Logits);
        let top = StepOutput::top_rows(top_logits, num_top_logits).map(Row::Top);
        let rows = logits.chain(top).chain(best_tokens.drain(..).map(Row::Best));
        let entries = [&scratch.sampled, &scratch.top, &scratch.best].into_iter().flat_map(|draws| &draws.entries);
        for (index, (entry, row)) in entries.zip(rows).enumerate() {
            let sequence = &mut self.scheduler.running_mut()[scratch.step[*entry].index];
            let Some(active) = self.active.get_mut(&sequence.id()) else { continue };
            let row = match row {
                Row::Logits(logits) => RowOutput::Logits(logits),
                Row::Best(token) => RowOutput::Token(token),
                Row::Top(top) => match active.draw_from_top(top, &mut scratch.sampling) {
                    Some(token) => RowOutput::Token(Ok(token)),
                    None => {
                        self.runner.read_logits(index, &mut scratch.whole_row)?;
                        RowOutput::Logits(&mut scratch.whole_row)
                    }
                },
            };
            match active.take_token(row, sequence.tokens(), &mut scratch.sampling) {
                Some(token) => sequence.push(token),
                None => scratch.finished.push(sequence.id()),
            }
        }
        if !scratch.finished.is_empty() {
            let finished = &scratch.finished;
            self.scheduler.retire(|id| finished.contains(&id));
            self.active.retain(|id, _| !finished.contains(id));
        }
        Ok(())
    }

    fn fail_generations(&mut self, error: &StepError) {
        for (_, active) in self.active.drain() {
            active.fail(error.clone());
        }
        self.scheduler.retire(|_| true);
    }
}
