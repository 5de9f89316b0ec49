//! Streams: work is queued when it is asked for and runs when somebody waits for it.
//!
//! As late as the rules allow, so that a missing wait shows: memory that the host reads before it waited still has its
//! old contents, pinned memory that is written again too early is copied with its new ones, and memory that was freed too
//! early is missed.

use std::collections::VecDeque;

use emulator_common::memory::copy;

use crate::abi::status;
use crate::capture::{Capture, Update};
use crate::collective::Collective;
use crate::machine::{Failure, Machine, Outcome};
use crate::operator::Launch;

/// Work of a stream.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// Between device memory and pinned memory of the host.
    Copy {
        from: u64,
        to: u64,
        num_bytes: usize,
    },
    Launch(Launch),
    Collective(Collective),
    /// What happens to an event.
    Record(u64),
    Wait(u64),
    Reset(u64),
    /// A graph, and its end.
    Replay(u64),
    Replayed(u64),
    /// A group of a graph's tasks, and what they become.
    Tasks(u64),
    Update {
        group: u64,
        launches: Vec<Launch>,
    },
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
    pub(crate) queue: VecDeque<Op>,
    /// A thread waits for it.
    pub(crate) is_awaited: bool,
    /// It was aborted while a thread waited, which is yet to hear of it.
    pub(crate) was_aborted: bool,
    /// Something of it is running, which may wait for another stream.
    pub(crate) is_running: bool,
    pub(crate) capture: Option<Capture>,
    pub(crate) update: Option<Update>,
}

impl Machine {
    /// Runs everything queued on a stream.
    pub(crate) fn run_stream(&mut self, handle: u64) -> Outcome<()> {
        loop {
            let stream = self.context()?.stream(handle)?;
            if std::mem::take(&mut stream.was_aborted) {
                return Err(Failure::new(status::STREAM_ABORT, "the stream's work was aborted"));
            }
            match self.run_one(handle)? {
                Progress::Ran => {}
                Progress::Idle => return Ok(()),
                Progress::Blocked => {
                    self.context()?.stream(handle)?.is_awaited = true;
                    return Err(self.blocked(handle));
                }
            }
        }
    }

    /// Runs the oldest op of a stream. What fails in here failed on the device: the context is unusable from then on.
    pub(crate) fn run_one(&mut self, handle: u64) -> Outcome<Progress> {
        let stream = self.context()?.stream(handle)?;
        stream.is_awaited = false;
        let Some(op) = stream.queue.pop_front() else { return Ok(Progress::Idle) };
        stream.is_running = true;
        let outcome = self.run(op, handle);
        match &outcome {
            Err(failure) => self.spoil(failure),
            Ok(_) => self.context()?.stream(handle)?.is_running = false,
        }
        outcome
    }

    fn run(&mut self, op: Op, stream: u64) -> Outcome<Progress> {
        match op {
            Op::Copy { from, to, num_bytes } => self.run_copy(from, to, num_bytes)?,
            Op::Launch(launch) => self.run_launch(&launch)?,
            Op::Collective(collective) if !self.pass(&collective)? => {
                // Its time has not come.
                self.context()?.stream(stream)?.queue.push_front(Op::Collective(collective));
                let have_come = self.advance_peers(collective.communicator)?;
                return Ok(if have_come { Progress::Ran } else { Progress::Blocked });
            }
            Op::Collective(_) => {}
            Op::Record(event) => self.set_event(event, true)?,
            Op::Wait(event) => return self.run_wait(event, stream),
            Op::Reset(event) => self.set_event(event, false)?,
            Op::Replay(graph) => self.run_replay(graph, stream)?,
            Op::Replayed(graph) => self.end_replay(graph),
            Op::Tasks(group) => self.tasks(group).iter().try_for_each(|launch| self.run_launch(launch))?,
            Op::Update { group, launches } => self.run_update(group, launches),
        }
        Ok(Progress::Ran)
    }

    /// Discards what is queued on a stream.
    pub(crate) fn abort_stream(&mut self, handle: u64) -> Outcome<()> {
        let stream = self.context()?.stream(handle)?;
        let discarded = std::mem::take(&mut stream.queue);
        stream.was_aborted = std::mem::take(&mut stream.is_awaited);
        for op in discarded {
            match op {
                Op::Collective(Collective { communicator, .. }) => self.interrupt(communicator)?,
                Op::Replay(graph) | Op::Replayed(graph) => self.end_replay(graph),
                _ => {}
            }
        }
        self.has_news = true;
        Ok(())
    }

    /// Runs everything queued in the current context.
    pub(crate) fn run_all(&mut self) -> Outcome<()> {
        let handles: Vec<u64> = self.context()?.streams.keys().copied().collect();
        handles.into_iter().try_for_each(|handle| self.run_stream(handle))
    }

    fn run_copy(&mut self, from: u64, to: u64, num_bytes: usize) -> Outcome<()> {
        for (what, address) in [("a copy from", from), ("a copy to", to)] {
            self.check_range(what, address, num_bytes)?;
        }
        copy(from, to, num_bytes);
        Ok(())
    }

    fn run_launch(&mut self, launch: &Launch) -> Outcome<()> {
        let wrong = |message: String| Failure::new(status::AICORE_EXCEPTION, format!("{}: {message}", launch.name));
        if let Some(message) = self.injection.launch(launch.name) {
            return Err(wrong(message));
        }
        let memory = &self.context()?.memory;
        for range in &launch.ranges {
            if memory.holder(range.clone()).is_none() {
                return Err(wrong(format!("memory was freed before it ran: {}", memory.describe(range.start))));
            }
        }
        (launch.work)().map_err(wrong)?;
        for range in &launch.ranges {
            let holder = memory.holder(range.clone()).unwrap_or(range.start);
            memory.check_guards(holder).map_err(wrong)?;
        }
        Ok(())
    }

    /// Addresses must lie in one live allocation, of the device or pinned.
    fn check_range(&mut self, what: &str, address: u64, num_bytes: usize) -> Outcome<()> {
        let range = address..address.saturating_add(num_bytes as u64);
        let context = self.context()?;
        if context.pinned.holder(range.clone()).is_some() || context.memory.holder(range).is_some() {
            return Ok(());
        }
        let place = context.memory.describe(address);
        Err(Failure::new(status::AICORE_EXCEPTION, format!("{what} {num_bytes} bytes at {address:#x}, {place}")))
    }
}
