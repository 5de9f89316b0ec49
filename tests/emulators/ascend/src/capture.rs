//! Work that is recorded: graphs, groups of tasks in them that are updated between replays, and the events that order the two.
//!
//! What an operator was planned with is in its task. So what it read on the host when it was planned stays as it was, replay
//! after replay, until an update puts another task in its place. A graph waits for its updates by events, which are recorded
//! behind them on another stream.

use std::collections::BTreeMap;
use std::thread::{self, ThreadId};

use crate::abi::status;
use crate::machine::{Failure, Kind, Machine, Outcome};
use crate::operator::Launch;
use crate::stream::{Op, Progress, Stream};

/// `aclmdlRICaptureMode`: whose unsafe calls are refused meanwhile. Everybody's, the capturing thread's, nobody's.
const GLOBAL: u32 = 0;
const THREAD_LOCAL: u32 = 1;
const RELAXED: u32 = 2;

/// A stream that is being recorded.
#[derive(Debug)]
pub(crate) struct Capture {
    ops: Vec<Op>,
    groups: Vec<u64>,
    /// Tasks of the group that is open.
    open_group: Option<Vec<Launch>>,
    /// Why it cannot be ended well any more.
    spoiled: Option<String>,
    mode: u32,
    thread: ThreadId,
}

/// What the tasks of a group are to be replaced by.
#[derive(Debug)]
pub(crate) struct Update {
    group: u64,
    launches: Vec<Launch>,
}

#[derive(Debug)]
struct Graph {
    ops: Vec<Op>,
    groups: Vec<u64>,
    /// Replays that have not ended.
    num_queued: u32,
}

#[derive(Debug)]
struct TaskGroup {
    launches: Vec<Launch>,
    /// 0 until the capture has ended.
    graph: u64,
    is_updated: bool,
}

/// Everything that was recorded.
#[derive(Debug, Default)]
pub(crate) struct Recordings {
    graphs: BTreeMap<u64, Graph>,
    groups: BTreeMap<u64, TaskGroup>,
    /// Whether each has been recorded and not been reset since.
    events: BTreeMap<u64, bool>,
}

impl Recordings {
    pub(crate) fn leaks(&self) -> Vec<String> {
        let graphs = self.graphs.keys().map(|handle| format!("graph {handle:#x}"));
        graphs.chain(self.events.keys().map(|handle| format!("event {handle:#x}"))).collect()
    }
}

fn group_status(message: impl Into<String>) -> Failure {
    Failure::new(status::TASK_GROUP_STATUS, message)
}

impl Stream {
    /// Queues an op, or records it.
    pub(crate) fn push(&mut self, op: Op) -> Outcome<()> {
        let capture = &mut self.capture;
        if capture.is_some() && matches!(op, Op::Replay(_)) {
            return Err(Failure::new(status::STREAM_CAPTURED, "a graph in a graph is not modelled"));
        }
        let open_group = capture.as_mut().and_then(|capture| capture.open_group.as_mut());
        let group = self.update.as_mut().map(|update| &mut update.launches).or(open_group);
        match (group, op) {
            (Some(launches), Op::Launch(launch)) => launches.push(launch),
            (Some(_), op) => {
                let message = format!("{op:?} is no operator: groups of tasks are of operators");
                return Err(Failure::new(status::TASK_TYPE_NOT_SUPPORT, message));
            }
            (None, op) => match capture {
                Some(capture) => capture.ops.push(op),
                None => self.queue.push_back(op),
            },
        }
        Ok(())
    }

    fn captured(&mut self) -> Outcome<&mut Capture> {
        self.capture.as_mut().ok_or_else(|| Failure::new(status::STREAM_NOT_CAPTURED, "the stream is not captured"))
    }

    /// Refuses, and spoils, a capture of this stream.
    pub(crate) fn check_not_captured(&mut self, what: &str) -> Outcome<()> {
        let Some(capture) = &mut self.capture else { return Ok(()) };
        let message = format!("{what} while the stream is captured");
        capture.spoiled.get_or_insert_with(|| message.clone());
        Err(Failure::new(status::CAPTURE_MODE_NOT_SUPPORT, message))
    }
}

impl Machine {
    /// Refuses, and spoils captures, where `what` is unsafe: it would not be recorded.
    pub(crate) fn check_safe(&mut self, what: &str) -> Outcome<()> {
        let own = thread::current().id();
        let streams = self.contexts.values_mut().flat_map(|context| context.streams.values_mut());
        let forbids = |capture: &Capture| match capture.mode {
            GLOBAL => true,
            THREAD_LOCAL => capture.thread == own,
            _ => false,
        };
        let mut refused = Ok(());
        for stream in streams.filter(|stream| stream.capture.as_ref().is_some_and(forbids)) {
            refused = stream.check_not_captured(what);
        }
        refused
    }

    pub(crate) fn begin_capture(&mut self, stream: u64, mode: u32) -> Outcome<()> {
        if mode > RELAXED {
            return Err(Failure::new(status::PARAM_INVALID, format!("capture mode {mode}")));
        }
        let stream = self.context()?.stream(stream)?;
        if stream.capture.is_some() {
            return Err(Failure::new(status::STREAM_CAPTURED, "the stream is captured already"));
        }
        if stream.update.is_some() {
            return Err(group_status("a group is updated on the stream"));
        }
        let thread = thread::current().id();
        let (ops, groups) = (Vec::new(), Vec::new());
        stream.capture = Some(Capture { ops, groups, open_group: None, spoiled: None, mode, thread });
        Ok(())
    }

    /// Whatever comes of it, nothing is captured any more.
    pub(crate) fn end_capture(&mut self, stream: u64) -> Outcome<u64> {
        let stream = self.context()?.stream(stream)?;
        let Some(capture) = stream.capture.take() else {
            return Err(Failure::new(status::STREAM_CAPTURE_UNMATCHED, "the stream is not captured"));
        };
        if capture.mode != RELAXED && capture.thread != thread::current().id() {
            stream.capture = Some(capture);
            return Err(Failure::new(status::STREAM_CAPTURE_WRONG_THREAD, "another thread began the capture"));
        }
        let outcome = capture.check();
        if outcome.is_err() {
            capture.groups.iter().for_each(|group| drop(self.recordings.groups.remove(group)));
        }
        outcome?;
        let handle = self.new_handle(Kind::Graph);
        for group in &capture.groups {
            if let Some(group) = self.recordings.groups.get_mut(group) {
                group.graph = handle;
            }
        }
        let Capture { ops, groups, .. } = capture;
        self.recordings.graphs.insert(handle, Graph { ops, groups, num_queued: 0 });
        Ok(handle)
    }

    pub(crate) fn begin_group(&mut self, stream: u64) -> Outcome<()> {
        let capture = self.context()?.stream(stream)?.captured()?;
        if capture.open_group.is_some() {
            return Err(group_status("a group of the stream is open already"));
        }
        capture.open_group = Some(Vec::new());
        Ok(())
    }

    pub(crate) fn end_group(&mut self, stream: u64) -> Outcome<u64> {
        let handle = self.new_handle(Kind::TaskGroup);
        let capture = self.context()?.stream(stream)?.captured()?;
        let Some(launches) = capture.open_group.take() else {
            return Err(group_status("no group of the stream is open"));
        };
        capture.ops.push(Op::Tasks(handle));
        capture.groups.push(handle);
        self.recordings.groups.insert(handle, TaskGroup { launches, graph: 0, is_updated: false });
        Ok(handle)
    }

    pub(crate) fn begin_update(&mut self, stream: u64, group: u64) -> Outcome<()> {
        let on = self.context()?.stream(stream)?;
        if on.capture.is_some() {
            return Err(Failure::new(status::STREAM_CAPTURED, "an update on a stream that is captured"));
        }
        if on.update.is_some() {
            return Err(group_status("a group is updated on the stream already"));
        }
        let Some(found) = self.recordings.groups.get_mut(&group).filter(|found| found.graph != 0) else {
            return Err(Failure::new(status::PARAM_INVALID, format!("{group:#x} is no group of a graph")));
        };
        if std::mem::replace(&mut found.is_updated, true) {
            return Err(group_status("the group is updated on another stream"));
        }
        self.context()?.stream(stream)?.update = Some(Update { group, launches: Vec::new() });
        Ok(())
    }

    /// As many operators of the same names as were recorded; the graph is not queued twice, as the earlier replay could meet
    /// what is meant for the later one.
    pub(crate) fn end_update(&mut self, stream: u64) -> Outcome<()> {
        let Some(Update { group, launches }) = self.context()?.stream(stream)?.update.take() else {
            return Err(group_status("no group is updated on the stream"));
        };
        let Some(found) = self.recordings.groups.get_mut(&group) else {
            return Err(Failure::new(status::PARAM_INVALID, "the group's graph is gone"));
        };
        found.is_updated = false;
        let names = |launches: &[Launch]| launches.iter().map(|launch| launch.name).collect::<Vec<_>>();
        let (recorded, given) = (names(&found.launches), names(&launches));
        if recorded != given {
            return Err(group_status(format!("an update with {given:?}, recorded were {recorded:?}")));
        }
        let num_queued = self.recordings.graphs.get(&found.graph).map_or(0, |graph| graph.num_queued);
        if num_queued > 1 {
            return Err(group_status(format!(
                "the graph is queued {num_queued} times: an earlier replay could be updated"
            )));
        }
        self.context()?.stream(stream)?.push(Op::Update { group, launches })
    }

    pub(crate) fn replay(&mut self, graph: u64, stream: u64) -> Outcome<()> {
        self.context()?.stream(stream)?;
        let Some(found) = self.recordings.graphs.get_mut(&graph) else {
            return Err(Failure::new(status::PARAM_INVALID, format!("{graph:#x} is no live graph")));
        };
        found.num_queued += 1;
        let queued = self.context()?.stream(stream)?.push(Op::Replay(graph));
        if queued.is_err()
            && let Some(found) = self.recordings.graphs.get_mut(&graph)
        {
            found.num_queued -= 1;
        }
        queued
    }

    pub(crate) fn destroy_graph(&mut self, graph: u64) -> Outcome<()> {
        let Some(found) = self.recordings.graphs.get(&graph) else {
            return Err(Failure::new(status::PARAM_INVALID, format!("{graph:#x} is no live graph")));
        };
        if found.num_queued > 0 {
            return Err(Failure::new(status::MODEL_RUNNING, "the graph is queued"));
        }
        let groups = found.groups.clone();
        self.recordings.graphs.remove(&graph);
        groups.iter().for_each(|group| drop(self.recordings.groups.remove(group)));
        Ok(())
    }

    pub(crate) fn create_event(&mut self) -> u64 {
        let handle = self.new_handle(Kind::Event);
        self.recordings.events.insert(handle, false);
        handle
    }

    pub(crate) fn destroy_event(&mut self, event: u64) -> Outcome<()> {
        self.event(event)?;
        self.recordings.events.remove(&event);
        Ok(())
    }

    fn event(&mut self, event: u64) -> Outcome<&mut bool> {
        let found = self.recordings.events.get_mut(&event);
        found.ok_or_else(|| Failure::new(status::PARAM_INVALID, format!("{event:#x} is no live event")))
    }

    /// Queues what happens to an event.
    pub(crate) fn queue_event(&mut self, event: u64, stream: u64, op: Op) -> Outcome<()> {
        self.event(event)?;
        self.context()?.stream(stream)?.push(op)
    }

    /// Records an event, or resets it.
    pub(crate) fn set_event(&mut self, event: u64, is_recorded: bool) -> Outcome<()> {
        *self.event(event)? = is_recorded;
        Ok(())
    }

    /// Waits for an event: another stream runs until it has recorded it.
    pub(crate) fn run_wait(&mut self, event: u64, own: u64) -> Outcome<Progress> {
        while !*self.event(event)? {
            let records = |stream: &Stream| {
                let is_record = |op: &Op| matches!(op, Op::Record(recorded) if *recorded == event);
                !stream.is_running && stream.queue.iter().any(is_record)
            };
            let streams = &self.context()?.streams;
            let Some(stream) = streams.iter().find_map(|(handle, stream)| records(stream).then_some(*handle)) else {
                let message = "it waits for an event that nothing in a queue records: is an update missing?";
                return Err(Failure::new(status::TASK_TIMEOUT, message));
            };
            if self.run_one(stream)? == Progress::Blocked {
                // Until another device's host has come further.
                self.context()?.stream(own)?.queue.push_front(Op::Wait(event));
                return Ok(Progress::Blocked);
            }
        }
        Ok(Progress::Ran)
    }

    /// Puts the ops of a graph in its place.
    pub(crate) fn run_replay(&mut self, graph: u64, stream: u64) -> Outcome<()> {
        let is_cut_short = self.injection.is_replay_cut_short();
        let Some(found) = self.recordings.graphs.get(&graph) else { return Ok(()) };
        let mut ops = found.ops.clone();
        if is_cut_short {
            ops.pop();
        }
        let queue = &mut self.context()?.stream(stream)?.queue;
        queue.push_front(Op::Replayed(graph));
        ops.into_iter().rev().for_each(|op| queue.push_front(op));
        Ok(())
    }

    pub(crate) fn end_replay(&mut self, graph: u64) {
        if let Some(found) = self.recordings.graphs.get_mut(&graph) {
            found.num_queued -= 1;
        }
    }

    /// The tasks of a group, as they are now.
    pub(crate) fn tasks(&self, group: u64) -> Vec<Launch> {
        self.recordings.groups.get(&group).map(|group| group.launches.clone()).unwrap_or_default()
    }

    pub(crate) fn run_update(&mut self, group: u64, launches: Vec<Launch>) {
        if let Some(found) = self.recordings.groups.get_mut(&group) {
            found.launches = launches;
        }
    }
}

impl Capture {
    /// What keeps it from becoming a graph.
    fn check(&self) -> Outcome<()> {
        if let Some(reason) = &self.spoiled {
            return Err(Failure::new(status::STREAM_CAPTURE_INVALIDATED, reason.clone()));
        }
        if self.open_group.is_some() {
            return Err(group_status("a group is still open"));
        }
        for (place, op) in self.ops.iter().enumerate() {
            let Op::Wait(event) = op else { continue };
            let resets = |op: &Op| matches!(op, Op::Reset(reset) if reset == event);
            if !self.ops[place..].iter().any(resets) {
                let message = format!("event {event:#x} is not reset after the wait: another replay would not wait");
                return Err(Failure::new(status::CAPTURE_DEPENDENCY, message));
            }
        }
        Ok(())
    }
}
