//! Teacher-forced logits of a window, chunk by chunk, as fast as they are read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::worker::Command;
use super::{Engine, RequestError};
use crate::Error;
use crate::backend::{SequenceStep, StepError};
use crate::runner::{StepOutput, StepRunner, WantedRows};

/// Logits of consecutive tokens of a window.
#[derive(Debug, Clone, PartialEq)]
pub struct LogitChunk {
    /// Position of the first row.
    pub first_position: usize,
    /// `[rows, vocab]`: row i belongs to the token at `first_position + i` and predicts the next one.
    pub logits: Vec<f32>,
    /// `[rows, vocab]` of the MTP module: row i knows the token after it and predicts the one after that. The row of
    /// the window's last token, whose next token is unknown, is computed as if that were token 0 and means nothing.
    pub draft_logits: Option<Vec<f32>>,
}

type Item = Result<LogitChunk, Error>;

/// Rows of logits per chunk: enough for good speed, and 64 MB of logits at a vocabulary of 129 280.
const CHUNK_TOKENS: usize = 128;

/// Chunks computed ahead of the consumer: one that it reads, one that waits for it.
const CHUNKS_AHEAD: usize = 2;

/// What the consumer tells the engine's thread.
#[derive(Debug)]
struct Demand {
    /// Chunks to compute now.
    chunks: AtomicUsize,
    cancelled: AtomicBool,
}

/// Chunks of a window's logits, in order; they cover every token, or the last one is an error. Dropping it cancels.
#[derive(Debug)]
pub struct LogitStream {
    receiver: Receiver<Item>,
    demand: Arc<Demand>,
    /// Tokens whose logits are still to come.
    num_pending: usize,
    vocab_size: usize,
    engine: Engine,
}

/// The engine's end: one window, run beside the schedule.
#[derive(Debug)]
pub(super) struct LogitRun {
    tokens: Vec<u32>,
    drafts: bool,
    sender: Sender<Item>,
    demand: Arc<Demand>,
    block_table: Vec<u32>,
    num_computed: usize,
    /// Tokens whose logits were handed out; ahead of `num_computed` after a restart.
    num_sent: usize,
}

pub(super) fn logit_stream(engine: Engine, tokens: &[u32], drafts: bool) -> (LogitRun, LogitStream) {
    let (sender, receiver) = channel();
    let demand = Arc::new(Demand { chunks: AtomicUsize::new(CHUNKS_AHEAD), cancelled: AtomicBool::new(false) });
    let (num_pending, vocab_size) = (tokens.len(), engine.config().vocab_size);
    let run = LogitRun {
        tokens: tokens.to_vec(),
        drafts,
        sender,
        demand: demand.clone(),
        block_table: Vec::new(),
        num_computed: 0,
        num_sent: 0,
    };
    (run, LogitStream { receiver, demand, num_pending, vocab_size, engine })
}

impl Iterator for LogitStream {
    type Item = Item;

    /// Waits for the next chunk. After the last one, or after an error, `None`.
    fn next(&mut self) -> Option<Item> {
        if self.num_pending == 0 {
            return None;
        }
        let item = self.receiver.recv().unwrap_or_else(|_| Err(RequestError::Stopped.into()));
        self.num_pending = match &item {
            Ok(chunk) => self.num_pending - chunk.logits.len() / self.vocab_size,
            Err(_) => 0,
        };
        self.demand.chunks.fetch_add(1, Ordering::Relaxed);
        // A stopped engine needs no word of it.
        let _ = self.engine.send(Command::LogitsTaken);
        Some(item)
    }
}

impl Drop for LogitStream {
    fn drop(&mut self) {
        self.demand.cancelled.store(true, Ordering::Relaxed);
        let _ = self.engine.send(Command::LogitsTaken);
    }
}

impl LogitRun {
    /// Tokens of the window.
    pub(super) fn num_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// True when the consumer waits for a chunk.
    pub(super) fn is_ready(&self) -> bool {
        self.demand.chunks.load(Ordering::Relaxed) > 0
    }

    /// True when every chunk was handed out or nobody wants them.
    pub(super) fn is_over(&self) -> bool {
        self.num_sent == self.tokens.len() || self.demand.cancelled.load(Ordering::Relaxed)
    }

    /// True while the window is in the cache.
    pub(super) fn has_blocks(&self) -> bool {
        !self.block_table.is_empty()
    }

    /// Starts over on these blocks and gives the old ones back: what was computed is computed again, what was handed
    /// out is not.
    pub(super) fn restart(&mut self, block_table: Vec<u32>) -> Vec<u32> {
        self.num_computed = 0;
        std::mem::replace(&mut self.block_table, block_table)
    }

    /// Ends it; the blocks go back to the scheduler.
    pub(super) fn into_blocks(self) -> Vec<u32> {
        self.block_table
    }

    pub(super) fn fail(&self, error: StepError) {
        // The receiver may be gone: then nobody wants to know.
        let _ = self.sender.send(Err(error.into()));
    }

    /// Computes the next chunk, and hands it out unless that was done before a restart.
    pub(super) fn step(&mut self, runner: &mut dyn StepRunner) -> Result<(), StepError> {
        let first_position = self.num_computed;
        let chunk_tokens = CHUNK_TOKENS.min(runner.info().limits.max_num_batched_tokens);
        let end = self.tokens.len().min(first_position + chunk_tokens);
        let tokens = &self.tokens[first_position..end];
        let is_new = first_position >= self.num_sent;
        let rows: Vec<u32> = if is_new { (0..tokens.len() as u32).collect() } else { Vec::new() };
        let step = SequenceStep { tokens, context_len: first_position, block_table: &self.block_table };
        let wanted = WantedRows::logits(&rows);
        let mut output = StepOutput::default();
        runner.step(&[step], wanted, &mut output)?;
        let mut draft_logits = None;
        if self.drafts {
            let next_tokens = self.tokens[first_position + 1..].iter().copied().chain([0]);
            let next_tokens: Vec<u32> = next_tokens.take(tokens.len()).collect();
            let mut drafts = StepOutput::default();
            runner.draft(&next_tokens, wanted, &mut drafts)?;
            draft_logits = Some(drafts.logits);
        }
        self.num_computed = end;
        if is_new {
            self.num_sent = end;
            self.demand.chunks.fetch_sub(1, Ordering::Relaxed);
            let _ = self.sender.send(Ok(LogitChunk { first_position, logits: output.logits, draft_logits }));
        }
        Ok(())
    }
}
