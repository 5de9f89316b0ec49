//! Recorded work: queued with one call, again and again.
//!
//! Attention reads sequences' lengths on the host when it is planned, so a recorded one would keep those of the step that was
//! recorded. Each is therefore a group of tasks of its own, which waits for an event, and before each replay it is planned
//! anew on a stream beside and put in the group's place.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::context::Context;
use super::ops::Attention;
use super::stream::Stream;
use super::sys::capture::Capture;
use super::sys::types::{aclError, aclmdlRI, aclmdlRICaptureMode, aclrtEvent, aclrtStream, aclrtTaskGrp};
use super::{AscendError, report_drop};

/// `ACL_EVENT_EXTERNAL`: an event that orders a graph behind updates of it.
const EXTERNAL: u32 = 0x20;

/// Recorded work. Destroyed when dropped, after it has run.
#[derive(Debug)]
pub(crate) struct Graph {
    handle: aclmdlRI,
    context: Arc<Context>,
    /// Gone after the graph that waits for their events.
    tasks: Vec<Task>,
}

/// Recorded attention.
#[derive(Debug)]
struct Task {
    group: aclrtTaskGrp,
    event: Event,
    /// Without its lengths.
    attention: Attention<'static>,
}

/// An event between streams. Destroyed when dropped.
#[derive(Debug)]
struct Event {
    handle: aclrtEvent,
    context: Arc<Context>,
}

/// A stream while it is recorded, and the one beside it that updates are planned on.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    /// Null until it is needed.
    side: SideStream,
    /// Attention so far; none where nothing is being recorded.
    tasks: Option<Vec<Task>>,
}

#[derive(Debug)]
struct SideStream(aclrtStream);

impl Default for SideStream {
    fn default() -> Self {
        Self(ptr::null_mut())
    }
}

// SAFETY: handles are numbers to us; the runtime lets any thread use them whose context it has bound, one at a time.
unsafe impl Send for Graph {}

impl Graph {
    /// Calls of attention in it, each of which is updated before a replay.
    pub(crate) fn num_updates(&self) -> usize {
        self.tasks.len()
    }
}

impl Context {
    /// Calls a function that records, with what this crate hands it.
    fn record(&self, function: &'static str, call: impl FnOnce(&Capture) -> aclError) -> Result<(), AscendError> {
        let Some(functions) = self.libraries().capture() else {
            return Err(AscendError::refused(function, "this CANN has no such function"));
        };
        self.bind()?;
        self.libraries().check(function, call(functions))
    }
}

impl Event {
    fn new(context: &Arc<Context>) -> Result<Self, AscendError> {
        let mut handle = ptr::null_mut();
        // SAFETY: the result goes to a pointer that outlives the call.
        let create = |f: &Capture| unsafe { (f.aclrtCreateEventExWithFlag)(&raw mut handle, EXTERNAL) };
        context.record("aclrtCreateEventExWithFlag", create)?;
        Ok(Self { handle, context: context.clone() })
    }

    /// Queues a wait, after which it can be recorded again.
    fn wait(&self, stream: aclrtStream) -> Result<(), AscendError> {
        // SAFETY: stream and event are alive.
        self.context.record("aclrtStreamWaitEvent", |f| unsafe { (f.aclrtStreamWaitEvent)(stream, self.handle) })?;
        // SAFETY: as above.
        self.context.record("aclrtResetEvent", |f| unsafe { (f.aclrtResetEvent)(self.handle, stream) })
    }

    fn record(&self, stream: aclrtStream) -> Result<(), AscendError> {
        // SAFETY: stream and event are alive.
        self.context.record("aclrtRecordEvent", |f| unsafe { (f.aclrtRecordEvent)(self.handle, stream) })
    }
}

impl Stream {
    /// Records what is queued from now on instead of running it.
    pub(crate) fn begin_capture(&mut self) -> Result<(), AscendError> {
        let context = self.context.clone();
        if self.recorder.side.0.is_null() {
            context.bind()?;
            // SAFETY: the result goes to a pointer that outlives the call.
            let status = unsafe { (context.libraries().acl.aclrtCreateStream)(&raw mut self.recorder.side.0) };
            context.libraries().check("aclrtCreateStream", status)?;
        }
        // The calling thread alone has to keep from what cannot be recorded: ranks of a group have threads of their own.
        let mode = aclmdlRICaptureMode::ACL_MODEL_RI_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is alive.
        context.record("aclmdlRICaptureBegin", |f| unsafe { (f.aclmdlRICaptureBegin)(self.raw(), mode) })?;
        self.recorder.tasks = Some(Vec::new());
        Ok(())
    }

    /// Ends what [`Stream::begin_capture`] began, whatever comes of it.
    pub(crate) fn end_capture(&mut self) -> Result<Graph, AscendError> {
        let tasks = self.recorder.tasks.take().unwrap_or_default();
        let mut handle = ptr::null_mut();
        // SAFETY: the stream is alive; the result goes to a pointer that outlives the call.
        let end = |f: &Capture| unsafe { (f.aclmdlRICaptureEnd)(self.raw(), &raw mut handle) };
        self.context.record("aclmdlRICaptureEnd", end)?;
        Ok(Graph { handle, tasks, context: self.context.clone() })
    }

    /// True between the two.
    pub(crate) fn is_captured(&self) -> bool {
        self.recorder.tasks.is_some()
    }

    /// Refuses what a recording would take from the host.
    pub(crate) fn check_not_captured(&self, what: &str) -> Result<(), AscendError> {
        if self.is_captured() { Err(AscendError::refused("aclmdlRICaptureEnd", what)) } else { Ok(()) }
    }

    /// As [`Attention`] says; recorded, it has no causal mask.
    pub(crate) fn attend(&mut self, attention: Attention<'_>) -> Result<(), AscendError> {
        if !self.is_captured() {
            return self.queue_attention(attention);
        }
        if attention.causal.is_some() {
            return Err(AscendError::refused("aclmdlRICaptureTaskGrpBegin", "attention of several tokens a sequence"));
        }
        let event = Event::new(&self.context)?;
        event.wait(self.raw())?;
        // SAFETY: the stream is alive.
        let begin = |f: &Capture| unsafe { (f.aclmdlRICaptureTaskGrpBegin)(self.raw()) };
        self.context.record("aclmdlRICaptureTaskGrpBegin", begin)?;
        let queued = self.queue_attention(attention);
        let mut group = ptr::null_mut();
        // SAFETY: the stream is alive; the result goes to a pointer that outlives the call.
        let end = |f: &Capture| unsafe { (f.aclmdlRICaptureTaskGrpEnd)(self.raw(), &raw mut group) };
        let ended = self.context.record("aclmdlRICaptureTaskGrpEnd", end);
        queued.and(ended)?;
        let Attention { queries, keys, softmax_scale, out, .. } = attention;
        let attention = Attention { queries, keys, causal: None, lengths: &[], softmax_scale, out };
        self.recorder.tasks.get_or_insert_default().push(Task { group, event, attention });
        Ok(())
    }

    /// Plans the attention of a graph anew, for sequences of these lengths, and lets its next replay through.
    pub(crate) fn update(&mut self, graph: &Graph, lengths: &[i64]) -> Result<(), AscendError> {
        let side = self.recorder.side.0;
        for Task { group, event, attention } in &graph.tasks {
            // SAFETY: the stream is alive; the group belongs to a graph that is.
            let begin = |f: &Capture| unsafe { (f.aclmdlRICaptureTaskUpdateBegin)(side, *group) };
            self.context.record("aclmdlRICaptureTaskUpdateBegin", begin)?;
            let queued = self.on(side, |stream| stream.queue_attention(Attention { lengths, ..*attention }));
            // SAFETY: the stream is alive.
            let end = |f: &Capture| unsafe { (f.aclmdlRICaptureTaskUpdateEnd)(side) };
            let ended = self.context.record("aclmdlRICaptureTaskUpdateEnd", end);
            queued.and(ended)?;
            event.record(side)?;
            self.context.counts().updates.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Queues recorded work. Its attention must have been updated since its last replay.
    pub(crate) fn replay(&mut self, graph: &Graph) -> Result<(), AscendError> {
        self.context.record("aclmdlRIExecuteAsync", |f| {
            // SAFETY: graph and stream are alive, and so is the memory that the graph names: the caller looks to that.
            unsafe { (f.aclmdlRIExecuteAsync)(graph.handle, self.raw()) }
        })?;
        self.context.counts().replays.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Destroys the stream beside, whose work is done.
    pub(super) fn drop_side(&mut self) {
        if self.recorder.side.0.is_null() {
            return;
        }
        let acl = &self.context.libraries().acl;
        // SAFETY: the handle is alive.
        let status = unsafe { (acl.aclrtSynchronizeStream)(self.recorder.side.0) };
        report_drop(self.context.libraries().check("aclrtSynchronizeStream", status));
        // SAFETY: `begin_capture` created it and nothing has destroyed it; its work is done.
        let status = unsafe { (acl.aclrtDestroyStream)(self.recorder.side.0) };
        report_drop(self.context.libraries().check("aclrtDestroyStream", status));
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        report_drop(self.context.synchronize());
        // SAFETY: a capture made it, nothing has destroyed it, and it does not run.
        report_drop(self.context.record("aclmdlRIDestroy", |f| unsafe { (f.aclmdlRIDestroy)(self.handle) }));
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: `new` created it, nothing has destroyed it, and what waits for it is gone.
        report_drop(self.context.record("aclrtDestroyEvent", |f| unsafe { (f.aclrtDestroyEvent)(self.handle) }));
    }
}
