//! From the text of `config.json` to a checked [`ModelConfig`].
//!
//! Sizes have no defaults: a size that is missing is an error, never a guess. Keys that choose behaviour take the
//! default of the field's own loader for that `model_type`. The upper bounds below are far above every published
//! model and small enough that no product of sizes in this crate can overflow 64 bits.

use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::{Value, json};

use super::description::{self, DESCRIPTION_FILE};
use super::keys::{Keys, whole_number};
use super::{AttentionConfig, ConfigError, ModelConfig, ModelType, moe, quantization, rope};
use crate::file::read_text;

/// Largest configuration file read.
const MAX_FILE_BYTES: u64 = 16 << 20;

const VOCAB: RangeInclusive<usize> = 1..=1 << 22;
const HIDDEN: RangeInclusive<usize> = 1..=1 << 17;
pub(super) const FFN_WIDTH: RangeInclusive<usize> = 1..=1 << 20;
const LAYERS: RangeInclusive<usize> = 1..=512;
const MTP_MODULES: RangeInclusive<usize> = 0..=16;
const HEADS: RangeInclusive<usize> = 1..=4096;
const LORA_RANK: RangeInclusive<usize> = 1..=1 << 16;
const HEAD_DIM: RangeInclusive<usize> = 1..=4096;
const ROPE_HEAD_DIM: RangeInclusive<usize> = 2..=256;
pub(super) const POSITIONS: RangeInclusive<usize> = 1..=1 << 22;
/// A window holds a token and the one that follows it.
const WINDOW: RangeInclusive<usize> = 2..=*POSITIONS.end();
/// Below the lower end an f32 variance would swallow the epsilon's purpose; above 1 it is no epsilon.
const NORM_EPS: RangeInclusive<f64> = 1e-12..=1.0;
const EOS_IDS: usize = 64;

const SUPPORTED: &str = "deepseek_v2, deepseek_v3, kimi_k2, glm4_moe_lite";

pub(super) fn from_dir(dir: &Path) -> Result<ModelConfig, ConfigError> {
    let file = dir.join("config.json");
    let text = read(&file)?;
    let description = dir.join(DESCRIPTION_FILE);
    let mut config = match description.exists() {
        true => described(&text, &file, &description)?,
        false => parse(&text, &file)?,
    };
    let generation = dir.join("generation_config.json");
    if generation.exists() {
        let value = json_value(&read(&generation)?, &generation)?;
        let ids = eos_token_ids(&Keys::root(&generation, &value)?, config.vocab_size)?;
        if !ids.is_empty() {
            config.eos_token_ids = ids;
        }
    }
    Ok(config)
}

/// A configuration whose weights a file of its own describes.
fn described(text: &str, file: &Path, description: &Path) -> Result<ModelConfig, ConfigError> {
    let mut value = json_value(text, file)?;
    let quantization = description::parse(&Keys::root(description, &json_value(&read(description)?, description)?)?)?;
    description::agrees(&Keys::root(file, &value)?, quantization)?;
    if let Some(config) = value.as_object_mut() {
        config.remove("quantization_config");
    }
    Ok(ModelConfig { quantization, ..parse_value(&value, file)? })
}

pub(super) fn from_json(text: &str) -> Result<ModelConfig, ConfigError> {
    parse(text, Path::new("config.json"))
}

fn read(file: &Path) -> Result<String, ConfigError> {
    read_text(file, MAX_FILE_BYTES).map_err(|cause| ConfigError::Read { file: file.to_owned(), cause })
}

fn json_value(text: &str, file: &Path) -> Result<Value, ConfigError> {
    serde_json::from_str(text).map_err(|cause| ConfigError::Json { file: file.to_owned(), cause })
}

fn parse(text: &str, file: &Path) -> Result<ModelConfig, ConfigError> {
    parse_value(&json_value(text, file)?, file)
}

fn parse_value(value: &Value, file: &Path) -> Result<ModelConfig, ConfigError> {
    let keys = Keys::root(file, value)?;
    let model_type = model_type(&keys)?;
    reject_other_graphs(&keys)?;

    let vocab_size = keys.usize("vocab_size", VOCAB)?;
    let num_hidden_layers = keys.usize("num_hidden_layers", LAYERS)?;
    let num_nextn_predict_layers = keys.usize_opt("num_nextn_predict_layers", MTP_MODULES)?.unwrap_or(0);
    let default_eps = match model_type {
        ModelType::DeepseekV2 | ModelType::DeepseekV3 | ModelType::KimiK2 => 1e-6,
        ModelType::Glm4MoeLite => 1e-5,
    };
    Ok(ModelConfig {
        model_type,
        vocab_size,
        hidden_size: keys.usize("hidden_size", HIDDEN)?,
        intermediate_size: keys.usize("intermediate_size", FFN_WIDTH)?,
        num_hidden_layers,
        num_nextn_predict_layers,
        attention: attention(&keys)?,
        rope: rope::parse(&keys)?,
        moe: moe::parse(&keys, model_type, num_hidden_layers, num_nextn_predict_layers)?,
        rms_norm_eps: keys.f64_opt("rms_norm_eps", NORM_EPS)?.unwrap_or(default_eps) as f32,
        max_position_embeddings: keys.usize("max_position_embeddings", WINDOW)?,
        tie_word_embeddings: keys.bool_or("tie_word_embeddings", false)?,
        bos_token_id: bos_token_id(&keys, vocab_size)?,
        eos_token_ids: eos_token_ids(&keys, vocab_size)?,
        quantization: quantization::parse(&keys)?,
    })
}

fn model_type(keys: &Keys<'_>) -> Result<ModelType, ConfigError> {
    let found = keys.str_opt("model_type")?.ok_or_else(|| keys.missing("model_type", SUPPORTED))?;
    let reason = match found {
        "deepseek_v2" => return Ok(ModelType::DeepseekV2),
        "deepseek_v3" => return Ok(ModelType::DeepseekV3),
        "kimi_k2" => return Ok(ModelType::KimiK2),
        "glm4_moe_lite" => return Ok(ModelType::Glm4MoeLite),
        "deepseek_v32" | "glm_moe_dsa" => "its sparse attention (indexer) is not implemented",
        "deepseek_v4" => "its attention, residual streams, router and expert format differ from V3's",
        _ => "this library runs the MLA + MoE models of the DeepSeek-V3 family",
    };
    let (file, found) = (keys.file().to_owned(), found.to_owned());
    Err(ConfigError::ModelType { file, found, reason, accepted: SUPPORTED })
}

/// Keys that, at any other value, ask for a graph this library does not build.
fn reject_other_graphs(keys: &Keys<'_>) -> Result<(), ConfigError> {
    keys.only("hidden_act", &json!("silu"))?;
    keys.only("attention_bias", &json!(false))?;
    keys.only("mlp_bias", &json!(false))?;
    keys.only("rope_interleave", &json!(true))
}

fn attention(keys: &Keys<'_>) -> Result<AttentionConfig, ConfigError> {
    // The loaders of the field disagree on what an absent rank means, so it must be written, if only as null.
    if !keys.is_written("q_lora_rank") {
        return Err(keys.missing("q_lora_rank", "a whole number, or null for a direct q_proj"));
    }
    let qk_rope_head_dim = keys.usize("qk_rope_head_dim", ROPE_HEAD_DIM)?;
    if !qk_rope_head_dim.is_multiple_of(2) {
        return Err(keys.reject("qk_rope_head_dim", "even: rope turns pairs of values"));
    }
    Ok(AttentionConfig {
        num_attention_heads: keys.usize("num_attention_heads", HEADS)?,
        q_lora_rank: keys.usize_opt("q_lora_rank", LORA_RANK)?,
        kv_lora_rank: keys.usize("kv_lora_rank", LORA_RANK)?,
        qk_nope_head_dim: keys.usize("qk_nope_head_dim", HEAD_DIM)?,
        qk_rope_head_dim,
        v_head_dim: keys.usize("v_head_dim", HEAD_DIM)?,
    })
}

fn bos_token_id(keys: &Keys<'_>, vocab_size: usize) -> Result<Option<u32>, ConfigError> {
    Ok(keys.usize_opt("bos_token_id", 0..=vocab_size - 1)?.map(|id| id as u32))
}

/// One id, a list of ids, or nothing.
fn eos_token_ids(keys: &Keys<'_>, vocab_size: usize) -> Result<Vec<u32>, ConfigError> {
    let ids = match keys.get("eos_token_id") {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    let accepted = || format!("a token id below vocab_size ({vocab_size}), or at most {EOS_IDS} of them in a list");
    if ids.len() > EOS_IDS {
        return Err(keys.reject("eos_token_id", accepted()));
    }
    let id = |value| whole_number(value).filter(|id| *id < vocab_size).map(|id| id as u32);
    ids.iter().map(|value| id(value).ok_or_else(|| keys.reject("eos_token_id", accepted()))).collect()
}
