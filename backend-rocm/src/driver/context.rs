//! Devices, and working on one.

use std::ffi::{CStr, c_int};
use std::sync::Arc;

use super::sys::Api;
use super::{HipError, Runtime};

/// A device by number.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    api: Arc<Api>,
    ordinal: c_int,
}

impl Device {
    /// How many there are.
    pub(crate) fn count(runtime: &Runtime) -> Result<u32, HipError> {
        let mut count = 0;
        // SAFETY: the result goes to an integer that outlives the call.
        unsafe { runtime.api.hipGetDeviceCount(&raw mut count) }?;
        Ok(u32::try_from(count).unwrap_or(0))
    }

    /// Device number `ordinal`.
    pub(crate) fn get(runtime: &Runtime, ordinal: u32) -> Self {
        Self { api: runtime.api.clone(), ordinal: ordinal as c_int }
    }

    /// As its maker calls it.
    pub(crate) fn name(&self) -> Result<String, HipError> {
        let mut bytes = [0_u8; 256];
        // SAFETY: the runtime writes at most as many bytes as it is told there are.
        unsafe { self.api.hipDeviceGetName(bytes.as_mut_ptr().cast(), bytes.len() as c_int, self.ordinal) }?;
        Ok(CStr::from_bytes_until_nul(&bytes).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default())
    }

    /// A number that describes it.
    pub(super) fn attribute(&self, attribute: c_int) -> Result<u32, HipError> {
        let mut value = 0;
        // SAFETY: the result goes to an integer that outlives the call.
        unsafe { self.api.hipDeviceGetAttribute(&raw mut value, attribute, self.ordinal) }?;
        Ok(u32::try_from(value).unwrap_or(0))
    }

    /// The structure that describes it, in the first of these bytes.
    pub(super) fn properties(&self, bytes: &mut [u8; 4096]) -> Result<(), HipError> {
        // SAFETY: the structure has 1472 bytes in ROCm 7 and has grown by less than as many in three major versions.
        unsafe { self.api.hipGetDevicePropertiesR0600(bytes.as_mut_ptr().cast(), self.ordinal) }
    }

    /// All its memory, in bytes.
    pub(crate) fn total_bytes(&self) -> Result<u64, HipError> {
        let mut num_bytes = 0;
        // SAFETY: the result goes to an integer that outlives the call.
        unsafe { self.api.hipDeviceTotalMem(&raw mut num_bytes, self.ordinal) }?;
        Ok(num_bytes as u64)
    }
}

/// A device to work on.
#[derive(Debug)]
pub(crate) struct Context {
    device: Device,
}

impl Context {
    pub(crate) fn new(device: Device) -> Self {
        Self { device }
    }

    /// Makes it the calling thread's device, which every other call works on.
    pub(super) fn bind(&self) -> Result<&Api, HipError> {
        let Device { api, ordinal } = &self.device;
        // SAFETY: takes a number.
        unsafe { api.hipSetDevice(*ordinal) }?;
        Ok(api)
    }

    /// Waits for everything that was queued.
    pub(super) fn synchronize(&self) -> Result<(), HipError> {
        // SAFETY: takes nothing; works on the device just bound.
        unsafe { self.bind()?.hipDeviceSynchronize() }
    }

    /// Memory that nobody uses, in bytes.
    pub(crate) fn free_bytes(&self) -> Result<u64, HipError> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: both results go to integers that outlive the call.
        unsafe { self.bind()?.hipMemGetInfo(&raw mut free, &raw mut total) }?;
        Ok(free as u64)
    }
}
