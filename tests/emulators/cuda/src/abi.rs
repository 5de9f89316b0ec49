//! Numbers of the driver's C interface, as its reference documents them.
#![allow(missing_docs, reason = "the names are those of the driver's header, without their prefix")]

use std::ffi::{CStr, c_void};

use gpu_emulator::{Status, status};

/// The name of a status as a C string.
pub(crate) fn status_name(status: Status) -> Option<&'static CStr> {
    Some(match status {
        status::SUCCESS => c"CUDA_SUCCESS",
        status::INVALID_VALUE => c"CUDA_ERROR_INVALID_VALUE",
        status::OUT_OF_MEMORY => c"CUDA_ERROR_OUT_OF_MEMORY",
        status::NOT_INITIALIZED => c"CUDA_ERROR_NOT_INITIALIZED",
        status::NO_DEVICE => c"CUDA_ERROR_NO_DEVICE",
        status::INVALID_DEVICE => c"CUDA_ERROR_INVALID_DEVICE",
        status::INVALID_IMAGE => c"CUDA_ERROR_INVALID_IMAGE",
        status::INVALID_CONTEXT => c"CUDA_ERROR_INVALID_CONTEXT",
        status::NO_BINARY_FOR_GPU => c"CUDA_ERROR_NO_BINARY_FOR_GPU",
        status::INVALID_HANDLE => c"CUDA_ERROR_INVALID_HANDLE",
        status::ILLEGAL_STATE => c"CUDA_ERROR_ILLEGAL_STATE",
        status::NOT_FOUND => c"CUDA_ERROR_NOT_FOUND",
        status::NOT_READY => c"CUDA_ERROR_NOT_READY",
        status::ILLEGAL_ADDRESS => c"CUDA_ERROR_ILLEGAL_ADDRESS",
        status::LAUNCH_OUT_OF_RESOURCES => c"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
        status::LAUNCH_TIMEOUT => c"CUDA_ERROR_LAUNCH_TIMEOUT",
        status::LAUNCH_FAILED => c"CUDA_ERROR_LAUNCH_FAILED",
        status::NOT_SUPPORTED => c"CUDA_ERROR_NOT_SUPPORTED",
        status::STREAM_CAPTURE_UNSUPPORTED => c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
        status::STREAM_CAPTURE_INVALIDATED => c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
        status::STREAM_CAPTURE_WRONG_THREAD => c"CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
        status::UNKNOWN => c"CUDA_ERROR_UNKNOWN",
        _ => return None,
    })
}

/// Device attributes (`CUdevice_attribute`).
pub(crate) mod device_attribute {
    pub(crate) const MAX_THREADS_PER_BLOCK: i32 = 1;
    pub(crate) const MAX_SHARED_MEMORY_PER_BLOCK: i32 = 8;
    pub(crate) const WARP_SIZE: i32 = 10;
    pub(crate) const MAX_REGISTERS_PER_BLOCK: i32 = 12;
    pub(crate) const MULTIPROCESSOR_COUNT: i32 = 16;
    pub(crate) const COMPUTE_CAPABILITY_MAJOR: i32 = 75;
    pub(crate) const COMPUTE_CAPABILITY_MINOR: i32 = 76;
    pub(crate) const MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: i32 = 97;
}

/// Function attributes (`CUfunction_attribute`).
pub(crate) mod function_attribute {
    pub(crate) const MAX_THREADS_PER_BLOCK: i32 = 0;
    pub(crate) const SHARED_SIZE_BYTES: i32 = 1;
    pub(crate) const LOCAL_SIZE_BYTES: i32 = 3;
    pub(crate) const NUM_REGS: i32 = 4;
    pub(crate) const MAX_DYNAMIC_SHARED_SIZE_BYTES: i32 = 8;
}

/// `CUlaunchConfig`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaunchConfig {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared_bytes: u32,
    pub(crate) stream: u64,
    pub(crate) attributes: *const c_void,
    pub(crate) num_attributes: u32,
}
