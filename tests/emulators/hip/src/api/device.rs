//! Initialisation and devices.

use std::ffi::{c_char, c_int};

use emulator_common::exit;
use gpu_emulator::{Context, Failure, Gpu, entries, set_current, status, write};

use crate::config::{Hip, MAX_THREADS, context_of};
use crate::properties::{PROPERTIES_BYTES, describe};

/// `hipDeviceAttribute_t`.
pub(crate) mod attribute {
    pub(crate) const MAX_THREADS_PER_BLOCK: i32 = 56;
    pub(crate) const MULTIPROCESSOR_COUNT: i32 = 63;
    pub(crate) const MAX_SHARED_MEMORY_PER_BLOCK: i32 = 74;
    pub(crate) const WARP_SIZE: i32 = 87;
}

entries! {
    Hip;

    fn hipInit(driver, flags: u32) {
        if flags != 0 {
            return Err(Failure::new(status::INVALID_VALUE, "flags must be 0"));
        }
        if driver.config.common.num_devices == 0 {
            // As HIP 5.2 answers on a machine without one.
            return Err(Failure::new(status::INVALID_DEVICE, "this machine is to have no device"));
        }
        if !driver.is_initialised {
            driver.is_initialised = true;
            for device in 0..driver.config.common.num_devices {
                driver.contexts.insert(context_of(device), Context::new(device, 0));
            }
        }
        if !cfg!(test) {
            exit::report_leaks_at_exit(Hip::EMULATOR, || Hip::slot().leaks());
        }
        Ok(())
    }

    fn hipRuntimeGetVersion(driver, version: *mut c_int) {
        write(version, driver.config.version)
    }

    fn hipGetDeviceCount(driver, count: *mut c_int) {
        let num_devices = driver.config.common.num_devices;
        write(count, num_devices as c_int)?;
        if num_devices == 0 {
            return Err(Failure::new(status::NO_DEVICE, "this machine is to have no device"));
        }
        driver.check_initialised()
    }

    fn hipSetDevice(driver, device: c_int) {
        driver.check_device(device as u32)?;
        set_current(context_of(device as u32));
        driver.context()?;
        Ok(())
    }

    fn hipGetDevice(driver, device: *mut c_int) {
        let number = driver.context()?.device;
        write(device, number as c_int)
    }

    fn hipGetDevicePropertiesR0600(driver, properties: *mut [u8; PROPERTIES_BYTES], device: c_int) {
        driver.check_device(device as u32)?;
        write(properties, describe(&driver.config.gpu, driver.config.common.memory_bytes))
    }

    fn hipDeviceGetName(driver, name: *mut c_char, length: c_int, device: c_int) {
        driver.check_device(device as u32)?;
        let text = driver.config.gpu.product;
        let length = usize::try_from(length).unwrap_or(0);
        if text.len() >= length {
            return Err(Failure::new(status::INVALID_VALUE, format!("{length} bytes for a name of {}", text.len())));
        }
        let bytes = text.bytes().chain([0]).enumerate();
        bytes.into_iter().try_for_each(|(i, byte)| write(name.wrapping_add(i), byte as c_char))
    }

    fn hipDeviceTotalMem(driver, num_bytes: *mut usize, device: c_int) {
        driver.check_device(device as u32)?;
        write(num_bytes, driver.config.common.memory_bytes as usize)
    }

    fn hipDeviceGetAttribute(driver, value: *mut c_int, which: c_int, device: c_int) {
        driver.check_device(device as u32)?;
        let gpu = driver.config.gpu;
        let number = match which {
            attribute::MAX_THREADS_PER_BLOCK => MAX_THREADS,
            attribute::MULTIPROCESSOR_COUNT => gpu.num_multiprocessors,
            attribute::MAX_SHARED_MEMORY_PER_BLOCK => gpu.shared_bytes,
            attribute::WARP_SIZE => gpu.wave_size(),
            _ => return Err(Failure::new(status::NOT_SUPPORTED, format!("attribute {which} is not modelled"))),
        };
        write(value, number as c_int)
    }

    fn hipDeviceSynchronize(driver) {
        driver.wait_for_device()
    }
}
