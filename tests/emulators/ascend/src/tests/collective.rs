//! Groups of devices and their sums, each rank on a thread of its own.

use std::sync::Barrier;
use std::thread;

use super::*;
use crate::abi::hccl;
use crate::api::hccl::{HcclAllReduce, HcclCommDestroy, HcclCommInitAll, HcclGetCommAsyncError, HcclGetErrorString};
use crate::api::memory::aclrtFree;
use crate::api::runtime::{aclrtDestroyContext, aclrtDestroyStream, aclrtSetCurrentContext, aclrtStreamAbort};

/// `HcclDataType` and `HcclReduceOp`.
const FP32: u32 = 4;
const BFP16: u32 = 11;
const SUM: u32 = 0;
const PROD: u32 = 1;

/// A rank: its context, a stream and a communicator.
#[derive(Debug, Clone, Copy)]
struct Rank {
    index: usize,
    context: u64,
    stream: u64,
    communicator: u64,
}

impl Rank {
    /// Sums eight floats in place.
    fn sum(&self, address: u64) -> Status {
        HcclAllReduce(address, address, 8, FP32, SUM, self.communicator, self.stream)
    }

    fn wait(&self) -> Status {
        aclrtSynchronizeStream(self.stream)
    }
}

/// A machine of several devices with a group over all of them.
struct Devices {
    ranks: Vec<Rank>,
    machine: Machine,
}

impl Devices {
    fn with(count: u32, config: Config) -> Self {
        let common = Common { num_devices: count, ..config.common };
        let machine = Machine::with(Config { common, ..config });
        let mut contexts = vec![(machine.context, machine.stream)];
        for device in 1..count {
            let context = get(|to| aclrtCreateContext(to, device as i32));
            contexts.push((context, get(|to| aclrtCreateStream(to))));
        }
        let devices: Vec<i32> = (0..count as i32).collect();
        let mut communicators = vec![0; devices.len()];
        assert_eq!(HcclCommInitAll(count, devices.as_ptr(), communicators.as_mut_ptr()), 0, "{}", words());
        let rank = |(index, ((context, stream), communicator))| Rank { index, context, stream, communicator };
        let ranks = contexts.into_iter().zip(communicators).enumerate().map(rank).collect();
        Self { ranks, machine }
    }

    fn new(count: u32) -> Self {
        Self::with(count, Config::default())
    }

    fn impatient() -> Self {
        Self::with(2, Config { patience_s: 0, ..Config::default() })
    }

    fn broken(fault: Fault) -> Self {
        Self::with(2, Config { common: Common { fault: Some(fault), ..Common::default() }, ..Config::default() })
    }

    /// Runs something as each rank, and gives what came of it in order.
    fn on_each<T: Send>(&self, run: impl Fn(Rank) -> T + Sync) -> Vec<T> {
        let as_rank = |rank: Rank| {
            assert_eq!(aclrtSetCurrentContext(rank.context), 0);
            run(rank)
        };
        thread::scope(|scope| {
            let threads: Vec<_> = self.ranks.iter().map(|rank| scope.spawn(|| as_rank(*rank))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }
}

#[test]
fn sums_follow_the_streams_and_are_the_same_on_every_rank() {
    let devices = Devices::new(3);
    let results = devices.on_each(|rank| {
        let address = upload(&[1.0 + rank.index as f32; 8]);
        let (_, executor) = plan_doubling(tensor(address, F32, &[8]));
        let queued = [rank.sum(address), run_doubling(executor, rank.stream), rank.sum(address)];
        assert_eq!(queued, [0; 3], "{}", words());
        assert_eq!(rank.wait(), 0, "{}", words());
        download(address, 8)
    });
    assert_eq!(results, vec![vec![36.0; 8]; 3]);
}

#[test]
fn bf16_is_summed_in_f32_and_rounded_once() {
    // In bf16, 256 + 1 + 1 is 256 if it is rounded after each addition.
    let shares: [u16; 3] = [0x4380, 0x3f80, 0x3f80];
    let results = Devices::new(3).on_each(|rank| {
        let pair = u32::from(shares[rank.index]) << 16 | u32::from(shares[rank.index]);
        let address = upload(&[f32::from_bits(pair)]);
        let (from, to) = (address, alloc(32));
        assert_eq!(HcclAllReduce(from, to, 2, BFP16, SUM, rank.communicator, rank.stream), 0);
        assert_eq!(rank.wait(), 0);
        (download(from, 1)[0].to_bits() == pair, download(to, 1)[0].to_bits())
    });
    assert_eq!(results, [(true, 0x4381_4381); 3]);
}

#[test]
fn groups_are_of_distinct_devices_that_are_open() {
    let devices = Devices::new(2);
    let mut made = [0; 2];
    for (count, ordinals, status, expected) in [
        (0, &[0, 1], hccl::PARA, "no devices"),
        (2, &[1, 1], hccl::PARA, "named twice"),
        (2, &[0, 7], hccl::PARA, "was not opened"),
    ] {
        assert_eq!(HcclCommInitAll(count, ordinals.as_ptr(), made.as_mut_ptr()), status, "{expected}");
        let said = words();
        assert!(said.contains(expected), "{said}");
    }
    assert_eq!(HcclCommInitAll(2, std::ptr::null(), made.as_mut_ptr()), hccl::PTR);
    let without_context = thread::spawn(|| {
        let mut made = [0; 2];
        HcclCommInitAll(2, [0, 1].as_ptr(), made.as_mut_ptr())
    });
    assert_eq!(without_context.join().unwrap(), hccl::RUNTIME);
    drop(devices);
    let broken = Machine::with(Config {
        common: Common { num_devices: 2, fault: Some(Fault::Group(1)), ..Common::default() },
        ..Config::default()
    });
    assert_eq!(HcclCommInitAll(1, [0].as_ptr(), made.as_mut_ptr()), hccl::INTERNAL);
    assert!(words().contains("injected: group 1"));
    drop(broken);
}

#[test]
fn calls_are_of_the_device_its_stream_and_its_memory() {
    let devices = Devices::new(2);
    let [first, second] = [devices.ranks[0], devices.ranks[1]];
    let refused = |status: Status, expected: (Status, &str)| {
        let said = words();
        assert_eq!(status, expected.0, "{expected:?}: {said}");
        assert!(said.contains(expected.1), "{said}, not {expected:?}");
    };
    let foreign = upload(&[1.0; 8]);
    assert_eq!(aclrtSetCurrentContext(first.context), 0);
    let address = alloc(64);
    let call = |from, to, count, data_type, operation| {
        HcclAllReduce(from, to, count, data_type, operation, first.communicator, first.stream)
    };
    refused(call(address, address, 0, FP32, SUM), (hccl::PARA, "a sum of nothing"));
    refused(call(address, address, 17, FP32, SUM), (hccl::PARA, "allocation of 64 bytes"));
    refused(call(address + 2, address + 2, 4, FP32, SUM), (hccl::PARA, "not aligned"));
    refused(call(address + 1, address + 1, 4, BFP16, SUM), (hccl::PARA, "not aligned"));
    refused(call(address, address + 8, 8, FP32, SUM), (hccl::PARA, "lies in them"));
    refused(call(foreign, foreign, 8, FP32, SUM), (hccl::PARA, "in no live allocation"));
    refused(call(address, address, 8, 3, SUM), (hccl::NOT_SUPPORT, "values of type 3"));
    refused(call(address, address, 8, BFP16, PROD), (hccl::NOT_SUPPORT, "operation 1"));
    let sum = |communicator, stream| HcclAllReduce(address, address, 8, FP32, SUM, communicator, stream);
    refused(sum(first.communicator, second.stream), (hccl::RUNTIME, "no live stream"));
    refused(sum(second.communicator, first.stream), (hccl::PARA, "the thread works on 0"));
    refused(sum(first.stream, first.stream), (hccl::PTR, "is no communicator"));
    assert_eq!(sum(first.communicator, first.stream), 0);
    assert_eq!(aclrtSetCurrentContext(second.context), 0);
    refused(second.sum(foreign), (hccl::PARA, "one thread queues collectives of ranks 0 and 1"));
}

#[test]
fn ranks_that_disagree_break_their_group() {
    for (count, data_type) in [(4, FP32), (8, BFP16)] {
        let devices = Devices::new(2);
        let said = devices.on_each(|rank| {
            let address = upload(&[1.0; 8]);
            let (count, data_type) = if rank.index == 1 { (count, data_type) } else { (8, FP32) };
            assert_eq!(HcclAllReduce(address, address, count, data_type, SUM, rank.communicator, rank.stream), 0);
            assert_eq!(rank.wait(), status::AICORE_EXCEPTION);
            words()
        });
        assert!(said.iter().all(|said| said.contains("rank 0 sums 8 F32, rank 1 sums")), "{said:?}");
    }
}

#[test]
fn memory_of_a_sum_lives_until_its_turn() {
    let devices = Devices::new(2);
    let outcomes = devices.on_each(|rank| {
        let address = upload(&[1.0; 8]);
        assert_eq!(rank.sum(address), 0);
        if rank.index == 1 {
            assert_eq!(aclrtFree(address), 0);
            assert_eq!(rank.wait(), status::AICORE_EXCEPTION);
            // The other waits for what will never come.
            assert_eq!(aclrtSetCurrentContext(devices.ranks[0].context), 0);
            assert_eq!(aclrtStreamAbort(devices.ranks[0].stream), 0);
            return (true, 0);
        }
        (false, rank.wait())
    });
    assert!(outcomes[1].0 && [0, status::STREAM_ABORT].contains(&outcomes[0].1), "{outcomes:?}");
}

#[test]
fn a_rank_that_does_not_come_is_named() {
    let devices = Devices::impatient();
    let outcomes = devices.on_each(|rank| {
        if rank.index == 1 {
            return (0, String::new());
        }
        let address = upload(&[1.0; 8]);
        assert_eq!(rank.sum(address), 0);
        (rank.wait(), words())
    });
    let (status, said) = &outcomes[0];
    assert_eq!(*status, status::TASK_TIMEOUT);
    assert!(said.contains("rank 0 of 2 is at its collective 1, ranks [1] are not"), "{said}");
}

#[test]
fn an_aborted_stream_lets_who_waits_go_and_ends_the_group() {
    let devices = Devices::new(2);
    let both = Barrier::new(2);
    let outcomes = devices.on_each(|rank| {
        let address = upload(&[3.0; 8]);
        if rank.index == 0 {
            assert_eq!(rank.sum(address), 0);
            both.wait();
            let waited = rank.wait();
            both.wait();
            return (waited, rank.wait(), rank.sum(address), words(), download(address, 8));
        }
        both.wait();
        // Until the other one waits.
        while !machine::lock().unwrap().as_ref().unwrap().contexts[&devices.ranks[0].context].streams
            [&devices.ranks[0].stream]
            .is_awaited
        {
            thread::yield_now();
        }
        assert_eq!(aclrtStreamAbort(devices.ranks[0].stream), status::STREAM_CONTEXT, "another context's");
        assert_eq!(aclrtSetCurrentContext(devices.ranks[0].context), 0);
        assert_eq!(aclrtStreamAbort(devices.ranks[0].stream), 0);
        both.wait();
        (0, 0, 0, String::new(), Vec::new())
    });
    let (waited, again, summed, said, values) = &outcomes[0];
    assert_eq!((*waited, *again, *summed), (status::STREAM_ABORT, 0, hccl::INTERNAL));
    assert!(said.contains("a collective of rank 0 was aborted"), "{said}");
    assert_eq!(*values, [3.0; 8]);
}

#[test]
fn communicators_end_after_their_work_and_once() {
    let devices = Devices::new(2);
    let [first, second] = [devices.ranks[0], devices.ranks[1]];
    assert!(devices.machine.leaks().contains("the communicator of rank 1, on device 1"));
    assert_eq!(HcclCommDestroy(first.communicator), hccl::PARA, "the thread works on device 1");
    let address = upload(&[1.0; 8]);
    assert_eq!(second.sum(address), 0);
    assert_eq!(HcclCommDestroy(second.communicator), hccl::PARA);
    assert!(words().contains("still queued"));
    assert_eq!(aclrtStreamAbort(second.stream), 0);
    assert_eq!((HcclCommDestroy(second.communicator), HcclCommDestroy(second.communicator)), (0, hccl::PTR));
    assert!(words().contains("was destroyed"));
    assert_eq!(second.sum(address), hccl::PTR);
    let mut error = 7;
    assert_eq!(HcclGetCommAsyncError(second.communicator, &raw mut error), hccl::PTR);
    assert_eq!((HcclGetCommAsyncError(first.communicator, &raw mut error), error), (0, 0));
    assert_eq!((aclrtDestroyStream(second.stream), aclrtDestroyContext(second.context)), (0, 0));
    assert_eq!((aclrtSetCurrentContext(first.context), HcclCommDestroy(first.communicator)), (0, 0));
    assert!(!devices.machine.leaks().contains("communicator"));
}

/// What runs on one device does not keep the other one's communicator.
#[test]
fn a_lost_device_takes_its_sums_with_it() {
    let devices = Devices::broken(Fault::Launch(1));
    let rank = devices.ranks[1];
    let address = upload(&[1.0; 8]);
    let (_, executor) = plan_doubling(tensor(address, F32, &[8]));
    assert_eq!((run_doubling(executor, rank.stream), rank.sum(address)), (0, 0));
    assert_eq!(rank.wait(), status::AICORE_EXCEPTION);
    assert_eq!(aclrtDestroyStream(rank.stream), status::AICORE_EXCEPTION);
    assert!(!devices.machine.leaks().contains("rank 1"));
    assert_eq!((HcclCommDestroy(rank.communicator), aclrtDestroyContext(rank.context)), (0, 0));
}

#[test]
fn sums_fail_where_they_were_asked_to() {
    let devices = Devices::broken(Fault::Collective(1));
    let address = upload(&[1.0; 8]);
    let statuses = [devices.ranks[1].sum(address), devices.ranks[1].sum(address)];
    assert_eq!(statuses, [hccl::INTERNAL, 0]);
    drop(devices);
    let devices = Devices::broken(Fault::Sum(1));
    let outcomes = devices.on_each(|rank| {
        let address = upload(&[1.0; 8]);
        assert_eq!((rank.sum(address), rank.wait()), (0, 0));
        let mut error = 0;
        assert_eq!(HcclGetCommAsyncError(rank.communicator, &raw mut error), 0);
        (download(address, 8)[0], error)
    });
    assert_eq!(outcomes, [(1.0, hccl::REMOTE); 2]);
}

#[test]
fn results_have_words() {
    let words = |status| crate::api::text(HcclGetErrorString(status));
    assert_eq!(
        (words(0), words(hccl::REMOTE), words(99)),
        ("no error".into(), "error cqe".into(), "unknown error".into())
    );
}
