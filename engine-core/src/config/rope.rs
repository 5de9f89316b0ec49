//! `rope_theta` + `rope_scaling`, or the newer `rope_parameters`.

use std::ops::RangeInclusive;

use serde_json::json;

use super::keys::Keys;
use super::parse::POSITIONS;
use super::{ConfigError, RopeConfig, YarnConfig};

/// The default of every loader of the family.
const DEFAULT_THETA: f64 = 10_000.0;
/// Above 1: YaRN divides by the logarithm.
const THETA: RangeInclusive<f64> = 1.001..=1e15;
const FACTOR: RangeInclusive<f64> = 1.0..=1e4;
const BETA: RangeInclusive<f64> = 1e-3..=1e6;
const MSCALE: RangeInclusive<f64> = 0.0..=100.0;
const ATTENTION_FACTOR: RangeInclusive<f64> = 1e-3..=100.0;

pub(super) fn parse(keys: &Keys<'_>) -> Result<RopeConfig, ConfigError> {
    let theta = keys.f64_opt("rope_theta", THETA)?;
    keys.f64_opt("partial_rotary_factor", 1.0..=1.0)?;
    let older = keys.object_opt("rope_scaling")?.map(|keys| section(&keys, theta)).transpose()?;
    let newer = keys.object_opt("rope_parameters")?.map(|keys| section(&keys, theta)).transpose()?;
    match (older, newer) {
        (None, None) => Ok(RopeConfig { theta: theta.unwrap_or(DEFAULT_THETA), yarn: None }),
        (Some(rope), None) | (None, Some(rope)) => Ok(rope),
        (Some(older), Some(newer)) if older == newer => Ok(older),
        (Some(older), Some(newer)) => {
            Err(conflict(keys, ("rope_scaling", format!("{older:?}")), ("rope_parameters", format!("{newer:?}"))))
        }
    }
}

fn conflict(keys: &Keys<'_>, first: (&str, String), second: (&str, String)) -> ConfigError {
    ConfigError::Conflict {
        file: keys.file().to_owned(),
        first: keys.full(first.0),
        first_value: first.1,
        second: keys.full(second.0),
        second_value: second.1,
    }
}

/// One of the two objects; a theta inside it wins over the outer one.
fn section(keys: &Keys<'_>, outer_theta: Option<f64>) -> Result<RopeConfig, ConfigError> {
    let theta = keys.f64_opt("rope_theta", THETA)?.or(outer_theta).unwrap_or(DEFAULT_THETA);
    keys.f64_opt("partial_rotary_factor", 1.0..=1.0)?;
    let (key, rope_type) = match (keys.str_opt("rope_type")?, keys.str_opt("type")?) {
        (Some(a), Some(b)) if a != b => {
            return Err(conflict(keys, ("rope_type", format!("{a:?}")), ("type", format!("{b:?}"))));
        }
        (Some(a), _) => ("rope_type", a),
        (None, Some(b)) => ("type", b),
        // A factor of an unnamed type would be dropped in silence.
        (None, None) if keys.get("factor").is_some() => {
            return Err(keys.missing("rope_type", "\"yarn\" or \"default\""));
        }
        (None, None) => ("rope_type", "default"),
    };
    match rope_type {
        "default" => Ok(RopeConfig { theta, yarn: None }),
        "yarn" => Ok(RopeConfig { theta, yarn: Some(yarn(keys)?) }),
        _ => Err(keys.reject(key, "\"yarn\", \"default\" or null")),
    }
}

fn yarn(keys: &Keys<'_>) -> Result<YarnConfig, ConfigError> {
    keys.only("truncate", &json!(true))?;
    let beta_fast = keys.f64_opt("beta_fast", BETA)?.unwrap_or(32.0);
    let beta_slow = keys.f64_opt("beta_slow", BETA)?.unwrap_or(1.0);
    if beta_fast < beta_slow {
        let key = if keys.is_written("beta_fast") { "beta_fast" } else { "beta_slow" };
        return Err(keys.reject(key, format!("such that beta_fast ({beta_fast}) is at least beta_slow ({beta_slow})")));
    }
    Ok(YarnConfig {
        factor: keys.f64("factor", FACTOR)?,
        original_max_position_embeddings: keys.usize("original_max_position_embeddings", POSITIONS)?,
        beta_fast,
        beta_slow,
        mscale: keys.f64_opt("mscale", MSCALE)?,
        mscale_all_dim: keys.f64_opt("mscale_all_dim", MSCALE)?,
        attention_factor: keys.f64_opt("attention_factor", ATTENTION_FACTOR)?,
    })
}
