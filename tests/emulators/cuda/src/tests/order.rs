//! When work runs: streams, events, pinned memory, capture.

use super::*;
use crate::api::{event, graph};

fn pinned(values: &[f32]) -> u64 {
    let address: u64 = get(|to| memory::cuMemHostAlloc(to, 4 * values.len(), 0));
    set(address, values);
    address
}

fn set(address: u64, values: &[f32]) {
    emulator_common::memory::copy(values.as_ptr() as u64, address, 4 * values.len());
}

fn value(address: u64) -> f32 {
    let mut value = 0.0_f32;
    emulator_common::memory::copy(address, &raw mut value as u64, 4);
    value
}

#[test]
fn pageable_memory_may_be_reused_at_once() {
    let _machine = Machine::new();
    let (to, stream) = (alloc(4), new_stream());
    let mut source = [1.0_f32];
    upload(to, &source, stream);
    source[0] = 2.0;
    assert_eq!(download(to, 1, stream), [1.0]);
    assert_eq!(source, [2.0]);
}

#[test]
fn pinned_memory_may_not() {
    let _machine = Machine::new();
    let (to, stream, source) = (alloc(4), new_stream(), pinned(&[1.0]));
    assert_eq!(memory::cuMemcpyHtoDAsync_v2(to, source as *const c_void, 4, stream), status::SUCCESS);
    set(source, &[2.0]);
    assert_eq!(download(to, 1, stream), [2.0], "the copy had not run yet");
}

#[test]
fn what_is_read_back_is_there_after_waiting_only() {
    let _machine = Machine::new();
    let (from, stream, to) = (alloc(4), new_stream(), pinned(&[-1.0]));
    upload(from, &[5.0], stream);
    assert_eq!(memory::cuMemcpyDtoHAsync_v2(to as *mut c_void, from, 4, stream), status::SUCCESS);
    assert_eq!(value(to), -1.0);
    assert_eq!(stream::cuStreamSynchronize(stream), status::SUCCESS);
    assert_eq!(value(to), 5.0);
}

#[test]
fn streams_are_ordered_by_events_only() {
    let _machine = Machine::new();
    let (a, b) = (new_stream(), new_stream());
    let (x, y) = (alloc(4), alloc(4));
    upload(x, &[1.0], a);
    let event: u64 = get(|to| event::cuEventCreate(to, 0));
    assert_eq!(event::cuEventRecord(event, a), status::SUCCESS);
    assert_eq!(memory::cuMemcpyDtoDAsync_v2(y, x, 4, b), status::SUCCESS);
    assert!(download(y, 1, b)[0].is_nan(), "stream b did not wait for stream a");
    assert_eq!(stream::cuStreamWaitEvent(b, event, 0), status::SUCCESS);
    assert_eq!(memory::cuMemcpyDtoDAsync_v2(y, x, 4, b), status::SUCCESS);
    assert_eq!(download(y, 1, b), [1.0]);
}

#[test]
fn events_tell_when_they_have_passed() {
    let _machine = Machine::new();
    let (stream, x) = (new_stream(), alloc(4));
    let [start, end]: [u64; 2] = [(); 2].map(|()| get(|to| event::cuEventCreate(to, 0)));
    assert_eq!(event::cuEventQuery(start), status::SUCCESS, "never recorded");
    assert_eq!(event::cuEventRecord(start, stream), status::SUCCESS);
    upload(x, &[1.0], stream);
    assert_eq!(event::cuEventRecord(end, stream), status::SUCCESS);
    let mut milliseconds = -1.0;
    assert_eq!(event::cuEventElapsedTime(&raw mut milliseconds, start, end), status::INVALID_HANDLE);
    let polls = (0..10).take_while(|_| event::cuEventQuery(end) == status::NOT_READY).count();
    assert_eq!(polls, 3, "one op per question");
    assert_eq!(event::cuEventElapsedTime(&raw mut milliseconds, start, end), status::SUCCESS);
    assert!(milliseconds >= 0.0);
}

#[test]
fn a_captured_graph_runs_when_it_is_launched() {
    let _machine = Machine::new();
    let (function, stream) = (function(c"scale"), new_stream());
    let x = alloc(8);
    upload(x, &[1.0, 2.0], stream);
    assert_eq!(stream::cuStreamSynchronize(stream), status::SUCCESS);
    assert_eq!(stream::cuStreamBeginCapture_v2(stream, 1), status::SUCCESS);
    assert_eq!(scale(function, stream, x, x, 1, 10.0), status::SUCCESS);
    assert_eq!(get(|to| stream::cuStreamIsCapturing(stream, to)), 1);
    let captured: u64 = get(|to| stream::cuStreamEndCapture(stream, to));
    assert_eq!(download(x, 2, stream), [1.0, 2.0], "nothing ran");
    let executable: u64 = get(|to| graph::cuGraphInstantiateWithFlags(to, captured, 0));
    assert_eq!(graph::cuGraphDestroy(captured), status::SUCCESS);
    for expected in [20.0, 20.0] {
        assert_eq!(graph::cuGraphLaunch(executable, stream), status::SUCCESS);
        assert_eq!(download(x, 2, stream), [expected, 2.0]);
    }
    assert_eq!(graph::cuGraphExecDestroy(executable), status::SUCCESS);
    assert_eq!(graph::cuGraphLaunch(executable, stream), status::INVALID_HANDLE);
}

#[test]
fn a_graph_outlives_no_memory() {
    let _machine = Machine::new();
    let (function, stream, x) = (function(c"scale"), new_stream(), alloc(8));
    assert_eq!(stream::cuStreamBeginCapture_v2(stream, 1), status::SUCCESS);
    assert_eq!(scale(function, stream, x, x, 1, 10.0), status::SUCCESS);
    let captured: u64 = get(|to| stream::cuStreamEndCapture(stream, to));
    let executable: u64 = get(|to| graph::cuGraphInstantiateWithFlags(to, captured, 0));
    assert_eq!(memory::cuMemFree_v2(x), status::SUCCESS);
    assert_eq!(graph::cuGraphLaunch(executable, stream), status::SUCCESS);
    assert_eq!(stream::cuStreamSynchronize(stream), status::ILLEGAL_ADDRESS);
}

/// Something that a capture of a stream cannot hold, done with the stream and some memory.
type Spoiler = fn(u64, u64) -> Status;

#[test]
fn a_capture_is_spoiled_by_what_it_cannot_hold() {
    let spoilers: [(&str, Spoiler); 8] = [
        ("waiting for the stream", |stream, _| stream::cuStreamSynchronize(stream)),
        ("waiting for the context", |_, _| context::cuCtxSynchronize()),
        ("an allocation", |_, _| memory::cuMemAlloc_v2(&mut 0, 16)),
        ("a free", |_, x| memory::cuMemFree_v2(x)),
        ("pinned memory", |_, _| memory::cuMemHostAlloc(&mut 0, 16, 0)),
        ("a copy from pageable memory", |stream, x| {
            memory::cuMemcpyHtoDAsync_v2(x, ptr::from_ref(&1_u32).cast(), 4, stream)
        }),
        ("a synchronous copy", |_, x| memory::cuMemcpyDtoH_v2(ptr::from_mut(&mut 0_u32).cast(), x, 4)),
        ("a module", |_, _| module::cuModuleLoadData(&mut 0, HOPPER.as_ptr().cast())),
    ];
    for (what, spoil) in spoilers {
        let _machine = Machine::new();
        let (stream, x) = (new_stream(), alloc(16));
        assert_eq!(stream::cuStreamBeginCapture_v2(stream, 1), status::SUCCESS);
        assert_eq!(spoil(stream, x), status::STREAM_CAPTURE_UNSUPPORTED, "{what}");
        assert_eq!(get(|to| stream::cuStreamIsCapturing(stream, to)), 2, "{what}");
        let mut captured = 9;
        let ended = stream::cuStreamEndCapture(stream, &raw mut captured);
        assert_eq!((ended, captured), (status::STREAM_CAPTURE_INVALIDATED, 0), "{what}");
        assert_eq!(stream::cuStreamSynchronize(stream), status::SUCCESS, "{what}: the stream works again");
    }
}

#[test]
fn a_capture_ends_where_it_began() {
    let machine = Machine::new();
    let stream = new_stream();
    let mut captured = 0;
    assert_eq!(stream::cuStreamEndCapture(stream, &raw mut captured), status::ILLEGAL_STATE);
    assert_eq!(stream::cuStreamBeginCapture_v2(stream, 1), status::SUCCESS);
    assert_eq!(stream::cuStreamBeginCapture_v2(stream, 1), status::ILLEGAL_STATE);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(context::cuCtxSetCurrent(machine.context), status::SUCCESS);
            let mut captured = 0;
            assert_eq!(stream::cuStreamEndCapture(stream, &raw mut captured), status::STREAM_CAPTURE_WRONG_THREAD);
        });
    });
    assert_eq!(stream::cuStreamEndCapture(stream, &raw mut captured), status::SUCCESS);
}

#[test]
fn the_default_stream_is_refused() {
    let _machine = Machine::new();
    let x = alloc(4);
    assert_eq!(memory::cuMemsetD8Async(x, 0, 4, 0), status::NOT_SUPPORTED);
}
