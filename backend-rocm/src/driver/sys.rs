//! HIP's C interface, as far as it is called here: plain integers and opaque pointers, as its reference documents them.
//!
//! Statuses are numbers, not an enum: a newer runtime may answer some that nobody here has heard of.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};

use libloading::Library;

use super::{HipError, check};

/// What every function returns (`hipError_t`).
pub(crate) type Status = u32;

pub(crate) mod status {
    use super::Status;

    pub(crate) const SUCCESS: Status = 0;
    pub(crate) const OUT_OF_MEMORY: Status = 2;
    pub(crate) const NO_DEVICE: Status = 100;
    pub(crate) const NOT_FOUND: Status = 500;
    pub(crate) const NOT_SUPPORTED: Status = 801;

    /// Names of the statuses that a user is likely to see.
    pub(crate) const NAMES: [(Status, &str); 19] = [
        (SUCCESS, "hipSuccess"),
        (1, "hipErrorInvalidValue"),
        (OUT_OF_MEMORY, "hipErrorOutOfMemory"),
        (3, "hipErrorNotInitialized"),
        (35, "hipErrorInsufficientDriver"),
        (98, "hipErrorInvalidDeviceFunction"),
        (NO_DEVICE, "hipErrorNoDevice"),
        (101, "hipErrorInvalidDevice"),
        (200, "hipErrorInvalidImage"),
        (209, "hipErrorNoBinaryForGpu"),
        (400, "hipErrorInvalidHandle"),
        (NOT_FOUND, "hipErrorNotFound"),
        (700, "hipErrorIllegalAddress"),
        (701, "hipErrorLaunchOutOfResources"),
        (719, "hipErrorLaunchFailure"),
        (NOT_SUPPORTED, "hipErrorNotSupported"),
        (900, "hipErrorStreamCaptureUnsupported"),
        (901, "hipErrorStreamCaptureInvalidated"),
        (999, "hipErrorUnknown"),
    ];
}

/// `hipDeviceAttribute_t`, the numbers that HIP 5.4 and later share.
pub(crate) mod attribute {
    use std::ffi::c_int;

    pub(crate) const MULTIPROCESSOR_COUNT: c_int = 63;
    pub(crate) const MAX_SHARED_MEMORY_PER_BLOCK: c_int = 74;
    pub(crate) const WARP_SIZE: c_int = 87;
}

/// `hipStreamNonBlocking`: not ordered with the default stream.
pub(crate) const STREAM_NON_BLOCKING: c_uint = 1;
/// `hipStreamCaptureModeThreadLocal`: other threads go on as they were.
pub(crate) const CAPTURE_MODE_THREAD_LOCAL: c_int = 1;

/// Handles.
pub(crate) type Stream = *mut c_void;
pub(crate) type Module = *mut c_void;
pub(crate) type Function = *mut c_void;
pub(crate) type Graph = *mut c_void;
pub(crate) type GraphExec = *mut c_void;
/// An address of device memory.
pub(crate) type DevicePointer = *mut c_void;

/// Declares functions of the library, each `Option`: what an old one lacks is known before it is called.
macro_rules! functions {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?);)*) => {
        /// The library, and those of the functions that it has.
        #[allow(non_snake_case, reason = "HIP's own names")]
        pub(crate) struct Api {
            $($name: Option<unsafe extern "C" fn($($type),*) -> Status>,)*
            /// The functions' home, which stays loaded: what the runtime registers with the process outlives any handle.
            _library: std::mem::ManuallyDrop<Library>,
        }

        #[allow(non_snake_case, clippy::too_many_arguments, reason = "HIP's own functions")]
        impl Api {
            /// Every function, by its name.
            pub(crate) const NAMES: &[&str] = &[$(stringify!($name),)*];

            /// Sizes of its arguments, in bytes.
            #[cfg(all(test, feature = "hip-sys"))]
            pub(super) const ARGUMENT_BYTES: &[&[usize]] = &[$(&[$(size_of::<$type>()),*],)*];

            /// Looks every function up.
            pub(crate) fn new(library: Library) -> Self {
                $(
                    // SAFETY: the function is declared as HIP's reference has it; `agreement` compares.
                    let found = unsafe { library.get(concat!(stringify!($name), "\0")) };
                    let $name = found.ok().map(|symbol| *symbol);
                )*
                Self { $($name,)* _library: std::mem::ManuallyDrop::new(library) }
            }

            /// True where the library has a function of this name.
            pub(crate) fn has(&self, name: &str) -> bool {
                [$((stringify!($name), self.$name.is_some()),)*].contains(&(name, true))
            }

            $(
                /// HIP's function of this name; a library without it answers as one that does not support it.
                ///
                /// # Safety
                /// That of the C function.
                pub(super) unsafe fn $name(&self, $($argument: $type),*) -> Result<(), HipError> {
                    let Some(function) = self.$name else {
                        return Err(HipError { function: stringify!($name), status: status::NOT_SUPPORTED });
                    };
                    // SAFETY: the caller's promise.
                    check(stringify!($name), unsafe { function($($argument),*) })
                }
            )*
        }
    };
}

functions! {
    fn hipInit(flags: c_uint);
    fn hipRuntimeGetVersion(version: *mut c_int);
    fn hipGetDeviceCount(count: *mut c_int);
    fn hipSetDevice(device: c_int);
    fn hipGetDevicePropertiesR0600(properties: *mut c_void, device: c_int);
    fn hipDeviceGetName(name: *mut c_char, length: c_int, device: c_int);
    fn hipDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: c_int);
    fn hipDeviceTotalMem(num_bytes: *mut usize, device: c_int);
    fn hipDeviceSynchronize();
    fn hipMemGetInfo(free: *mut usize, total: *mut usize);
    fn hipMalloc(address: *mut DevicePointer, num_bytes: usize);
    fn hipFree(address: DevicePointer);
    fn hipHostMalloc(address: *mut *mut c_void, num_bytes: usize, flags: c_uint);
    fn hipHostFree(address: *mut c_void);
    fn hipMemcpyHtoDAsync(to: DevicePointer, from: *mut c_void, num_bytes: usize, stream: Stream);
    fn hipMemcpyDtoHAsync(to: *mut c_void, from: DevicePointer, num_bytes: usize, stream: Stream);
    fn hipModuleLoadData(module: *mut Module, image: *const c_void);
    fn hipModuleUnload(module: Module);
    fn hipModuleGetFunction(function: *mut Function, module: Module, name: *const c_char);
    fn hipModuleLaunchKernel(
        function: Function,
        grid_x: c_uint,
        grid_y: c_uint,
        grid_z: c_uint,
        block_x: c_uint,
        block_y: c_uint,
        block_z: c_uint,
        shared_bytes: c_uint,
        stream: Stream,
        arguments: *mut *mut c_void,
        extra: *mut *mut c_void,
    );
    fn hipStreamCreateWithFlags(stream: *mut Stream, flags: c_uint);
    fn hipStreamDestroy(stream: Stream);
    fn hipStreamSynchronize(stream: Stream);
    fn hipStreamBeginCapture(stream: Stream, mode: c_int);
    fn hipStreamEndCapture(stream: Stream, graph: *mut Graph);
    fn hipGraphInstantiateWithFlags(executable: *mut GraphExec, graph: Graph, flags: c_ulonglong);
    fn hipGraphLaunch(executable: GraphExec, stream: Stream);
    fn hipGraphDestroy(graph: Graph);
    fn hipGraphExecDestroy(executable: GraphExec);
}

/// Functions without which launches cannot be recorded, and all else works.
pub(crate) const FOR_CAPTURE: [&str; 6] = [
    "hipStreamBeginCapture",
    "hipStreamEndCapture",
    "hipGraphInstantiateWithFlags",
    "hipGraphLaunch",
    "hipGraphDestroy",
    "hipGraphExecDestroy",
];

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

// SAFETY: HIP lets any thread call its functions.
unsafe impl Send for Api {}
// SAFETY: as above; it does its own locking.
unsafe impl Sync for Api {}
