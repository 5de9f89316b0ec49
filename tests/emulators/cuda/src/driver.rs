//! The state of the emulated driver: devices, contexts, and who owns what.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::abi::{Status, status};
use crate::config::{Config, Fault};
use crate::memory::Memory;
use crate::module::{Function, Module};
use crate::stream::{Event, Graph, Stream};

/// A function that did not succeed: what it answers, and what the developer should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: Status,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(status: Status, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = status::name(self.status).map_or("?".into(), |name| name.to_string_lossy());
        write!(f, "{name}: {}", self.message)
    }
}

pub(crate) type Outcome<T> = Result<T, Failure>;

/// A number of a device.
pub(crate) type DeviceId = u32;

/// Handles are numbers that are never used twice, so that a stale one is noticed. The upper bits tell kinds apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Context = 1,
    Stream,
    Event,
    Module,
    Function,
    Graph,
    GraphExec,
}

const KIND_SHIFT: u32 = 40;

/// What a context owns.
#[derive(Debug, Default)]
pub(crate) struct Context {
    pub(crate) device: DeviceId,
    pub(crate) num_retained: u32,
    /// Once set, every call answers with it.
    pub(crate) sticky: Option<Status>,
    pub(crate) memory: Memory,
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
    /// Everything that its owner should have given back.
    pub(crate) fn leaks(&self) -> Vec<String> {
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
pub(crate) struct Driver {
    pub(crate) config: Config,
    pub(crate) is_initialised: bool,
    /// The primary context of each device that somebody holds, by handle.
    pub(crate) contexts: BTreeMap<u64, Context>,
    pub(crate) leaks: Vec<String>,
    next_handle: u64,
    num_calls: u64,
    num_allocations: u64,
    pub(crate) num_launches: u64,
}

thread_local! {
    /// The context of the calling thread; 0 for none.
    static CURRENT: Cell<u64> = const { Cell::new(0) };
}

static DRIVER: Mutex<Option<Driver>> = Mutex::new(None);

/// The one driver of the process, made when it is first asked for.
///
/// # Errors
/// A message where the environment asks for a machine that does not exist.
pub(crate) fn lock() -> Result<MutexGuard<'static, Option<Driver>>, String> {
    let mut driver = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
    if driver.is_none() {
        *driver = Some(Driver::new(Config::from_environment()?));
    }
    Ok(driver)
}

/// Replaces the driver by a new one.
#[cfg(test)]
pub(crate) fn replace(config: Config) {
    *DRIVER.lock().unwrap_or_else(PoisonError::into_inner) = Some(Driver::new(config));
    set_current(0);
}

/// Sets the calling thread's context; 0 for none.
pub(crate) fn set_current(context: u64) {
    CURRENT.set(context);
}

/// The calling thread's context; 0 for none.
pub(crate) fn current() -> u64 {
    CURRENT.get()
}

impl Driver {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            is_initialised: false,
            contexts: BTreeMap::new(),
            leaks: Vec::new(),
            next_handle: 1,
            num_calls: 0,
            num_allocations: 0,
            num_launches: 0,
        }
    }

    /// Counts a call and fails it where the device is to be lost by now.
    pub(crate) fn count_call(&mut self) -> Outcome<()> {
        self.num_calls += 1;
        match self.config.fault {
            Some(Fault::DeviceLost(first)) if self.num_calls >= first => {
                for context in self.contexts.values_mut() {
                    context.sticky = Some(status::UNKNOWN);
                }
                // Said once.
                let is_first = self.num_calls == first;
                let message = is_first.then(|| format!("injected: the device is lost from call {first} on"));
                Err(Failure::new(status::UNKNOWN, message.unwrap_or_default()))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn check_initialised(&self) -> Outcome<()> {
        if self.is_initialised {
            return Ok(());
        }
        Err(Failure::new(status::NOT_INITIALIZED, "cuInit was not called, or failed"))
    }

    pub(crate) fn check_device(&self, device: DeviceId) -> Outcome<()> {
        self.check_initialised()?;
        if device < self.config.num_devices {
            return Ok(());
        }
        Err(Failure::new(status::INVALID_DEVICE, format!("device {device} of {}", self.config.num_devices)))
    }

    pub(crate) fn new_handle(&mut self, kind: Kind) -> u64 {
        self.next_handle += 1;
        (kind as u64) << KIND_SHIFT | self.next_handle
    }

    /// The calling thread's context, fit for work.
    pub(crate) fn context(&mut self) -> Outcome<&mut Context> {
        self.check_initialised()?;
        let handle = current();
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

    /// Memory of the current context's device.
    pub(crate) fn alloc(&mut self, num_bytes: usize) -> Outcome<u64> {
        self.context()?.check_no_capture("an allocation")?;
        if num_bytes == 0 {
            return Err(Failure::new(status::INVALID_VALUE, "an allocation of 0 bytes"));
        }
        self.num_allocations += 1;
        if self.config.fault == Some(Fault::Allocation(self.num_allocations)) {
            let message = format!("injected: allocation {} fails", self.num_allocations);
            return Err(Failure::new(status::OUT_OF_MEMORY, message));
        }
        let limit = self.config.memory_bytes;
        let memory = &mut self.context()?.memory;
        if memory.used_bytes().saturating_add(num_bytes as u64) > limit {
            return Err(Failure::new(status::OUT_OF_MEMORY, ""));
        }
        memory.alloc(num_bytes).ok_or_else(|| Failure::new(status::OUT_OF_MEMORY, "the host has no memory left"))
    }

    /// Frees device memory, after everything that was queued.
    pub(crate) fn free(&mut self, address: u64) -> Outcome<()> {
        self.context()?.check_no_capture("a free")?;
        self.run_all()?;
        self.context()?.memory.free(address).map_err(|message| Failure::new(status::INVALID_VALUE, message))
    }

    /// Gives up one hold on a device's primary context; the last one destroys it.
    pub(crate) fn release(&mut self, device: DeviceId) -> Outcome<()> {
        let Some((&handle, context)) = self.contexts.iter_mut().find(|(_, context)| context.device == device) else {
            return Err(Failure::new(status::INVALID_CONTEXT, format!("nobody holds the context of device {device}")));
        };
        context.num_retained -= 1;
        if context.num_retained > 0 {
            return Ok(());
        }
        if context.sticky.is_none() {
            let leaks = context.leaks();
            self.leaks.extend(leaks.into_iter().map(|leak| format!("{leak}, when the context was released")));
        }
        self.contexts.remove(&handle);
        Ok(())
    }

    /// Everything that was not given back until now.
    pub(crate) fn all_leaks(&self) -> Vec<String> {
        let mut leaks = self.leaks.clone();
        for context in self.contexts.values() {
            // A lost device takes everything with it.
            if context.sticky.is_none() {
                leaks.extend(context.leaks());
                leaks.push(format!(
                    "the primary context of device {}, held {} times",
                    context.device, context.num_retained
                ));
            }
        }
        leaks
    }
}
