//! Streams and their capture.

use std::ffi::c_int;

use super::{entries, write};
use crate::abi::{STREAM_NON_BLOCKING, status};
use crate::driver::{Failure, Kind};
use crate::stream::{Op, Stream};

entries! {
    fn cuStreamCreate(driver, stream: *mut u64, flags: u32) {
        driver.context()?;
        if flags & !STREAM_NON_BLOCKING != 0 {
            return Err(Failure::new(status::INVALID_VALUE, format!("flags {flags:#x}")));
        }
        let handle = driver.new_handle(Kind::Stream);
        driver.context()?.streams.insert(handle, Stream { flags, ..Stream::default() });
        write(stream, handle)
    }

    fn cuStreamDestroy_v2(driver, stream: u64) {
        // Work that was queued still runs.
        driver.run_stream(stream)?;
        driver.context()?.streams.remove(&stream);
        Ok(())
    }

    fn cuStreamSynchronize(driver, stream: u64) {
        let context = driver.context()?;
        if context.stream(stream)?.capture.is_some() {
            return context.check_no_capture("waiting for the stream");
        }
        driver.run_stream(stream)
    }

    fn cuStreamQuery(driver, stream: u64) {
        let context = driver.context()?;
        if context.stream(stream)?.capture.is_some() {
            return context.check_no_capture("asking for the stream's state");
        }
        // Asking gives the device the time to go on.
        if driver.run_one(stream)? { Err(Failure::new(status::NOT_READY, "")) } else { Ok(()) }
    }

    fn cuStreamGetFlags(driver, stream: u64, flags: *mut u32) {
        let chosen = driver.context()?.stream(stream)?.flags;
        write(flags, chosen)
    }

    fn cuStreamWaitEvent(driver, stream: u64, event: u64, flags: u32) {
        if flags != 0 {
            return Err(Failure::new(status::INVALID_VALUE, "flags must be 0"));
        }
        let context = driver.context()?;
        let count = context.event(event)?.num_recorded;
        if context.stream(stream)?.capture.is_some() {
            return context.check_no_capture("a wait for an event, which is not modelled in a capture,");
        }
        driver.push(stream, Op::Wait { event, count })
    }

    fn cuStreamBeginCapture_v2(driver, stream: u64, mode: c_int) {
        if !(0..=2).contains(&mode) {
            return Err(Failure::new(status::INVALID_VALUE, format!("capture mode {mode}")));
        }
        driver.begin_capture(stream)
    }

    fn cuStreamIsCapturing(driver, stream: u64, state: *mut c_int) {
        let number = match &driver.context()?.stream(stream)?.capture {
            None => 0,
            Some(capture) if capture.invalidated.is_none() => 1,
            Some(_) => 2,
        };
        write(state, number)
    }

    fn cuStreamEndCapture(driver, stream: u64, graph: *mut u64) {
        write(graph, 0)?;
        let captured = driver.end_capture(stream)?;
        let handle = driver.new_handle(Kind::Graph);
        driver.context()?.graphs.insert(handle, captured);
        write(graph, handle)
    }
}
