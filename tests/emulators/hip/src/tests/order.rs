//! Capture, and a replay that loses something.

use emulator_common::fault::Fault;

use super::*;
use crate::api::graph;

/// Records `x[0] = 10 x[1]`, then `x[0] = 5 x[1]`.
fn recorded(function: u64, stream: u64, x: u64) -> u64 {
    assert_eq!(stream::hipStreamBeginCapture(stream, 1), status::SUCCESS);
    for factor in [10.0, 5.0] {
        assert_eq!(scale(function, stream, x, x, 1, factor), status::SUCCESS);
    }
    let captured: u64 = get(|to| stream::hipStreamEndCapture(stream, to));
    let executable = get(|to| graph::hipGraphInstantiateWithFlags(to, captured, 0));
    assert_eq!(graph::hipGraphDestroy(captured), status::SUCCESS);
    executable
}

#[test]
fn a_captured_graph_runs_when_it_is_launched() {
    let machine = Machine::new();
    let (function, stream, x) = (function(c"scale"), new_stream(), alloc(8));
    upload(x, &[1.0, 2.0], stream);
    let executable = recorded(function, stream, x);
    assert_eq!(download(x, 2, stream), [1.0, 2.0], "nothing ran");
    assert_eq!(graph::hipGraphLaunch(executable, stream), status::SUCCESS);
    assert_eq!(download(x, 2, stream), [10.0, 2.0]);
    assert!(machine.leaks().contains(&"1 executable graph".to_owned()));
    assert_eq!(graph::hipGraphExecDestroy(executable), status::SUCCESS);
    assert_eq!(graph::hipGraphLaunch(executable, stream), status::INVALID_HANDLE);
}

#[test]
fn a_replay_can_lose_its_last_launch_on_purpose() {
    let _machine = Machine::with(common(Common { fault: Some(Fault::Replay(2)), ..Common::default() }));
    let (function, stream, x) = (function(c"scale"), new_stream(), alloc(8));
    let executable = recorded(function, stream, x);
    for expected in [10.0, 20.0] {
        upload(x, &[1.0, 2.0], stream);
        assert_eq!(graph::hipGraphLaunch(executable, stream), status::SUCCESS);
        assert_eq!(download(x, 2, stream), [expected, 2.0]);
    }
}

#[test]
fn waiting_spoils_a_capture() {
    let _machine = Machine::new();
    let stream = new_stream();
    assert_eq!(stream::hipStreamBeginCapture(stream, 1), status::SUCCESS);
    assert_eq!(devices::hipDeviceSynchronize(), status::STREAM_CAPTURE_UNSUPPORTED);
    assert_eq!(get(|to| stream::hipStreamIsCapturing(stream, to)), 2);
    assert_eq!(stream::hipStreamEndCapture(stream, &mut 0), status::STREAM_CAPTURE_INVALIDATED);
}
