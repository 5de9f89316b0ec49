//! Recorded work.

use std::ptr;
use std::sync::Arc;

use super::sys::{Graph, GraphExec};
use super::{Context, HipError, report_drop};

/// Recorded work, ready to be queued any number of times. Destroyed when dropped.
#[derive(Debug)]
pub(crate) struct ExecutableGraph {
    context: Arc<Context>,
    handle: GraphExec,
}

// SAFETY: the runtime lets any thread use an executable graph, one at a time.
unsafe impl Send for ExecutableGraph {}

impl ExecutableGraph {
    /// Makes what a stream recorded executable; the recording itself is given back.
    pub(super) fn from_captured(context: &Arc<Context>, graph: Graph) -> Result<Self, HipError> {
        let api = context.bind()?;
        let mut handle = ptr::null_mut();
        // SAFETY: the stream just handed `graph` over; the result goes to a pointer that outlives the call.
        let instantiated = unsafe { api.hipGraphInstantiateWithFlags(&raw mut handle, graph, 0) };
        // SAFETY: destroyed once, here; an executable graph does not need what it was made from.
        report_drop(unsafe { api.hipGraphDestroy(graph) });
        instantiated?;
        Ok(Self { context: context.clone(), handle })
    }

    pub(super) fn handle(&self) -> GraphExec {
        self.handle
    }
}

impl Drop for ExecutableGraph {
    fn drop(&mut self) {
        // It may still be running.
        report_drop(self.context.synchronize());
        // SAFETY: `from_captured` made it and nothing has destroyed it.
        report_drop(self.context.bind().and_then(|api| unsafe { api.hipGraphExecDestroy(self.handle) }));
    }
}
