//! `quantization_config` of the checkpoints this library writes.

use serde_json::{Map, Value, json};

use super::ConvertError;
use crate::quant::FP8_BLOCK;

/// How the linear weights of a checkpoint are stored, as far as `config.json` says it. Each list names the modules
/// (tensor prefixes) that are not quantised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoredQuantization {
    /// bf16 or f32 throughout.
    None,
    /// FP8 blocks.
    Fp8Block {
        /// Scales are powers of two (`scale_fmt`).
        ue8m0: bool,
        /// Linear weights that are not FP8.
        unquantized: Vec<String>,
    },
    /// INT8 per channel.
    Int8Channel {
        /// Modules that are not INT8.
        unquantized: Vec<String>,
    },
    /// INT4 in groups.
    Int4Group {
        /// Inputs per scale.
        group_size: usize,
        /// Modules that are not INT4.
        unquantized: Vec<String>,
    },
}

/// Puts `quantization` in the place of whatever `config.json` said.
pub(crate) fn set_quantization(config: &mut Map<String, Value>, quantization: &StoredQuantization) {
    let value = match quantization {
        StoredQuantization::None => {
            config.remove("quantization_config");
            return;
        }
        StoredQuantization::Fp8Block { ue8m0, unquantized } => fp8(*ue8m0, unquantized),
        StoredQuantization::Int8Channel { unquantized } => {
            let weights = json!({
                "num_bits": 8, "type": "int", "symmetric": true, "dynamic": false, "strategy": "channel",
            });
            let activations = json!({
                "num_bits": 8, "type": "int", "symmetric": true, "dynamic": true, "strategy": "token",
            });
            compressed_tensors("int-quantized", weights, activations, unquantized)
        }
        StoredQuantization::Int4Group { group_size, unquantized } => {
            let weights = json!({
                "num_bits": 4, "type": "int", "symmetric": true, "dynamic": false, "strategy": "group",
                "group_size": group_size,
            });
            compressed_tensors("pack-quantized", weights, Value::Null, unquantized)
        }
    };
    config.insert("quantization_config".to_owned(), value);
}

/// The form of DeepSeek's own checkpoints.
fn fp8(ue8m0: bool, unquantized: &[String]) -> Value {
    let mut value = json!({
        "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
        "weight_block_size": [FP8_BLOCK, FP8_BLOCK],
    });
    if ue8m0 {
        value["scale_fmt"] = json!("ue8m0");
    }
    if !unquantized.is_empty() {
        value["modules_to_not_convert"] = json!(unquantized);
    }
    value
}

fn compressed_tensors(format: &str, weights: Value, input_activations: Value, unquantized: &[String]) -> Value {
    json!({
        "quant_method": "compressed-tensors",
        "format": format,
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": weights,
                "input_activations": input_activations,
                "output_activations": null,
            },
        },
        "ignore": unquantized,
    })
}

/// The text of a `config.json`.
pub(crate) fn to_text(config: &Map<String, Value>) -> String {
    // `{:#}` of a JSON value is its pretty form and cannot fail.
    format!("{:#}\n", Value::Object(config.clone()))
}

/// Parses the text of a `config.json` at `path`.
pub(crate) fn parse(text: &str, path: &std::path::Path) -> Result<Map<String, Value>, ConvertError> {
    serde_json::from_str(text).map_err(|source| ConvertError::Json { path: path.to_owned(), source })
}
