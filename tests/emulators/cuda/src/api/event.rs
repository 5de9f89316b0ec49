//! Events.

use gpu_emulator::{entries, write};

use crate::config::Cuda;

entries! {
    Cuda;

    fn cuEventCreate(driver, event: *mut u64, _flags: u32) {
        write(event, driver.create_event()?)
    }

    fn cuEventDestroy_v2(driver, event: u64) {
        driver.destroy_event(event)
    }

    fn cuEventRecord(driver, event: u64, stream: u64) {
        driver.record_event(event, stream)
    }

    fn cuEventSynchronize(driver, event: u64) {
        driver.wait_for_event(event)
    }

    fn cuEventQuery(driver, event: u64) {
        driver.query_event(event)
    }

    fn cuEventElapsedTime(driver, milliseconds: *mut f32, start: u64, end: u64) {
        write(milliseconds, driver.milliseconds_between(start, end)?)
    }
}
