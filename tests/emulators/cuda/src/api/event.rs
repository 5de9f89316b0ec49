//! Events.

use super::{entries, write};
use crate::abi::status;
use crate::driver::{Failure, Kind};
use crate::stream::{Event, Op};

entries! {
    fn cuEventCreate(driver, event: *mut u64, _flags: u32) {
        driver.context()?;
        let handle = driver.new_handle(Kind::Event);
        driver.context()?.events.insert(handle, Event::default());
        write(event, handle)
    }

    fn cuEventDestroy_v2(driver, event: u64) {
        driver.context()?.event(event)?;
        driver.context()?.events.remove(&event);
        Ok(())
    }

    fn cuEventRecord(driver, event: u64, stream: u64) {
        let context = driver.context()?;
        if context.stream(stream)?.capture.is_some() {
            return context.check_no_capture("a record of an event, which is not modelled in a capture,");
        }
        let state = context.event(event)?;
        state.num_recorded += 1;
        state.stream = stream;
        let count = state.num_recorded;
        driver.push(stream, Op::Record { event, count })
    }

    fn cuEventSynchronize(driver, event: u64) {
        driver.context()?.check_no_capture("waiting for an event")?;
        let count = driver.context()?.event(event)?.num_recorded;
        driver.run_until(event, count)
    }

    fn cuEventQuery(driver, event: u64) {
        let context = driver.context()?;
        context.check_no_capture("asking for an event's state")?;
        let state = context.event(event)?;
        if state.num_done >= state.num_recorded {
            return Ok(());
        }
        // Asking gives the device the time to go on.
        let stream = state.stream;
        driver.run_one(stream)?;
        Err(Failure::new(status::NOT_READY, ""))
    }

    fn cuEventElapsedTime(driver, milliseconds: *mut f32, start: u64, end: u64) {
        let context = driver.context()?;
        let (start, end) = (context.event(start)?.when, context.event(end)?.when);
        let (Some(start), Some(end)) = (start, end) else {
            return Err(Failure::new(status::INVALID_HANDLE, "an event that was not recorded, or has not run yet"));
        };
        let elapsed = end.saturating_duration_since(start).as_secs_f32() - start.saturating_duration_since(end).as_secs_f32();
        write(milliseconds, 1000.0 * elapsed)
    }
}
