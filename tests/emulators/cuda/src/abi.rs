//! Numbers of the driver's C interface, as its reference documents them.
#![allow(missing_docs, reason = "the names are those of the driver's header, without their prefix")]

use std::ffi::{c_int, c_void};

/// What every function returns.
pub(crate) type Status = c_int;

pub(crate) mod status {
    use super::Status;

    pub(crate) const SUCCESS: Status = 0;
    pub(crate) const INVALID_VALUE: Status = 1;
    pub(crate) const OUT_OF_MEMORY: Status = 2;
    pub(crate) const NOT_INITIALIZED: Status = 3;
    pub(crate) const NO_DEVICE: Status = 100;
    pub(crate) const INVALID_DEVICE: Status = 101;
    pub(crate) const INVALID_IMAGE: Status = 200;
    pub(crate) const INVALID_CONTEXT: Status = 201;
    pub(crate) const NO_BINARY_FOR_GPU: Status = 209;
    pub(crate) const INVALID_HANDLE: Status = 400;
    pub(crate) const NOT_FOUND: Status = 500;
    pub(crate) const NOT_READY: Status = 600;
    pub(crate) const ILLEGAL_ADDRESS: Status = 700;
    pub(crate) const LAUNCH_OUT_OF_RESOURCES: Status = 701;
    pub(crate) const LAUNCH_FAILED: Status = 719;
    pub(crate) const NOT_SUPPORTED: Status = 801;
    pub(crate) const STREAM_CAPTURE_UNSUPPORTED: Status = 900;
    pub(crate) const STREAM_CAPTURE_INVALIDATED: Status = 901;
    pub(crate) const ILLEGAL_STATE: Status = 401;
    pub(crate) const STREAM_CAPTURE_WRONG_THREAD: Status = 908;
    pub(crate) const UNKNOWN: Status = 999;

    /// The name of a status as a C string.
    pub(crate) fn name(status: Status) -> Option<&'static std::ffi::CStr> {
        Some(match status {
            SUCCESS => c"CUDA_SUCCESS",
            INVALID_VALUE => c"CUDA_ERROR_INVALID_VALUE",
            OUT_OF_MEMORY => c"CUDA_ERROR_OUT_OF_MEMORY",
            NOT_INITIALIZED => c"CUDA_ERROR_NOT_INITIALIZED",
            NO_DEVICE => c"CUDA_ERROR_NO_DEVICE",
            INVALID_DEVICE => c"CUDA_ERROR_INVALID_DEVICE",
            INVALID_IMAGE => c"CUDA_ERROR_INVALID_IMAGE",
            INVALID_CONTEXT => c"CUDA_ERROR_INVALID_CONTEXT",
            NO_BINARY_FOR_GPU => c"CUDA_ERROR_NO_BINARY_FOR_GPU",
            INVALID_HANDLE => c"CUDA_ERROR_INVALID_HANDLE",
            ILLEGAL_STATE => c"CUDA_ERROR_ILLEGAL_STATE",
            NOT_FOUND => c"CUDA_ERROR_NOT_FOUND",
            NOT_READY => c"CUDA_ERROR_NOT_READY",
            ILLEGAL_ADDRESS => c"CUDA_ERROR_ILLEGAL_ADDRESS",
            LAUNCH_OUT_OF_RESOURCES => c"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
            LAUNCH_FAILED => c"CUDA_ERROR_LAUNCH_FAILED",
            NOT_SUPPORTED => c"CUDA_ERROR_NOT_SUPPORTED",
            STREAM_CAPTURE_UNSUPPORTED => c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
            STREAM_CAPTURE_INVALIDATED => c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
            STREAM_CAPTURE_WRONG_THREAD => c"CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
            UNKNOWN => c"CUDA_ERROR_UNKNOWN",
            _ => return None,
        })
    }
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

/// `CU_STREAM_NON_BLOCKING`: not ordered with the default stream.
pub(crate) const STREAM_NON_BLOCKING: u32 = 1;

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
