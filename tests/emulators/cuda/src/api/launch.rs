//! Kernel launches.

use std::ffi::c_void;

use gpu_emulator::module::Shape;
use gpu_emulator::{Failure, entries, read, status};

use crate::abi::LaunchConfig;
use crate::config::Cuda;

entries! {
    Cuda;

    fn cuLaunchKernel(
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
        driver.launch(function, Shape { grid, block, shared_bytes }, stream, arguments, extra)
    }

    fn cuLaunchKernelEx(
        driver,
        config: *const LaunchConfig,
        function: u64,
        arguments: *const *const c_void,
        extra: *const *const c_void,
    ) {
        let LaunchConfig { grid, block, shared_bytes, stream, num_attributes, .. } = read(config)?;
        if num_attributes != 0 {
            return Err(Failure::new(status::NOT_SUPPORTED, "launch attributes are not modelled"));
        }
        driver.launch(function, Shape { grid, block, shared_bytes }, stream, arguments, extra)
    }
}
