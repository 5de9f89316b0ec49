//! Streams, events, graphs: work is queued when it is asked for and runs when somebody waits for it.
//!
//! As late as the rules allow, so that a missing wait shows: memory that the host reads before it waited still has its
//! old contents, and pinned memory that is written again too early is copied with its new ones.

use std::collections::VecDeque;
use std::thread::{self, ThreadId};
use std::time::Instant;

use crate::abi::status;
use crate::driver::{Context, Driver, Failure, Outcome, current};
use crate::execute;
use crate::module::Launch;

/// Work of a stream.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// From host bytes that were copied when the call was made (pageable memory).
    Write {
        to: u64,
        bytes: Vec<u8>,
    },
    /// Between addresses: device memory, or pinned memory of the host.
    Copy {
        from: u64,
        to: u64,
        num_bytes: usize,
    },
    Fill {
        to: u64,
        value: u8,
        num_bytes: usize,
    },
    Launch(Launch),
    Free(u64),
    /// Event and how often it has been recorded, with this one.
    Record {
        event: u64,
        count: u64,
    },
    Wait {
        event: u64,
        count: u64,
    },
    /// An executable graph, as it was when it was launched.
    Graph(Vec<Op>),
}

/// Work that is recorded instead of run.
#[derive(Debug)]
pub(crate) struct Capture {
    pub(crate) ops: Vec<Op>,
    /// Why it cannot be ended well any more.
    pub(crate) invalidated: Option<String>,
    pub(crate) thread: ThreadId,
}

#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) flags: u32,
    pub(crate) queue: VecDeque<Op>,
    pub(crate) capture: Option<Capture>,
}

#[derive(Debug, Default)]
pub(crate) struct Event {
    /// How often it was recorded, and by which stream last.
    pub(crate) num_recorded: u64,
    pub(crate) stream: u64,
    /// How many of these records have run, and when the last one did.
    pub(crate) num_done: u64,
    pub(crate) when: Option<Instant>,
}

#[derive(Debug, Clone)]
pub(crate) struct Graph {
    pub(crate) ops: Vec<Op>,
}

/// Queued ops after which the oldest ones run, to bound memory.
const MAX_QUEUED: usize = 4096;

impl Context {
    pub(crate) fn stream(&mut self, handle: u64) -> Outcome<&mut Stream> {
        let stream = self.streams.get_mut(&handle);
        stream.ok_or_else(|| Failure::new(status::INVALID_HANDLE, format!("{handle:#x} is no live stream")))
    }

    pub(crate) fn event(&mut self, handle: u64) -> Outcome<&mut Event> {
        let event = self.events.get_mut(&handle);
        event.ok_or_else(|| Failure::new(status::INVALID_HANDLE, format!("{handle:#x} is no live event")))
    }

    /// Refuses, and spoils, captures that are under way: `what` may not happen during one.
    pub(crate) fn check_no_capture(&mut self, what: &str) -> Outcome<()> {
        let mut refused = Ok(());
        for stream in self.streams.values_mut() {
            if let Some(capture) = &mut stream.capture {
                let message = format!("{what} while a stream is being captured");
                capture.invalidated.get_or_insert_with(|| message.clone());
                refused = Err(Failure::new(status::STREAM_CAPTURE_UNSUPPORTED, message));
            }
        }
        refused
    }

    /// Device addresses `address..address + num_bytes` must lie in one live allocation.
    pub(crate) fn check_device_range(&self, what: &str, address: u64, num_bytes: usize) -> Outcome<()> {
        if self.memory.holder(address..address.saturating_add(num_bytes as u64)).is_some() {
            return Ok(());
        }
        let place = self.memory.describe(address);
        Err(Failure::new(status::INVALID_VALUE, format!("{what}: {num_bytes} bytes at {address:#x}, {place}")))
    }
}

impl Driver {
    /// Queues work on a stream, or records it.
    pub(crate) fn push(&mut self, handle: u64, op: Op) -> Outcome<()> {
        if handle == 0 {
            return Err(Failure::new(status::NOT_SUPPORTED, "the default stream: make one of your own"));
        }
        let stream = self.context()?.stream(handle)?;
        if let Some(capture) = &mut stream.capture {
            capture.ops.push(op);
            return Ok(());
        }
        stream.queue.push_back(op);
        if stream.queue.len() > MAX_QUEUED {
            self.run_one(handle)?;
        }
        Ok(())
    }

    /// Runs everything queued on a stream.
    pub(crate) fn run_stream(&mut self, handle: u64) -> Outcome<()> {
        self.context()?.stream(handle)?;
        while self.run_one(handle)? {}
        Ok(())
    }

    /// Runs everything queued in the current context.
    pub(crate) fn run_all(&mut self) -> Outcome<()> {
        let handles: Vec<u64> = self.context()?.streams.keys().copied().collect();
        handles.into_iter().try_for_each(|handle| self.run_stream(handle))
    }

    /// Runs until an event has been recorded `count` times.
    pub(crate) fn run_until(&mut self, event: u64, count: u64) -> Outcome<()> {
        loop {
            let context = self.context()?;
            // An event that is destroyed while somebody waits for it is complete.
            let Some(state) = context.events.get(&event) else { return Ok(()) };
            if state.num_done >= count {
                return Ok(());
            }
            let stream = state.stream;
            if !context.streams.contains_key(&stream) || !self.run_one(stream)? {
                return Ok(());
            }
        }
    }

    /// Runs the oldest op of a stream; false where there is none. What fails in here failed on the device: the context
    /// is unusable from then on.
    pub(crate) fn run_one(&mut self, handle: u64) -> Outcome<bool> {
        let Some(op) = self.context()?.stream(handle)?.queue.pop_front() else { return Ok(false) };
        if let Op::Wait { event, count } = op {
            self.run_until(event, count)?;
            return Ok(true);
        }
        let outcome = execute::run(self, op);
        if let Err(failure) = &outcome
            && let Some(context) = self.contexts.get_mut(&current())
        {
            context.sticky = Some(failure.status);
        }
        outcome.map(|()| true)
    }

    pub(crate) fn begin_capture(&mut self, handle: u64) -> Outcome<()> {
        let stream = self.context()?.stream(handle)?;
        if stream.capture.is_some() {
            return Err(Failure::new(status::ILLEGAL_STATE, "the stream is being captured already"));
        }
        stream.capture = Some(Capture { ops: Vec::new(), invalidated: None, thread: thread::current().id() });
        Ok(())
    }

    pub(crate) fn end_capture(&mut self, handle: u64) -> Outcome<Graph> {
        let stream = self.context()?.stream(handle)?;
        let Some(capture) = stream.capture.take() else {
            return Err(Failure::new(status::ILLEGAL_STATE, "the stream is not being captured"));
        };
        if capture.thread != thread::current().id() {
            stream.capture = Some(capture);
            return Err(Failure::new(status::STREAM_CAPTURE_WRONG_THREAD, "another thread began the capture"));
        }
        match capture.invalidated {
            None => Ok(Graph { ops: capture.ops }),
            Some(reason) => Err(Failure::new(status::STREAM_CAPTURE_INVALIDATED, reason)),
        }
    }
}
