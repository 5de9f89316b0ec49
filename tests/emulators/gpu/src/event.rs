//! Events.

use std::time::Instant;

use emulator_common::{Failure, Outcome};

use crate::config::Gpu;
use crate::driver::{Context, Driver, Kind};
use crate::status;
use crate::stream::{Op, Progress};

/// A mark in a stream.
#[derive(Debug, Default)]
pub(crate) struct Event {
    /// How often it was recorded, and by which stream last.
    num_recorded: u64,
    stream: u64,
    /// How many of these records have run, and when the last one did.
    num_done: u64,
    when: Option<Instant>,
}

impl Event {
    /// A record has run.
    pub(crate) fn pass(&mut self, count: u64) {
        self.num_done = self.num_done.max(count);
        self.when = Some(Instant::now());
    }
}

impl Context {
    fn event(&mut self, handle: u64) -> Outcome<&mut Event> {
        let event = self.events.get_mut(&handle);
        event.ok_or_else(|| Failure::new(status::INVALID_HANDLE, format!("{handle:#x} is no live event")))
    }
}

#[allow(missing_docs, clippy::missing_errors_doc, reason = "the functions of the drivers' references")]
impl<G: Gpu> Driver<G> {
    pub fn create_event(&mut self) -> Outcome<u64> {
        self.context()?;
        let handle = self.new_handle(Kind::Event);
        self.context()?.events.insert(handle, Event::default());
        Ok(handle)
    }

    pub fn destroy_event(&mut self, event: u64) -> Outcome<()> {
        self.context()?.event(event)?;
        self.context()?.events.remove(&event);
        Ok(())
    }

    pub fn record_event(&mut self, event: u64, stream: u64) -> Outcome<()> {
        let context = self.context()?;
        if context.stream(stream)?.capture.is_some() {
            return context.check_no_capture("a record of an event, which is not modelled in a capture,");
        }
        let state = context.event(event)?;
        state.num_recorded += 1;
        state.stream = stream;
        let count = state.num_recorded;
        self.push(stream, Op::Record { event, count })
    }

    pub fn wait_for_event(&mut self, event: u64) -> Outcome<()> {
        self.context()?.check_no_capture("waiting for an event")?;
        let state = self.context()?.event(event)?;
        let (count, stream) = (state.num_recorded, state.stream);
        match self.run_until(event, count)? {
            Progress::Blocked => Err(self.blocked(stream)),
            Progress::Ran | Progress::Idle => Ok(()),
        }
    }

    pub fn query_event(&mut self, event: u64) -> Outcome<()> {
        let context = self.context()?;
        context.check_no_capture("asking for an event's state")?;
        let state = context.event(event)?;
        if state.num_done >= state.num_recorded {
            return Ok(());
        }
        // Asking gives the device the time to go on.
        let stream = state.stream;
        self.run_one(stream)?;
        Err(Failure::new(status::NOT_READY, ""))
    }

    pub fn milliseconds_between(&mut self, start: u64, end: u64) -> Outcome<f32> {
        let context = self.context()?;
        let (start, end) = (context.event(start)?.when, context.event(end)?.when);
        let (Some(start), Some(end)) = (start, end) else {
            return Err(Failure::new(status::INVALID_HANDLE, "an event that was not recorded, or has not run yet"));
        };
        let seconds = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f32();
        Ok(1000.0 * (seconds(start, end) - seconds(end, start)))
    }

    /// Has a stream wait for an event.
    pub fn stream_waits_for_event(&mut self, stream: u64, event: u64) -> Outcome<()> {
        let context = self.context()?;
        let count = context.event(event)?.num_recorded;
        if context.stream(stream)?.capture.is_some() {
            return context.check_no_capture("a wait for an event, which is not modelled in a capture,");
        }
        self.push(stream, Op::Wait { event, count })
    }

    /// Runs until an event has been recorded `count` times, or until its stream has to wait for another device.
    pub(crate) fn run_until(&mut self, event: u64, count: u64) -> Outcome<Progress> {
        loop {
            let context = self.context()?;
            // An event that is destroyed while somebody waits for it is complete.
            let Some(state) = context.events.get(&event) else { return Ok(Progress::Ran) };
            if state.num_done >= count {
                return Ok(Progress::Ran);
            }
            let stream = state.stream;
            if !context.streams.contains_key(&stream) {
                return Ok(Progress::Ran);
            }
            match self.run_one(stream)? {
                Progress::Ran => {}
                stopped => return Ok(stopped),
            }
        }
    }
}
