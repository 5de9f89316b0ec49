//! Streams: copies, and the workspace that operators share.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::calls::{Calls, Lookup};
use super::capture::Recorder;
use super::communicator::Communicator;
use super::context::Context;
use super::descriptor::Descriptors;
use super::memory::{Allocation, Pinned};
use super::sys::types::{aclOpExecutor, aclnnStatus, aclrtMemcpyKind, aclrtStream};
use super::{AscendError, report_drop};

/// Pinned memory of a stream. Larger copies come in pieces, with a wait between them; a row of logits fits.
const STAGING_BYTES: usize = 1 << 20;

/// The second function of every operator.
pub(super) type Run = unsafe extern "C" fn(*mut std::ffi::c_void, u64, *mut aclOpExecutor, aclrtStream) -> aclnnStatus;

/// A stream as the runtime knows it. Destroyed when dropped.
#[derive(Debug)]
pub(super) struct Handle {
    raw: aclrtStream,
    context: Arc<Context>,
}

// SAFETY: the runtime lets any thread use a stream whose context it has bound. Work is queued by whoever has the [`Stream`],
// one at a time; aborting is meant for the others.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    fn new(context: &Arc<Context>) -> Result<Self, AscendError> {
        context.bind()?;
        let mut raw = ptr::null_mut();
        // SAFETY: the result goes to a pointer that outlives the call.
        let status = unsafe { (context.libraries().acl.aclrtCreateStream)(&raw mut raw) };
        context.libraries().check("aclrtCreateStream", status)?;
        Ok(Self { raw, context: context.clone() })
    }

    pub(super) fn raw(&self) -> aclrtStream {
        self.raw
    }

    /// Ends what runs and discards what is queued, from any thread; whoever waits comes back.
    pub(super) fn abort(&self) -> Result<(), AscendError> {
        // Groups are made where the function is there only.
        let Ok(abort) = self.context.libraries().stream_abort() else { return Ok(()) };
        self.context.bind()?;
        // SAFETY: the stream is alive as long as `self`.
        let status = unsafe { abort(self.raw) };
        self.context.libraries().check("aclrtStreamAbort", status)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        report_drop(self.context.bind());
        // SAFETY: `new` created it and nothing has destroyed it; its work is done, or was discarded.
        let status = unsafe { (self.context.libraries().acl.aclrtDestroyStream)(self.raw) };
        report_drop(self.context.libraries().check("aclrtDestroyStream", status));
    }
}

/// An ordered queue of work. Destroyed when dropped, after its work.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Freed before the stream that it is queued on.
    calls: Calls,
    // In this order: memory is given back before the stream that may use it.
    workspace: Option<Allocation>,
    staging: Pinned,
    /// Bytes of `staging` that queued copies may still read.
    num_staged: usize,
    num_operators: u64,
    /// How often the workspace has moved.
    generation: u64,
    pub(super) recorder: Recorder,
    /// Where work is queued: `handle`, or for a while another.
    target: aclrtStream,
    handle: Arc<Handle>,
    /// Ended after the work that needs it.
    communicator: Option<Arc<Communicator>>,
    pub(super) context: Arc<Context>,
}

// SAFETY: the runtime lets any thread use a stream whose context it has bound, one at a time; so with executors.
unsafe impl Send for Stream {}

impl Stream {
    /// With a communicator, it can sum over the ranks of a group.
    pub(crate) fn new(context: &Arc<Context>, communicator: Option<&Arc<Communicator>>) -> Result<Self, AscendError> {
        let staging = Pinned::new(context, STAGING_BYTES)?;
        let handle = Arc::new(Handle::new(context)?);
        if let Some(communicator) = communicator {
            communicator.register(&handle);
        }
        Ok(Self {
            calls: Calls::default(),
            workspace: None,
            staging,
            num_staged: 0,
            num_operators: 0,
            generation: 0,
            recorder: Recorder::default(),
            target: handle.raw,
            handle,
            communicator: communicator.cloned(),
            context: context.clone(),
        })
    }

    /// Another number whenever the workspace is elsewhere.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn raw(&self) -> aclrtStream {
        self.target
    }

    /// Queues what `queue` queues on another stream, with this one's workspace.
    pub(super) fn on<T>(&mut self, other: aclrtStream, queue: impl FnOnce(&mut Self) -> T) -> T {
        let own = std::mem::replace(&mut self.target, other);
        let result = queue(self);
        self.target = own;
        result
    }

    /// Operators queued so far.
    pub(crate) fn num_operators(&self) -> u64 {
        self.num_operators
    }

    /// Queues a copy of host bytes, which may be reused at once: what is queued is a copy in pinned memory.
    ///
    /// # Panics
    /// If the bytes do not lie in `to`.
    pub(crate) fn write(&mut self, to: &Allocation, mut offset: usize, data: &[u8]) -> Result<(), AscendError> {
        for piece in data.chunks(self.staging.num_bytes()) {
            if self.staging.num_bytes() - self.num_staged < piece.len() {
                self.synchronize()?;
            }
            let first = self.num_staged;
            // Queued copies read other bytes: those before `first`.
            self.staging.bytes_mut()[first..][..piece.len()].copy_from_slice(piece);
            self.num_staged = (first + piece.len()).next_multiple_of(64).min(self.staging.num_bytes());
            let from = self.staging.bytes()[first..].as_ptr().cast();
            let address = to.range(offset, piece.len());
            self.context.bind()?;
            let kind = aclrtMemcpyKind::ACL_MEMCPY_HOST_TO_DEVICE;
            let copy = self.context.libraries().acl.aclrtMemcpyAsync;
            // SAFETY: `piece.len()` bytes lie at `address` in live device memory (checked by `range`) and in pinned
            // memory, which is not written again before a wait.
            let status = unsafe { copy(address, piece.len(), from, piece.len(), kind, self.target) };
            self.context.libraries().check("aclrtMemcpyAsync", status)?;
            offset += piece.len();
        }
        Ok(())
    }

    /// Copies to the host, piece by piece, and waits.
    ///
    /// # Panics
    /// If the bytes do not lie in `from`.
    pub(crate) fn read(&mut self, from: &Allocation, mut offset: usize, data: &mut [u8]) -> Result<(), AscendError> {
        for piece in data.chunks_mut(self.staging.num_bytes()) {
            if self.staging.num_bytes() - self.num_staged < piece.len() {
                self.synchronize()?;
            }
            let first = self.num_staged;
            let to = self.staging.bytes_mut()[first..].as_mut_ptr().cast();
            let address = from.range(offset, piece.len());
            self.context.bind()?;
            let kind = aclrtMemcpyKind::ACL_MEMCPY_DEVICE_TO_HOST;
            let copy = self.context.libraries().acl.aclrtMemcpyAsync;
            // SAFETY: `piece.len()` bytes lie at `address` in live device memory (checked by `range`) and in pinned
            // memory, where nobody looks before the wait in the next line is over.
            let status = unsafe { copy(to, piece.len(), address, piece.len(), kind, self.target) };
            self.context.libraries().check("aclrtMemcpyAsync", status)?;
            self.synchronize()?;
            piece.copy_from_slice(&self.staging.bytes()[first..][..piece.len()]);
            offset += piece.len();
        }
        Ok(())
    }

    /// Waits for everything queued.
    pub(crate) fn synchronize(&mut self) -> Result<(), AscendError> {
        self.context.bind()?;
        // SAFETY: the handle is alive as long as `self`.
        let status = unsafe { (self.context.libraries().acl.aclrtSynchronizeStream)(self.target) };
        self.context.libraries().check("aclrtSynchronizeStream", status)?;
        self.num_staged = 0;
        self.communicator.as_ref().map_or(Ok(()), |communicator| communicator.check_sums())
    }

    /// Queues a sum over all ranks of the first `count` bf16 values of `x`, which replaces them. Alone, there is nothing to
    /// add.
    ///
    /// # Panics
    /// If `x` has fewer.
    pub(crate) fn all_reduce(&mut self, x: &Allocation, count: usize) -> Result<(), AscendError> {
        let address = x.range(0, count * size_of::<half::bf16>());
        let Some(communicator) = self.communicator.as_ref().filter(|_| count > 0) else { return Ok(()) };
        communicator.all_reduce(&self.handle, address, count)
    }

    /// Begins the key of a call.
    pub(super) fn begin_call(&mut self, run: Run) -> &mut Vec<u64> {
        self.calls.begin(run as usize)
    }

    /// What to do with the call whose key has been put together.
    pub(super) fn look_up_call(&mut self) -> Lookup {
        self.calls.look_up()
    }

    /// Queues what an operator has planned for the first time, and keeps it to be queued again where the operator can be
    /// repeated.
    pub(super) fn queue_and_keep(
        &mut self,
        function: &'static str,
        run: Run,
        (workspace_bytes, executor): (u64, *mut aclOpExecutor),
        descriptors: Descriptors,
    ) -> Result<(), AscendError> {
        let context = self.context.clone();
        // SAFETY: the operator planned it just now, and nothing has used it.
        let status = unsafe { (context.libraries().base.aclSetAclOpExecutorRepeatable)(executor) };
        if let Err(error) = context.libraries().check("aclSetAclOpExecutorRepeatable", status) {
            tracing::trace!(function, %error, "planned each time");
            self.calls.give_up();
            return self.queue(function, run, workspace_bytes, executor);
        }
        self.calls.keep(&context, (executor, workspace_bytes), descriptors);
        self.queue_again(function, run, workspace_bytes, executor)
    }

    /// Queues what an operator has planned, once.
    ///
    /// `executor` comes from the operator's first function, which also said how large the workspace must be, and is not
    /// used again.
    pub(super) fn queue(
        &mut self,
        function: &'static str,
        run: Run,
        workspace_bytes: u64,
        executor: *mut aclOpExecutor,
    ) -> Result<(), AscendError> {
        if let Err(error) = self.workspace(workspace_bytes as usize) {
            // SAFETY: the operator planned it, and nothing has used it.
            let status = unsafe { (self.context.libraries().base.aclDestroyAclOpExecutor)(executor) };
            report_drop(self.context.libraries().check("aclDestroyAclOpExecutor", status));
            return Err(error);
        }
        self.queue_again(function, run, workspace_bytes, executor)
    }

    /// Queues an executor. All operators of a stream share one workspace: they run one after the other.
    pub(super) fn queue_again(
        &mut self,
        function: &'static str,
        run: Run,
        workspace_bytes: u64,
        executor: *mut aclOpExecutor,
    ) -> Result<(), AscendError> {
        let workspace = self.workspace(workspace_bytes as usize)?;
        // SAFETY: `run` belongs to the operator that planned (`ops` names both in one line). The workspace is as large as
        // it asked for and lives until the stream has passed the operator; so do the tensors it names.
        let status = unsafe { run(workspace, workspace_bytes, executor, self.target) };
        self.context.libraries().check(function, status)?;
        self.num_operators += 1;
        self.context.counts().operators.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// At least `num_bytes`, or null for none.
    fn workspace(&mut self, num_bytes: usize) -> Result<*mut std::ffi::c_void, AscendError> {
        if num_bytes == 0 {
            return Ok(ptr::null_mut());
        }
        let workspace = match self.workspace.take() {
            Some(workspace) if workspace.num_bytes() >= num_bytes => workspace,
            // The old one goes first, after the work that uses it.
            smaller => {
                drop(smaller);
                self.generation += 1;
                Allocation::new(&self.context, num_bytes)?
            }
        };
        Ok(self.workspace.insert(workspace).range(0, num_bytes))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        report_drop(self.context.bind());
        self.drop_side();
        // SAFETY: the handle is alive as long as `self`.
        let status = unsafe { (self.context.libraries().acl.aclrtSynchronizeStream)(self.handle.raw) };
        report_drop(self.context.libraries().check("aclrtSynchronizeStream", status));
    }
}
