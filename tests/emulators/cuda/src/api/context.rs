//! Primary contexts, and which one a thread works in.

use std::ffi::c_int;

use gpu_emulator::{Context, Failure, Kind, current, entries, set_current, status, write};

use crate::config::Cuda;

entries! {
    Cuda;

    fn cuDevicePrimaryCtxRetain(driver, context: *mut u64, device: c_int) {
        let device = device as u32;
        driver.check_device(device)?;
        let held = driver.contexts.iter_mut().find(|(_, context)| context.device == device);
        let handle = match held {
            Some((handle, held)) => {
                held.num_retained += 1;
                *handle
            }
            None => {
                let handle = driver.new_handle(Kind::Context);
                driver.contexts.insert(handle, Context::new(device, 1));
                handle
            }
        };
        write(context, handle)
    }

    fn cuDevicePrimaryCtxRelease_v2(driver, device: c_int) {
        driver.check_device(device as u32)?;
        let held = driver.contexts.iter_mut().find(|(_, context)| context.device == device as u32);
        let Some((&handle, context)) = held else {
            return Err(Failure::new(status::INVALID_CONTEXT, format!("nobody holds the context of device {device}")));
        };
        context.num_retained -= 1;
        if context.num_retained == 0 {
            driver.end_context(handle);
        }
        Ok(())
    }

    fn cuCtxSetCurrent(driver, context: u64) {
        driver.check_initialised()?;
        if context != 0 && !driver.contexts.contains_key(&context) {
            return Err(Failure::new(status::INVALID_CONTEXT, format!("{context:#x} is no live context")));
        }
        set_current(context);
        Ok(())
    }

    fn cuCtxGetCurrent(driver, context: *mut u64) {
        driver.check_initialised()?;
        write(context, current())
    }

    fn cuCtxGetDevice(driver, device: *mut c_int) {
        let number = driver.context()?.device;
        write(device, number as c_int)
    }

    fn cuCtxSynchronize(driver) {
        driver.wait_for_device()
    }
}
