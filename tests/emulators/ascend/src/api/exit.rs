//! What was never given back is reported when the process ends.

use std::ffi::c_int;

use crate::machine::lock;

/// Status of a process that ends with leaks.
const LEAKED: c_int = 86;

// SAFETY: two functions of the C library, as its header declares them.
unsafe extern "C" {
    fn atexit(callback: extern "C" fn()) -> c_int;
    fn _exit(status: c_int) -> !;
}

/// Arranges for [`report`] to run.
pub(super) fn report_leaks_at_exit() {
    if cfg!(test) {
        return;
    }
    // SAFETY: the callback takes and returns nothing and does not unwind.
    let registered = unsafe { atexit(report) };
    if registered != 0 {
        say("leaks cannot be reported: atexit failed");
    }
}

extern "C" fn report() {
    let leaks = match lock() {
        Ok(machine) => machine.as_ref().map(crate::machine::Machine::all_leaks).unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    if leaks.is_empty() {
        return;
    }
    for leak in &leaks {
        say(&format!("leaked: {leak}"));
    }
    // SAFETY: ends the process at once; its output has been flushed before handlers of this kind run.
    unsafe { _exit(LEAKED) };
}

/// One line for the developer, on the error stream.
#[allow(clippy::print_stderr, reason = "a test instrument has no other way to speak")]
fn say(message: &str) {
    eprintln!("ascend-emulator: {message}");
}
