//! Random checkpoints of any configuration of the family, for benchmarks and tests without a download.
//!
//! The tensors are those of [`checkpoint_tensors`], with Hugging Face names, in sharded safetensors files. Values are
//! scaled so that activations keep their size through the layers; the model talks nonsense. No tokenizer is written.

mod fill;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::config::ModelConfig;
use crate::convert::config_json::{self, StoredQuantization};
use crate::convert::shards::{OutputTensor, ShardWriter};
use crate::convert::staging::Staging;
use crate::convert::stored::linear_tensors;
use crate::convert::{ConvertError, Progress};
use crate::error::Result;
use crate::quant::{MatrixShape, WeightFormat};
use crate::weights::layout::{TensorKind, TensorSpec, checkpoint_tensors};

use fill::Fill;

/// The formats a synthetic checkpoint can have: those of published ones. Others come from
/// [`convert_checkpoint`](crate::convert::convert_checkpoint).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SynthFormat {
    /// FP8 blocks, as DeepSeek-V3.
    Fp8Block,
    /// bf16 throughout.
    Bf16,
}

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SynthOptions {
    /// Format of the linear weights.
    pub format: SynthFormat,
    /// `num_hidden_layers`, when not the configuration's.
    pub layers: Option<usize>,
    /// `first_k_dense_replace`, when not the configuration's.
    pub dense_layers: Option<usize>,
    /// Same seed, same bytes.
    pub seed: u64,
    /// Keep the MTP modules the configuration has; otherwise `num_nextn_predict_layers` becomes 0.
    pub with_mtp: bool,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SynthReport {
    /// Absolute path of the checkpoint.
    pub path: PathBuf,
    /// Tensors written, scales included.
    pub num_tensors: usize,
    /// safetensors files written.
    pub num_shards: usize,
    /// Bytes of all tensors.
    pub total_bytes: u64,
}

/// Writes a random checkpoint for `config_json` (the text of a `config.json`) into the directory `output`, which must
/// not exist or be empty. Its `config.json` is the given one, all keys kept, with the changes `options` ask for.
///
/// The bytes depend on configuration, format and seed alone. Memory stays at some tens of MiB. `output` appears when
/// everything is written; on an error nothing is left behind.
///
/// # Errors
/// [`ConfigError`](crate::config::ConfigError) for a configuration that this library does not run, [`ConvertError`]
/// for an output that cannot be written.
pub fn synth_checkpoint(
    config_json: &str,
    output: &Path,
    options: &SynthOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<SynthReport> {
    let staging = Staging::create(output)?;
    let json = changed_config(config_json, options)?;
    let text = config_json::to_text(&json);
    let config = ModelConfig::from_json(&text)?;
    let tensors: Vec<(OutputTensor, Fill)> = checkpoint_tensors(&config, options.with_mtp)
        .iter()
        .flat_map(|spec| tensors_of(spec, options.format))
        .collect();

    let mut writer = ShardWriter::create(&staging, tensors.iter().map(|(t, _)| t.clone()).collect())?;
    let mut buffer = Vec::new();
    for (tensor, fill) in &tensors {
        let tensor_seed = fill::tensor_seed(options.seed, &tensor.name, config.tie_word_embeddings);
        write_tensor(&mut writer, &mut buffer, tensor, *fill, tensor_seed)?;
        let (done_bytes, total_bytes) = (writer.done_bytes(), writer.total_bytes());
        progress(Progress { done_bytes, total_bytes, tensor: &tensor.name });
    }
    let (num_shards, total_bytes) = (writer.num_shards(), writer.total_bytes());
    writer.finish()?;
    staging.write("config.json", text.as_bytes())?;
    let path = staging.commit()?;
    Ok(SynthReport { path, num_tensors: tensors.len(), num_shards, total_bytes })
}

fn changed_config(config_json: &str, options: &SynthOptions) -> Result<Map<String, Value>, ConvertError> {
    let mut json = config_json::parse(config_json, Path::new("config.json"))?;
    if let Some(layers) = options.layers {
        json.insert("num_hidden_layers".to_owned(), layers.into());
    }
    if let Some(dense_layers) = options.dense_layers {
        json.insert("first_k_dense_replace".to_owned(), dense_layers.into());
    }
    if !options.with_mtp {
        json.insert("num_nextn_predict_layers".to_owned(), 0.into());
    }
    let quantization = match options.format {
        SynthFormat::Fp8Block => StoredQuantization::Fp8Block { ue8m0: false, unquantized: Vec::new() },
        SynthFormat::Bf16 => StoredQuantization::None,
    };
    config_json::set_quantization(&mut json, &quantization);
    Ok(json)
}

/// The tensors that store one weight, with what to fill them with.
fn tensors_of(spec: &TensorSpec, format: SynthFormat) -> Vec<(OutputTensor, Fill)> {
    let matrix = |shape: MatrixShape, format: WeightFormat, fills: &[Fill]| {
        linear_tensors(spec.prefix(), shape, format).into_iter().zip(fills.iter().copied()).collect()
    };
    match (spec.kind, format) {
        (TensorKind::Linear(_, shape), SynthFormat::Fp8Block) => {
            let fills = [Fill::Fp8Codes, Fill::fp8_scales(shape.in_features)];
            matrix(shape, WeightFormat::Fp8Block, &fills)
        }
        (TensorKind::Linear(_, shape), SynthFormat::Bf16) | (TensorKind::Plain(shape), _) => {
            matrix(shape, WeightFormat::Bf16, &[Fill::bf16_weights(shape.in_features)])
        }
        (TensorKind::Vector(len), _) => {
            let fill =
                if spec.name.ends_with(".e_score_correction_bias") { Fill::RouterBias } else { Fill::NormWeights };
            vec![(OutputTensor::new(spec.name.clone(), fill.dtype(), &[len]), fill)]
        }
    }
}

/// Generates and writes a tensor some rows at a time, in a buffer that serves every tensor: fresh memory for each
/// costs more than the values.
fn write_tensor(
    writer: &mut ShardWriter<'_>,
    buffer: &mut Vec<u8>,
    tensor: &OutputTensor,
    fill: Fill,
    tensor_seed: u64,
) -> Result<(), ConvertError> {
    /// Enough rows to keep threads busy, few enough to stay in a cache.
    const CHUNK_BYTES: usize = 8 << 20;
    let num_bytes = tensor.num_bytes as usize;
    let row_bytes = tensor.shape.last().map_or(num_bytes, |len| len * fill.dtype().bitsize() / 8);
    if row_bytes == 0 {
        return Ok(());
    }
    let rows_per_chunk = (CHUNK_BYTES / row_bytes).max(1);
    for first_row in (0..num_bytes / row_bytes).step_by(rows_per_chunk) {
        let len = (rows_per_chunk * row_bytes).min(num_bytes - first_row * row_bytes);
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        fill.rows(tensor_seed, first_row, row_bytes, &mut buffer[..len]);
        writer.write(&tensor.name, &buffer[..len])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
