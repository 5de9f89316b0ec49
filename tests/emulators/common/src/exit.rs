//! What was never given back is reported when the process ends.

use std::ffi::c_int;
use std::sync::OnceLock;

/// Status of a process that ends with leaks.
const LEAKED: c_int = 86;

/// Who speaks, and what it knows of.
struct Report {
    emulator: &'static str,
    leaks: fn() -> Vec<String>,
}

static REPORT: OnceLock<Report> = OnceLock::new();

// SAFETY: two functions of the C library, as its header declares them.
unsafe extern "C" {
    fn atexit(callback: extern "C" fn()) -> c_int;
    fn _exit(status: c_int) -> !;
}

/// Arranges for leaks to be reported, once per process.
pub fn report_leaks_at_exit(emulator: &'static str, leaks: fn() -> Vec<String>) {
    if REPORT.set(Report { emulator, leaks }).is_err() {
        return;
    }
    // SAFETY: the callback takes and returns nothing and does not unwind.
    let registered = unsafe { atexit(report) };
    if registered != 0 {
        say(emulator, "leaks cannot be reported: atexit failed");
    }
}

extern "C" fn report() {
    let Some(Report { emulator, leaks }) = REPORT.get() else { return };
    let leaks = leaks();
    if leaks.is_empty() {
        return;
    }
    for leak in &leaks {
        say(emulator, &format!("leaked: {leak}"));
    }
    // SAFETY: ends the process at once; its output has been flushed before handlers of this kind run.
    unsafe { _exit(LEAKED) };
}

/// One line for the developer, on the error stream.
#[allow(clippy::print_stderr, reason = "a test instrument has no other way to speak")]
pub fn say(emulator: &str, message: &str) {
    eprintln!("{emulator}: {message}");
}
