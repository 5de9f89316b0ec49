//! What a caller's pointers lead to. What it promises in C (pointers to as many values as the reference says) is what the
//! SAFETY comments in here stand on. `None` stands for a null pointer.
#![allow(clippy::not_unsafe_ptr_arg_deref, reason = "the promise is made to the driver, whose functions C calls")]

use std::ffi::{CStr, c_char};

/// Writes a result to where the caller wants it.
pub fn write<T>(to: *mut T, value: T) -> Option<()> {
    if to.is_null() {
        return None;
    }
    // SAFETY: not null; the caller of the driver vouches that it points to a value of this type.
    unsafe { to.write_unaligned(value) };
    Some(())
}

/// The `index`-th value that a pointer leads to.
pub fn read_at<T: Copy>(from: *const T, index: usize) -> Option<T> {
    if from.is_null() {
        return None;
    }
    // SAFETY: the caller vouches for as many values as the driver's reference has it read.
    let at = unsafe { from.add(index) };
    // SAFETY: as above; the value is plain data.
    Some(unsafe { at.read_unaligned() })
}

/// A zero-terminated text.
pub fn text(from: *const c_char) -> Option<String> {
    if from.is_null() {
        return None;
    }
    // SAFETY: not null; the caller vouches for a zero-terminated string.
    let text = unsafe { CStr::from_ptr(from) };
    Some(text.to_string_lossy().into_owned())
}
