//! The library of collectives: its functions, looked up once, and communicators that own what they stand for. All `unsafe`
//! of the crate.
//!
//! NVIDIA calls it NCCL, AMD RCCL; names, numbers and meaning are the same. Statuses are numbers, not an enum: a newer
//! library may answer some that nobody here has heard of.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Absence, CollectiveError, CollectiveLibrary};
use crate::runtime::NativeQueue;

/// What every function returns (`ncclResult_t`).
type Status = c_int;
const SUCCESS: Status = 0;

/// `ncclBfloat16` and `ncclSum`.
const BFLOAT16: c_int = 9;
const SUM: c_int = 0;

/// A communicator, as the library knows it.
type Handle = *mut c_void;

/// Declares functions of the library, all of which it must have.
macro_rules! functions {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?);)*) => {
        #[allow(non_snake_case, reason = "the library's own names")]
        struct Api {
            $($name: unsafe extern "C" fn($($type),*) -> Status,)*
            ncclGetErrorString: unsafe extern "C" fn(Status) -> *const c_char,
            /// The functions' home, which stays loaded: its threads may outlive any communicator.
            _library: std::mem::ManuallyDrop<libloading::Library>,
        }

        #[allow(non_snake_case, clippy::too_many_arguments, reason = "the library's own functions")]
        impl Api {
            fn new(library: libloading::Library) -> Result<Self, Absence> {
                $(
                    // SAFETY: the function is declared as the library's reference has it.
                    let found = unsafe { library.get(concat!(stringify!($name), "\0")) };
                    let $name = *found.map_err(|_| Absence::Symbol(stringify!($name)))?;
                )*
                // SAFETY: as above.
                let found = unsafe { library.get("ncclGetErrorString\0") };
                let ncclGetErrorString = *found.map_err(|_| Absence::Symbol("ncclGetErrorString"))?;
                Ok(Self { $($name,)* ncclGetErrorString, _library: std::mem::ManuallyDrop::new(library) })
            }

            $(
                /// The library's function of this name.
                ///
                /// # Safety
                /// That of the C function.
                unsafe fn $name(&self, $($argument: $type),*) -> Result<(), CollectiveError> {
                    // SAFETY: the caller's promise.
                    self.check(stringify!($name), unsafe { (self.$name)($($argument),*) })
                }
            )*
        }
    };
}

functions! {
    fn ncclGetVersion(version: *mut c_int);
    fn ncclCommInitAll(communicators: *mut Handle, num_devices: c_int, devices: *const c_int);
    fn ncclCommDestroy(communicator: Handle);
    fn ncclCommAbort(communicator: Handle);
    fn ncclCommGetAsyncError(communicator: Handle, status: *mut Status);
    fn ncclGroupStart();
    fn ncclGroupEnd();
    fn ncclAllReduce(
        from: *const c_void,
        to: *mut c_void,
        count: usize,
        data_type: c_int,
        operation: c_int,
        communicator: Handle,
        queue: *mut c_void,
    );
}

impl Api {
    /// Turns a status into a result.
    fn check(&self, function: &'static str, status: Status) -> Result<(), CollectiveError> {
        if status == SUCCESS {
            return Ok(());
        }
        // SAFETY: takes any number.
        let words = unsafe { (self.ncclGetErrorString)(status) };
        let words = if words.is_null() {
            String::new()
        } else {
            // SAFETY: the library answers with a text of its own that ends in a zero byte and stays.
            unsafe { CStr::from_ptr(words) }.to_string_lossy().into_owned()
        };
        Err(CollectiveError::Failed { function, status, words })
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

// SAFETY: the library lets any thread call its functions.
unsafe impl Send for Api {}
// SAFETY: as above; it does its own locking.
unsafe impl Sync for Api {}

/// A library that is loaded.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    api: Arc<Api>,
    pub(super) version: i32,
}

impl Loaded {
    /// Opens the library under the first of its names that there is, and looks every function up.
    pub(super) fn open(library: &CollectiveLibrary) -> Result<Self, Absence> {
        let opened = library.files.iter().find_map(|file| {
            // SAFETY: the library is NCCL or RCCL, whose initialisers are made to run in any process.
            unsafe { libloading::Library::new(OsStr::new(file)) }.ok()
        });
        let api = Arc::new(Api::new(opened.ok_or(Absence::Library)?)?);
        let mut version = 0;
        // SAFETY: the result goes to an integer that outlives the call.
        unsafe { api.ncclGetVersion(&raw mut version) }.map_err(Absence::Failed)?;
        if version < library.min_version {
            return Err(Absence::Old { found: version });
        }
        Ok(Self { api, version })
    }

    /// A communicator for each of these devices, in order: the ranks of one group.
    pub(super) fn communicators(&self, ordinals: &[u32]) -> Result<Vec<Arc<Communicator>>, CollectiveError> {
        let devices: Vec<c_int> = ordinals.iter().map(|ordinal| *ordinal as c_int).collect();
        let mut handles = vec![ptr::null_mut(); devices.len()];
        // SAFETY: both arrays have an entry for each device and outlive the call.
        unsafe { self.api.ncclCommInitAll(handles.as_mut_ptr(), devices.len() as c_int, devices.as_ptr()) }?;
        let owned = |handle| {
            let handle = Mutex::new(Some(OwnedHandle(handle)));
            Arc::new(Communicator { api: self.api.clone(), handle })
        };
        Ok(handles.into_iter().map(owned).collect())
    }

    /// Queues collectives of several ranks from one thread: none waits for the others before `queue` is over.
    pub(super) fn together<E: From<CollectiveError>>(&self, queue: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        // SAFETY: takes nothing.
        unsafe { self.api.ncclGroupStart() }?;
        let queued = queue();
        // SAFETY: takes nothing; ends what was started above.
        let ended = unsafe { self.api.ncclGroupEnd() };
        queued?;
        Ok(ended?)
    }
}

/// A handle that is neither destroyed nor aborted.
#[derive(Debug)]
struct OwnedHandle(Handle);

// SAFETY: the library lets any thread use a communicator, one at a time.
unsafe impl Send for OwnedHandle {}

/// One rank's place in a group of devices. Destroyed when dropped, unless it was aborted.
///
/// The library waits, when the last communicator of a group ends, until no recorded work holds a collective of any: whoever
/// holds such work holds the communicator too, and lets go of the work first.
#[derive(Debug)]
pub(crate) struct Communicator {
    api: Arc<Api>,
    handle: Mutex<Option<OwnedHandle>>,
}

impl Communicator {
    fn lock(&self) -> MutexGuard<'_, Option<OwnedHandle>> {
        // A handle is taken out or stays: a panic elsewhere changes nothing of it.
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something during which nobody aborts it; what that is does not use it itself.
    pub(crate) fn while_alive<T>(&self, run: impl FnOnce() -> T) -> Result<T, CollectiveError> {
        let handle = self.lock();
        if handle.is_some() { Ok(run()) } else { Err(CollectiveError::Aborted) }
    }

    /// Queues `x = sum of x over the ranks` for `count` values of bf16 in device memory. The queue and the memory are of
    /// this rank's device, which is the calling thread's, and the memory lives until the sum has run: the caller vouches for
    /// that, as in [`GpuRuntime::launch`](crate::GpuRuntime::launch).
    pub(crate) fn all_reduce(&self, queue: NativeQueue, address: u64, count: usize) -> Result<(), CollectiveError> {
        let handle = self.lock();
        let OwnedHandle(handle) = handle.as_ref().ok_or(CollectiveError::Aborted)?;
        let x = ptr::with_exposed_provenance_mut::<c_void>(address as usize);
        let queue = ptr::with_exposed_provenance_mut::<c_void>(queue.0 as usize);
        // SAFETY: the handle is alive as long as it is locked; queue and memory are the caller's promise.
        unsafe { self.api.ncclAllReduce(x, x, count, BFLOAT16, SUM, *handle, queue) }
    }

    /// What became of sums that have run: the library can find out late that one did not come about.
    pub(crate) fn check(&self) -> Result<(), CollectiveError> {
        let handle = self.lock();
        let OwnedHandle(handle) = handle.as_ref().ok_or(CollectiveError::Aborted)?;
        let mut status = SUCCESS;
        // SAFETY: the handle is alive as long as it is locked; the result goes to an integer that outlives the call.
        unsafe { self.api.ncclCommGetAsyncError(*handle, &raw mut status) }?;
        self.api.check("a sum that was queued before", status)
    }

    /// Ends it from any thread, once: what waits for other ranks on its device quits, without a result. The last of a group
    /// returns when recorded work that holds its collectives is gone.
    pub(super) fn abort(&self) -> Result<(), CollectiveError> {
        let Some(OwnedHandle(handle)) = self.lock().take() else { return Ok(()) };
        // SAFETY: the handle was alive, and nobody has it any more.
        unsafe { self.api.ncclCommAbort(handle) }
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        let Some(OwnedHandle(handle)) = self.lock().take() else { return };
        // SAFETY: the handle was alive, and nobody has it any more.
        if let Err(error) = unsafe { self.api.ncclCommDestroy(handle) } {
            tracing::warn!(%error, "a communicator could not be given back");
        }
    }
}
