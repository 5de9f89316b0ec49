//! The C functions other than operators, one file per part.
//!
//! Each is a few lines: read what the caller points to, ask the [`Machine`](crate::machine::Machine), write the answer.
//! Handles are numbers in pointers' clothes.

pub(crate) mod capture;
pub(crate) mod descriptor;
pub(crate) mod hccl;
pub(crate) mod memory;
pub(crate) mod runtime;

use std::ffi::c_char;

use emulator_common::caller;

use crate::abi::{Status, status};
use crate::machine::{Failure, Machine, Outcome, call, remember};

/// Defines exported functions that answer a status. The body gets the machine under its lock.
macro_rules! entries {
    ($(fn $name:ident($machine:pat $(, $argument:ident: $type:ty)* $(,)?) $body:block)*) => {
        $(
            // SAFETY: the name is that of CANN's function, with its parameters.
            #[unsafe(no_mangle)]
            #[allow(non_snake_case, reason = "CANN's own name")]
            pub(crate) extern "C" fn $name($($argument: $type),*) -> $crate::abi::Status {
                let answer = |$machine: &mut $crate::machine::Machine| -> $crate::machine::Outcome<()> { $body };
                $crate::api::answer(stringify!($name), answer)
            }
        )*
    };
}
use entries;

/// Defines operators: the body of each is its first function, which checks and plans; the second one is the same for all.
macro_rules! operators {
    ($(fn $name:ident $plan:ident($call:ident $(, $argument:ident: $type:ty)* $(,)?) $body:block)*) => {
        $(
            // SAFETY: the name is that of CANN's function, with its parameters.
            #[unsafe(no_mangle)]
            #[allow(non_snake_case, clippy::too_many_arguments, reason = "CANN's own function")]
            pub(crate) extern "C" fn $plan(
                $($argument: $type,)*
                workspace_bytes: *mut u64,
                executor: *mut u64,
            ) -> $crate::abi::Status {
                $crate::api::answer(stringify!($plan), |machine| {
                    let (bytes, handle) = $crate::operator::plan(
                        machine,
                        stringify!($name),
                        |$call| -> $crate::machine::Outcome<$crate::operator::Work> { $body },
                    )?;
                    $crate::api::write(workspace_bytes, bytes)?;
                    $crate::api::write(executor, handle)
                })
            }

            // SAFETY: as above.
            #[unsafe(no_mangle)]
            #[allow(non_snake_case, reason = "CANN's own name")]
            pub(crate) extern "C" fn $name(
                workspace: u64,
                workspace_bytes: u64,
                executor: u64,
                stream: u64,
            ) -> $crate::abi::Status {
                $crate::api::answer(stringify!($name), |machine| {
                    let workspace = (workspace, workspace_bytes);
                    $crate::operator::launch(machine, stringify!($name), workspace, executor, stream)
                })
            }
        )*
    };
}
pub(crate) use operators;

/// Runs the body of a function, and keeps the words of what it refuses.
pub(crate) fn answer(name: &str, body: impl FnMut(&mut Machine) -> Outcome<()>) -> Status {
    match call(body) {
        Ok(Ok(())) => status::SUCCESS,
        Ok(Err(failure)) => {
            remember(&format!("{name}: {}", failure.message));
            failure.status
        }
        Err(message) => {
            remember(&message);
            status::UNINITIALIZED
        }
    }
}

/// Writes a result to where the caller wants it.
pub(crate) fn write<T>(to: *mut T, value: T) -> Outcome<()> {
    caller::write(to, value).ok_or_else(|| Failure::new(status::PARAM_INVALID, "a null pointer for a result"))
}

/// As many values as the caller says there are.
fn read_all<T: Copy>(what: &str, from: *const T, count: u64) -> Outcome<Vec<T>> {
    let is_null = || Failure::new(status::PARAM_INVALID, format!("{what} is null"));
    (0..count).map(|index| caller::read_at(from, index as usize).ok_or_else(is_null)).collect()
}

/// A zero-terminated name; empty for null.
pub(crate) fn text(from: *const c_char) -> String {
    caller::text(from).unwrap_or_default()
}
