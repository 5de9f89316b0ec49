//! Recorded work.

use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUgraph, CUgraphExec};

use super::{Context, DriverError, check, report_drop};

/// Recorded work, ready to be queued any number of times. Destroyed when dropped.
#[derive(Debug)]
pub(crate) struct ExecutableGraph {
    context: Arc<Context>,
    handle: CUgraphExec,
}

// SAFETY: the driver lets any thread use an executable graph, one at a time.
unsafe impl Send for ExecutableGraph {}

impl ExecutableGraph {
    /// Makes what a stream recorded executable; the recording itself is given back.
    pub(super) fn from_captured(context: &Arc<Context>, graph: CUgraph) -> Result<Self, DriverError> {
        let mut handle = ptr::null_mut();
        // SAFETY: the stream just handed `graph` over; the result goes to a pointer that outlives the call.
        let instantiated = unsafe { sys::cuGraphInstantiateWithFlags(&raw mut handle, graph, 0) };
        // SAFETY: destroyed once, here; an executable graph does not need what it was made from.
        report_drop(check("cuGraphDestroy", unsafe { sys::cuGraphDestroy(graph) }));
        check("cuGraphInstantiateWithFlags", instantiated)?;
        Ok(Self { context: context.clone(), handle })
    }

    pub(super) fn handle(&self) -> CUgraphExec {
        self.handle
    }
}

impl Drop for ExecutableGraph {
    fn drop(&mut self) {
        // It may still be running.
        report_drop(self.context.synchronize());
        // SAFETY: `from_captured` made it and nothing has destroyed it.
        report_drop(check("cuGraphExecDestroy", unsafe { sys::cuGraphExecDestroy(self.handle) }));
    }
}
