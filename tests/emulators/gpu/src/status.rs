//! Statuses, as the references of CUDA's and of HIP's driver number them: alike.
#![allow(missing_docs, reason = "the names are those of the drivers' headers, without their prefix")]

/// What every function returns.
pub type Status = std::ffi::c_int;

pub const SUCCESS: Status = 0;
pub const INVALID_VALUE: Status = 1;
pub const OUT_OF_MEMORY: Status = 2;
pub const NOT_INITIALIZED: Status = 3;
pub const NO_DEVICE: Status = 100;
pub const INVALID_DEVICE: Status = 101;
pub const INVALID_IMAGE: Status = 200;
pub const INVALID_CONTEXT: Status = 201;
pub const NO_BINARY_FOR_GPU: Status = 209;
pub const INVALID_HANDLE: Status = 400;
pub const ILLEGAL_STATE: Status = 401;
pub const NOT_FOUND: Status = 500;
pub const NOT_READY: Status = 600;
pub const ILLEGAL_ADDRESS: Status = 700;
pub const LAUNCH_OUT_OF_RESOURCES: Status = 701;
pub const LAUNCH_TIMEOUT: Status = 702;
pub const LAUNCH_FAILED: Status = 719;
pub const NOT_SUPPORTED: Status = 801;
pub const STREAM_CAPTURE_UNSUPPORTED: Status = 900;
pub const STREAM_CAPTURE_INVALIDATED: Status = 901;
pub const STREAM_CAPTURE_WRONG_THREAD: Status = 908;
pub const UNKNOWN: Status = 999;
