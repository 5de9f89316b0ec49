//! Streams: work is queued when it is asked for and runs when somebody waits for it.
//!
//! As late as the rules allow, so that a missing wait shows: memory that the host reads before it waited still has its
//! old contents, and pinned memory that is written again too early is copied with its new ones.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;

use emulator_common::{Failure, Outcome};

use crate::collective::Collective;
use crate::config::Gpu;
use crate::driver::{Context, Driver, Kind};
use crate::execute;
use crate::graph::Capture;
use crate::module::Launch;
use crate::status;

/// Not ordered with the default stream.
pub const NON_BLOCKING: u32 = 1;

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
    Collective(Collective),
    Work(Arc<dyn Work>),
}

/// What a library beside the driver queues.
pub trait Work: Debug + Send + Sync {
    /// What injected faults call it.
    fn name(&self) -> &'static str;

    /// Does it, when its turn comes.
    ///
    /// # Errors
    /// What is wrong then: memory that is gone above all.
    fn run(&self, context: &mut Context) -> Outcome<()>;
}

impl Op {
    /// The collective that it is.
    pub(crate) fn collective(&self) -> Option<&Collective> {
        match self {
            Op::Collective(collective) => Some(collective),
            _ => None,
        }
    }

    /// True where a communicator is needed for it, or for an op of it.
    pub(crate) fn uses(&self, communicator: u64) -> bool {
        match self {
            Op::Collective(collective) => collective.communicator == communicator,
            Op::Graph(ops) => ops.iter().any(|op| op.uses(communicator)),
            _ => false,
        }
    }
}

/// What came of running a stream's oldest op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Ran,
    /// There is none.
    Idle,
    /// It waits for another device, which waits for its host.
    Blocked,
}

#[derive(Debug, Default)]
pub(crate) struct Stream {
    flags: u32,
    pub(crate) queue: VecDeque<Op>,
    pub(crate) capture: Option<Capture>,
}

/// Queued ops after which the oldest ones run, to bound memory.
const MAX_QUEUED: usize = 4096;

impl Context {
    pub(crate) fn stream(&mut self, handle: u64) -> Outcome<&mut Stream> {
        let stream = self.streams.get_mut(&handle);
        stream.ok_or_else(|| Failure::new(status::INVALID_HANDLE, format!("{handle:#x} is no live stream")))
    }
}

#[allow(missing_docs, clippy::missing_errors_doc, reason = "the functions of the drivers' references")]
impl<G: Gpu> Driver<G> {
    pub fn create_stream(&mut self, flags: u32) -> Outcome<u64> {
        self.context()?;
        if flags & !NON_BLOCKING != 0 {
            return Err(Failure::new(status::INVALID_VALUE, format!("flags {flags:#x}")));
        }
        let handle = self.new_handle(Kind::Stream);
        self.context()?.streams.insert(handle, Stream { flags, ..Stream::default() });
        Ok(handle)
    }

    /// Work that was queued still runs.
    pub fn destroy_stream(&mut self, stream: u64) -> Outcome<()> {
        self.run_stream(stream)?;
        self.context()?.streams.remove(&stream);
        Ok(())
    }

    pub fn stream_flags(&mut self, stream: u64) -> Outcome<u32> {
        Ok(self.context()?.stream(stream)?.flags)
    }

    pub fn wait_for_stream(&mut self, stream: u64) -> Outcome<()> {
        let context = self.context()?;
        if context.stream(stream)?.capture.is_some() {
            return context.check_no_capture("waiting for the stream");
        }
        self.run_stream(stream)
    }

    pub fn wait_for_device(&mut self) -> Outcome<()> {
        self.context()?.check_no_capture("waiting for the whole context")?;
        self.run_all()
    }

    /// Asking gives the device the time to go on.
    pub fn query_stream(&mut self, stream: u64) -> Outcome<()> {
        let context = self.context()?;
        if context.stream(stream)?.capture.is_some() {
            return context.check_no_capture("asking for the stream's state");
        }
        match self.run_one(stream)? {
            Progress::Idle => Ok(()),
            Progress::Ran | Progress::Blocked => Err(Failure::new(status::NOT_READY, "")),
        }
    }

    /// Queues work of a library, or records it.
    pub fn queue_work(&mut self, stream: u64, work: Arc<dyn Work>) -> Outcome<()> {
        self.push(stream, Op::Work(work))
    }

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
        // Another thread may wait for this.
        let is_news = matches!(op, Op::Collective(_) | Op::Graph(_));
        stream.queue.push_back(op);
        let is_full = stream.queue.len() > MAX_QUEUED;
        self.has_news |= is_news;
        if is_full {
            self.run_one(handle)?;
        }
        Ok(())
    }

    /// Runs everything queued on a stream.
    pub(crate) fn run_stream(&mut self, handle: u64) -> Outcome<()> {
        self.context()?.stream(handle)?;
        loop {
            match self.run_one(handle)? {
                Progress::Ran => {}
                Progress::Idle => return Ok(()),
                Progress::Blocked => return Err(self.blocked(handle)),
            }
        }
    }

    /// Runs everything queued in the current context.
    pub(crate) fn run_all(&mut self) -> Outcome<()> {
        let handles: Vec<u64> = self.context()?.streams.keys().copied().collect();
        handles.into_iter().try_for_each(|handle| self.run_stream(handle))
    }

    /// Runs the oldest op of a stream. What fails in here failed on the device: the context is unusable from then on.
    pub(crate) fn run_one(&mut self, handle: u64) -> Outcome<Progress> {
        let Some(op) = self.context()?.stream(handle)?.queue.pop_front() else { return Ok(Progress::Idle) };
        let outcome = match op {
            Op::Wait { event, count } => match self.run_until(event, count)? {
                Progress::Blocked => return self.put_back(handle, Op::Wait { event, count }),
                Progress::Ran | Progress::Idle => Ok(()),
            },
            Op::Graph(ops) => self.unfold(handle, ops),
            Op::Collective(collective) => match self.pass(&collective) {
                Ok(true) => Ok(()),
                Ok(false) => {
                    self.put_back(handle, Op::Collective(collective))?;
                    let have_come = self.advance_peers(collective.communicator)?;
                    return Ok(if have_come { Progress::Ran } else { Progress::Blocked });
                }
                Err(failure) => Err(failure),
            },
            op => execute::run(self, op),
        };
        if let Err(failure) = &outcome {
            self.spoil(failure.status);
        }
        outcome.map(|()| Progress::Ran)
    }

    /// The op's time has not come.
    fn put_back(&mut self, handle: u64, op: Op) -> Outcome<Progress> {
        self.context()?.stream(handle)?.queue.push_front(op);
        Ok(Progress::Blocked)
    }

    /// A graph's turn: its ops come next, in the order in which they were recorded.
    fn unfold(&mut self, handle: u64, mut ops: Vec<Op>) -> Outcome<()> {
        if self.injection.is_replay_cut_short() {
            ops.pop();
        }
        let queue = &mut self.context()?.stream(handle)?.queue;
        ops.into_iter().rev().for_each(|op| queue.push_front(op));
        Ok(())
    }
}
