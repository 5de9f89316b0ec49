//! A plan as an aligned table.

use std::fmt::{Display, Formatter, Result};

use super::{MemoryPlan, Verdict};

impl Display for MemoryPlan {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let format = |line: &super::WeightLine| line.format.map_or("mixed".into(), |format| format.to_string());
        if self.tensor_parallel_size > 1 {
            writeln!(f, "on each of {} devices", self.tensor_parallel_size)?;
        }
        writeln!(f, "{:<28}{:>8}{:>13}{:>14}", "weights", "format", "parameters", "bytes")?;
        for line in &self.weights {
            let (name, parameters) = (line.class.name(), parameters(line.parameters));
            writeln!(f, "  {name:<26}{:>8}{parameters:>13}{:>14}", format(line), bytes(line.bytes))?;
        }
        let all = self.total_parameters + self.mtp_parameters;
        writeln!(f, "  {:<34}{:>13}{:>14}", "all", parameters(all), bytes(self.weight_bytes))?;
        writeln!(f, "  {:<34}{:>13}", "active per token", parameters(self.active_parameters))?;
        row(f, "latent cache", &self.cache_format.to_string())?;
        row(f, "  per token", &format!("{} B", count(self.cache_bytes_per_token)))?;
        let len = count(self.max_model_len);
        row(f, &format!("  one sequence of {len} tokens"), &bytes(self.cache_bytes(self.max_model_len)))?;
        if self.max_num_seqs != 1 {
            let seqs = count(self.max_num_seqs);
            row(f, &format!("  {seqs} sequences of {len} tokens"), &bytes(self.full_cache_bytes))?;
        }
        row(f, "workspace of a step", &bytes(self.workspace_bytes))?;
        if let (Some(available), Some(tokens)) = (self.available_bytes, self.max_cache_tokens) {
            row(f, "available", &bytes(available))?;
            row(f, "tokens of cache that fit", &count(tokens))?;
        }
        if let Some(tokens) = self.max_cache_layer_tokens {
            row(f, "tokens of cache that a layer may have", &count(tokens))?;
        }
        match &self.verdict {
            Verdict::CacheLayerTooLarge(excess) => write!(f, "does not fit: {excess}"),
            Verdict::Unknown => f.write_str("available memory not known"),
            Verdict::Fits => f.write_str("fits"),
            Verdict::DoesNotFit { need, have, advice } => {
                write!(f, "does not fit: need {}, have {} free: {advice}", bytes(*need), bytes(*have))
            }
        }
    }
}

fn row(f: &mut Formatter<'_>, name: &str, value: &str) -> Result {
    writeln!(f, "{}", format!("{name:<46}{value:>17}").trim_end())
}

/// Bytes in binary units, one decimal.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.into_iter().find(|(unit, _)| n >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", n as f64 / unit as f64),
        None => format!("{n} B"),
    }
}

/// Parameters in decimal units, as model names count them.
fn parameters(n: u64) -> String {
    match n {
        1_000_000_000.. => format!("{:.2} B", n as f64 / 1e9),
        1_000_000.. => format!("{:.2} M", n as f64 / 1e6),
        _ => count(n),
    }
}

/// A whole number with thin groups of three: `163 840`.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}
