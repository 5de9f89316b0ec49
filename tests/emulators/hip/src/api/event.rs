//! Events.

use gpu_emulator::{Failure, entries, status, write};

use crate::config::Hip;

entries! {
    Hip;

    fn hipEventCreateWithFlags(driver, event: *mut u64, _flags: u32) {
        write(event, driver.create_event()?)
    }

    fn hipEventDestroy(driver, event: u64) {
        driver.destroy_event(event)
    }

    fn hipEventRecord(driver, event: u64, stream: u64) {
        driver.record_event(event, stream)
    }

    fn hipEventSynchronize(driver, event: u64) {
        driver.wait_for_event(event)
    }

    fn hipEventQuery(driver, event: u64) {
        driver.query_event(event)
    }

    fn hipEventElapsedTime(driver, milliseconds: *mut f32, start: u64, end: u64) {
        write(milliseconds, driver.milliseconds_between(start, end)?)
    }

    fn hipStreamWaitEvent(driver, stream: u64, event: u64, flags: u32) {
        if flags != 0 {
            return Err(Failure::new(status::INVALID_VALUE, "flags must be 0"));
        }
        driver.stream_waits_for_event(stream, event)
    }
}
