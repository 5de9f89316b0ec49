//! Modules and their functions.

use std::ffi::{c_char, c_int, c_void};

use super::{entries, name, read_at, write};
use crate::abi::{function_attribute as attribute, status};
use crate::driver::{Failure, Kind, Outcome};
use crate::memory;
use crate::module::Module;

/// Bytes of an ELF header, and where in it the tables are described.
const HEADER_BYTES: usize = 64;

entries! {
    fn cuModuleLoadData(driver, module: *mut u64, image: *const c_void) {
        driver.context()?.check_no_capture("loading a module")?;
        let loaded = Module::load(&memory::read(image as u64, image_bytes(image.cast())?), &driver.config)?;
        let handle = driver.new_handle(Kind::Module);
        driver.context()?.modules.insert(handle, loaded);
        write(module, handle)
    }

    fn cuModuleUnload(driver, module: u64) {
        driver.context()?.module(module)?;
        driver.run_all()?;
        let context = driver.context()?;
        context.modules.remove(&module);
        context.functions.retain(|_, function| function.module != module);
        Ok(())
    }

    fn cuModuleGetFunction(driver, function: *mut u64, module: u64, kernel: *const c_char) {
        let found = driver.context()?.module(module)?.function(module, &name(kernel)?)?;
        let handle = driver.new_handle(Kind::Function);
        driver.context()?.functions.insert(handle, found);
        write(function, handle)
    }

    fn cuFuncGetAttribute(driver, value: *mut c_int, which: c_int, function: u64) {
        let function = driver.context()?.function(function)?;
        let number = match which {
            attribute::MAX_THREADS_PER_BLOCK => function.max_threads(),
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
        let config = driver.config;
        driver.context()?.function(function)?.permit_shared(value, &config)
    }
}

/// Size of an ELF image of which only the start is known: its section and program headers come last.
fn image_bytes(image: *const u8) -> Outcome<usize> {
    let byte = |at: usize| read_at(image, at).map(usize::from);
    let number = |at: usize, count: usize| (0..count).rev().try_fold(0, |sum, i| Ok(sum << 8 | byte(at + i)?));
    if number(0, 4)? != u32::from_le_bytes(*b"\x7fELF") as usize {
        return Err(Failure::new(status::INVALID_IMAGE, "not an ELF file: PTX and fat binaries are not modelled"));
    }
    // Offsets, sizes and counts of the program headers and of the section headers.
    let (programs, sections) = (number(32, 8)?, number(40, 8)?);
    let ends = [programs + number(54, 2)? * number(56, 2)?, sections + number(58, 2)? * number(60, 2)?];
    Ok(ends.into_iter().fold(HEADER_BYTES, usize::max))
}
