//! Initialisation, devices, contexts, streams, the words of failures.

use std::ffi::c_char;

use emulator_common::exit;

use super::{entries, write};
use crate::abi::status;
use crate::machine::{Context, Failure, Kind, lock, set_current, take_message};
use crate::stream::Stream;

entries! {
    fn aclInit(machine, config: *const c_char) {
        if !config.is_null() {
            return Err(Failure::new(status::PARAM_INVALID, "a configuration file, which is not modelled"));
        }
        if machine.is_initialised {
            return Err(Failure::new(status::REPEAT_INITIALIZE, "initialised already"));
        }
        machine.is_initialised = true;
        if !cfg!(test) {
            exit::report_leaks_at_exit(NAME, at_exit);
        }
        Ok(())
    }

    fn aclrtGetDeviceCount(machine, count: *mut u32) {
        machine.check_initialised()?;
        if machine.config.common.num_devices == 0 {
            return Err(Failure::new(status::NO_DEVICE, "this machine is to have no device"));
        }
        write(count, machine.config.common.num_devices)
    }

    fn aclrtCreateContext(machine, context: *mut u64, device: i32) {
        machine.check_initialised()?;
        if device < 0 || device as u32 >= machine.config.common.num_devices {
            let message = format!("device {device} of {}", machine.config.common.num_devices);
            return Err(Failure::new(status::PARAM_INVALID, message));
        }
        let handle = machine.new_handle(Kind::Context);
        machine.contexts.insert(handle, Context { device: device as u32, ..Context::default() });
        set_current(handle);
        write(context, handle)
    }

    fn aclrtDestroyContext(machine, context: u64) {
        machine.destroy_context(context)
    }

    fn aclrtSetCurrentContext(machine, context: u64) {
        if !machine.contexts.contains_key(&context) {
            return Err(Failure::new(status::PARAM_INVALID, format!("{context:#x} is no live context")));
        }
        set_current(context);
        Ok(())
    }

    fn aclrtSynchronizeDevice(machine) {
        machine.context()?.streams.values_mut().try_for_each(|stream| stream.check_not_captured("a wait for the device"))?;
        machine.run_all()
    }

    fn aclrtCreateStream(machine, stream: *mut u64) {
        machine.context()?;
        let handle = machine.new_handle(Kind::Stream);
        machine.context()?.streams.insert(handle, Stream::default());
        write(stream, handle)
    }

    fn aclrtDestroyStream(machine, stream: u64) {
        let found = machine.context()?.stream(stream)?;
        found.check_not_captured("destroying it")?;
        let queued = found.queue.len();
        machine.context()?.streams.remove(&stream);
        if queued > 0 {
            return Err(Failure::new(status::PARAM_INVALID, format!("the stream had {queued} operations queued")));
        }
        Ok(())
    }

    fn aclrtStreamAbort(machine, stream: u64) {
        machine.abort_stream(stream)
    }

    fn aclrtSynchronizeStream(machine, stream: u64) {
        machine.context()?.stream(stream)?.check_not_captured("a wait")?;
        machine.run_stream(stream)
    }
}

/// Who speaks when the process ends.
const NAME: &str = "ascend-emulator";

/// Prints the record where it is wanted. Gives everything that the process has not given back.
fn at_exit() -> Vec<String> {
    let machine = lock();
    let Ok(Some(machine)) = machine.as_ref().map(|machine| machine.as_ref()) else { return Vec::new() };
    if machine.config.prints_record {
        exit::say(NAME, &machine.record.to_string());
    }
    machine.all_leaks()
}

/// The thread's last message, which is forgotten; null where there is none.
// SAFETY: the name is that of CANN's function, with its parameters.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "CANN's own name")]
pub(crate) extern "C" fn aclGetRecentErrMsg() -> *const c_char {
    take_message()
}

/// The product's name.
// SAFETY: as above.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "CANN's own name")]
pub(crate) extern "C" fn aclrtGetSocName() -> *const c_char {
    match lock() {
        Ok(machine) => machine.as_ref().map_or(std::ptr::null(), |machine| machine.config.product.soc.as_ptr()),
        Err(_) => std::ptr::null(),
    }
}
