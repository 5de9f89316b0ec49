//! Kernel launches.

use std::ffi::c_void;
use std::ptr;

use super::{entries, read, read_at};
use crate::abi::{LaunchConfig, status};
use crate::driver::{Driver, Failure, Outcome};
use crate::memory;
use crate::module::Launch;
use crate::stream::Op;

entries! {
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
        let config = LaunchConfig {
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            shared_bytes,
            stream,
            attributes: ptr::null(),
            num_attributes: 0,
        };
        launch(driver, function, &config, arguments, extra)
    }

    fn cuLaunchKernelEx(
        driver,
        config: *const LaunchConfig,
        function: u64,
        arguments: *const *const c_void,
        extra: *const *const c_void,
    ) {
        let config = read(config)?;
        if config.num_attributes != 0 {
            return Err(Failure::new(status::NOT_SUPPORTED, "launch attributes are not modelled"));
        }
        launch(driver, function, &config, arguments, extra)
    }
}

fn launch(
    driver: &mut Driver,
    function: u64,
    config: &LaunchConfig,
    arguments: *const *const c_void,
    extra: *const *const c_void,
) -> Outcome<()> {
    if !extra.is_null() {
        return Err(Failure::new(status::NOT_SUPPORTED, "arguments in one buffer are not modelled"));
    }
    let context = driver.context()?;
    let function = context.function(function)?;
    function.check_shape(config.grid, config.block, config.shared_bytes)?;
    let function = function.clone();
    let mut values = Vec::with_capacity(function.kernel.parameters.len());
    for (index, parameter) in function.kernel.parameters.iter().enumerate() {
        let value = read_at(arguments, index)?;
        if value.is_null() {
            let message = format!("{}: argument {index} of {}", function.name, function.kernel.parameters.len());
            return Err(Failure::new(status::INVALID_VALUE, format!("a null pointer for {message}")));
        }
        values.push(memory::read(value as u64, parameter.num_bytes as usize));
    }
    let launch = Launch {
        kernel: function.name,
        grid: config.grid,
        block: config.block,
        shared_bytes: config.shared_bytes,
        arguments: values,
    };
    // A device would find out while it runs; a developer wants to know at the call.
    context
        .pointer_arguments(&launch)
        .map_err(|message| Failure::new(status::ILLEGAL_ADDRESS, format!("{}: {message}", launch.kernel)))?;
    driver.push(config.stream, Op::Launch(launch))
}
