//! Device memory on the host: poisoned, guarded, and known by address.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Before and behind every allocation; also its alignment, which is that of a driver.
const GUARD_BYTES: usize = 256;
const GUARD: u8 = 0xA5;
/// NaN in every floating-point format of the kernels, and an id out of every range.
const POISON: u8 = 0xFF;

/// What is allocated, and how often something was; clones see the same.
#[derive(Debug, Default, Clone)]
pub struct Ledger {
    /// Address to size.
    live: Arc<Mutex<BTreeMap<u64, usize>>>,
    num_allocations: Arc<AtomicUsize>,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Allocations since the device was opened.
    pub fn num_allocations(&self) -> usize {
        self.num_allocations.load(Ordering::Relaxed)
    }

    /// True where `address` points into live memory.
    pub(crate) fn holds(&self, address: u64) -> bool {
        let live = self.lock();
        let below = live.range(..=address).next_back();
        below.is_some_and(|(start, num_bytes)| address < start + *num_bytes as u64)
    }

    /// Checks that nothing beside a live allocation was written.
    pub(crate) fn check_guards(&self) -> Result<(), String> {
        for (address, num_bytes) in self.lock().iter() {
            for (side, start) in [("before", address - GUARD_BYTES as u64), ("behind", address + *num_bytes as u64)] {
                // SAFETY: allocations have guards on both sides and leave the ledger, which is locked, before they are
                // freed (HostMemory::new and its Drop).
                let guard = unsafe { std::slice::from_raw_parts(start as *const u8, GUARD_BYTES) };
                if guard.iter().any(|byte| *byte != GUARD) {
                    return Err(format!("memory {side} an allocation of {num_bytes} bytes was written"));
                }
            }
        }
        Ok(())
    }
}

/// An allocation.
#[derive(Debug)]
pub struct HostMemory {
    start: NonNull<u8>,
    layout: Layout,
    num_bytes: usize,
    ledger: Ledger,
}

// SAFETY: the memory is owned, and reads and writes go through methods of this type and through kernels, which a stream
// runs one after the other.
unsafe impl Send for HostMemory {}
// SAFETY: as above.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    /// Poisoned memory, or `None` where there is not enough.
    pub(crate) fn new(num_bytes: usize, ledger: &Ledger) -> Option<Self> {
        let layout = Layout::from_size_align(num_bytes.checked_add(2 * GUARD_BYTES)?, GUARD_BYTES).ok()?;
        // SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { alloc(layout) })?;
        for (offset, len, value) in
            [(0, GUARD_BYTES, GUARD), (GUARD_BYTES, num_bytes, POISON), (GUARD_BYTES + num_bytes, GUARD_BYTES, GUARD)]
        {
            // SAFETY: offset and length lie within the layout.
            let part = unsafe { start.add(offset) };
            // SAFETY: as above.
            unsafe { part.write_bytes(value, len) };
        }
        let memory = Self { start, layout, num_bytes, ledger: ledger.clone() };
        memory.ledger.lock().insert(memory.address(), num_bytes);
        memory.ledger.num_allocations.fetch_add(1, Ordering::Relaxed);
        Some(memory)
    }

    /// Where it lies.
    pub fn address(&self) -> u64 {
        self.start.as_ptr() as u64 + GUARD_BYTES as u64
    }

    fn check_range(&self, offset: usize, len: usize) -> Result<(), String> {
        match offset.checked_add(len) {
            Some(end) if end <= self.num_bytes => Ok(()),
            _ => Err(format!("{len} bytes at {offset} of an allocation of {}", self.num_bytes)),
        }
    }

    pub(crate) fn write(&self, offset: usize, data: &[u8]) -> Result<(), String> {
        self.check_range(offset, data.len())?;
        // SAFETY: the range was checked.
        let to = unsafe { self.start.add(GUARD_BYTES + offset) };
        // SAFETY: the range was checked, and `data` is not device memory, which nobody has a reference to.
        unsafe { to.copy_from_nonoverlapping(NonNull::from_ref(data).cast(), data.len()) };
        Ok(())
    }

    pub(crate) fn read(&self, offset: usize, data: &mut [u8]) -> Result<(), String> {
        self.check_range(offset, data.len())?;
        // SAFETY: the range was checked.
        let from = unsafe { self.start.add(GUARD_BYTES + offset) };
        // SAFETY: the range was checked, every byte was written when the memory was made, and `data` is not device memory.
        unsafe { from.copy_to_nonoverlapping(NonNull::from_mut(data).cast(), data.len()) };
        Ok(())
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        self.ledger.lock().remove(&self.address());
        // SAFETY: `start` was allocated with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn writes_beside_an_allocation_are_found() {
        let ledger = Ledger::default();
        let memory = HostMemory::new(10, &ledger).unwrap();
        assert_eq!(ledger.check_guards(), Ok(()));
        // SAFETY: the guard belongs to the allocation.
        let behind = unsafe { memory.start.add(GUARD_BYTES + 10) };
        // SAFETY: as above.
        unsafe { behind.write(0) };
        assert_eq!(ledger.check_guards(), Err("memory behind an allocation of 10 bytes was written".into()));
    }

    #[test]
    fn memory_is_poisoned_known_by_address_and_bounded() {
        let ledger = Ledger::default();
        let memory = HostMemory::new(4, &ledger).unwrap();
        let (address, mut bytes) = (memory.address(), [0; 4]);
        memory.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, [POISON; 4]);
        memory.write(1, &[7, 8]).unwrap();
        memory.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, [POISON, 7, 8, POISON]);
        assert!(memory.write(3, &[1, 2]).is_err() && memory.read(usize::MAX, &mut bytes).is_err());
        assert!(ledger.holds(address) && ledger.holds(address + 3) && !ledger.holds(address + 4));
        drop(memory);
        assert!(!ledger.holds(address));
    }
}
