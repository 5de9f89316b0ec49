//! Executors that are queued again and again.

use super::*;
use crate::api::descriptor::{aclDestroyAclOpExecutor, aclDestroyTensor, aclSetAclOpExecutorRepeatable};
use crate::api::memory::aclrtFree;
use crate::ops::elementwise::{aclnnInplaceCopy, aclnnInplaceCopyGetWorkspaceSize};

/// Plans a copy.
fn plan(to: u64, from: u64) -> u64 {
    let (mut bytes, mut executor) = (0, 0);
    assert_eq!(aclnnInplaceCopyGetWorkspaceSize(to, from, &raw mut bytes, &raw mut executor), 0);
    executor
}

fn queue(executor: u64, stream: u64) -> Status {
    aclnnInplaceCopy(0, 0, executor, stream)
}

/// Two tensors of eight floats: to, and from.
fn pair() -> ([u64; 2], [u64; 2]) {
    let addresses = [alloc(32), upload(&[1.0; 8])];
    (addresses.map(|address| tensor(address, F32, &[8])), addresses)
}

#[test]
fn it_reads_its_memory_each_time() {
    let machine = Machine::new();
    let ([to, from], [to_address, from_address]) = pair();
    let executor = plan(to, from);
    assert_eq!(aclSetAclOpExecutorRepeatable(executor), 0);
    for value in [1.0_f32, 2.0, 3.0] {
        let values = [value; 8];
        assert_eq!(aclrtMemcpy(from_address, 32, values.as_ptr() as u64, 32, 1), 0);
        assert_eq!((queue(executor, machine.stream), machine.wait()), (0, 0));
        assert_eq!(download(to_address, 8), values);
    }
    assert_eq!((aclDestroyAclOpExecutor(executor), aclDestroyAclOpExecutor(executor)), (0, status::INVALID));
    assert_eq!(queue(executor, machine.stream), status::NULL_EXECUTOR);
}

#[test]
fn it_is_made_so_right_after_it_was_planned() {
    let machine = Machine::new();
    let ([to, from], _) = pair();
    let executor = plan(to, from);
    let later = plan(to, from);
    assert_eq!(aclSetAclOpExecutorRepeatable(executor), status::INVALID);
    assert!(words().contains("another operator was planned after aclnnInplaceCopy"));
    assert_eq!(queue(later, machine.stream), 0);
    assert_eq!(aclSetAclOpExecutorRepeatable(later), status::NULL_EXECUTOR, "used up");
    assert_eq!(aclSetAclOpExecutorRepeatable(0), status::NULL_EXECUTOR);
    assert_eq!((queue(executor, machine.stream), queue(executor, machine.stream)), (0, status::NULL_EXECUTOR));
}

#[test]
fn an_operator_with_a_scalar_is_planned_each_time() {
    let machine = Machine::new();
    let (_, executor) = plan_doubling(tensor(upload(&[1.0; 8]), F32, &[8]));
    assert_eq!(aclSetAclOpExecutorRepeatable(executor), status::INVALID);
    assert!(words().contains("aclnnInplaceMuls cannot be repeated: it has a scalar"));
    assert_eq!(
        (run_doubling(executor, machine.stream), run_doubling(executor, machine.stream)),
        (0, status::NULL_EXECUTOR)
    );
}

#[test]
fn what_it_refers_to_lives_as_long() {
    let machine = Machine::new();
    let ([to, from], [to_address, _]) = pair();
    let executor = plan(to, from);
    assert_eq!(aclSetAclOpExecutorRepeatable(executor), 0);
    assert!(machine.leaks().contains("an executor of aclnnInplaceCopy, never destroyed"), "{}", machine.leaks());
    assert_eq!((queue(executor, machine.stream), machine.wait(), aclDestroyTensor(from)), (0, 0, 0));
    assert_eq!(queue(executor, machine.stream), status::INVALID);
    assert!(words().contains("destroyed between"));
    let from = tensor(upload(&[1.0; 8]), F32, &[8]);
    let executor = plan(to, from);
    assert_eq!((aclSetAclOpExecutorRepeatable(executor), queue(executor, machine.stream)), (0, 0));
    assert_eq!((machine.wait(), aclrtFree(to_address), queue(executor, machine.stream)), (0, 0, 0));
    assert_eq!(machine.wait(), status::AICORE_EXCEPTION, "its memory was freed");
}

#[test]
fn the_record_counts_what_was_asked_for() {
    let machine = Machine::new();
    let ([to, from], _) = pair();
    let executor = plan(to, from);
    assert_eq!(aclSetAclOpExecutorRepeatable(executor), 0);
    (0..3).for_each(|_| assert_eq!(queue(executor, machine.stream), 0));
    let mut address = 0;
    assert_ne!(aclrtMalloc(&raw mut address, 33, 0), 0, "does not count");
    let record = machine::lock().unwrap().as_ref().unwrap().record;
    assert_eq!(record.to_string(), "record: 2 allocations, 1 executors, 3 operators");
    assert_eq!(machine.wait(), 0);
}
