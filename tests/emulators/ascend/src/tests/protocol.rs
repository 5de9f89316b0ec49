//! Two phases, lifetimes, contexts, faults.

use super::*;
use crate::api::descriptor::{aclDestroyAclOpExecutor, aclDestroyTensor};
use crate::api::memory::aclrtFree;
use crate::api::runtime::{aclrtDestroyContext, aclrtDestroyStream};
use crate::ops::products::{aclnnMatmul, aclnnMatmulGetWorkspaceSize};

#[test]
fn work_runs_when_somebody_waits() {
    let machine = Machine::new();
    let address = upload(&[1.0; 8]);
    let (planned, executor) = plan_doubling(tensor(address, F32, &[8]));
    assert_eq!((planned, run_doubling(executor, machine.stream)), (0, 0));
    assert_eq!(download(address, 8), [1.0; 8]);
    assert_eq!(machine.wait(), 0);
    assert_eq!(download(address, 8), [2.0; 8]);
}

#[test]
fn an_executor_is_used_once_and_by_its_own_operator() {
    let machine = Machine::new();
    let x = tensor(upload(&[1.0; 8]), F32, &[8]);
    let (_, executor) = plan_doubling(x);
    assert_eq!(run_doubling(executor, machine.stream), 0);
    assert_eq!(run_doubling(executor, machine.stream), status::NULL_EXECUTOR);
    assert!(words().contains("used already") && words().is_empty(), "the words are handed out once");
    let (_, executor) = plan_doubling(x);
    assert_eq!(aclnnMatmul(0, 0, executor, machine.stream), status::INVALID);
    assert!(words().contains("planned by aclnnInplaceMuls"));
    let (_, executor) = plan_doubling(x);
    assert_eq!((aclDestroyAclOpExecutor(executor), aclDestroyAclOpExecutor(executor)), (0, status::INVALID));
}

#[test]
fn descriptors_live_until_the_second_call() {
    let machine = Machine::new();
    let x = tensor(upload(&[1.0; 8]), F32, &[8]);
    let (_, executor) = plan_doubling(x);
    assert_eq!(aclDestroyTensor(x), 0);
    assert_eq!(run_doubling(executor, machine.stream), status::INVALID);
    assert!(words().contains("destroyed between"));
    assert_eq!(aclDestroyTensor(x), status::INVALID);
    assert_eq!(plan_doubling(x).0, status::INVALID);
    assert_eq!(plan_doubling(0).0, status::NULLPTR);
}

#[test]
fn a_workspace_is_large_enough_aligned_and_alive() {
    let machine = Machine::new();
    let (a, b) = (tensor(upload(&[1.0; 64]), F32, &[8, 8]), tensor(upload(&[1.0; 64]), F32, &[8, 8]));
    let address = alloc(256);
    let out = tensor(address, F32, &[8, 8]);
    let plan = || {
        let (mut bytes, mut executor) = (0, 0);
        assert_eq!(aclnnMatmulGetWorkspaceSize(a, b, out, 0, &raw mut bytes, &raw mut executor), 0);
        (bytes, executor)
    };
    let room = alloc(512);
    for (workspace, spare, wrong) in [
        (room, -32, "planned were"),
        (room + 16, 0, "a workspace at"),
        (room + 480, 0, "not in one live allocation"),
        (address, 0, "lies over a tensor"),
    ] {
        let (bytes, executor) = plan();
        let given = bytes.wrapping_add_signed(spare);
        assert_eq!(aclnnMatmul(workspace, given, executor, machine.stream), status::INVALID, "{wrong}");
        let said = words();
        assert!(said.contains(wrong), "{said}");
    }
    let (bytes, executor) = plan();
    assert_eq!(aclnnMatmul(room, bytes, executor, machine.stream), 0);
    assert_eq!(aclrtFree(room), 0);
    assert_eq!(machine.wait(), status::AICORE_EXCEPTION, "freed before it ran");
    assert_eq!(machine.wait(), status::AICORE_EXCEPTION, "and from then on");
}

#[test]
fn a_thread_needs_a_context_and_a_stream_belongs_to_one() {
    let machine = Machine::new();
    let x = tensor(upload(&[1.0; 8]), F32, &[8]);
    let (_, executor) = plan_doubling(x);
    let other: u64 = get(|to| aclrtCreateContext(to, 0));
    assert_eq!(run_doubling(executor, machine.stream), status::STREAM_CONTEXT);
    assert_eq!(run_doubling(executor, machine.stream), status::NULL_EXECUTOR, "used up, whatever came of it");
    assert_eq!(aclrtDestroyContext(other), 0);
    assert_eq!(plan_doubling(x).0, status::CONTEXT_NULL);
    assert_eq!(aclrtDestroyContext(other), status::PARAM_INVALID);
}

#[test]
fn what_is_not_given_back_is_a_leak() {
    let machine = Machine::new();
    let x = tensor(upload(&[1.0; 8]), F32, &[8]);
    plan_doubling(x);
    let leaks = machine.leaks();
    for expected in ["32 bytes of device memory", "stream", "context", "a descriptor of a tensor", "never queued"] {
        assert!(leaks.contains(expected), "{expected} in {leaks}");
    }
    assert_eq!(aclrtDestroyContext(machine.context), 0);
    assert!(machine.leaks().contains("when its context was destroyed"));
}

#[test]
fn a_stream_is_destroyed_after_its_work() {
    let machine = Machine::new();
    let (_, executor) = plan_doubling(tensor(upload(&[1.0; 8]), F32, &[8]));
    assert_eq!(run_doubling(executor, machine.stream), 0);
    assert_eq!(aclrtDestroyStream(machine.stream), status::PARAM_INVALID);
}

#[test]
fn faults_happen_where_they_were_asked_for() {
    let machine = broken(Fault::Launch(2));
    let x = tensor(upload(&[1.0; 8]), F32, &[8]);
    for expected in [0, status::AICORE_EXCEPTION] {
        let (_, executor) = plan_doubling(x);
        assert_eq!(run_doubling(executor, machine.stream), 0);
        assert_eq!(machine.wait(), expected);
    }
    drop(machine);
    let machine = broken(Fault::Allocation(1));
    let mut address = 0;
    assert_eq!(aclrtMalloc(&raw mut address, 32, 0), status::MEMORY_ALLOCATION);
    drop(machine);
    let machine = broken(Fault::DeviceLost(4));
    assert_eq!(machine.wait(), status::LOST_HEARTBEAT);
}
