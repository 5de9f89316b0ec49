//! Recorded work: what is replayed, what is updated, and what may not happen meanwhile.

use std::thread;

use super::*;
use crate::abi::EVENT_EXTERNAL;
use crate::api::capture::{
    aclmdlRICaptureBegin, aclmdlRICaptureEnd, aclmdlRICaptureTaskGrpBegin, aclmdlRICaptureTaskGrpEnd,
    aclmdlRICaptureTaskUpdateBegin, aclmdlRICaptureTaskUpdateEnd, aclmdlRIDestroy, aclmdlRIExecuteAsync,
    aclrtCreateEventExWithFlag, aclrtDestroyEvent, aclrtRecordEvent, aclrtResetEvent, aclrtStreamWaitEvent,
};
use crate::api::descriptor::aclCreateScalar;
use crate::api::memory::{aclrtFree, aclrtFreeHost, aclrtMallocHost, aclrtMemcpyAsync};
use crate::api::runtime::{aclrtDestroyStream, aclrtSynchronizeDevice};
use crate::ops::elementwise::{aclnnInplaceCopy, aclnnInplaceCopyGetWorkspaceSize};

const GLOBAL: u32 = 0;
const THREAD_LOCAL: u32 = 1;
const RELAXED: u32 = 2;

impl Machine {
    fn capture(&self, mode: u32, record: impl FnOnce()) -> (Status, u64) {
        assert_eq!(aclmdlRICaptureBegin(self.stream, mode), 0, "{}", words());
        record();
        let mut graph = 0;
        (aclmdlRICaptureEnd(self.stream, &raw mut graph), graph)
    }

    fn double(&self, x: u64) {
        let (planned, executor) = plan_doubling(x);
        assert_eq!((planned, run_doubling(executor, self.stream)), (0, 0), "{}", words());
    }

    fn replay(&self, graph: u64) -> Status {
        aclmdlRIExecuteAsync(graph, self.stream)
    }
}

/// Eight ones, and the tensor over them.
fn ones() -> (u64, u64) {
    let address = upload(&[1.0; 8]);
    (address, tensor(address, F32, &[8]))
}

/// `x *= factor`, planned now.
fn scale(x: u64, factor: f32, stream: u64) -> Status {
    let scalar = aclCreateScalar(&raw const factor, F32);
    let (mut bytes, mut executor) = (0, 0);
    assert_eq!(aclnnInplaceMulsGetWorkspaceSize(x, scalar, &raw mut bytes, &raw mut executor), 0, "{}", words());
    run_doubling(executor, stream)
}

#[test]
fn what_is_captured_runs_when_it_is_replayed_and_each_time() {
    let machine = Machine::new();
    let (address, x) = ones();
    let (ended, graph) = machine.capture(GLOBAL, || (0..2).for_each(|_| machine.double(x)));
    assert_eq!((ended, machine.wait()), (0, 0));
    assert_eq!(download(address, 1), [1.0], "nothing has run");
    machine.double(x);
    assert_eq!((machine.replay(graph), machine.replay(graph), machine.wait()), (0, 0, 0));
    assert_eq!(download(address, 1), [32.0], "in the order of the stream");
    assert!(machine.leaks().contains("graph"));
    assert_eq!((aclmdlRIDestroy(graph), aclmdlRIDestroy(graph)), (0, status::PARAM_INVALID));
    assert_eq!(machine.replay(graph), status::PARAM_INVALID);
}

#[test]
fn captures_begin_and_end_in_pairs_on_one_thread() {
    let machine = Machine::new();
    let mut graph = 0;
    assert_eq!(aclmdlRICaptureEnd(machine.stream, &raw mut graph), status::STREAM_CAPTURE_UNMATCHED);
    assert_eq!(aclmdlRICaptureBegin(machine.stream, 3), status::PARAM_INVALID);
    assert_eq!(aclmdlRICaptureBegin(0, GLOBAL), status::STREAM_CONTEXT, "the default stream");
    let (ended, graph) = machine.capture(GLOBAL, || {
        assert_eq!(aclmdlRICaptureBegin(machine.stream, GLOBAL), status::STREAM_CAPTURED);
        let end = || {
            let mut graph = 0;
            crate::api::runtime::aclrtSetCurrentContext(machine.context);
            aclmdlRICaptureEnd(machine.stream, &raw mut graph)
        };
        assert_eq!(thread::scope(|scope| scope.spawn(end).join().unwrap()), status::STREAM_CAPTURE_WRONG_THREAD);
    });
    assert_eq!(ended, 0);
    let (ended, _) = machine.capture(GLOBAL, || assert_eq!(machine.replay(graph), status::STREAM_CAPTURED));
    assert_eq!(ended, 0);
}

#[test]
fn what_would_not_be_recorded_spoils_a_capture() {
    let machine = Machine::new();
    let (address, x) = ones();
    let pinned: u64 = get(|to| aclrtMallocHost(to, 32));
    let values = [7.0_f32; 8];
    let from = values.as_ptr() as u64;
    let unsafe_calls: [(&str, &dyn Fn() -> Status); 9] = [
        ("a wait", &|| machine.wait()),
        ("a wait for the device", &|| aclrtSynchronizeDevice()),
        ("a copy that is not queued", &|| aclrtMemcpy(address, 32, from, 32, 1)),
        ("a copy of pageable memory", &|| aclrtMemcpyAsync(address, 32, from, 32, 1, machine.stream)),
        ("an allocation", &|| aclrtMalloc(&mut 0, 32, 0)),
        ("freeing", &|| aclrtFree(address)),
        ("an allocation of pinned memory", &|| aclrtMallocHost(&mut 0, 32)),
        ("freeing pinned memory", &|| aclrtFreeHost(pinned)),
        ("destroying it", &|| aclrtDestroyStream(machine.stream)),
    ];
    for (what, call) in unsafe_calls {
        for mode in [GLOBAL, THREAD_LOCAL] {
            let (ended, _) = machine.capture(mode, || {
                machine.double(x);
                assert_eq!(call(), status::CAPTURE_MODE_NOT_SUPPORT, "{what}");
            });
            assert_eq!(ended, status::STREAM_CAPTURE_INVALIDATED, "{what}");
            assert!(words().contains(&format!("{what} while the stream is captured")), "{what}");
        }
    }
    assert_eq!(machine.wait(), 0);
    assert_eq!(download(address, 1), [1.0], "nothing of it has run");
    let (ended, graph) = machine.capture(GLOBAL, || {
        assert_eq!(aclrtMemcpyAsync(address, 32, pinned, 32, 1, machine.stream), 0, "pinned memory is recorded");
    });
    emulator_common::memory::copy(from, pinned, 32);
    assert_eq!((ended, machine.replay(graph), machine.wait()), (0, 0, 0));
    assert_eq!(download(address, 8), values, "with what is there when it is replayed");
}

#[test]
fn the_mode_says_whose_calls_are_unsafe() {
    for (mode, is_own_refused, is_other_refused) in
        [(GLOBAL, true, true), (THREAD_LOCAL, true, false), (RELAXED, false, false)]
    {
        let machine = Machine::new();
        let address = alloc(32);
        let values = [1.0_f32; 8];
        let upload = || {
            crate::api::runtime::aclrtSetCurrentContext(machine.context);
            aclrtMemcpy(address, 32, values.as_ptr() as u64, 32, 1) != 0
        };
        machine.capture(mode, || {
            assert_eq!(thread::scope(|scope| scope.spawn(upload).join().unwrap()), is_other_refused, "{mode}");
            assert_eq!(upload(), is_own_refused, "{mode}");
        });
    }
}

#[test]
fn memory_of_a_graph_outlives_it() {
    let machine = Machine::new();
    let (address, x) = ones();
    let (_, graph) = machine.capture(GLOBAL, || machine.double(x));
    assert_eq!((aclrtFree(address), machine.replay(graph)), (0, 0));
    assert_eq!(machine.wait(), status::AICORE_EXCEPTION);
    assert!(words().contains("memory was freed before it ran"));
}

/// A graph that scales by 2 in a group which waits for its update, and the stream that updates come on.
struct Updated {
    machine: Machine,
    address: u64,
    x: u64,
    graph: u64,
    group: u64,
    event: u64,
    side: u64,
}

impl Updated {
    fn new() -> Self {
        let machine = Machine::new();
        let (address, x) = ones();
        let event = get(|to| aclrtCreateEventExWithFlag(to, EVENT_EXTERNAL));
        let mut group = 0;
        let (ended, graph) = machine.capture(THREAD_LOCAL, || {
            assert_eq!(aclrtStreamWaitEvent(machine.stream, event), 0);
            assert_eq!(aclrtResetEvent(event, machine.stream), 0);
            assert_eq!(aclmdlRICaptureTaskGrpBegin(machine.stream), 0);
            assert_eq!(scale(x, 2.0, machine.stream), 0);
            group = get(|to| aclmdlRICaptureTaskGrpEnd(machine.stream, to));
        });
        assert_eq!(ended, 0, "{}", words());
        let side = get(|to| aclrtCreateStream(to));
        Self { machine, address, x, graph, group, event, side }
    }

    fn begin(&self) -> Status {
        aclmdlRICaptureTaskUpdateBegin(self.side, self.group)
    }

    fn update(&self, factor: f32) -> Status {
        assert_eq!((self.begin(), scale(self.x, factor, self.side)), (0, 0), "{}", words());
        aclmdlRICaptureTaskUpdateEnd(self.side)
    }

    fn record(&self) -> Status {
        aclrtRecordEvent(self.event, self.side)
    }

    fn value(&self) -> f32 {
        download(self.address, 1)[0]
    }
}

#[test]
fn a_group_is_what_it_was_updated_to() {
    let graph = Updated::new();
    for (factor, expected) in [(3.0, 3.0), (5.0, 15.0), (2.0, 30.0)] {
        assert_eq!(graph.machine.replay(graph.graph), 0);
        assert_eq!((graph.update(factor), graph.record()), (0, 0), "{}", words());
        assert_eq!(graph.machine.wait(), 0, "{}", words());
        assert_eq!(graph.value(), expected);
    }
    assert_eq!((graph.machine.replay(graph.graph), graph.record(), graph.machine.wait()), (0, 0, 0));
    assert_eq!(graph.value(), 60.0, "without an update, the one before it");
}

#[test]
fn an_update_that_is_missing_is_waited_for() {
    let graph = Updated::new();
    assert_eq!((graph.machine.replay(graph.graph), graph.update(3.0)), (0, 0));
    assert_eq!(graph.machine.wait(), status::TASK_TIMEOUT);
    assert!(words().contains("is an update missing?"));
}

#[test]
fn a_wait_without_a_reset_would_let_the_next_replay_through() {
    let machine = Machine::new();
    let event: u64 = get(|to| aclrtCreateEventExWithFlag(to, EVENT_EXTERNAL));
    let (ended, _) = machine.capture(GLOBAL, || {
        assert_eq!(aclrtResetEvent(event, machine.stream), 0);
        assert_eq!(aclrtStreamWaitEvent(machine.stream, event), 0);
    });
    assert_eq!(ended, status::CAPTURE_DEPENDENCY);
    assert!(words().contains("another replay would not wait"));
}

#[test]
fn a_group_opens_and_closes_once_and_holds_operators() {
    let machine = Machine::new();
    let (_, x) = ones();
    let event: u64 = get(|to| aclrtCreateEventExWithFlag(to, EVENT_EXTERNAL));
    let (stream, mut group) = (machine.stream, 0);
    assert_eq!(aclmdlRICaptureTaskGrpBegin(stream), status::STREAM_NOT_CAPTURED);
    let (ended, _) = machine.capture(GLOBAL, || {
        assert_eq!(aclmdlRICaptureTaskGrpEnd(stream, &raw mut group), status::TASK_GROUP_STATUS, "not open");
        assert_eq!(aclmdlRICaptureTaskGrpBegin(stream), 0);
        assert_eq!(aclmdlRICaptureTaskGrpBegin(stream), status::TASK_GROUP_STATUS, "open already");
        assert_eq!(aclrtRecordEvent(event, stream), status::TASK_TYPE_NOT_SUPPORT, "no operator");
        machine.double(x);
    });
    assert_eq!(ended, status::TASK_GROUP_STATUS, "still open");
    let (ended, _) = machine.capture(GLOBAL, || {
        assert_eq!(aclmdlRICaptureTaskGrpBegin(stream), 0);
        group = get(|to| aclmdlRICaptureTaskGrpEnd(stream, to));
        let side = get(|to| aclrtCreateStream(to));
        assert_eq!(aclmdlRICaptureTaskUpdateBegin(side, group), status::PARAM_INVALID, "of no graph yet");
        assert_eq!(aclmdlRICaptureTaskUpdateBegin(stream, group), status::STREAM_CAPTURED);
        machine.wait();
    });
    assert_eq!(ended, status::STREAM_CAPTURE_INVALIDATED);
    assert_eq!(aclmdlRICaptureTaskUpdateBegin(stream, group), status::PARAM_INVALID, "gone with its capture");
}

#[test]
fn an_update_is_of_the_tasks_that_were_recorded() {
    let graph = Updated::new();
    let side = graph.side;
    assert_eq!(aclmdlRICaptureTaskUpdateEnd(side), status::TASK_GROUP_STATUS, "none has begun");
    let copy = || {
        let (mut bytes, mut executor) = (0, 0);
        let to = tensor(alloc(32), F32, &[8]);
        assert_eq!(aclnnInplaceCopyGetWorkspaceSize(to, graph.x, &raw mut bytes, &raw mut executor), 0);
        assert_eq!(aclnnInplaceCopy(0, 0, executor, side), 0);
    };
    let double = || assert_eq!(scale(graph.x, 2.0, side), 0);
    let updates: [(&str, &dyn Fn()); 3] =
        [("none", &|| {}), ("two", &|| (0..2).for_each(|_| double())), ("other", &copy)];
    for (what, give) in updates {
        assert_eq!(graph.begin(), 0, "{what}");
        give();
        assert_eq!(aclmdlRICaptureTaskUpdateEnd(side), status::TASK_GROUP_STATUS, "{what}");
        assert!(words().contains("recorded were [\"aclnnInplaceMuls\"]"));
    }
    assert_eq!(graph.begin(), 0);
    assert_eq!(graph.record(), status::TASK_TYPE_NOT_SUPPORT, "before the update has ended");
    assert_eq!(graph.begin(), status::TASK_GROUP_STATUS, "the stream has one");
    let other = get(|to| aclrtCreateStream(to));
    assert_eq!(aclmdlRICaptureTaskUpdateBegin(other, graph.group), status::TASK_GROUP_STATUS, "the group has one");
    assert_eq!(aclmdlRICaptureBegin(side, GLOBAL), status::TASK_GROUP_STATUS, "a capture meanwhile");
}

#[test]
fn an_update_does_not_reach_an_earlier_replay() {
    let graph = Updated::new();
    assert_eq!((graph.machine.replay(graph.graph), graph.machine.replay(graph.graph)), (0, 0));
    assert_eq!(graph.update(3.0), status::TASK_GROUP_STATUS);
    assert!(words().contains("queued 2 times"));
}

#[test]
fn a_graph_that_is_queued_is_not_destroyed() {
    let graph = Updated::new();
    assert_eq!((graph.machine.replay(graph.graph), aclmdlRIDestroy(graph.graph)), (0, status::MODEL_RUNNING));
    assert_eq!((graph.update(3.0), graph.record(), graph.machine.wait()), (0, 0, 0));
    assert_eq!(aclmdlRIDestroy(graph.graph), 0);
    assert_eq!(graph.begin(), status::PARAM_INVALID, "its groups go with it");
}

#[test]
fn events_are_external_and_destroyed_once() {
    let machine = Machine::new();
    let mut event = 0;
    assert_eq!(aclrtCreateEventExWithFlag(&raw mut event, 1), status::PARAM_INVALID, "another kind");
    let event: u64 = get(|to| aclrtCreateEventExWithFlag(to, EVENT_EXTERNAL));
    assert!(machine.leaks().contains("event"));
    assert_eq!((aclrtDestroyEvent(event), aclrtDestroyEvent(event)), (0, status::PARAM_INVALID));
    assert_eq!(aclrtRecordEvent(event, machine.stream), status::PARAM_INVALID);
    assert!(!machine.leaks().contains("event"));
}

#[test]
fn streams_that_wait_for_each_other_are_noticed() {
    let machine = Machine::new();
    let side = get(|to| aclrtCreateStream(to));
    let [a, b]: [u64; 2] = [0; 2].map(|_| get(|to| aclrtCreateEventExWithFlag(to, EVENT_EXTERNAL)));
    for (stream, waits, records) in [(machine.stream, a, b), (side, b, a)] {
        assert_eq!((aclrtStreamWaitEvent(stream, waits), aclrtRecordEvent(records, stream)), (0, 0));
    }
    assert_eq!(machine.wait(), status::TASK_TIMEOUT);
}

#[test]
fn a_replay_can_be_cut_short() {
    let machine = broken(Fault::Replay(2));
    let (address, x) = ones();
    let (_, graph) = machine.capture(GLOBAL, || (0..2).for_each(|_| machine.double(x)));
    assert_eq!((machine.replay(graph), machine.replay(graph), machine.wait()), (0, 0, 0));
    assert_eq!(download(address, 1), [8.0]);
}
