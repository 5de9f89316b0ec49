//! Primary contexts, and which one a thread works in.

use std::ffi::c_int;

use super::{entries, write};
use crate::abi::status;
use crate::driver::{Context, Failure, Kind, current, set_current};

entries! {
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
                driver.contexts.insert(handle, Context { device, num_retained: 1, ..Context::default() });
                handle
            }
        };
        write(context, handle)
    }

    fn cuDevicePrimaryCtxRelease_v2(driver, device: c_int) {
        driver.check_device(device as u32)?;
        driver.release(device as u32)
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
        driver.context()?.check_no_capture("waiting for the whole context")?;
        driver.run_all()
    }
}
