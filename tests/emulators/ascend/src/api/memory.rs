//! Memory: of the device, pinned on the host, and copies between them.

use emulator_common::memory::copy;

use super::{entries, write};
use crate::abi::{HBM_MEM, status};
use crate::machine::{Failure, Machine, Outcome};
use crate::stream::Op;

/// Directions of copies.
const HOST_TO_DEVICE: u32 = 1;
const DEVICE_TO_HOST: u32 = 2;

entries! {
    fn aclrtGetMemInfo(machine, attribute: u32, free: *mut usize, total: *mut usize) {
        if attribute != HBM_MEM {
            return Err(Failure::new(status::PARAM_INVALID, format!("memory attribute {attribute} is not modelled")));
        }
        let limit = machine.config.common.memory_bytes;
        let used = machine.context()?.memory.used_bytes();
        write(free, limit.saturating_sub(used) as usize)?;
        write(total, limit as usize)
    }

    fn aclrtMalloc(machine, address: *mut u64, num_bytes: usize, policy: u32) {
        if policy > 2 {
            return Err(Failure::new(status::PARAM_INVALID, format!("policy {policy} is not modelled")));
        }
        if !num_bytes.is_multiple_of(32) {
            return Err(Failure::new(status::PARAM_INVALID, format!("{num_bytes} bytes, no multiple of 32")));
        }
        let allocated = machine.alloc(num_bytes)?;
        write(address, allocated)
    }

    fn aclrtFree(machine, address: u64) {
        machine.free(address)
    }

    fn aclrtMallocHost(machine, address: *mut u64, num_bytes: usize) {
        machine.context()?;
        machine.check_safe("an allocation of pinned memory")?;
        let allocated = machine.context()?.pinned.alloc(num_bytes.max(1));
        let allocated = allocated.ok_or_else(|| Failure::new(status::MEMORY_ALLOCATION, "the host has none left"))?;
        write(address, allocated)
    }

    fn aclrtFreeHost(machine, address: u64) {
        machine.check_safe("freeing pinned memory")?;
        let pinned = &mut machine.context()?.pinned;
        pinned.free(address).map_err(|message| Failure::new(status::PARAM_INVALID, message))
    }

    fn aclrtMemcpy(machine, to: u64, room: usize, from: u64, num_bytes: usize, kind: u32) {
        check_copy(machine, (to, room), (from, num_bytes), kind)?;
        machine.check_safe("a copy that is not queued")?;
        copy(from, to, num_bytes);
        Ok(())
    }

    fn aclrtMemcpyAsync(machine, to: u64, room: usize, from: u64, num_bytes: usize, kind: u32, stream: u64) {
        check_copy(machine, (to, room), (from, num_bytes), kind)?;
        let host = if kind == HOST_TO_DEVICE { from } else { to };
        let range = host..host.saturating_add(num_bytes as u64);
        let context = machine.context()?;
        if context.pinned.holder(range).is_none() {
            machine.check_safe("a copy of pageable memory")?;
            let message = "an asynchronous copy of pageable memory: take it from aclrtMallocHost";
            return Err(Failure::new(status::PARAM_INVALID, message));
        }
        context.stream(stream)?.push(Op::Copy { from, to, num_bytes })
    }
}

fn check_copy(
    machine: &mut Machine,
    (to, room): (u64, usize),
    (from, num_bytes): (u64, usize),
    kind: u32,
) -> Outcome<()> {
    let device = match kind {
        HOST_TO_DEVICE => to,
        DEVICE_TO_HOST => from,
        _ => return Err(Failure::new(status::PARAM_INVALID, format!("copies of kind {kind} are not modelled"))),
    };
    if num_bytes == 0 || num_bytes > room {
        return Err(Failure::new(status::PARAM_INVALID, format!("{num_bytes} bytes to a place of {room}")));
    }
    let memory = &machine.context()?.memory;
    if memory.holder(device..device.saturating_add(num_bytes as u64)).is_some() {
        return Ok(());
    }
    let place = memory.describe(device);
    Err(Failure::new(status::PARAM_INVALID, format!("{num_bytes} bytes at {device:#x}, {place}")))
}
