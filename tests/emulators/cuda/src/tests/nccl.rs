//! The library of collectives: two devices, each with a context, a stream and memory.

use std::thread;
use std::time::Duration;

use emulator_common::fault::Fault;
use gpu_emulator::Nccl;
use gpu_emulator::nccl::result;

use super::*;
use crate::api::graph;
use crate::api::nccl::*;

const F32: i32 = 7;
const BF16: i32 = 9;
const SUM: i32 = 0;

/// One device's part: its context, its communicator, a stream and four floats.
#[derive(Clone, Copy)]
struct Rank {
    context: u64,
    communicator: u64,
    stream: u64,
    x: u64,
}

impl Rank {
    fn bind(&self) {
        assert_eq!(context::cuCtxSetCurrent(self.context), status::SUCCESS);
    }

    fn upload(&self, values: [f32; 4]) {
        self.bind();
        upload(self.x, &values, self.stream);
    }

    fn download(&self) -> Vec<f32> {
        self.bind();
        download(self.x, 4, self.stream)
    }

    /// Queues the sum of the first `count` floats.
    fn sum(&self, count: usize) -> Status {
        self.bind();
        ncclAllReduce(self.x, self.x, count, F32, SUM, self.communicator, self.stream)
    }

    fn synchronize(&self) -> Status {
        self.bind();
        stream::cuStreamSynchronize(self.stream)
    }

    /// Records the sum of four floats.
    fn capture(&self) -> u64 {
        self.bind();
        assert_eq!(stream::cuStreamBeginCapture_v2(self.stream, 1), status::SUCCESS);
        assert_eq!(self.sum(4), result::SUCCESS);
        let captured: u64 = get(|to| stream::cuStreamEndCapture(self.stream, to));
        let executable = get(|to| graph::cuGraphInstantiateWithFlags(to, captured, 0));
        assert_eq!(graph::cuGraphDestroy(captured), status::SUCCESS);
        executable
    }

    fn replay(&self, executable: u64) -> Status {
        self.bind();
        graph::cuGraphLaunch(executable, self.stream)
    }

    fn destroy_graph(&self, executable: u64) {
        self.bind();
        assert_eq!(graph::cuGraphExecDestroy(executable), status::SUCCESS);
    }

    /// Gives back all but the communicator.
    fn give_back(&self, device: i32) {
        self.bind();
        assert_eq!(memory::cuMemFree_v2(self.x), status::SUCCESS);
        assert_eq!(stream::cuStreamDestroy_v2(self.stream), status::SUCCESS);
        assert_eq!(context::cuDevicePrimaryCtxRelease_v2(device), status::SUCCESS);
    }
}

/// Two devices.
fn config(fault: Option<Fault>) -> Config<Cuda> {
    common(Common { num_devices: 2, fault, ..Common::default() })
}

fn contexts() -> [u64; 2] {
    assert_eq!(devices::cuInit(0), status::SUCCESS);
    [0, 1].map(|device| get(|to| context::cuDevicePrimaryCtxRetain(to, device)))
}

fn init(devices: &[i32]) -> (Status, [u64; 2]) {
    let mut made = [0; 2];
    (ncclCommInitAll(made.as_mut_ptr(), devices.len() as i32, devices.as_ptr()), made)
}

fn pair_of(config: Config<Cuda>) -> (Machine, [Rank; 2]) {
    let machine = Machine::cold(config);
    let contexts = contexts();
    let (status, communicators) = init(&[0, 1]);
    assert_eq!(status, result::SUCCESS);
    let ranks = [0, 1].map(|rank| {
        assert_eq!(context::cuCtxSetCurrent(contexts[rank]), status::SUCCESS);
        let rank =
            Rank { context: contexts[rank], communicator: communicators[rank], stream: new_stream(), x: alloc(16) };
        rank.upload([1.0; 4]);
        rank
    });
    (machine, ranks)
}

fn pair_with(fault: Option<Fault>) -> (Machine, [Rank; 2]) {
    pair_of(config(fault))
}

fn pair() -> (Machine, [Rank; 2]) {
    pair_with(None)
}

/// Two devices that wait a second for each other.
fn impatient_pair() -> (Machine, [Rank; 2]) {
    pair_of(Config { nccl: Nccl { patience_s: 1, ..Nccl::default() }, ..config(None) })
}

/// Runs one rank in a thread beside this one.
fn beside<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::spawn(body)
}

#[test]
fn sums_are_everywhere_when_the_stream_was_waited_for() {
    let (_machine, [first, second]) = pair();
    second.upload([2.0, 4.0, 6.0, 8.0]);
    assert_eq!(second.synchronize(), status::SUCCESS);
    assert_eq!(beside(move || second.sum(4)).join().unwrap(), result::SUCCESS);
    assert_eq!(first.sum(4), result::SUCCESS);
    let mut value = 0.0_f32;
    emulator_common::memory::copy(second.x, &raw mut value as u64, 4);
    assert_eq!(value, 2.0, "nobody has waited");
    assert_eq!(first.download(), [3.0, 5.0, 7.0, 9.0]);
    assert_eq!(second.download(), [3.0, 5.0, 7.0, 9.0]);
}

#[test]
fn a_rank_waits_for_one_that_comes_later() {
    let (_machine, [first, second]) = pair();
    let other = beside(move || {
        thread::sleep(Duration::from_millis(50));
        assert_eq!(second.sum(4), result::SUCCESS);
        second.download()
    });
    assert_eq!(first.sum(4), result::SUCCESS);
    assert_eq!(first.download(), [2.0; 4]);
    assert_eq!(other.join().unwrap(), [2.0; 4]);
}

#[test]
fn values_of_bf16_are_rounded_once() {
    let (_machine, ranks) = pair();
    let values = [[1.0_f32, 256.0], [1.0, 1.0]].map(|values| values.map(|value| (value.to_bits() >> 16) as u16));
    assert_eq!(ncclGroupStart(), result::SUCCESS);
    for (rank, values) in ranks.iter().zip(values) {
        rank.bind();
        let from = values.as_ptr().cast();
        assert_eq!(memory::cuMemcpyHtoDAsync_v2(rank.x, from, 4, rank.stream), status::SUCCESS);
        let queued = ncclAllReduce(rank.x, rank.x, 2, BF16, SUM, rank.communicator, rank.stream);
        assert_eq!(queued, result::SUCCESS);
    }
    assert_eq!(ncclGroupEnd(), result::SUCCESS);
    // 257 lies halfway between two values of bf16: the even one is 256.
    for rank in ranks {
        let bits = rank.download()[0].to_bits();
        assert_eq!([bits << 16, bits & 0xffff_0000].map(f32::from_bits), [2.0, 256.0]);
    }
}

#[test]
fn one_thread_queues_for_several_ranks_in_a_section_only() {
    let (_machine, [first, second]) = pair();
    assert_eq!(first.sum(4), result::SUCCESS);
    assert_eq!(second.sum(4), result::INVALID_USAGE);
    assert_eq!(ncclGroupEnd(), result::INVALID_USAGE, "nobody started one");
}

#[test]
fn a_section_with_a_call_that_is_refused_makes_none() {
    let (_machine, [first, second]) = pair();
    assert_eq!(ncclGroupStart(), result::SUCCESS);
    assert_eq!([first.sum(4), second.sum(5)], [result::SUCCESS, result::INVALID_ARGUMENT]);
    assert_eq!(ncclGroupEnd(), result::INVALID_ARGUMENT);
    assert_eq!(first.synchronize(), status::SUCCESS, "nothing was queued");
    assert_eq!(ncclGroupStart(), result::SUCCESS);
    assert_eq!([first.sum(4), second.sum(4), ncclGroupEnd()], [result::SUCCESS; 3], "the next is another");
}

#[test]
fn a_rank_that_never_comes_is_a_hang_that_is_told() {
    let (machine, [first, second]) = impatient_pair();
    assert_eq!(first.sum(4), result::SUCCESS);
    assert_eq!(first.synchronize(), status::LAUNCH_TIMEOUT);
    assert_eq!(first.synchronize(), status::LAUNCH_TIMEOUT, "it stays lost");
    assert_eq!(second.synchronize(), status::SUCCESS, "the other is not");
    assert!(machine.leaks().iter().any(|leak| leak.contains("communicator of rank 1, on device 1")));
}

#[test]
fn every_replay_is_a_collective_again() {
    let (_machine, ranks) = impatient_pair();
    let graphs = ranks.map(|rank| beside(move || rank.capture()).join().unwrap());
    for expected in [2.0, 4.0] {
        for (rank, graph) in ranks.iter().zip(graphs) {
            assert_eq!(rank.replay(graph), status::SUCCESS);
        }
        for rank in &ranks {
            assert_eq!(rank.download(), [expected; 4]);
        }
    }
    assert_eq!(ranks[0].replay(graphs[0]), status::SUCCESS);
    assert_eq!(ranks[0].synchronize(), status::LAUNCH_TIMEOUT, "the other does not replay");
}

#[test]
fn ranks_that_disagree_are_told_how() {
    let (_machine, [first, second]) = pair();
    assert_eq!(beside(move || second.sum(3)).join().unwrap(), result::SUCCESS);
    assert_eq!(first.sum(4), result::SUCCESS);
    assert_eq!(first.synchronize(), status::LAUNCH_FAILED);
    assert_eq!(second.synchronize(), status::LAUNCH_FAILED);
}

#[test]
fn what_is_summed_lies_whole_in_one_allocation_of_the_device() {
    let (_machine, [first, second]) = pair();
    first.bind();
    let sum = |from: u64, to: u64, count: usize, [data_type, operation]: [i32; 2]| {
        ncclAllReduce(from, to, count, data_type, operation, first.communicator, first.stream)
    };
    let x = first.x;
    for (refused, why) in [
        (sum(x, x, 5, [F32, SUM]), "longer than the allocation"),
        (sum(x + 2, x + 2, 1, [F32, SUM]), "not aligned"),
        (sum(second.x, second.x, 4, [F32, SUM]), "another device's"),
        (sum(x, x + 4, 3, [F32, SUM]), "over its own input"),
        (sum(x, x, 0, [F32, SUM]), "nothing"),
        (sum(x, x, 4, [6, SUM]), "a type that is not modelled"),
        (sum(x, x, 4, [F32, 4]), "an operation that is not modelled"),
    ] {
        assert_eq!(refused, result::INVALID_ARGUMENT, "{why}");
    }
}

#[test]
fn memory_that_is_gone_when_a_replay_comes_is_noticed() {
    let (_machine, [first, second]) = pair();
    let graph = first.capture();
    assert_eq!(memory::cuMemFree_v2(first.x), status::SUCCESS);
    assert_eq!(first.replay(graph), status::SUCCESS);
    assert_eq!(beside(move || second.sum(4)).join().unwrap(), result::SUCCESS);
    assert_eq!(first.synchronize(), status::ILLEGAL_ADDRESS);
}

#[test]
fn a_communicator_works_on_its_own_device_and_stream() {
    let (_machine, [first, second]) = pair();
    second.bind();
    let on = |rank: &Rank| ncclAllReduce(second.x, second.x, 4, F32, SUM, rank.communicator, second.stream);
    assert_eq!(on(&first), result::INVALID_ARGUMENT, "the thread works on the other device");
    let with = |stream| ncclAllReduce(second.x, second.x, 4, F32, SUM, second.communicator, stream);
    assert_eq!(with(first.stream), result::UNHANDLED_CUDA_ERROR, "a stream of the other device");
    assert_eq!(on(&second), result::SUCCESS);
}

#[test]
fn groups_are_made_of_distinct_devices_that_are_there() {
    let _machine = Machine::cold(config(None));
    assert_eq!(init(&[0, 1]).0, result::UNHANDLED_CUDA_ERROR, "not initialised");
    assert_eq!(devices::cuInit(0), status::SUCCESS);
    assert_eq!(init(&[0, 1]).0, result::INVALID_USAGE, "not opened");
    contexts();
    assert_eq!(init(&[0, 0]).0, result::INVALID_USAGE, "twice");
    assert_eq!(init(&[0, 2]).0, result::UNHANDLED_CUDA_ERROR, "no such device");
    assert_eq!(get(|to| ncclGetVersion(to)), 22_100);
    assert_eq!(emulator_common::caller::text(ncclGetErrorString(result::INVALID_USAGE)).unwrap(), "invalid usage");
}

#[test]
fn communicators_are_not_made_while_a_device_records() {
    let _machine = Machine::cold(config(None));
    let [first, _] = contexts();
    assert_eq!(context::cuCtxSetCurrent(first), status::SUCCESS);
    assert_eq!(stream::cuStreamBeginCapture_v2(new_stream(), 1), status::SUCCESS);
    assert_eq!(init(&[0, 1]).0, result::UNHANDLED_CUDA_ERROR);
}

#[test]
fn what_has_ended_is_not_used_again() {
    for end in [ncclCommDestroy, ncclCommAbort] {
        let (_machine, [first, second]) = pair();
        let graph = first.capture();
        assert_eq!(end(first.communicator), result::SUCCESS);
        assert_eq!(first.sum(4), result::INVALID_ARGUMENT);
        assert_eq!(first.replay(graph), status::INVALID_HANDLE);
        assert_eq!(end(first.communicator), result::INVALID_ARGUMENT);
        assert_eq!(ncclCommGetAsyncError(first.communicator, &mut 0), result::INVALID_ARGUMENT);
        assert_eq!(end(second.communicator + 1), result::INVALID_ARGUMENT, "never was one");
    }
}

#[test]
fn a_communicator_with_work_is_not_destroyed() {
    let (_machine, [first, second]) = pair();
    assert_eq!(first.sum(4), result::SUCCESS);
    assert_eq!(ncclCommDestroy(first.communicator), result::INVALID_USAGE);
    assert_eq!(beside(move || second.sum(4)).join().unwrap(), result::SUCCESS);
    assert_eq!((first.synchronize(), second.synchronize()), (status::SUCCESS, status::SUCCESS));
    assert_eq!(ncclCommDestroy(first.communicator), result::SUCCESS);
}

#[test]
fn the_last_of_a_group_ends_after_the_graphs_that_hold_it() {
    for end in [ncclCommDestroy, ncclCommAbort] {
        let (_machine, [first, second]) = pair();
        let graph = first.capture();
        assert_eq!(end(first.communicator), result::SUCCESS);
        let last = beside(move || end(second.communicator));
        thread::sleep(Duration::from_millis(50));
        assert!(!last.is_finished(), "it waits");
        first.destroy_graph(graph);
        assert_eq!(last.join().unwrap(), result::SUCCESS);
    }
}

#[test]
fn an_abort_brings_back_who_waits() {
    let (machine, [first, second]) = pair();
    assert_eq!(first.sum(4), result::SUCCESS);
    let waiting = beside(move || {
        let status = first.synchronize();
        assert_eq!(first.download(), [1.0; 4], "without a result");
        status
    });
    thread::sleep(Duration::from_millis(50));
    assert_eq!(ncclCommAbort(second.communicator), result::SUCCESS);
    thread::sleep(Duration::from_millis(50));
    assert!(!waiting.is_finished(), "the other rank's own abort is what counts");
    assert_eq!(ncclCommAbort(first.communicator), result::SUCCESS);
    assert_eq!(waiting.join().unwrap(), status::SUCCESS);
    first.give_back(0);
    second.give_back(1);
    assert_eq!(machine.leaks(), Vec::<String>::new());
}

#[test]
fn what_was_not_ended_is_a_leak() {
    let (machine, [first, second]) = pair();
    assert_eq!(ncclCommDestroy(first.communicator), result::SUCCESS);
    first.give_back(0);
    second.give_back(1);
    assert_eq!(machine.leaks(), ["the communicator of rank 1, on device 1"]);
    assert_eq!(ncclCommDestroy(second.communicator), result::SUCCESS);
    assert_eq!(machine.leaks(), Vec::<String>::new());
}

#[test]
fn injected_faults_come_where_they_were_asked_for() {
    let machine = Machine::cold(config(Some(Fault::Group(1))));
    contexts();
    assert_eq!(init(&[0, 1]).0, result::SYSTEM_ERROR);
    assert_eq!(init(&[0, 1]).0, result::SUCCESS);
    drop(machine);

    let (machine, [first, _]) = pair_with(Some(Fault::Collective(2)));
    assert_eq!([first.sum(4), first.sum(4)], [result::SUCCESS, result::SYSTEM_ERROR]);
    drop(machine);

    let (_machine, [first, second]) = pair_with(Some(Fault::Sum(2)));
    for (expected, error) in [(2.0, result::SUCCESS), (2.0, result::REMOTE_ERROR)] {
        assert_eq!(beside(move || second.sum(4)).join().unwrap(), result::SUCCESS);
        assert_eq!(first.sum(4), result::SUCCESS);
        assert_eq!((first.download(), second.download()), (vec![expected; 4], vec![expected; 4]));
        for rank in [first, second] {
            assert_eq!(get(|to| ncclCommGetAsyncError(rank.communicator, to)), error);
        }
    }
}

#[test]
fn a_rank_that_fails_on_its_device_leaves_the_other_to_be_aborted() {
    let (_machine, [first, second]) = pair_with(Some(Fault::Launch(1)));
    second.bind();
    assert_eq!(scale(function(c"scale"), second.stream, second.x, second.x, 4, 2.0), status::SUCCESS);
    assert_eq!(beside(move || second.sum(4)).join().unwrap(), result::SUCCESS);
    assert_eq!(first.sum(4), result::SUCCESS);
    let waiting = beside(move || first.synchronize());
    thread::sleep(Duration::from_millis(50));
    assert_eq!(second.synchronize(), status::LAUNCH_FAILED);
    for rank in [first, second] {
        assert_eq!(ncclCommAbort(rank.communicator), result::SUCCESS);
    }
    assert_eq!(waiting.join().unwrap(), status::SUCCESS);
}
