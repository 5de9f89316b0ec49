//! The state of an emulated driver: devices, contexts, and who owns what.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use emulator_common::fault::Injection;
use emulator_common::{Failure, Outcome};

use crate::collective::Groups;
use crate::config::{Config, Gpu, Libraries as _};
use crate::event::Event;
use crate::graph::Graph;
use crate::module::{Function, Module};
use crate::status::{self, Status};
use crate::stream::Stream;

/// A number of a device.
pub type DeviceId = u32;

/// No driver's status: a call that has to wait for what another thread has yet to ask for. The body of such a call comes to
/// it before it changes anything that it would change again.
pub(crate) const BLOCKED: Status = Status::MIN;

/// Aligned as `cuMemAlloc` and `hipMalloc` align.
pub type Memory = emulator_common::memory::Memory<256>;

/// Handles are numbers that are never used twice, so that a stale one is noticed. The upper bits tell kinds apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Kind {
    Context = 1,
    Stream,
    Event,
    Module,
    Function,
    Graph,
    GraphExec,
    Communicator,
    /// Of a library beside the driver.
    Library,
}

const KIND_SHIFT: u32 = 40;

/// What a context owns.
#[derive(Debug, Default)]
pub struct Context {
    /// Whose it is.
    pub device: DeviceId,
    /// How often it is held; 0 where contexts are nobody's to hold.
    pub num_retained: u32,
    /// Once set, every call answers with it.
    pub sticky: Option<Status>,
    /// Memory of the device.
    pub memory: Memory,
    /// Pinned memory of the host.
    pub(crate) pinned: Memory,
    pub(crate) streams: BTreeMap<u64, Stream>,
    pub(crate) events: BTreeMap<u64, Event>,
    pub(crate) modules: BTreeMap<u64, Module>,
    pub(crate) functions: BTreeMap<u64, Function>,
    pub(crate) graphs: BTreeMap<u64, Graph>,
    pub(crate) executable_graphs: BTreeMap<u64, Graph>,
}

impl Context {
    /// Of a device, held so often.
    pub fn new(device: DeviceId, num_retained: u32) -> Self {
        Self { device, num_retained, ..Self::default() }
    }

    /// Everything that its owner should have given back.
    fn leaks(&self) -> Vec<String> {
        // A lost device takes everything with it.
        if self.sticky.is_some() {
            return Vec::new();
        }
        let pieces = |memory: &Memory, kind: &str| -> Vec<String> {
            memory.live().map(|(address, bytes)| format!("{bytes} bytes of {kind} memory at {address:#x}")).collect()
        };
        let mut leaks = pieces(&self.memory, "device");
        leaks.extend(pieces(&self.pinned, "pinned"));
        for (number, kind) in [
            (self.streams.len(), "stream"),
            (self.events.len(), "event"),
            (self.modules.len(), "module"),
            (self.graphs.len(), "graph"),
            (self.executable_graphs.len(), "executable graph"),
        ] {
            if number > 0 {
                leaks.push(format!("{number} {kind}{}", if number > 1 { "s" } else { "" }));
            }
        }
        leaks
    }
}

/// The whole state.
#[derive(Debug)]
pub struct Driver<G: Gpu> {
    /// The machine.
    pub config: Config<G>,
    /// True once the driver was told to start.
    pub is_initialised: bool,
    /// Contexts by handle; CUDA's while somebody holds them.
    pub contexts: BTreeMap<u64, Context>,
    leaks: Vec<String>,
    next_handle: u64,
    pub(crate) groups: Groups,
    /// Set by what another thread may wait for.
    pub(crate) has_news: bool,
    /// What goes wrong on purpose.
    pub injection: Injection,
    /// What the vendor's other libraries hold.
    pub libraries: G::Libraries,
}

thread_local! {
    /// The context that the calling thread took; 0 for none.
    static CURRENT: Cell<u64> = const { Cell::new(0) };
}

/// The context that the calling thread took; 0 for none.
pub fn current() -> u64 {
    CURRENT.get()
}

/// Sets the calling thread's context; 0 for none.
pub fn set_current(context: u64) {
    CURRENT.set(context);
}

/// The one driver of the process, made when it is first asked for.
#[derive(Debug)]
pub struct Slot<G: Gpu> {
    driver: Mutex<Option<Driver<G>>>,
    /// Some call did what another one may wait for.
    news: Condvar,
}

impl<G: Gpu> Slot<G> {
    /// Before anybody asked.
    #[expect(clippy::new_without_default, reason = "made for statics")]
    pub const fn new() -> Self {
        Self { driver: Mutex::new(None), news: Condvar::new() }
    }

    /// The driver, for one call.
    ///
    /// # Errors
    /// A message where the environment asks for a machine that does not exist.
    pub fn lock(&self) -> Result<MutexGuard<'_, Option<Driver<G>>>, String> {
        let mut driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        if driver.is_none() {
            *driver = Some(Driver::new(G::from_environment()?));
        }
        Ok(driver)
    }

    /// Makes a call. One that waits for what another thread has yet to ask for is made again whenever a thread has asked for
    /// something, until that takes too long: then the device hangs, and is lost.
    ///
    /// # Errors
    /// A message where the environment asks for a machine that does not exist.
    pub(crate) fn call(&self, mut body: impl FnMut(&mut Driver<G>) -> Outcome<()>) -> Result<Outcome<()>, String> {
        let mut guard = self.lock()?;
        let Some(driver) = guard.as_mut() else { return Ok(Err(Failure::new(status::NOT_INITIALIZED, ""))) };
        if let Err(failure) = driver.count_call() {
            self.news.notify_all();
            return Ok(Err(failure));
        }
        let patience = Duration::from_secs(driver.config.nccl.patience_s);
        let (mut begun, mut waits_for) = (Instant::now(), String::new());
        while let Some(driver) = guard.as_mut() {
            let outcome = body(driver);
            if std::mem::take(&mut driver.has_news) {
                self.news.notify_all();
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
                driver.spoil(status::LAUNCH_TIMEOUT);
                let message = format!("hangs: {waits_for}, for {} s", patience.as_secs());
                return Ok(Err(Failure::new(status::LAUNCH_TIMEOUT, message)));
            }
            guard = self.news.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(Err(Failure::new(status::NOT_INITIALIZED, "")))
    }

    /// Replaces the driver by a new one, for tests.
    pub fn replace(&self, config: Config<G>) {
        *self.driver.lock().unwrap_or_else(PoisonError::into_inner) = Some(Driver::new(config));
        set_current(0);
    }

    /// Everything that the process has not given back.
    pub fn leaks(&self) -> Vec<String> {
        self.lock().ok().and_then(|driver| driver.as_ref().map(Driver::all_leaks)).unwrap_or_default()
    }
}

impl<G: Gpu> Driver<G> {
    fn new(config: Config<G>) -> Self {
        Self {
            config,
            is_initialised: false,
            contexts: BTreeMap::new(),
            leaks: Vec::new(),
            next_handle: 1,
            groups: Groups::default(),
            has_news: false,
            injection: Injection::new(config.common.fault),
            libraries: G::Libraries::default(),
        }
    }

    /// Counts a call and fails it where the device is to be lost by now.
    pub(crate) fn count_call(&mut self) -> Outcome<()> {
        let Some(message) = self.injection.call() else { return Ok(()) };
        for context in self.contexts.values_mut() {
            context.sticky = Some(status::UNKNOWN);
        }
        // Said once.
        let message = if self.injection.is_first_lost_call() { message } else { String::new() };
        Err(Failure::new(status::UNKNOWN, message))
    }

    /// Refuses what comes before initialisation.
    ///
    /// # Errors
    /// Where it does.
    pub fn check_initialised(&self) -> Outcome<()> {
        if self.is_initialised {
            return Ok(());
        }
        Err(Failure::new(status::NOT_INITIALIZED, "the driver was not initialised, or that failed"))
    }

    /// Devices are counted from 0.
    ///
    /// # Errors
    /// For a number that no device has.
    pub fn check_device(&self, device: DeviceId) -> Outcome<()> {
        self.check_initialised()?;
        let num_devices = self.config.common.num_devices;
        if device < num_devices {
            return Ok(());
        }
        Err(Failure::new(status::INVALID_DEVICE, format!("device {device} of {num_devices}")))
    }

    /// A handle that nobody had before.
    pub fn new_handle(&mut self, kind: Kind) -> u64 {
        self.next_handle += 1;
        (kind as u64) << KIND_SHIFT | self.next_handle
    }

    /// The calling thread's context.
    pub(crate) fn current(&self) -> u64 {
        match current() {
            0 => G::DEFAULT_CONTEXT,
            taken => taken,
        }
    }

    /// The calling thread's context, fit for work.
    ///
    /// # Errors
    /// Where it has none, or something spoiled it.
    pub fn context(&mut self) -> Outcome<&mut Context> {
        self.check_initialised()?;
        let handle = self.current();
        let Some(context) = self.contexts.get_mut(&handle) else {
            return Err(Failure::new(
                status::INVALID_CONTEXT,
                if handle == 0 {
                    "the calling thread has no context"
                } else {
                    "the calling thread's context was released"
                },
            ));
        };
        match context.sticky {
            Some(status) => Err(Failure::new(status, "")),
            None => Ok(context),
        }
    }

    /// Spoils the calling thread's context: every later call answers so.
    pub(crate) fn spoil(&mut self, status: Status) {
        let handle = self.current();
        if let Some(context) = self.contexts.get_mut(&handle) {
            context.sticky = Some(status);
        }
        self.has_news = true;
    }

    /// Ends a context with everything in it.
    pub fn end_context(&mut self, handle: u64) {
        if let Some(context) = self.contexts.remove(&handle) {
            let leaks = context.leaks().into_iter();
            self.leaks.extend(leaks.map(|leak| format!("{leak}, when the context was released")));
        }
    }

    /// Everything that was not given back until now.
    pub fn all_leaks(&self) -> Vec<String> {
        let mut leaks = self.leaks.clone();
        leaks.extend(self.leaked_communicators());
        // A lost device takes everything with it.
        if self.contexts.values().all(|context| context.sticky.is_none()) {
            leaks.extend(self.libraries.leaks());
        }
        for context in self.contexts.values() {
            leaks.extend(context.leaks());
            let Context { device, num_retained, sticky, .. } = context;
            if *num_retained > 0 && sticky.is_none() {
                leaks.push(format!("the primary context of device {device}, held {num_retained} times"));
            }
        }
        leaks
    }
}
