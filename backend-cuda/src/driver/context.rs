//! Devices and their primary contexts.

use std::ffi::{CStr, c_int};
use std::ptr;

use cudarc::driver::sys::{self, CUcontext, CUdevice, CUdevice_attribute};

use super::{DriverError, check, report_drop};

/// A device by number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Device(CUdevice);

impl Device {
    /// How many there are.
    pub(crate) fn count() -> Result<u32, DriverError> {
        let mut count = 0;
        // SAFETY: the result goes to an integer that outlives the call.
        check("cuDeviceGetCount", unsafe { sys::cuDeviceGetCount(&raw mut count) })?;
        Ok(u32::try_from(count).unwrap_or(0))
    }

    /// Device number `ordinal`.
    pub(crate) fn get(ordinal: u32) -> Result<Self, DriverError> {
        let mut device = 0;
        // SAFETY: the result goes to an integer that outlives the call; any ordinal may be asked for.
        check("cuDeviceGet", unsafe { sys::cuDeviceGet(&raw mut device, ordinal as c_int) })?;
        Ok(Self(device))
    }

    /// As its maker calls it.
    pub(crate) fn name(self) -> Result<String, DriverError> {
        let mut bytes = [0_u8; 256];
        // SAFETY: the driver writes at most as many bytes as it is told there are.
        let status = unsafe { sys::cuDeviceGetName(bytes.as_mut_ptr().cast(), bytes.len() as c_int, self.0) };
        check("cuDeviceGetName", status)?;
        Ok(CStr::from_bytes_until_nul(&bytes).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default())
    }

    /// A number that describes it.
    pub(crate) fn attribute(self, attribute: CUdevice_attribute) -> Result<u32, DriverError> {
        let mut value = 0;
        // SAFETY: the result goes to an integer that outlives the call.
        check("cuDeviceGetAttribute", unsafe { sys::cuDeviceGetAttribute(&raw mut value, attribute, self.0) })?;
        Ok(u32::try_from(value).unwrap_or(0))
    }

    /// Major and minor compute capability.
    pub(crate) fn compute_capability(self) -> Result<(u32, u32), DriverError> {
        Ok((
            self.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            self.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ))
    }

    /// All its memory, in bytes.
    pub(crate) fn total_bytes(self) -> Result<u64, DriverError> {
        let mut num_bytes = 0;
        // SAFETY: the result goes to an integer that outlives the call.
        check("cuDeviceTotalMem_v2", unsafe { sys::cuDeviceTotalMem_v2(&raw mut num_bytes, self.0) })?;
        Ok(num_bytes as u64)
    }
}

/// A hold on a device's primary context.
#[derive(Debug)]
pub(crate) struct Context {
    device: Device,
    handle: CUcontext,
}

// SAFETY: the driver lets any thread use a context; handles are numbers to us.
unsafe impl Send for Context {}
// SAFETY: as above; the driver does its own locking.
unsafe impl Sync for Context {}

impl Context {
    pub(crate) fn retain(device: Device) -> Result<Self, DriverError> {
        let mut handle = ptr::null_mut();
        // SAFETY: the result goes to a pointer that outlives the call.
        check("cuDevicePrimaryCtxRetain", unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut handle, device.0) })?;
        Ok(Self { device, handle })
    }

    /// Makes it the calling thread's context, which every other call works in.
    pub(super) fn bind(&self) -> Result<(), DriverError> {
        // SAFETY: the handle is alive as long as `self`.
        check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.handle) })
    }

    /// Waits for everything that was queued.
    pub(super) fn synchronize(&self) -> Result<(), DriverError> {
        self.bind()?;
        // SAFETY: takes nothing; works on the context just bound.
        check("cuCtxSynchronize", unsafe { sys::cuCtxSynchronize() })
    }

    /// Memory that nobody uses, in bytes.
    pub(crate) fn free_bytes(&self) -> Result<u64, DriverError> {
        self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: both results go to integers that outlive the call.
        check("cuMemGetInfo_v2", unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) })?;
        Ok(free as u64)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: gives up the one hold that `retain` took.
        let status = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device.0) };
        report_drop(check("cuDevicePrimaryCtxRelease_v2", status));
    }
}
