//! Recorded work and external events.

use super::{entries, write};
use crate::abi::{EVENT_EXTERNAL, status};
use crate::machine::Failure;
use crate::stream::Op;

entries! {
    fn aclmdlRICaptureBegin(machine, stream: u64, mode: u32) {
        machine.begin_capture(stream, mode)
    }

    fn aclmdlRICaptureEnd(machine, stream: u64, graph: *mut u64) {
        let captured = machine.end_capture(stream)?;
        write(graph, captured)
    }

    fn aclmdlRICaptureTaskGrpBegin(machine, stream: u64) {
        machine.begin_group(stream)
    }

    fn aclmdlRICaptureTaskGrpEnd(machine, stream: u64, group: *mut u64) {
        let ended = machine.end_group(stream)?;
        write(group, ended)
    }

    fn aclmdlRICaptureTaskUpdateBegin(machine, stream: u64, group: u64) {
        machine.begin_update(stream, group)
    }

    fn aclmdlRICaptureTaskUpdateEnd(machine, stream: u64) {
        machine.end_update(stream)
    }

    fn aclmdlRIExecuteAsync(machine, graph: u64, stream: u64) {
        machine.replay(graph, stream)
    }

    fn aclmdlRIDestroy(machine, graph: u64) {
        machine.destroy_graph(graph)
    }

    fn aclrtCreateEventExWithFlag(machine, event: *mut u64, flag: u32) {
        machine.context()?;
        if flag != EVENT_EXTERNAL {
            return Err(Failure::new(status::PARAM_INVALID, format!("events with flag {flag:#x} are not modelled")));
        }
        let created = machine.create_event();
        write(event, created)
    }

    fn aclrtDestroyEvent(machine, event: u64) {
        machine.destroy_event(event)
    }

    fn aclrtRecordEvent(machine, event: u64, stream: u64) {
        machine.queue_event(event, stream, Op::Record(event))
    }

    fn aclrtStreamWaitEvent(machine, stream: u64, event: u64) {
        machine.queue_event(event, stream, Op::Wait(event))
    }

    fn aclrtResetEvent(machine, event: u64, stream: u64) {
        machine.queue_event(event, stream, Op::Reset(event))
    }
}
