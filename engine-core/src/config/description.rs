//! `quant_model_description.json`: the format of every tensor, as msModelSlim writes it beside its checkpoints (msModelSlim's
//! own documentation; the names are those that vllm loads).
//!
//! Headers say what a tensor is. What only this file says is checked here: that nothing in the checkpoint needs arithmetic
//! that is not done.

use serde_json::{Value, json};

use super::keys::Keys;
use super::{ConfigError, QuantizationConfig};

/// Its name.
pub(crate) const DESCRIPTION_FILE: &str = "quant_model_description.json";

const FLOAT: &str = "FLOAT";
const INT8: &str = "W8A8_DYNAMIC";
/// Quantised caches, by the names of several versions.
const CACHE_SCHEMES: [&str; 3] = ["fa_quant_type", "kv_quant_type", "kv_cache_type"];

/// Int8 where any tensor is, nothing where all are floating point.
///
/// # Errors
/// [`ConfigError::Value`] naming the first tensor of another format, and whatever else asks for other arithmetic.
pub(super) fn parse(keys: &Keys<'_>) -> Result<Option<QuantizationConfig>, ConfigError> {
    for scheme in CACHE_SCHEMES {
        if keys.get(scheme).is_some() {
            return Err(keys.reject(scheme, "null: the latent cache is not quantised"));
        }
    }
    keys.only("group_size", &json!(0))?;
    if keys.bool_or("is_rot_used", false)? {
        return Err(keys.reject("is_rot_used", "false: rotations of weights are not undone"));
    }
    let mut is_int8 = false;
    // Tensors' names have dots; the file's own keys have none.
    for name in keys.names().filter(|name| name.contains('.')) {
        match keys.get(name).and_then(Value::as_str) {
            Some(FLOAT) => {}
            Some(INT8) => is_int8 = true,
            _ => return Err(keys.reject(name, format!("{FLOAT:?} or {INT8:?}: weights per row, inputs per token"))),
        }
    }
    Ok(is_int8.then_some(QuantizationConfig::Int8Channel))
}

/// Checks that `config.json` does not claim another format: what the source of a conversion had is often left in it.
///
/// # Errors
/// [`ConfigError::Conflict`].
pub(super) fn agrees(config: &Keys<'_>, described: Option<QuantizationConfig>) -> Result<(), ConfigError> {
    let Some(own) = config.object_opt("quantization_config")? else { return Ok(()) };
    match own.str_opt("quant_method")? {
        Some(method @ ("fp8" | "compressed-tensors")) => Err(ConfigError::Conflict {
            file: config.file().to_owned(),
            first: own.full("quant_method"),
            first_value: method.to_owned(),
            second: DESCRIPTION_FILE.to_owned(),
            second_value: format!("{described:?}"),
        }),
        // Methods that other software calls by its own name, and describes in the other file.
        _ => Ok(()),
    }
}
