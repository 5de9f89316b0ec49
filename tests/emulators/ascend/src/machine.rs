//! The state of the emulated machine: devices, contexts, and who owns what.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use emulator_common::fault::Injection;
pub(crate) use emulator_common::{Failure, Outcome};

use crate::abi::{Status, status};
use crate::capture::Recordings;
use crate::collective::Groups;
use crate::config::Config;
use crate::operator::Executor;
use crate::stream::Stream;
use crate::tensor::Descriptor;

/// Aligned as `aclrtMalloc` aligns.
pub(crate) type Memory = emulator_common::memory::Memory<64>;

/// Handles are numbers that are never used twice, so that a stale one is noticed. The upper bits tell kinds apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Context = 1,
    Stream,
    Descriptor,
    Executor,
    Communicator,
    Graph,
    TaskGroup,
    Event,
}

/// None of CANN's statuses: a call that has to wait for what another thread has yet to ask for. The body of such a call comes
/// to it before it changes anything that it would change again.
pub(crate) const BLOCKED: Status = Status::MIN;

const KIND_SHIFT: u32 = 40;

/// What a context owns.
#[derive(Debug, Default)]
pub(crate) struct Context {
    pub(crate) device: u32,
    pub(crate) memory: Memory,
    /// Pinned memory of the host.
    pub(crate) pinned: Memory,
    pub(crate) streams: BTreeMap<u64, Stream>,
    /// Once set, every call that works on the device answers with it.
    pub(crate) sticky: Option<Failure>,
}

impl Context {
    pub(crate) fn stream(&mut self, handle: u64) -> Outcome<&mut Stream> {
        let stream = self.streams.get_mut(&handle);
        stream.ok_or_else(|| {
            Failure::new(status::STREAM_CONTEXT, format!("{handle:#x} is no live stream of the thread's context"))
        })
    }

    /// Everything that its owner should have given back.
    fn leaks(&self) -> Vec<String> {
        let pieces = |memory: &Memory, kind: &str| -> Vec<String> {
            memory.live().map(|(address, bytes)| format!("{bytes} bytes of {kind} memory at {address:#x}")).collect()
        };
        let mut leaks = pieces(&self.memory, "device");
        leaks.extend(pieces(&self.pinned, "pinned"));
        leaks.extend(self.streams.keys().map(|handle| format!("stream {handle:#x}")));
        leaks
    }
}

/// What was asked for since the machine was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Record {
    /// Pieces of device memory.
    pub(crate) allocations: u64,
    /// Executors.
    pub(crate) planned: u64,
    /// Operators.
    pub(crate) queued: u64,
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { allocations, planned, queued } = self;
        write!(f, "record: {allocations} allocations, {planned} executors, {queued} operators")
    }
}

/// The whole state.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) config: Config,
    pub(crate) is_initialised: bool,
    pub(crate) contexts: BTreeMap<u64, Context>,
    pub(crate) descriptors: BTreeMap<u64, Descriptor>,
    /// Tensors that belong to lists.
    pub(crate) listed: BTreeSet<u64>,
    /// Planned and not yet queued.
    pub(crate) executors: BTreeMap<u64, Executor>,
    /// The executor that was planned last.
    pub(crate) last_planned: u64,
    pub(crate) recordings: Recordings,
    pub(crate) record: Record,
    leaks: Vec<String>,
    next_handle: u64,
    pub(crate) groups: Groups,
    /// Set by what another thread may wait for.
    pub(crate) has_news: bool,
    pub(crate) injection: Injection,
}

thread_local! {
    /// The context of the calling thread; 0 for none.
    static CURRENT: Cell<u64> = const { Cell::new(0) };
    /// What the thread's last failure said, and the text that was handed out last.
    static MESSAGE: RefCell<String> = const { RefCell::new(String::new()) };
    static HANDED_OUT: RefCell<CString> = RefCell::default();
}

static MACHINE: Mutex<Option<Machine>> = Mutex::new(None);
/// Some call did what another one may wait for.
static NEWS: Condvar = Condvar::new();

/// The one machine of the process, made when it is first asked for.
///
/// # Errors
/// A message where the environment asks for a machine that does not exist.
pub(crate) fn lock() -> Result<MutexGuard<'static, Option<Machine>>, String> {
    let mut machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    if machine.is_none() {
        *machine = Some(Machine::new(Config::from_environment()?));
    }
    Ok(machine)
}

/// Makes a call. One that waits for what another thread has yet to ask for is made again whenever a thread has asked for
/// something, until that takes too long: then the device hangs, and is lost.
///
/// # Errors
/// A message where the environment asks for a machine that does not exist.
pub(crate) fn call(mut body: impl FnMut(&mut Machine) -> Outcome<()>) -> Result<Outcome<()>, String> {
    let mut guard = lock()?;
    let Some(machine) = guard.as_mut() else { return Ok(Err(Failure::new(status::UNINITIALIZED, ""))) };
    if let Err(failure) = machine.count_call() {
        NEWS.notify_all();
        return Ok(Err(failure));
    }
    let patience = Duration::from_secs(machine.config.patience_s);
    let (mut begun, mut waits_for) = (Instant::now(), String::new());
    while let Some(machine) = guard.as_mut() {
        let outcome = body(machine);
        if std::mem::take(&mut machine.has_news) {
            NEWS.notify_all();
        }
        let message = match outcome {
            Err(Failure { status: BLOCKED, message }) => message,
            outcome => return Ok(outcome),
        };
        if message != waits_for {
            (begun, waits_for) = (Instant::now(), message);
        }
        let left = patience.saturating_sub(begun.elapsed());
        if left.is_zero() {
            let message = format!("hangs: {waits_for}, for {} s", patience.as_secs());
            let failure = Failure::new(status::TASK_TIMEOUT, message);
            machine.spoil(&failure);
            return Ok(Err(failure));
        }
        guard = NEWS.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    Ok(Err(Failure::new(status::UNINITIALIZED, "")))
}

/// Replaces the machine by a new one.
#[cfg(test)]
pub(crate) fn replace(config: Config) {
    *MACHINE.lock().unwrap_or_else(PoisonError::into_inner) = Some(Machine::new(config));
    set_current(0);
}

/// The calling thread's context; 0 for none.
pub(crate) fn current() -> u64 {
    CURRENT.get()
}

/// Sets the calling thread's context; 0 for none.
pub(crate) fn set_current(context: u64) {
    CURRENT.set(context);
}

/// Keeps what a failure said for the thread that asks.
pub(crate) fn remember(message: &str) {
    MESSAGE.with_borrow_mut(|kept| {
        if !message.is_empty() {
            *kept = message.to_owned();
        }
    });
}

/// The thread's last message, once; it lives until the thread asks again.
pub(crate) fn take_message() -> *const std::ffi::c_char {
    let message = MESSAGE.take();
    if message.is_empty() {
        return std::ptr::null();
    }
    HANDED_OUT.with_borrow_mut(|text| {
        *text = CString::new(message).unwrap_or_default();
        text.as_ptr()
    })
}

impl Machine {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            is_initialised: false,
            contexts: BTreeMap::new(),
            descriptors: BTreeMap::new(),
            listed: BTreeSet::new(),
            executors: BTreeMap::new(),
            last_planned: 0,
            recordings: Recordings::default(),
            record: Record::default(),
            leaks: Vec::new(),
            next_handle: 1,
            groups: Groups::default(),
            has_news: false,
            injection: Injection::new(config.common.fault),
        }
    }

    /// Counts a call and fails it where the device is to be lost by now.
    pub(crate) fn count_call(&mut self) -> Outcome<()> {
        let Some(message) = self.injection.call() else { return Ok(()) };
        let failure = Failure::new(status::LOST_HEARTBEAT, message);
        for context in self.contexts.values_mut() {
            context.sticky = Some(failure.clone());
        }
        // It takes everything with it.
        self.descriptors.clear();
        self.listed.clear();
        self.executors.clear();
        self.recordings = Recordings::default();
        Err(failure)
    }

    pub(crate) fn check_initialised(&self) -> Outcome<()> {
        if self.is_initialised {
            return Ok(());
        }
        Err(Failure::new(status::UNINITIALIZED, "aclInit was not called, or failed"))
    }

    pub(crate) fn new_handle(&mut self, kind: Kind) -> u64 {
        self.next_handle += 1;
        (kind as u64) << KIND_SHIFT | self.next_handle
    }

    /// The calling thread's context, fit for work.
    pub(crate) fn context(&mut self) -> Outcome<&mut Context> {
        self.check_initialised()?;
        let Some(context) = self.contexts.get_mut(&CURRENT.get()) else {
            return Err(Failure::new(status::CONTEXT_NULL, "the calling thread has no live context"));
        };
        match &context.sticky {
            Some(failure) => Err(failure.clone()),
            None => Ok(context),
        }
    }

    /// Makes the current context unusable.
    pub(crate) fn spoil(&mut self, failure: &Failure) {
        if let Some(context) = self.contexts.get_mut(&current()) {
            context.sticky.get_or_insert_with(|| failure.clone());
        }
        self.has_news = true;
    }

    /// Device memory of the current context.
    pub(crate) fn alloc(&mut self, num_bytes: usize) -> Outcome<u64> {
        self.context()?;
        self.check_safe("an allocation")?;
        if num_bytes == 0 {
            return Err(Failure::new(status::PARAM_INVALID, "an allocation of 0 bytes"));
        }
        if let Some(message) = self.injection.allocation() {
            return Err(Failure::new(status::MEMORY_ALLOCATION, message));
        }
        let limit = self.config.common.memory_bytes;
        let memory = &mut self.context()?.memory;
        let full = || Failure::new(status::MEMORY_ALLOCATION, format!("no room for {num_bytes} bytes"));
        if memory.used_bytes().saturating_add(num_bytes as u64) > limit {
            return Err(full());
        }
        let address = memory.alloc(num_bytes).ok_or_else(full)?;
        self.record.allocations += 1;
        Ok(address)
    }

    /// Frees device memory at once: what is queued and uses it fails when it runs.
    pub(crate) fn free(&mut self, address: u64) -> Outcome<()> {
        self.check_safe("freeing")?;
        let context = self.context()?;
        context.memory.free(address).map_err(|message| Failure::new(status::PARAM_INVALID, message))
    }

    pub(crate) fn destroy_context(&mut self, handle: u64) -> Outcome<()> {
        let Some(context) = self.contexts.remove(&handle) else {
            return Err(Failure::new(status::PARAM_INVALID, format!("{handle:#x} is no live context")));
        };
        // A lost device takes everything with it.
        if context.sticky.is_none() {
            let leaks = context.leaks();
            self.leaks.extend(leaks.into_iter().map(|leak| format!("{leak}, when its context was destroyed")));
        }
        Ok(())
    }

    /// Everything that was not given back until now.
    pub(crate) fn all_leaks(&self) -> Vec<String> {
        let mut leaks = self.leaks.clone();
        leaks.extend(self.leaked_communicators());
        for (handle, context) in &self.contexts {
            if context.sticky.is_none() {
                leaks.extend(context.leaks());
                leaks.push(format!("context {handle:#x}"));
            }
        }
        leaks.extend(self.descriptors.values().map(|descriptor| format!("a descriptor of {}", descriptor.kind())));
        leaks.extend(self.recordings.leaks());
        leaks.extend(self.executors.values().map(|executor| {
            let fault = if executor.is_repeatable { "never destroyed" } else { "never queued" };
            format!("an executor of {}, {fault}", executor.name)
        }));
        leaks
    }
}
