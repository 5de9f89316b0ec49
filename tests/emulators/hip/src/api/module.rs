//! Modules, their functions, and launches.

use std::ffi::{c_char, c_void};

use gpu_emulator::module::Shape;
use gpu_emulator::{Failure, entries, name, read_elf, status, write};

use crate::config::{self, Hip, MAX_GRID_THREADS};

entries! {
    Hip;

    fn hipModuleLoadData(driver, module: *mut u64, image: *const c_void) {
        driver.context()?.check_no_capture("loading a module")?;
        let loaded = config::module(&read_elf(image)?, &driver.config.gpu)?;
        write(module, driver.load(loaded)?)
    }

    fn hipModuleUnload(driver, module: u64) {
        driver.unload(module)
    }

    fn hipModuleGetFunction(driver, function: *mut u64, module: u64, kernel: *const c_char) {
        write(function, driver.find_function(module, &name(kernel)?)?)
    }

    fn hipModuleLaunchKernel(
        driver,
        function: u64,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared_bytes: u32,
        stream: u64,
        arguments: *const *const c_void,
        extra: *const *const c_void,
    ) {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        if (0..3).any(|axis| u64::from(grid[axis]) * u64::from(block[axis]) >= MAX_GRID_THREADS) {
            let message = format!("a grid of {grid:?} blocks of {block:?} threads: 2^32 threads or more along an axis");
            return Err(Failure::new(status::INVALID_VALUE, message));
        }
        driver.launch(function, Shape { grid, block, shared_bytes }, stream, arguments, extra)
    }
}
