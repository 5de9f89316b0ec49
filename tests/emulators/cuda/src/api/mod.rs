//! The C functions, one file per part of the driver's reference.
//!
//! Each is a few lines: read what the caller points to, ask the [`Driver`](crate::driver::Driver), write the answer.
//! Handles are numbers in pointers' clothes. What a caller promises in C (pointers to as many values as the reference
//! says) is what the SAFETY comments in here stand on.

pub(crate) mod context;
pub(crate) mod device;
pub(crate) mod event;
mod exit;
pub(crate) mod graph;
pub(crate) mod launch;
pub(crate) mod memory;
pub(crate) mod module;
pub(crate) mod stream;
pub(crate) mod tensor_map;
pub(crate) mod unsupported;

use std::ffi::{CStr, c_char};

use crate::abi::{Status, status};
use crate::driver::{Driver, Failure, Outcome, lock};

/// Defines exported functions. The body gets the driver under its lock.
macro_rules! entries {
    ($($(#[$doc:meta])* fn $name:ident($driver:pat $(, $argument:ident: $type:ty)* $(,)?) $body:block)*) => {
        $(
            $(#[$doc])*
            // SAFETY: the name is that of the driver's function, with its parameters.
            #[unsafe(no_mangle)]
            #[allow(non_snake_case, reason = "the driver's own name")]
            pub(crate) extern "C" fn $name($($argument: $type),*) -> $crate::abi::Status {
                let answer = |$driver: &mut $crate::driver::Driver| -> $crate::driver::Outcome<()> { $body };
                $crate::api::answer(stringify!($name), answer)
            }
        )*
    };
}
use entries;

/// Runs the body of a function and reports what it refuses.
fn answer(name: &str, body: impl FnOnce(&mut Driver) -> Outcome<()>) -> Status {
    let mut driver = match lock() {
        Ok(driver) => driver,
        Err(message) => {
            say(&message);
            return status::NOT_INITIALIZED;
        }
    };
    let Some(driver) = driver.as_mut() else { return status::NOT_INITIALIZED };
    match driver.count_call().and_then(|()| body(driver)) {
        Ok(()) => status::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                say(&format!("{name}: {failure}"));
            }
            failure.status
        }
    }
}

/// One line for the developer, on the error stream.
#[allow(clippy::print_stderr, reason = "a test instrument has no other way to speak")]
fn say(message: &str) {
    eprintln!("cuda-emulator: {message}");
}

/// Writes a result to where the caller wants it.
fn write<T>(to: *mut T, value: T) -> Outcome<()> {
    if to.is_null() {
        return Err(Failure::new(status::INVALID_VALUE, "a null pointer for a result"));
    }
    // SAFETY: not null; the caller of the driver vouches that it points to a value of this type.
    unsafe { to.write(value) };
    Ok(())
}

/// The `index`-th value that the caller's pointer leads to.
fn read_at<T: Copy>(from: *const T, index: usize) -> Outcome<T> {
    if from.is_null() {
        return Err(Failure::new(status::INVALID_VALUE, "a null pointer for an argument"));
    }
    // SAFETY: the caller vouches for as many values as the driver's reference has it read.
    let at = unsafe { from.add(index) };
    // SAFETY: as above; the value is plain data.
    Ok(unsafe { at.read_unaligned() })
}

fn read<T: Copy>(from: *const T) -> Outcome<T> {
    read_at(from, 0)
}

/// A zero-terminated name.
fn name(from: *const c_char) -> Outcome<String> {
    if from.is_null() {
        return Err(Failure::new(status::INVALID_VALUE, "a null pointer for a name"));
    }
    // SAFETY: not null; the caller vouches for a zero-terminated string.
    let text = unsafe { CStr::from_ptr(from) };
    Ok(text.to_string_lossy().into_owned())
}
