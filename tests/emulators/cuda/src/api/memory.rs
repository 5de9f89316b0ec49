//! Memory: of the device, pinned on the host, and copies between them.

use std::ffi::c_void;

use emulator_common::memory;
use gpu_emulator::{entries, write};

use crate::config::Cuda;

entries! {
    Cuda;

    fn cuMemAlloc_v2(driver, address: *mut u64, num_bytes: usize) {
        write(address, driver.alloc(num_bytes)?)
    }

    fn cuMemFree_v2(driver, address: u64) {
        driver.free(address)
    }

    fn cuMemAllocAsync(driver, address: *mut u64, num_bytes: usize, stream: u64) {
        write(address, driver.alloc_async(num_bytes, stream)?)
    }

    fn cuMemFreeAsync(driver, address: u64, stream: u64) {
        driver.free_async(address, stream)
    }

    fn cuMemGetInfo_v2(driver, free: *mut usize, total: *mut usize) {
        let [free_bytes, total_bytes] = driver.memory_info()?;
        write(free, free_bytes)?;
        write(total, total_bytes)
    }

    fn cuMemHostAlloc(driver, address: *mut u64, num_bytes: usize, _flags: u32) {
        write(address, driver.alloc_pinned(num_bytes)?)
    }

    fn cuMemAllocHost_v2(driver, address: *mut u64, num_bytes: usize) {
        write(address, driver.alloc_pinned(num_bytes)?)
    }

    fn cuMemFreeHost(driver, address: u64) {
        driver.free_pinned(address)
    }

    fn cuMemcpyHtoDAsync_v2(driver, to: u64, from: *const c_void, num_bytes: usize, stream: u64) {
        driver.copy_to_device(to, from as u64, num_bytes, stream)
    }

    fn cuMemcpyDtoHAsync_v2(driver, to: *mut c_void, from: u64, num_bytes: usize, stream: u64) {
        driver.copy_to_host(to as u64, from, num_bytes, stream)
    }

    fn cuMemcpyDtoDAsync_v2(driver, to: u64, from: u64, num_bytes: usize, stream: u64) {
        driver.copy_on_device(to, from, num_bytes, stream)
    }

    fn cuMemsetD8Async(driver, to: u64, value: u8, num_bytes: usize, stream: u64) {
        driver.fill(to, value, num_bytes, stream)
    }

    fn cuMemcpyHtoD_v2(driver, to: u64, from: *const c_void, num_bytes: usize) {
        driver.run_before("copy to", to, num_bytes)?;
        memory::copy(from as u64, to, num_bytes);
        Ok(())
    }

    fn cuMemcpyDtoH_v2(driver, to: *mut c_void, from: u64, num_bytes: usize) {
        driver.run_before("copy from", from, num_bytes)?;
        memory::copy(from, to as u64, num_bytes);
        Ok(())
    }

    fn cuMemsetD8_v2(driver, to: u64, value: u8, num_bytes: usize) {
        driver.run_before("fill", to, num_bytes)?;
        memory::fill(to, value, num_bytes);
        Ok(())
    }
}
