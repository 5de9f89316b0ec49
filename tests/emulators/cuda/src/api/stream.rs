//! Streams and their capture.

use std::ffi::c_int;

use gpu_emulator::{Failure, entries, status, write};

use crate::config::Cuda;

entries! {
    Cuda;

    fn cuStreamCreate(driver, stream: *mut u64, flags: u32) {
        write(stream, driver.create_stream(flags)?)
    }

    fn cuStreamDestroy_v2(driver, stream: u64) {
        driver.destroy_stream(stream)
    }

    fn cuStreamSynchronize(driver, stream: u64) {
        driver.wait_for_stream(stream)
    }

    fn cuStreamQuery(driver, stream: u64) {
        driver.query_stream(stream)
    }

    fn cuStreamGetFlags(driver, stream: u64, flags: *mut u32) {
        write(flags, driver.stream_flags(stream)?)
    }

    fn cuStreamWaitEvent(driver, stream: u64, event: u64, flags: u32) {
        if flags != 0 {
            return Err(Failure::new(status::INVALID_VALUE, "flags must be 0"));
        }
        driver.stream_waits_for_event(stream, event)
    }

    fn cuStreamBeginCapture_v2(driver, stream: u64, mode: c_int) {
        driver.begin_capture(stream, mode)
    }

    fn cuStreamIsCapturing(driver, stream: u64, state: *mut c_int) {
        write(state, driver.capture_state(stream)?)
    }

    fn cuStreamEndCapture(driver, stream: u64, graph: *mut u64) {
        write(graph, 0)?;
        write(graph, driver.end_capture(stream)?)
    }
}
