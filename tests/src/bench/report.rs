//! Measurements as rows.

use std::fmt::Write as _;

use serde::Serialize;

use super::card::Limits;

/// What a piece of work moves and computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Bytes that have to go through memory: weights, latent cache, and for single ops their inputs and outputs.
    pub bytes: f64,
    /// Multiplications and additions with FP8 weights.
    pub fp8_flop: f64,
    /// Multiplications and additions in bf16.
    pub bf16_flop: f64,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Model or op, with its shape.
    pub what: String,
    /// Tokens of a step, or rows of an op's input.
    pub tokens: usize,
    /// Tokens in each sequence's cache, where there are any.
    pub context: usize,
    /// Median time, in milliseconds.
    pub ms: f64,
    /// Tokens per second.
    pub tok_s: f64,
    /// What had to be moved and computed.
    pub cost: Cost,
    /// `cost.bytes` per second, in GB/s.
    pub gb_s: f64,
    /// Operations per second, in TFLOP/s.
    pub tflop_s: f64,
    /// The least time that the card allows over the time taken; `None` for a card that is not known.
    pub roofline_share: Option<f64>,
}

impl Row {
    /// From a median time in seconds.
    pub fn new(
        what: &str,
        (tokens, context): (usize, usize),
        seconds: f64,
        cost: Cost,
        limits: Option<Limits>,
    ) -> Self {
        let Cost { bytes, fp8_flop, bf16_flop } = cost;
        Self {
            what: what.to_owned(),
            tokens,
            context,
            ms: 1e3 * seconds,
            tok_s: tokens as f64 / seconds,
            cost,
            gb_s: bytes / seconds / 1e9,
            tflop_s: (fp8_flop + bf16_flop) / seconds / 1e12,
            roofline_share: limits.map(|limits| limits.least_s(bytes, fp8_flop, bf16_flop) / seconds),
        }
    }
}

/// Rows under each other.
pub fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.what.chars().count()).max().unwrap_or(0).max(4);
    let mut text = format!(
        "{:<width$} {:>6} {:>7} {:>10} {:>11} {:>9} {:>9} {:>8}\n",
        "what", "tokens", "context", "ms", "tok/s", "GB/s", "TFLOP/s", "roofline"
    );
    for row in rows {
        let share = row.roofline_share.map_or("?".to_owned(), |share| format!("{:.1} %", 100.0 * share));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:<width$} {:>6} {:>7} {:>10.4} {:>11.1} {:>9.1} {:>9.2} {share:>8}",
            row.what, row.tokens, row.context, row.ms, row.tok_s, row.gb_s, row.tflop_s
        );
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_row_is_held_against_the_card() {
        let limits = Limits { bytes_s: 1e12, fp8_flop_s: 2e15, bf16_flop_s: 1e15 };
        let cost = Cost { bytes: 5e9, fp8_flop: 1e12, bf16_flop: 0.0 };
        let row = Row::new("model", (32, 4096), 0.01, cost, Some(limits));
        assert_eq!((row.ms, row.tok_s, row.gb_s, row.tflop_s), (10.0, 3200.0, 500.0, 100.0));
        assert_eq!(row.roofline_share, Some(0.5));
        let text = table(&[row, Row::new("a longer name", (1, 0), 1.0, cost, None)]);
        let widths: Vec<usize> = text.lines().map(str::len).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
        assert!(text.contains("50.0 %") && text.contains('?'), "{text}");
    }
}
