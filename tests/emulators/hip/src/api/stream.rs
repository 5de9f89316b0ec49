//! Streams and their capture.

use std::ffi::c_int;

use gpu_emulator::{entries, write};

use crate::config::Hip;

entries! {
    Hip;

    fn hipStreamCreateWithFlags(driver, stream: *mut u64, flags: u32) {
        write(stream, driver.create_stream(flags)?)
    }

    fn hipStreamDestroy(driver, stream: u64) {
        driver.destroy_stream(stream)
    }

    fn hipStreamSynchronize(driver, stream: u64) {
        driver.wait_for_stream(stream)
    }

    fn hipStreamQuery(driver, stream: u64) {
        driver.query_stream(stream)
    }

    fn hipStreamBeginCapture(driver, stream: u64, mode: c_int) {
        driver.begin_capture(stream, mode)
    }

    fn hipStreamIsCapturing(driver, stream: u64, state: *mut c_int) {
        write(state, driver.capture_state(stream)?)
    }

    fn hipStreamEndCapture(driver, stream: u64, graph: *mut u64) {
        write(graph, 0)?;
        write(graph, driver.end_capture(stream)?)
    }
}
