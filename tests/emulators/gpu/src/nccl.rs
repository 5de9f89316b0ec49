//! The library of collectives, which NVIDIA calls NCCL and AMD RCCL: alike in names and numbers. It is a part of the
//! driver's library here, under another file name: both know the same streams and memory.

use std::cell::RefCell;
use std::ffi::{CStr, c_int};
use std::thread::{self, ThreadId};

use emulator_common::{Failure, Outcome};

use crate::api::{Statuses, answer_as};
use crate::collective::{Collective, Group, Life, Member};
use crate::config::Gpu;
use crate::driver::{BLOCKED, Driver, Kind, current, set_current};
use crate::status::Status;
use crate::stream::Op;

pub use emulator_common::collective::{Call, Element};

/// What every function returns, as the library's reference numbers it.
#[allow(missing_docs, reason = "the names are those of the library's header, without their prefix")]
pub mod result {
    use super::Status;

    pub const SUCCESS: Status = 0;
    pub const UNHANDLED_CUDA_ERROR: Status = 1;
    pub const SYSTEM_ERROR: Status = 2;
    pub const INTERNAL_ERROR: Status = 3;
    pub const INVALID_ARGUMENT: Status = 4;
    pub const INVALID_USAGE: Status = 5;
    pub const REMOTE_ERROR: Status = 6;
}

/// Values in memory, and what is done with them, as the library's reference numbers them.
const FLOAT32: c_int = 7;
const BFLOAT16: c_int = 9;
const SUM: c_int = 0;

/// What a result stands for.
pub fn words(result: Status) -> &'static CStr {
    match result {
        result::SUCCESS => c"no error",
        result::UNHANDLED_CUDA_ERROR => c"unhandled cuda error",
        result::SYSTEM_ERROR => c"unhandled system error",
        result::INTERNAL_ERROR => c"internal error",
        result::INVALID_ARGUMENT => c"invalid argument",
        result::INVALID_USAGE => c"invalid usage",
        result::REMOTE_ERROR => c"remote process exited or there was a network error",
        _ => c"unknown result code",
    }
}

/// Calls of one thread between the start and the end of a section.
#[derive(Default)]
struct Section {
    depth: u32,
    /// Why a call in it was refused: then none is made.
    refused: Option<Status>,
    /// Contexts, streams, and what is queued on them when the section ends.
    pending: Vec<(u64, u64, Collective)>,
}

thread_local! {
    static SECTION: RefCell<Section> = RefCell::default();
}

/// Runs the body of a function and reports what it refuses.
pub fn answer<G: Gpu>(name: &str, body: impl FnMut(&mut Driver<G>) -> Outcome<()>) -> Status {
    // A driver that fails before the body has its own statuses.
    let known = result::UNHANDLED_CUDA_ERROR..=result::REMOTE_ERROR;
    answer_as(&Statuses { known, unhandled: result::UNHANDLED_CUDA_ERROR, words }, name, body)
}

fn argument<T>(message: String) -> Outcome<T> {
    Err(Failure::new(result::INVALID_ARGUMENT, message))
}

fn usage<T>(message: String) -> Outcome<T> {
    Err(Failure::new(result::INVALID_USAGE, message))
}

/// What the driver refused, as the library passes it on.
fn of_the_driver(failure: Failure) -> Failure {
    let status = if failure.status == BLOCKED { BLOCKED } else { result::UNHANDLED_CUDA_ERROR };
    Failure { status, ..failure }
}

#[allow(missing_docs, clippy::missing_errors_doc, reason = "the functions of the library's reference")]
impl<G: Gpu> Driver<G> {
    /// A communicator for each of these devices, which are opened, and idle as far as captures go.
    pub fn new_communicators(&mut self, devices: &[u32]) -> Outcome<Vec<u64>> {
        if let Some(message) = self.injection.group() {
            return Err(Failure::new(result::SYSTEM_ERROR, message));
        }
        let mut group = Group::default();
        for (rank, device) in devices.iter().enumerate() {
            self.check_device(*device).map_err(of_the_driver)?;
            if devices[..rank].contains(device) {
                return usage(format!("device {device} is named twice"));
            }
            let Some((handle, context)) = self.contexts.iter_mut().find(|(_, context)| context.device == *device)
            else {
                return usage(format!("device {device} was not opened: that the library does it is not modelled"));
            };
            if let Some(status) = context.sticky {
                return Err(of_the_driver(Failure::new(status, "")));
            }
            context.check_no_capture("making communicators").map_err(of_the_driver)?;
            group.members.push(Member::new(*handle, *device));
        }
        let handles: Vec<u64> = devices.iter().map(|_| self.new_handle(Kind::Communicator)).collect();
        let index = self.groups.groups.len();
        self.groups.places.extend(handles.iter().enumerate().map(|(rank, handle)| (*handle, (index, rank))));
        self.groups.groups.push(group);
        Ok(handles)
    }

    /// Work that uses it must have run.
    pub fn destroy_communicator(&mut self, communicator: u64) -> Outcome<()> {
        let (group, rank) = self.groups.place(communicator)?;
        let Member { life, context, .. } = self.groups.groups[group].members[rank];
        let is_queued = self.contexts.get(&context).is_some_and(|context| {
            context.streams.values().any(|stream| stream.queue.iter().any(|op| op.uses(communicator)))
        });
        if life == Life::Live && is_queued {
            return usage("a collective of the communicator is still queued".into());
        }
        self.end_communicator(communicator, Life::Destroyed)
    }

    /// From any thread: what waits on the device goes on without a result.
    pub fn abort_communicator(&mut self, communicator: u64) -> Outcome<()> {
        self.end_communicator(communicator, Life::Aborted)
    }

    /// The last rank of a group ends all of it, once no graph needs it any more: NCCL waits there, whichever way it ends.
    fn end_communicator(&mut self, communicator: u64, life: Life) -> Outcome<()> {
        let me = thread::current().id();
        let (group, rank) = self.groups.place(communicator)?;
        if self.groups.groups[group].members[rank].ending != Some(me) {
            let member = self.member(communicator)?;
            member.end(life);
            member.ending = Some(me);
            self.has_news = true;
        }
        let is_last = self.groups.groups[group].members.iter().all(|member| member.life != Life::Live);
        if is_last && self.has_graph_of(group) {
            let message =
                format!("the end of rank {rank}, the last of its group, waits for the end of graphs that hold it");
            return Err(Failure::new(BLOCKED, message));
        }
        self.groups.groups[group].members[rank].ending = None;
        Ok(())
    }

    /// What became of collectives that have run.
    pub fn async_error(&mut self, communicator: u64) -> Outcome<Status> {
        self.member(communicator)?;
        let (group, _) = self.groups.place(communicator)?;
        Ok(self.groups.groups[group].async_error.unwrap_or(result::SUCCESS))
    }

    pub fn start_section(&mut self) -> Outcome<()> {
        SECTION.with_borrow_mut(|section| section.depth += 1);
        Ok(())
    }

    pub fn end_section(&mut self) -> Outcome<()> {
        let ended = SECTION.with_borrow_mut(|section| {
            section.depth = section.depth.checked_sub(1)?;
            Some(if section.depth == 0 { std::mem::take(section) } else { Section::default() })
        });
        let Some(Section { pending, refused, .. }) = ended else {
            return usage("the end of a section that nobody started".into());
        };
        if let Some(status) = refused {
            return Err(Failure::new(status, "a call in the section was refused, so none is made"));
        }
        let mine = current();
        let queued = pending.into_iter().try_for_each(|(context, stream, collective)| {
            set_current(context);
            self.push(stream, Op::Collective(collective)).map_err(of_the_driver)
        });
        set_current(mine);
        queued
    }

    /// Queues a sum. The calling thread works on the communicator's device, whose stream it is.
    pub fn all_reduce(&mut self, communicator: u64, stream: u64, call: Call) -> Outcome<()> {
        let checked = self.check_call(communicator, stream, &call);
        let collective = Collective { communicator, call };
        let is_deferred = SECTION.with_borrow_mut(|section| {
            if section.depth > 0 {
                match &checked {
                    Ok(context) => section.pending.push((*context, stream, collective)),
                    Err(Failure { status, .. }) => section.refused = Some(*status),
                }
            }
            section.depth > 0
        });
        checked?;
        if is_deferred {
            return Ok(());
        }
        self.check_thread(communicator, thread::current().id())?;
        self.push(stream, Op::Collective(collective)).map_err(of_the_driver)
    }

    /// The context in which the call is made.
    fn check_call(&mut self, communicator: u64, stream: u64, call: &Call) -> Outcome<u64> {
        if let Some(message) = self.injection.collective() {
            return Err(Failure::new(result::SYSTEM_ERROR, message));
        }
        let Member { context, device, .. } = *self.member(communicator)?;
        let worked_on = self.current();
        if worked_on != context {
            let name = self.contexts.get(&worked_on).map_or("none".into(), |other| other.device.to_string());
            return argument(format!("the communicator is of device {device}, the thread works on {name}"));
        }
        self.context().and_then(|context| context.stream(stream).map(|_| ())).map_err(of_the_driver)?;
        self.check_buffers(call)?;
        Ok(context)
    }

    fn check_buffers(&mut self, call: &Call) -> Outcome<()> {
        if call.count == 0 {
            return argument("a sum of nothing is not modelled".into());
        }
        if let Some(message) = call.misplaced() {
            return argument(message);
        }
        for (what, address) in [("a sum of", call.from), ("a sum to", call.to)] {
            let num_bytes = call.num_bytes();
            let checked = self.context().and_then(|context| context.check_device_range(what, address, num_bytes));
            checked.map_err(|failure| Failure::new(result::INVALID_ARGUMENT, failure.message))?;
        }
        Ok(())
    }

    /// The library may wait for the other ranks before it returns: a thread that queues for several of them says so.
    fn check_thread(&mut self, communicator: u64, me: ThreadId) -> Outcome<()> {
        let (group, rank) = self.groups.place(communicator)?;
        let members = &mut self.groups.groups[group].members;
        members[rank].thread = Some(me);
        let mut others = members.iter().enumerate().filter(|(other, _)| *other != rank);
        match others.find(|(_, member)| member.thread == Some(me)) {
            Some((other, _)) => usage(format!(
                "one thread queues collectives of ranks {other} and {rank}, not between ncclGroupStart and ncclGroupEnd"
            )),
            None => Ok(()),
        }
    }
}

/// A sum as its caller describes it.
///
/// # Errors
/// For types and operations that are not modelled.
pub fn call(from: u64, to: u64, count: usize, [data_type, operation]: [c_int; 2]) -> Outcome<Call> {
    let element = match data_type {
        BFLOAT16 => Element::Bf16,
        FLOAT32 => Element::F32,
        other => return argument(format!("values of type {other} are not modelled")),
    };
    if operation != SUM {
        return argument(format!("operation {operation} is not modelled"));
    }
    Ok(Call { from, to, count, element })
}

/// Defines the exported functions of the library for one kind of [`Gpu`].
#[macro_export]
macro_rules! nccl_entries {
    ($gpu:ty) => {
        $crate::nccl_entries! {
            @each $gpu;

            fn ncclGetVersion(driver, version: *mut std::ffi::c_int) {
                $crate::write(version, driver.config.nccl.version)
            }

            fn ncclCommInitAll(driver, communicators: *mut u64, num_devices: std::ffi::c_int, devices: *const std::ffi::c_int) {
                let device = |rank| if devices.is_null() { Ok(rank as u32) } else { $crate::read_at(devices, rank).map(|device| device as u32) };
                let devices = (0..num_devices as usize).map(device).collect::<$crate::Outcome<Vec<u32>>>()?;
                let made = driver.new_communicators(&devices)?;
                made.into_iter().enumerate().try_for_each(|(rank, handle)| $crate::write(communicators.wrapping_add(rank), handle))
            }

            fn ncclCommDestroy(driver, communicator: u64) {
                driver.destroy_communicator(communicator)
            }

            fn ncclCommAbort(driver, communicator: u64) {
                driver.abort_communicator(communicator)
            }

            fn ncclCommGetAsyncError(driver, communicator: u64, error: *mut $crate::Status) {
                $crate::write(error, driver.async_error(communicator)?)
            }

            fn ncclGroupStart(driver) {
                driver.start_section()
            }

            fn ncclGroupEnd(driver) {
                driver.end_section()
            }

            fn ncclAllReduce(
                driver,
                from: u64,
                to: u64,
                count: usize,
                data_type: std::ffi::c_int,
                operation: std::ffi::c_int,
                communicator: u64,
                stream: u64,
            ) {
                driver.all_reduce(communicator, stream, $crate::nccl::call(from, to, count, [data_type, operation])?)
            }
        }

        /// What a result stands for.
        // SAFETY: the name is that of the library's function, with its parameter.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, reason = "the library's own name")]
        pub(crate) extern "C" fn ncclGetErrorString(result: $crate::Status) -> *const std::ffi::c_char {
            $crate::nccl::words(result).as_ptr()
        }
    };
    (@each $gpu:ty; $(fn $name:ident($driver:pat $(, $argument:ident: $type:ty)* $(,)?) $body:block)*) => {
        $(
            // SAFETY: the name is that of the library's function, with its parameters.
            #[unsafe(no_mangle)]
            #[allow(non_snake_case, clippy::too_many_arguments, reason = "the library's own function")]
            pub(crate) extern "C" fn $name($($argument: $type),*) -> $crate::Status {
                let answer = |$driver: &mut $crate::Driver<$gpu>| -> $crate::Outcome<()> { $body };
                $crate::nccl::answer(stringify!($name), answer)
            }
        )*
    };
}
