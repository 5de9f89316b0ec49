//! Streams: work is queued when it is asked for and runs when somebody waits for it.
//!
//! As late as the rules allow, so that a missing wait shows: memory that the host reads before it waited still has its
//! old contents, pinned memory that is written again too early is copied with its new ones, and memory that was freed too
//! early is missed.

use std::collections::VecDeque;

use emulator_common::memory::copy;

use crate::abi::status;
use crate::machine::{Failure, Machine, Outcome};
use crate::operator::Launch;

/// Work of a stream.
#[derive(Debug)]
pub(crate) enum Op {
    /// Between device memory and pinned memory of the host.
    Copy {
        from: u64,
        to: u64,
        num_bytes: usize,
    },
    Launch(Launch),
}

#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) queue: VecDeque<Op>,
}

impl Machine {
    /// Runs everything queued on a stream.
    pub(crate) fn run_stream(&mut self, handle: u64) -> Outcome<()> {
        while let Some(op) = self.context()?.stream(handle)?.queue.pop_front() {
            let outcome = self.run(op);
            if let Err(failure) = &outcome
                && let Ok(context) = self.context()
            {
                // What fails in here failed on the device: the context is unusable from then on.
                context.sticky = Some(failure.clone());
            }
            outcome?;
        }
        Ok(())
    }

    /// Runs everything queued in the current context.
    pub(crate) fn run_all(&mut self) -> Outcome<()> {
        let handles: Vec<u64> = self.context()?.streams.keys().copied().collect();
        handles.into_iter().try_for_each(|handle| self.run_stream(handle))
    }

    fn run(&mut self, op: Op) -> Outcome<()> {
        match op {
            Op::Copy { from, to, num_bytes } => {
                for (what, address) in [("a copy from", from), ("a copy to", to)] {
                    self.check_range(what, address, num_bytes)?;
                }
                copy(from, to, num_bytes);
                Ok(())
            }
            Op::Launch(launch) => self.run_launch(launch),
        }
    }

    fn run_launch(&mut self, launch: Launch) -> Outcome<()> {
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
