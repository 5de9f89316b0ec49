//! Initialisation, devices, errors by name.

use std::ffi::{c_char, c_int};

use emulator_common::exit;
use gpu_emulator::{Failure, Gpu, Status, entries, status, write};

use crate::abi::{device_attribute as attribute, status_name};
use crate::config::{Cuda, DEFAULT_SHARED_BYTES, MAX_REGISTERS, MAX_THREADS, WAVE_SIZE};

entries! {
    Cuda;

    fn cuInit(driver, flags: u32) {
        if flags != 0 {
            return Err(Failure::new(status::INVALID_VALUE, "flags must be 0"));
        }
        if driver.config.common.num_devices == 0 {
            return Err(Failure::new(status::NO_DEVICE, "this machine is to have no device"));
        }
        driver.is_initialised = true;
        if !cfg!(test) {
            exit::report_leaks_at_exit(Cuda::EMULATOR, || Cuda::slot().leaks());
        }
        Ok(())
    }

    fn cuDriverGetVersion(driver, version: *mut c_int) {
        write(version, driver.config.version)
    }

    fn cuDeviceGetCount(driver, count: *mut c_int) {
        driver.check_initialised()?;
        write(count, driver.config.common.num_devices as c_int)
    }

    fn cuDeviceGet(driver, device: *mut c_int, ordinal: c_int) {
        driver.check_device(ordinal as u32)?;
        write(device, ordinal)
    }

    fn cuDeviceGetName(driver, name: *mut c_char, length: c_int, device: c_int) {
        driver.check_device(device as u32)?;
        let text = format!("Emulated {}\0", driver.config.gpu.name);
        let length = usize::try_from(length).unwrap_or(0);
        if text.len() > length {
            return Err(Failure::new(status::INVALID_VALUE, format!("{length} bytes for a name of {}", text.len())));
        }
        text.bytes().enumerate().try_for_each(|(i, byte)| write(name.wrapping_add(i), byte as c_char))
    }

    fn cuDeviceTotalMem_v2(driver, num_bytes: *mut usize, device: c_int) {
        driver.check_device(device as u32)?;
        write(num_bytes, driver.config.common.memory_bytes as usize)
    }

    fn cuDeviceGetAttribute(driver, value: *mut c_int, which: c_int, device: c_int) {
        driver.check_device(device as u32)?;
        let profile = driver.config.gpu;
        let number = match which {
            attribute::MAX_THREADS_PER_BLOCK => MAX_THREADS,
            attribute::MAX_SHARED_MEMORY_PER_BLOCK => DEFAULT_SHARED_BYTES,
            attribute::WARP_SIZE => WAVE_SIZE,
            attribute::MAX_REGISTERS_PER_BLOCK => MAX_REGISTERS,
            attribute::MULTIPROCESSOR_COUNT => profile.num_multiprocessors,
            attribute::COMPUTE_CAPABILITY_MAJOR => profile.compute_capability / 10,
            attribute::COMPUTE_CAPABILITY_MINOR => profile.compute_capability % 10,
            attribute::MAX_SHARED_MEMORY_PER_BLOCK_OPTIN => profile.max_shared_bytes,
            _ => return Err(Failure::new(status::NOT_SUPPORTED, format!("attribute {which} is not modelled"))),
        };
        write(value, number as c_int)
    }
}

/// The name of a status. Needs no initialised driver and answers even when the device is lost.
#[allow(non_snake_case, reason = "the driver's own name")]
// SAFETY: the name is that of the driver's function, with its parameters.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn cuGetErrorName(code: Status, text: *mut *const c_char) -> Status {
    match status_name(code) {
        Some(name) if write(text, name.as_ptr()).is_ok() => status::SUCCESS,
        _ => status::INVALID_VALUE,
    }
}

/// The same as the name: the emulator has no other words.
#[allow(non_snake_case, reason = "the driver's own name")]
// SAFETY: the name is that of the driver's function, with its parameters.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn cuGetErrorString(code: Status, text: *mut *const c_char) -> Status {
    cuGetErrorName(code, text)
}
