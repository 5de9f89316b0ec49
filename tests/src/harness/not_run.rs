//! Tests that cannot run here.

use std::io::{self, Write};

/// Says that `test` did not run, for want of `what` ("no adapter"). Written past the capture of passing tests' output, so
/// that every log shows it; the gate counts these lines.
pub fn not_run(test: &str, what: &str) {
    // Standard error may be closed; a test does not fail for that.
    let _ = writeln!(io::stderr(), "NOT RUN, {what}: {test}");
}
