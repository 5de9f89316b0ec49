//! Modules and their functions.

use std::ffi::{c_char, c_int, c_void};

use gpu_emulator::{Failure, Gpu, entries, name, read_elf, status, write};

use crate::abi::function_attribute as attribute;
use crate::config::{self, Cuda};

entries! {
    Cuda;

    fn cuModuleLoadData(driver, module: *mut u64, image: *const c_void) {
        driver.context()?.check_no_capture("loading a module")?;
        let loaded = config::module(&read_elf(image)?, &driver.config.gpu)?;
        write(module, driver.load(loaded)?)
    }

    fn cuModuleUnload(driver, module: u64) {
        driver.unload(module)
    }

    fn cuModuleGetFunction(driver, function: *mut u64, module: u64, kernel: *const c_char) {
        write(function, driver.find_function(module, &name(kernel)?)?)
    }

    fn cuFuncGetAttribute(driver, value: *mut c_int, which: c_int, function: u64) {
        let function = driver.context()?.function(function)?;
        let number = match which {
            attribute::MAX_THREADS_PER_BLOCK => function.kernel.max_threads,
            attribute::SHARED_SIZE_BYTES => function.kernel.shared_bytes,
            attribute::LOCAL_SIZE_BYTES => function.kernel.stack_bytes,
            attribute::NUM_REGS => function.kernel.num_registers,
            attribute::MAX_DYNAMIC_SHARED_SIZE_BYTES => function.max_dynamic_shared_bytes,
            _ => return Err(Failure::new(status::NOT_SUPPORTED, format!("attribute {which} is not modelled"))),
        };
        write(value, number as c_int)
    }

    fn cuFuncSetAttribute(driver, function: u64, which: c_int, value: c_int) {
        if which != attribute::MAX_DYNAMIC_SHARED_SIZE_BYTES {
            return Err(Failure::new(status::NOT_SUPPORTED, format!("attribute {which} is not modelled")));
        }
        let limits = driver.config.gpu.limits();
        driver.context()?.function(function)?.permit_shared(value, limits)
    }
}
