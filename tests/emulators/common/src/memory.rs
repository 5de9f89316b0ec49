//! Memory of an emulated device, and pinned memory of the host.
//!
//! Device memory is host memory, so that code compiled for the host can work on it. Every allocation has guard bytes on
//! both sides, which are checked after each launch that was given a pointer into it and when it is freed. Fresh memory and
//! guards are full of 0xFF, which is NaN in every float format.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeMap;
use std::ops::Range;

const POISON: u8 = 0xff;

/// A piece of memory with guards around it.
#[derive(Debug)]
struct Piece {
    num_bytes: usize,
}

/// Allocations by the address that their owner knows, aligned as the driver aligns them. Each guard has as many bytes.
#[derive(Debug, Default)]
pub struct Memory<const ALIGNMENT: usize> {
    pieces: BTreeMap<u64, Piece>,
    used_bytes: u64,
}

impl<const ALIGNMENT: usize> Memory<ALIGNMENT> {
    fn layout(num_bytes: usize) -> Layout {
        let padded = num_bytes.next_multiple_of(ALIGNMENT) + 2 * ALIGNMENT;
        // A layout of this alignment is refused above isize::MAX bytes only, which callers exclude.
        Layout::from_size_align(padded, ALIGNMENT).unwrap_or(Layout::new::<u8>())
    }

    /// Bytes in live allocations.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Live allocations: address and size.
    pub fn live(&self) -> impl Iterator<Item = (u64, usize)> {
        self.pieces.iter().map(|(address, piece)| (*address, piece.num_bytes))
    }

    /// New memory, full of 0xFF; `None` where the host has none left.
    pub fn alloc(&mut self, num_bytes: usize) -> Option<u64> {
        if num_bytes > isize::MAX as usize / 2 {
            return None;
        }
        let layout = Self::layout(num_bytes);
        // SAFETY: the layout is larger than the guards, so not of size zero.
        let start = unsafe { alloc(layout) };
        if start.is_null() {
            return None;
        }
        // SAFETY: the allocator just gave `layout.size()` bytes at `start`.
        unsafe { start.write_bytes(POISON, layout.size()) };
        let address = start as u64 + ALIGNMENT as u64;
        self.pieces.insert(address, Piece { num_bytes });
        self.used_bytes += num_bytes as u64;
        Some(address)
    }

    /// Ends an allocation.
    ///
    /// # Errors
    /// What is wrong: not the start of a live allocation, or guards that were written.
    pub fn free(&mut self, address: u64) -> Result<(), String> {
        let intact = self.check_guards(address);
        let Some(piece) = self.pieces.remove(&address) else {
            return Err(format!("{address:#x} is not the start of a live allocation"));
        };
        self.used_bytes -= piece.num_bytes as u64;
        let start = (address - ALIGNMENT as u64) as *mut u8;
        // SAFETY: `alloc` made this piece with the same layout, and it was just taken out of the table.
        unsafe { dealloc(start, Self::layout(piece.num_bytes)) };
        intact
    }

    /// The allocation that holds `range` whole, if any.
    pub fn holder(&self, range: Range<u64>) -> Option<u64> {
        let (&address, piece) = self.pieces.range(..=range.start).next_back()?;
        let end = address + piece.num_bytes as u64;
        // An address right behind the end points to nothing.
        (range.start < end && range.end <= end || piece.num_bytes == 0 && range.start == address).then_some(address)
    }

    /// What lies closest before an address, for error messages.
    pub fn describe(&self, address: u64) -> String {
        match self.pieces.range(..=address).next_back() {
            Some((start, piece)) if address < start + piece.num_bytes as u64 + ALIGNMENT as u64 => {
                format!("{} bytes into the allocation of {} bytes at {start:#x}", address - start, piece.num_bytes)
            }
            _ => "in no live allocation".into(),
        }
    }

    /// Checks that nothing was written around an allocation.
    ///
    /// # Errors
    /// Where something was.
    pub fn check_guards(&self, address: u64) -> Result<(), String> {
        let Some(piece) = self.pieces.get(&address) else { return Ok(()) };
        let before = (address - ALIGNMENT as u64) as *const u8;
        let after = (address + piece.num_bytes as u64) as *const u8;
        let bytes_after = Self::layout(piece.num_bytes).size() - ALIGNMENT - piece.num_bytes;
        // SAFETY: the guards are part of a live piece: ALIGNMENT in front of its address.
        let front = unsafe { std::slice::from_raw_parts(before, ALIGNMENT) };
        // SAFETY: and behind its last byte up to the end of its layout.
        let back = unsafe { std::slice::from_raw_parts(after, bytes_after) };
        let written = |guard: &[u8]| guard.iter().position(|byte| *byte != POISON);
        if let Some(at) = written(back) {
            return Err(format!(
                "byte {at} behind the allocation of {} bytes at {address:#x} was written",
                piece.num_bytes
            ));
        }
        if let Some(at) = written(front) {
            return Err(format!("byte {} before the allocation at {address:#x} was written", ALIGNMENT - at));
        }
        Ok(())
    }
}

impl<const ALIGNMENT: usize> Drop for Memory<ALIGNMENT> {
    fn drop(&mut self) {
        let addresses: Vec<u64> = self.pieces.keys().copied().collect();
        for address in addresses {
            // Guards were reported where they were written; what remains is to give the memory back.
            let _ = self.free(address);
        }
    }
}

/// Copies between addresses that the caller has checked, or was given by who called the driver.
pub fn copy(from: u64, to: u64, num_bytes: usize) {
    // SAFETY: device addresses were checked to lie in live allocations; host addresses are the caller's promise to the
    // driver. `copy` allows the two to overlap.
    unsafe { std::ptr::copy(from as *const u8, to as *mut u8, num_bytes) };
}

/// Fills device memory that the caller has checked.
pub fn fill(to: u64, value: u8, num_bytes: usize) {
    // SAFETY: the range was checked to lie in a live allocation.
    unsafe { (to as *mut u8).write_bytes(value, num_bytes) };
}

/// Bytes of host memory that a caller of the driver points to.
pub fn read(from: u64, num_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; num_bytes];
    copy(from, bytes.as_mut_ptr() as u64, num_bytes);
    bytes
}

/// One value of device memory that the caller has checked.
pub fn load<T: Copy>(from: u64) -> T {
    // SAFETY: the range was checked to lie in a live allocation; every bit pattern of the types in use is a value.
    unsafe { (from as *const T).read_unaligned() }
}

/// Writes one value to device memory that the caller has checked.
pub fn store<T: Copy>(to: u64, value: T) {
    // SAFETY: as above.
    unsafe { (to as *mut T).write_unaligned(value) };
}
