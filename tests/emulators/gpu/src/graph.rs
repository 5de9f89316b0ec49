//! Captured work.

use std::thread::{self, ThreadId};

use emulator_common::{Failure, Outcome};

use crate::collective::Collective;
use crate::config::Gpu;
use crate::driver::{Context, Driver, Kind};
use crate::status;
use crate::stream::Op;

/// Work that is recorded instead of run.
#[derive(Debug)]
pub(crate) struct Capture {
    pub(crate) ops: Vec<Op>,
    /// Why it cannot be ended well any more.
    pub(crate) invalidated: Option<String>,
    thread: ThreadId,
}

/// Work that was recorded.
#[derive(Debug, Clone)]
pub(crate) struct Graph {
    ops: Vec<Op>,
}

impl Graph {
    /// Collectives among its ops.
    pub(crate) fn collectives(&self) -> impl Iterator<Item = &Collective> {
        self.ops.iter().filter_map(Op::collective)
    }
}

impl Context {
    /// Refuses, and spoils, captures that are under way: `what` may not happen during one.
    ///
    /// # Errors
    /// Where one is under way.
    pub fn check_no_capture(&mut self, what: &str) -> Outcome<()> {
        let mut refused = Ok(());
        for stream in self.streams.values_mut() {
            if let Some(capture) = &mut stream.capture {
                let message = format!("{what} while a stream is being captured");
                capture.invalidated.get_or_insert_with(|| message.clone());
                refused = Err(Failure::new(status::STREAM_CAPTURE_UNSUPPORTED, message));
            }
        }
        refused
    }
}

#[allow(missing_docs, clippy::missing_errors_doc, reason = "the functions of the drivers' references")]
impl<G: Gpu> Driver<G> {
    pub fn begin_capture(&mut self, stream: u64, mode: i32) -> Outcome<()> {
        if !(0..=2).contains(&mode) {
            return Err(Failure::new(status::INVALID_VALUE, format!("capture mode {mode}")));
        }
        let stream = self.context()?.stream(stream)?;
        if stream.capture.is_some() {
            return Err(Failure::new(status::ILLEGAL_STATE, "the stream is being captured already"));
        }
        stream.capture = Some(Capture { ops: Vec::new(), invalidated: None, thread: thread::current().id() });
        Ok(())
    }

    /// 0: no; 1: yes; 2: yes, and it was spoiled.
    pub fn capture_state(&mut self, stream: u64) -> Outcome<i32> {
        Ok(match &self.context()?.stream(stream)?.capture {
            None => 0,
            Some(capture) if capture.invalidated.is_none() => 1,
            Some(_) => 2,
        })
    }

    pub fn end_capture(&mut self, stream: u64) -> Outcome<u64> {
        let stream = self.context()?.stream(stream)?;
        let Some(capture) = stream.capture.take() else {
            return Err(Failure::new(status::ILLEGAL_STATE, "the stream is not being captured"));
        };
        if capture.thread != thread::current().id() {
            stream.capture = Some(capture);
            return Err(Failure::new(status::STREAM_CAPTURE_WRONG_THREAD, "another thread began the capture"));
        }
        if let Some(reason) = capture.invalidated {
            return Err(Failure::new(status::STREAM_CAPTURE_INVALIDATED, reason));
        }
        let handle = self.new_handle(Kind::Graph);
        self.context()?.graphs.insert(handle, Graph { ops: capture.ops });
        Ok(handle)
    }

    pub fn instantiate(&mut self, graph: u64, flags: u64) -> Outcome<u64> {
        if flags != 0 {
            return Err(Failure::new(status::NOT_SUPPORTED, format!("flags {flags:#x} are not modelled")));
        }
        let graph = self.context()?.graphs.get(&graph).cloned().ok_or_else(|| no_graph("", graph))?;
        let handle = self.new_handle(Kind::GraphExec);
        self.context()?.executable_graphs.insert(handle, graph);
        Ok(handle)
    }

    pub fn launch_graph(&mut self, executable: u64, stream: u64) -> Outcome<()> {
        let graph = self.context()?.executable_graphs.get(&executable).cloned();
        let graph = graph.ok_or_else(|| no_graph("executable ", executable))?;
        let stale = graph.collectives().find_map(|collective| self.member(collective.communicator).err());
        if let Some(Failure { message, .. }) = stale {
            return Err(Failure::new(status::INVALID_HANDLE, format!("a collective in the graph: {message}")));
        }
        self.push(stream, Op::Graph(graph.ops))
    }

    pub fn destroy_graph(&mut self, graph: u64) -> Outcome<()> {
        // A communicator's end may wait for this.
        self.has_news = true;
        self.context()?.graphs.remove(&graph).map(|_| ()).ok_or_else(|| no_graph("", graph))
    }

    pub fn destroy_executable(&mut self, executable: u64) -> Outcome<()> {
        self.has_news = true;
        let destroyed = self.context()?.executable_graphs.remove(&executable);
        destroyed.map(|_| ()).ok_or_else(|| no_graph("executable ", executable))
    }
}

fn no_graph(kind: &str, handle: u64) -> Failure {
    Failure::new(status::INVALID_HANDLE, format!("{handle:#x} is no live {kind}graph"))
}
