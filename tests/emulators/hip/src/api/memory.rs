//! Memory: of the device, pinned on the host, and copies between them.

use std::ffi::c_void;

use gpu_emulator::{entries, write};

use crate::config::Hip;

entries! {
    Hip;

    fn hipMalloc(driver, address: *mut u64, num_bytes: usize) {
        write(address, driver.alloc(num_bytes)?)
    }

    fn hipFree(driver, address: u64) {
        driver.free(address)
    }

    fn hipMemGetInfo(driver, free: *mut usize, total: *mut usize) {
        let [free_bytes, total_bytes] = driver.memory_info()?;
        write(free, free_bytes)?;
        write(total, total_bytes)
    }

    fn hipHostMalloc(driver, address: *mut u64, num_bytes: usize, _flags: u32) {
        write(address, driver.alloc_pinned(num_bytes)?)
    }

    fn hipHostFree(driver, address: u64) {
        driver.free_pinned(address)
    }

    fn hipMemcpyHtoDAsync(driver, to: u64, from: *mut c_void, num_bytes: usize, stream: u64) {
        driver.copy_to_device(to, from as u64, num_bytes, stream)
    }

    fn hipMemcpyDtoHAsync(driver, to: *mut c_void, from: u64, num_bytes: usize, stream: u64) {
        driver.copy_to_host(to as u64, from, num_bytes, stream)
    }

    fn hipMemcpyDtoDAsync(driver, to: u64, from: u64, num_bytes: usize, stream: u64) {
        driver.copy_on_device(to, from, num_bytes, stream)
    }

    fn hipMemsetD8Async(driver, to: u64, value: u8, num_bytes: usize, stream: u64) {
        driver.fill(to, value, num_bytes, stream)
    }
}
