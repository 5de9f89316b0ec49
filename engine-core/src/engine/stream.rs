//! The consumer's end of a generation.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::Engine;
use super::request::{Chunk, Generation, RequestError};
use crate::Error;

type Item = Result<Chunk, Error>;

#[derive(Debug, Default)]
struct Shared {
    cancelled: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Shared {
    /// A waker's own panic leaves the slot whole: the lock's poison means nothing here.
    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running generation: an iterator over its tokens. Dropping it cancels the request and frees its cache blocks at the
/// next step.
#[derive(Debug)]
pub struct TokenStream {
    receiver: Receiver<Item>,
    shared: Arc<Shared>,
    done: bool,
    /// Keeps the engine's thread alive.
    _engine: Engine,
}

/// The engine's end.
#[derive(Debug)]
pub(super) struct Sink {
    sender: Sender<Item>,
    shared: Arc<Shared>,
}

pub(super) fn token_stream(engine: Engine) -> (Sink, TokenStream) {
    let (sender, receiver) = channel();
    let shared = Arc::new(Shared::default());
    (Sink { sender, shared: shared.clone() }, TokenStream { receiver, shared, done: false, _engine: engine })
}

impl Sink {
    pub(super) fn is_cancelled(&self) -> bool {
        self.shared.cancelled.load(Ordering::Relaxed)
    }

    pub(super) fn send(&self, item: Item) {
        // A failed send means that the stream was dropped; the next step notices the cancellation.
        if self.sender.send(item).is_err() {
            self.shared.cancelled.store(true, Ordering::Relaxed);
        }
        self.wake();
    }

    fn wake(&self) {
        let waker = self.shared.waker().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Sink {
    /// Says so where the generation did not end: a consumer woken before the sender is gone would see an empty channel
    /// and wait for ever.
    fn drop(&mut self) {
        self.send(Err(RequestError::Stopped.into()));
    }
}

impl TokenStream {
    /// Non-blocking form for async executors: `Pending` registers the waker, which the engine's thread wakes with the
    /// next token.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        // Before looking: whatever is sent after the look then wakes this waker.
        *self.shared.waker() = Some(context.waker().clone());
        match self.receiver.try_recv() {
            Ok(item) => Poll::Ready(Some(self.note(item))),
            Err(TryRecvError::Empty) => Poll::Pending,
            Err(TryRecvError::Disconnected) => Poll::Ready(Some(self.stopped())),
        }
    }

    /// Waits for the end and collects everything.
    ///
    /// # Errors
    /// The first error of the generation.
    pub fn collect_all(self) -> Result<Generation, Error> {
        let mut generation = Collector::default();
        for item in self {
            if let Some(done) = generation.push(item?) {
                return Ok(done);
            }
        }
        Err(RequestError::Stopped.into())
    }

    fn note(&mut self, item: Item) -> Item {
        self.done = match &item {
            Ok(chunk) => chunk.finished.is_some(),
            Err(_) => true,
        };
        item
    }

    fn stopped(&mut self) -> Item {
        self.done = true;
        Err(RequestError::Stopped.into())
    }
}

impl Iterator for TokenStream {
    type Item = Item;

    /// Waits for the next token. After the last one, or after an error, `None`.
    fn next(&mut self) -> Option<Item> {
        if self.done {
            return None;
        }
        Some(match self.receiver.recv() {
            Ok(item) => self.note(item),
            Err(_) => self.stopped(),
        })
    }
}

impl Drop for TokenStream {
    fn drop(&mut self) {
        self.shared.cancelled.store(true, Ordering::Relaxed);
    }
}

/// Puts chunks together.
#[derive(Debug, Default)]
struct Collector {
    token_ids: Vec<u32>,
    logprobs: Option<Vec<f32>>,
    text: Option<String>,
}

impl Collector {
    fn push(&mut self, chunk: Chunk) -> Option<Generation> {
        self.token_ids.push(chunk.token_id);
        if let Some(logprob) = chunk.logprob {
            self.logprobs.get_or_insert_default().push(logprob);
        }
        if let Some(text) = chunk.text {
            self.text.get_or_insert_default().push_str(&text);
        }
        chunk.finished.map(|end| Generation {
            token_ids: std::mem::take(&mut self.token_ids),
            text: self.text.take(),
            logprobs: self.logprobs.take(),
            finish_reason: end.reason,
            usage: end.usage,
            timings: end.timings,
        })
    }
}
