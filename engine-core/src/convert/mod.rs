//! Writing checkpoints: conversion of a whole checkpoint between precisions, and what it shares with
//! [`synth`](crate::synth).
//!
//! Tensors are converted one at a time and streamed into files whose headers are written first, so memory holds the
//! output of one tensor. The checkpoint is made in a directory beside the output and renamed when it is complete.

pub(crate) mod config_json;
mod error;
mod plan;
pub(crate) mod shards;
pub(crate) mod staging;
pub(crate) mod stored;

use std::fs;
use std::path::{Path, PathBuf};

pub use error::ConvertError;

use crate::config::{DESCRIPTION_FILE, ModelConfig};
use crate::error::Result;
use crate::quant::PrecisionPolicy;
use crate::weights::{Checkpoint, CheckpointError, INDEX_SUFFIX};
use plan::{Plan, Step};
use shards::ShardWriter;
use staging::Staging;

const CONFIG_FILE: &str = "config.json";

/// What to convert to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConvertOptions {
    /// The precision of every class of linear weight. Embedding, head, router, `eh_proj` and vectors stay as they are.
    pub policy: PrecisionPolicy,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvertReport {
    /// Absolute path of the new checkpoint.
    pub path: PathBuf,
    /// Linear weights that changed their format.
    pub num_converted: usize,
    /// Tensors copied bit for bit.
    pub num_copied: usize,
    /// safetensors files written.
    pub num_shards: usize,
    /// Bytes of all tensors.
    pub total_bytes: u64,
}

/// How far the writing of a checkpoint has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Bytes of tensors written so far.
    pub done_bytes: u64,
    /// Bytes of all tensors of the output.
    pub total_bytes: u64,
    /// The tensor just written.
    pub tensor: &'a str,
}

/// Writes the checkpoint in directory `input` with other precisions into directory `output`, which must not exist or
/// be empty.
///
/// Linear weights are converted by [`HostWeight::convert`](crate::quant::HostWeight::convert) and lose their old
/// scales; every other tensor, known or not, is copied bit for bit. `config.json` gets the matching
/// `quantization_config`; the other files of the directory (tokenizer, generation config, README, …) are copied,
/// subdirectories are not. INT8 and INT4 checkpoints are in compressed-tensors' format.
///
/// Nothing is seen at `output` before everything is written and flushed; on an error nothing is left behind.
///
/// # Errors
/// The errors of reading a configuration and a checkpoint; [`WeightError`](crate::quant::WeightError) naming a tensor
/// with a value that is not a number; [`ConvertError`] for an output that cannot be written, and for a policy whose
/// result no `config.json` can describe.
pub fn convert_checkpoint(
    input: &Path,
    output: &Path,
    options: &ConvertOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<ConvertReport> {
    refuse_same_directory(input, output)?;
    let staging = Staging::create(output)?;
    let config = ModelConfig::from_dir(input)?;
    let checkpoint = Checkpoint::open(input)?;
    let plan = Plan::new(&checkpoint, &config, &options.policy)?;
    let config_text = converted_config(&input.join(CONFIG_FILE), &plan)?;

    let mut writer = ShardWriter::create(&staging, plan.tensors().cloned().collect())?;
    for step in &plan.steps {
        write_step(&mut writer, &checkpoint, &config, step)?;
        let (done_bytes, total_bytes) = (writer.done_bytes(), writer.total_bytes());
        progress(Progress { done_bytes, total_bytes, tensor: step.name() });
    }
    let (num_shards, total_bytes) = (writer.num_shards(), writer.total_bytes());
    writer.finish()?;
    staging.write(CONFIG_FILE, config_text.as_bytes())?;
    for file in side_files(input)? {
        // What describes the old weights does not describe new ones; config.json does.
        let is_outdated = plan.quantization.is_some() && file.ends_with(DESCRIPTION_FILE);
        if !is_outdated {
            staging.copy(&file)?;
        }
    }
    let num_converted = plan.steps.iter().filter(|step| matches!(step, Step::Convert { .. })).count();
    let num_copied = plan.steps.len() - num_converted;
    Ok(ConvertReport { path: staging.commit()?, num_converted, num_copied, num_shards, total_bytes })
}

fn refuse_same_directory(input: &Path, output: &Path) -> Result<(), ConvertError> {
    match (input.canonicalize(), output.canonicalize()) {
        (Ok(a), Ok(b)) if a == b => Err(ConvertError::OutputIsInput { path: input.to_owned() }),
        // Whatever else is wrong with either is found, and named, by those who open them.
        _ => Ok(()),
    }
}

fn write_step(writer: &mut ShardWriter<'_>, checkpoint: &Checkpoint, config: &ModelConfig, step: &Step) -> Result<()> {
    match step {
        Step::Copy(tensor) => {
            let bytes = checkpoint.bytes(&tensor.name).ok_or_else(|| CheckpointError::MissingTensor {
                dir: checkpoint.dir().to_owned(),
                tensor: tensor.name.clone(),
            })?;
            writer.write(&tensor.name, &bytes)?;
        }
        Step::Convert { prefix, shape, target, tensors } => {
            let stored = checkpoint.linear(prefix, *shape, config.quantization.as_ref())?;
            let converted = stored.convert(*target).map_err(|e| e.named(&format!("{prefix}.weight")))?;
            for (tensor, bytes) in tensors.iter().zip(stored::linear_bytes(&converted)) {
                writer.write(&tensor.name, &bytes)?;
            }
        }
    }
    Ok(())
}

/// The text of the new `config.json`: the old one with another `quantization_config`, or as it is when no weight
/// changes.
fn converted_config(path: &Path, plan: &Plan) -> Result<String, ConvertError> {
    let text = fs::read_to_string(path).map_err(ConvertError::io("read", path))?;
    let Some(quantization) = &plan.quantization else { return Ok(text) };
    let mut json = config_json::parse(&text, path)?;
    config_json::set_quantization(&mut json, quantization);
    Ok(config_json::to_text(&json))
}

/// The files of a checkpoint directory that hold neither tensors nor what is written anew, sorted.
fn side_files(input: &Path) -> Result<Vec<PathBuf>, ConvertError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(input).map_err(ConvertError::io("list", input))? {
        let path = entry.map_err(ConvertError::io("list", input))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_replaced = name == CONFIG_FILE || name.ends_with(".safetensors") || name.ends_with(INDEX_SUFFIX);
        if path.is_file() && !is_replaced {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests;
