//! Stdout for results, stderr for everything else.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::error::CliError;

/// Writes text to stdout and flushes it, so that tokens appear as they come.
pub(crate) fn write(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(CliError::Stream)
}

/// Writes a line to stdout.
pub(crate) fn line(text: impl Display) -> Result<(), CliError> {
    write(&format!("{text}\n"))
}

/// Writes one JSON object and a newline to stdout.
pub(crate) fn json(value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string(value).map_err(|error| CliError::Stream(error.into()))?;
    line(text)
}

/// Writes a line to stderr. Nobody is left to tell when that fails.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Asks for a line on stderr.
pub(crate) fn prompt(text: &str) {
    let mut out = io::stderr().lock();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

/// True when a person watches stderr.
pub(crate) fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// A bar on stderr, drawn only on a terminal. `template` is indicatif's.
pub(crate) fn progress_bar(template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    // A template that does not parse would be a defect of this crate; the default style then serves.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("━╸─"));
    bar
}

/// A bar that counts bytes.
pub(crate) const BYTES_BAR: &str = "{bar:32} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} eta {eta}";

/// A whole number in groups of three: `163 840`.
pub(crate) fn count(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A rate with a resolution that makes sense: `3.42`, `51.3`, `12 345`.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        ..10.0 => format!("{per_second:.2}"),
        10.0..100.0 => format!("{per_second:.1}"),
        _ => count(per_second.round() as u64),
    }
}

/// Bytes in binary units.
pub(crate) fn bytes(num_bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.into_iter().find(|(unit, _)| num_bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", num_bytes as f64 / unit as f64),
        None => format!("{num_bytes} B"),
    }
}

/// Rows of (name, value), names to the left and values to the right.
pub(crate) fn table(rows: &[(&str, String)]) -> String {
    let names = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let values = rows.iter().map(|(_, value)| value.chars().count()).max().unwrap_or(0);
    let lines: Vec<String> = rows.iter().map(|(name, value)| format!("{name:<names$}  {value:>values$}")).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(count(0_u64), "0");
        assert_eq!(count(999_u64), "999");
        assert_eq!(count(1_000_u64), "1 000");
        assert_eq!(count(1_234_567_usize), "1 234 567");
        assert_eq!([rate(1.234), rate(12.34), rate(1234.5)], ["1.23", "12.3", "1 235"]);
        assert_eq!([bytes(1023), bytes(1536), bytes(1 << 30)], ["1023 B", "1.5 KiB", "1.0 GiB"]);
    }

    #[test]
    fn tables_are_aligned() {
        let text = table(&[("a", "1".to_owned()), ("name", "1 000".to_owned())]);
        assert_eq!(text, "a         1\nname  1 000");
    }
}
