//! `quantization_config`: the three stored formats this library reads.

use std::ops::RangeInclusive;

use serde_json::{Value, json};

use super::keys::Keys;
use super::{ConfigError, QuantizationConfig};
use crate::quant::FP8_BLOCK;

const INT4_GROUP_SIZE: RangeInclusive<usize> = 2..=1024;

pub(super) fn parse(keys: &Keys<'_>) -> Result<Option<QuantizationConfig>, ConfigError> {
    let Some(keys) = keys.object_opt("quantization_config")? else { return Ok(None) };
    match keys.str_opt("quant_method")? {
        Some("fp8") => fp8(&keys).map(Some),
        Some("compressed-tensors") => compressed_tensors(&keys).map(Some),
        _ => Err(keys.reject("quant_method", "\"fp8\" or \"compressed-tensors\"")),
    }
}

/// DeepSeek's own format (spec section 4).
fn fp8(keys: &Keys<'_>) -> Result<QuantizationConfig, ConfigError> {
    keys.only("fmt", &json!("e4m3"))?;
    keys.only("activation_scheme", &json!("dynamic"))?;
    let block = json!([FP8_BLOCK, FP8_BLOCK]);
    let is_block = |value: &Value| {
        value.as_array().is_some_and(|b| b.len() == 2 && b.iter().all(|n| n.as_f64() == Some(FP8_BLOCK as f64)))
    };
    if !keys.get("weight_block_size").is_some_and(is_block) {
        return Err(keys.reject("weight_block_size", block));
    }
    let ue8m0 = match keys.str_opt("scale_fmt")? {
        None => false,
        Some("ue8m0") => true,
        Some(_) => return Err(keys.reject("scale_fmt", "\"ue8m0\" or absent")),
    };
    Ok(QuantizationConfig::Fp8Block { block: (FP8_BLOCK, FP8_BLOCK), ue8m0 })
}

/// compressed-tensors with one scheme for all its groups.
fn compressed_tensors(keys: &Keys<'_>) -> Result<QuantizationConfig, ConfigError> {
    let read_group = match keys.str_opt("format")? {
        Some("int-quantized") => int8_group,
        Some("pack-quantized") => int4_group,
        _ => return Err(keys.reject("format", "\"int-quantized\" or \"pack-quantized\"")),
    };
    if keys.get("kv_cache_scheme").is_some() {
        return Err(keys.reject("kv_cache_scheme", "null: the latent cache is not quantised"));
    }
    let groups = keys.object("config_groups")?;
    let mut schemes = groups.names().map(|name| Ok((name, read_group(&groups.object(name)?)?)));
    let (first, scheme) = schemes.next().unwrap_or_else(|| Err(keys.reject("config_groups", "not empty")))?;
    for next in schemes {
        let (name, other) = next?;
        if other != scheme {
            return Err(ConfigError::Conflict {
                file: keys.file().to_owned(),
                first: groups.full(first),
                first_value: format!("{scheme:?}"),
                second: groups.full(name),
                second_value: format!("{other:?}"),
            });
        }
    }
    Ok(scheme)
}

/// i8 per output channel, activations quantised to i8 per token at run time.
fn int8_group(group: &Keys<'_>) -> Result<QuantizationConfig, ConfigError> {
    weights(group, 8, "channel")?;
    let activations = group.object("input_activations")?;
    activations.usize("num_bits", 8..=8)?;
    activations.only("type", &json!("int"))?;
    activations.only("symmetric", &json!(true))?;
    if activations.str_opt("strategy")? != Some("token") {
        return Err(activations.reject("strategy", "\"token\""));
    }
    if !activations.bool_or("dynamic", false)? {
        return Err(activations.reject("dynamic", "true: scales of activations are found at run time"));
    }
    Ok(QuantizationConfig::Int8Channel)
}

/// 4-bit groups along the input, activations in floating point.
fn int4_group(group: &Keys<'_>) -> Result<QuantizationConfig, ConfigError> {
    let weights = weights(group, 4, "group")?;
    let group_size = weights.usize("group_size", INT4_GROUP_SIZE)?;
    if !group_size.is_multiple_of(2) {
        return Err(weights.reject("group_size", "even: two values share a byte"));
    }
    if group.get("input_activations").is_some() {
        return Err(group.reject("input_activations", "null: 4-bit weights are multiplied with float activations"));
    }
    Ok(QuantizationConfig::Int4Group { group_size })
}

/// The `weights` scheme of a group, symmetric integers of `num_bits` with scales laid out by `strategy`.
fn weights<'a>(group: &Keys<'a>, num_bits: usize, strategy: &str) -> Result<Keys<'a>, ConfigError> {
    let weights = group.object("weights")?;
    weights.usize("num_bits", num_bits..=num_bits)?;
    weights.only("type", &json!("int"))?;
    weights.only("symmetric", &json!(true))?;
    weights.only("dynamic", &json!(false))?;
    if weights.str_opt("strategy")? != Some(strategy) {
        return Err(weights.reject("strategy", format!("{strategy:?}")));
    }
    // Activation order permutes the inputs, which the packed layout here does not undo.
    if weights.get("actorder").is_some_and(|v| *v != false) {
        return Err(weights.reject("actorder", "null"));
    }
    Ok(weights)
}
