//! Under the C functions. Handles are numbers in pointers' clothes.

use std::ffi::{CStr, c_char, c_void};
use std::ops::RangeInclusive;

use emulator_common::exit::say;
use emulator_common::{Failure, Outcome, caller, memory};

use crate::config::Gpu;
use crate::driver::Driver;
use crate::status::{self, Status};

/// Defines exported functions of one kind of [`Gpu`]. The body gets the driver under its lock.
#[macro_export]
macro_rules! entries {
    ($gpu:ty; $($(#[$doc:meta])* fn $name:ident($driver:pat $(, $argument:ident: $type:ty)* $(,)?) $body:block)*) => {
        $(
            $(#[$doc])*
            // SAFETY: the name is that of the driver's function, with its parameters.
            #[unsafe(no_mangle)]
            #[allow(non_snake_case, reason = "the driver's own name")]
            pub(crate) extern "C" fn $name($($argument: $type),*) -> $crate::Status {
                let answer = |$driver: &mut $crate::Driver<$gpu>| -> $crate::Outcome<()> { $body };
                $crate::answer(stringify!($name), answer)
            }
        )*
    };
}

/// Runs the body of a function and reports what it refuses.
pub fn answer<G: Gpu>(name: &str, body: impl FnMut(&mut Driver<G>) -> Outcome<()>) -> Status {
    let outcome = match G::slot().call(body) {
        Ok(outcome) => outcome,
        Err(message) => {
            say(G::EMULATOR, &message);
            return status::NOT_INITIALIZED;
        }
    };
    match outcome {
        Ok(()) => status::SUCCESS,
        Err(Failure { status, message }) => {
            if !message.is_empty() {
                let status = G::status_name(status).map_or("?".into(), |name| name.to_string_lossy());
                say(G::EMULATOR, &format!("{name}: {status}: {message}"));
            }
            status
        }
    }
}

/// The statuses of a library beside the driver, which has its own.
#[derive(Debug)]
pub struct Statuses {
    /// Those that it has.
    pub known: RangeInclusive<Status>,
    /// What it answers where the driver fails.
    pub unhandled: Status,
    /// What one stands for.
    pub words: fn(Status) -> &'static CStr,
}

/// Runs the body of a library's function and reports what it refuses.
pub fn answer_as<G: Gpu>(statuses: &Statuses, name: &str, body: impl FnMut(&mut Driver<G>) -> Outcome<()>) -> Status {
    let outcome = match G::slot().call(body) {
        Ok(outcome) => outcome,
        Err(message) => Err(Failure::new(statuses.unhandled, message)),
    };
    let Err(Failure { status, message }) = outcome else { return status::SUCCESS };
    let status = if statuses.known.contains(&status) { status } else { statuses.unhandled };
    if !message.is_empty() {
        say(G::EMULATOR, &format!("{name}: {}: {message}", (statuses.words)(status).to_string_lossy()));
    }
    status
}

/// Writes a result to where the caller wants it.
///
/// # Errors
/// For a null pointer.
pub fn write<T>(to: *mut T, value: T) -> Outcome<()> {
    caller::write(to, value).ok_or_else(|| Failure::new(status::INVALID_VALUE, "a null pointer for a result"))
}

/// The `index`-th value that the caller's pointer leads to.
///
/// # Errors
/// For a null pointer.
pub fn read_at<T: Copy>(from: *const T, index: usize) -> Outcome<T> {
    let value = caller::read_at(from, index);
    value.ok_or_else(|| Failure::new(status::INVALID_VALUE, "a null pointer for an argument"))
}

/// The value that the caller's pointer leads to.
///
/// # Errors
/// For a null pointer.
pub fn read<T: Copy>(from: *const T) -> Outcome<T> {
    read_at(from, 0)
}

/// A zero-terminated name.
///
/// # Errors
/// For a null pointer.
pub fn name(from: *const c_char) -> Outcome<String> {
    caller::text(from).ok_or_else(|| Failure::new(status::INVALID_VALUE, "a null pointer for a name"))
}

/// Bytes of an ELF header, and where in it the tables are described.
const HEADER_BYTES: usize = 64;

/// An ELF image of which only the start is known: its section and program headers come last.
///
/// # Errors
/// For what is no ELF file.
pub fn read_elf(image: *const c_void) -> Outcome<Vec<u8>> {
    let byte = |at: usize| read_at(image.cast::<u8>(), at).map(usize::from);
    let number = |at: usize, count: usize| (0..count).rev().try_fold(0, |sum, i| Ok(sum << 8 | byte(at + i)?));
    if number(0, 4)? != u32::from_le_bytes(*b"\x7fELF") as usize {
        return Err(Failure::new(status::INVALID_IMAGE, "not an ELF file: other images are not modelled"));
    }
    // Offsets, sizes and counts of the program headers and of the section headers.
    let (programs, sections) = (number(32, 8)?, number(40, 8)?);
    let ends = [programs + number(54, 2)? * number(56, 2)?, sections + number(58, 2)? * number(60, 2)?];
    Ok(memory::read(image as u64, ends.into_iter().fold(HEADER_BYTES, usize::max)))
}
