//! Memory: of the device, pinned on the host, and copies between them.

use std::ffi::c_void;

use super::{entries, write};
use crate::abi::{Status, status};
use crate::driver::{Driver, Failure, Outcome};
use crate::memory;
use crate::stream::Op;

entries! {
    fn cuMemAlloc_v2(driver, address: *mut u64, num_bytes: usize) {
        let allocated = driver.alloc(num_bytes)?;
        write(address, allocated)
    }

    fn cuMemFree_v2(driver, address: u64) {
        driver.free(address)
    }

    fn cuMemAllocAsync(driver, address: *mut u64, num_bytes: usize, stream: u64) {
        driver.context()?.stream(stream)?;
        let allocated = driver.alloc(num_bytes)?;
        write(address, allocated)
    }

    fn cuMemFreeAsync(driver, address: u64, stream: u64) {
        driver.context()?.check_no_capture("a free")?;
        driver.context()?.check_device_range("free", address, 1)?;
        driver.push(stream, Op::Free(address))
    }

    fn cuMemGetInfo_v2(driver, free: *mut usize, total: *mut usize) {
        let used = driver.context()?.memory.used_bytes();
        write(free, driver.config.memory_bytes.saturating_sub(used) as usize)?;
        write(total, driver.config.memory_bytes as usize)
    }

    fn cuMemHostAlloc(driver, address: *mut u64, num_bytes: usize, _flags: u32) {
        alloc_pinned(driver, address, num_bytes)
    }

    fn cuMemAllocHost_v2(driver, address: *mut u64, num_bytes: usize) {
        alloc_pinned(driver, address, num_bytes)
    }

    fn cuMemFreeHost(driver, address: u64) {
        driver.context()?;
        driver.run_all()?;
        driver.context()?.pinned.free(address).map_err(|message| Failure::new(status::INVALID_VALUE, message))
    }

    fn cuMemcpyHtoDAsync_v2(driver, to: u64, from: *const c_void, num_bytes: usize, stream: u64) {
        driver.context()?.check_device_range("copy to", to, num_bytes)?;
        let from = from as u64;
        if driver.context()?.pinned.holder(from..from + num_bytes as u64).is_some() {
            return driver.push(stream, Op::Copy { from, to, num_bytes });
        }
        check_not_captured(driver, stream)?;
        driver.push(stream, Op::Write { to, bytes: memory::read(from, num_bytes) })
    }

    fn cuMemcpyDtoHAsync_v2(driver, to: *mut c_void, from: u64, num_bytes: usize, stream: u64) {
        driver.context()?.check_device_range("copy from", from, num_bytes)?;
        let to = to as u64;
        if driver.context()?.pinned.holder(to..to + num_bytes as u64).is_some() {
            return driver.push(stream, Op::Copy { from, to, num_bytes });
        }
        // The driver returns from such a copy when it is done.
        check_not_captured(driver, stream)?;
        driver.run_stream(stream)?;
        memory::copy(from, to, num_bytes);
        Ok(())
    }

    fn cuMemcpyDtoDAsync_v2(driver, to: u64, from: u64, num_bytes: usize, stream: u64) {
        driver.context()?.check_device_range("copy to", to, num_bytes)?;
        driver.context()?.check_device_range("copy from", from, num_bytes)?;
        driver.push(stream, Op::Copy { from, to, num_bytes })
    }

    fn cuMemsetD8Async(driver, to: u64, value: u8, num_bytes: usize, stream: u64) {
        driver.context()?.check_device_range("fill", to, num_bytes)?;
        driver.push(stream, Op::Fill { to, value, num_bytes })
    }

    fn cuMemcpyHtoD_v2(driver, to: u64, from: *const c_void, num_bytes: usize) {
        synchronous(driver, to, num_bytes, "copy to")?;
        memory::copy(from as u64, to, num_bytes);
        Ok(())
    }

    fn cuMemcpyDtoH_v2(driver, to: *mut c_void, from: u64, num_bytes: usize) {
        synchronous(driver, from, num_bytes, "copy from")?;
        memory::copy(from, to as u64, num_bytes);
        Ok(())
    }

    fn cuMemsetD8_v2(driver, to: u64, value: u8, num_bytes: usize) {
        synchronous(driver, to, num_bytes, "fill")?;
        memory::fill(to, value, num_bytes);
        Ok(())
    }
}

fn alloc_pinned(driver: &mut Driver, address: *mut u64, num_bytes: usize) -> Outcome<()> {
    driver.context()?.check_no_capture("an allocation of pinned memory")?;
    let failed = |status: Status| Failure::new(status, format!("{num_bytes} bytes of pinned memory"));
    if num_bytes == 0 {
        return Err(failed(status::INVALID_VALUE));
    }
    let allocated = driver.context()?.pinned.alloc(num_bytes).ok_or_else(|| failed(status::OUT_OF_MEMORY))?;
    write(address, allocated)
}

/// A graph would read or write pageable memory at every replay, long after the call.
fn check_not_captured(driver: &mut Driver, stream: u64) -> Outcome<()> {
    let context = driver.context()?;
    if context.stream(stream)?.capture.is_some() {
        return context.check_no_capture("a copy between the device and pageable memory");
    }
    Ok(())
}

fn synchronous(driver: &mut Driver, address: u64, num_bytes: usize, what: &str) -> Outcome<()> {
    let context = driver.context()?;
    context.check_no_capture("a synchronous operation")?;
    context.check_device_range(what, address, num_bytes)?;
    driver.run_all()
}
