//! Checkpoints made by hand, byte by byte, good and bad.

#![allow(clippy::unwrap_used)]

mod check;
mod described;
mod files;
mod index;
mod typed;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::layout::{TensorKind, TensorSpec, checkpoint_tensors};
use super::*;
use crate::config::{ModelConfig, QuantizationConfig};
use crate::quant::{HostWeight, MatrixShape, ScaleFormat, WeightFormat};

/// A tensor to be written: name, type, shape, bytes.
type Tensor<'a> = (&'a str, &'a str, Vec<usize>, Vec<u8>);

/// A linear's prefix.
const P: &str = "l";

const FP8: QuantizationConfig = QuantizationConfig::Fp8Block { block: (128, 128), ue8m0: false };

fn model_dir(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models").join(name)
}

/// A file with this header and data, as the format lays it out.
fn raw(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn shard(tensors: &[Tensor<'_>]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert((*name).into(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        data.extend_from_slice(bytes);
    }
    raw(&Value::from(header).to_string(), &data)
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn bf16s(values: &[f32]) -> Vec<u8> {
    // The upper half of an f32: exact for the values used here.
    values.iter().flat_map(|v| v.to_le_bytes()[2..].to_vec()).collect()
}

fn single(content: &[u8]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.safetensors"), content).unwrap();
    dir
}

/// A directory of named files with an index.
fn indexed(weight_map: Value, files: &[(&str, Vec<u8>)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let index = json!({"metadata": {"total_size": 1}, "weight_map": weight_map});
    std::fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

fn open(dir: &TempDir) -> Checkpoint {
    Checkpoint::open(dir.path()).unwrap()
}

fn open_error(dir: &TempDir) -> CheckpointError {
    Checkpoint::open(dir.path()).unwrap_err()
}

/// Asserts that the message holds every part.
fn says(error: &CheckpointError, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}
