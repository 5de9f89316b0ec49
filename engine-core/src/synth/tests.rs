//! Synthetic checkpoints read back with the safetensors crate.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;

use safetensors::{Dtype, SafeTensors};

use super::*;
use crate::quant::fp8::e4m3_to_f32;

/// Tensor name → (type, shape, bytes).
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn tiny_config() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny-deepseek-v3-fp8/config.json");
    fs::read_to_string(path).unwrap()
}

fn options(format: SynthFormat) -> SynthOptions {
    SynthOptions { format, layers: None, dense_layers: None, seed: 7, with_mtp: true }
}

fn read(dir: &Path) -> Tensors {
    let index: Value = serde_json::from_slice(&fs::read(dir.join("model.safetensors.index.json")).unwrap()).unwrap();
    let map = index["weight_map"].as_object().unwrap();
    let mut tensors = Tensors::new();
    let files: std::collections::BTreeSet<&str> = map.values().map(|file| file.as_str().unwrap()).collect();
    for file in files {
        let bytes = fs::read(dir.join(file)).unwrap();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
            assert_eq!(map[name], file, "{name}");
            tensors.insert(name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()));
        }
    }
    assert_eq!(tensors.len(), map.len());
    let total: usize = tensors.values().map(|(_, _, bytes)| bytes.len()).sum();
    assert_eq!(index["metadata"]["total_size"], total);
    tensors
}

fn synth(config: &str, options: &SynthOptions) -> (Tensors, ModelConfig) {
    let root = tempfile::tempdir().unwrap();
    let output = root.path().join("model");
    let report = synth_checkpoint(config, &output, options, &mut |_| {}).unwrap();
    let tensors = read(&output);
    assert_eq!(report.num_tensors, tensors.len());
    (tensors, ModelConfig::from_dir(&output).unwrap())
}

fn mean_and_deviation(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let values: Vec<f64> = values.collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
    (mean, variance.sqrt())
}

fn bf16_values(bytes: &[u8]) -> impl Iterator<Item = f64> {
    bytes.chunks_exact(2).map(|b| f64::from(half::bf16::from_le_bytes([b[0], b[1]]).to_f32()))
}

fn f32_values(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect()
}

/// Names, types and shapes of the published tiny checkpoint: what a synthetic one of the same configuration must have.
#[test]
fn fp8_has_exactly_the_tensors_of_the_trained_model() {
    let (synthetic, _) = synth(&tiny_config(), &options(SynthFormat::Fp8Block));
    let trained = read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny-deepseek-v3-fp8")));
    let outline = |tensors: &Tensors| -> Vec<(String, Dtype, Vec<usize>)> {
        tensors.iter().map(|(name, (dtype, shape, _))| (name.clone(), *dtype, shape.clone())).collect()
    };
    assert_eq!(outline(&synthetic), outline(&trained));
}

#[test]
fn bf16_has_exactly_the_tensors_of_the_trained_model() {
    let (synthetic, config) = synth(&tiny_config(), &options(SynthFormat::Bf16));
    let trained = read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny-deepseek-v3-bf16")));
    assert_eq!(config.quantization, None);
    for (name, (dtype, shape, _)) in &trained {
        let (found_dtype, found_shape, _) = &synthetic[name];
        assert_eq!(found_shape, shape, "{name}");
        // Older uploads keep the router's bias in bf16; this library writes f32 (spec section 2.1).
        assert!(found_dtype == dtype || name.ends_with(".e_score_correction_bias"), "{name}: {found_dtype:?}");
    }
    assert_eq!(synthetic.len(), trained.len());
}

#[test]
fn fp8_weights_are_numbers_with_deviation_one_over_root_in() {
    let (tensors, _) = synth(&tiny_config(), &options(SynthFormat::Fp8Block));
    let mut checked = 0;
    for (name, (dtype, shape, bytes)) in &tensors {
        if *dtype != Dtype::F8_E4M3 {
            continue;
        }
        assert!(bytes.iter().all(|byte| !e4m3_to_f32(*byte).is_nan()), "{name}");
        let scales = f32_values(&tensors[&name.replace(".weight", ".weight_scale_inv")].2);
        let per_row = shape[1].div_ceil(128);
        let real = bytes.iter().enumerate().map(|(i, byte)| {
            let (row, column) = (i / shape[1], i % shape[1]);
            f64::from(e4m3_to_f32(*byte)) * scales[row / 128 * per_row + column / 128]
        });
        let (mean, deviation) = mean_and_deviation(real);
        let wanted = 1.0 / (shape[1] as f64).sqrt();
        assert!(mean.abs() < 0.1 * wanted, "{name}: mean {mean}");
        assert!((deviation / wanted - 1.0).abs() < 0.25, "{name}: deviation {deviation}, wanted {wanted}");
        checked += 1;
    }
    assert!(checked > 200);
    let gate = f32_values(&tensors["model.layers.0.mlp.gate_proj.weight_scale_inv"].2);
    assert!(gate.windows(2).all(|pair| pair[0] != pair[1]), "scales differ from block to block");
}

#[test]
fn plain_weights_norms_and_biases_have_sane_sizes() {
    let (tensors, _) = synth(&tiny_config(), &options(SynthFormat::Bf16));
    let (mean, deviation) = mean_and_deviation(bf16_values(&tensors["lm_head.weight"].2));
    assert!(mean.abs() < 0.001 && (deviation * 16.0 - 1.0).abs() < 0.02, "in 256: {mean}, {deviation}");
    assert!(bf16_values(&tensors["model.norm.weight"].2).all(|v| (0.895..=1.105).contains(&v)));
    let bias = f32_values(&tensors["model.layers.1.mlp.gate.e_score_correction_bias"].2);
    assert!(bias.iter().all(|b| b.abs() <= 0.05) && bias.iter().any(|b| b.abs() > 0.01));
}

#[test]
fn bytes_depend_on_the_seed_and_not_on_threads() {
    let run = |threads: usize, seed: u64| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| synth(&tiny_config(), &SynthOptions { seed, ..options(SynthFormat::Fp8Block) }).0)
    };
    let first = run(1, 7);
    assert!(first == run(3, 7), "same seed, same bytes");
    for (name, (_, _, bytes)) in run(2, 8) {
        assert_ne!(bytes, first[&name].2, "{name}");
    }
    let experts: std::collections::BTreeSet<&[u8]> =
        (0..16).map(|e| first[&format!("model.layers.1.mlp.experts.{e}.up_proj.weight")].2.as_slice()).collect();
    assert_eq!(experts.len(), 16, "every tensor has its own values");
    let rows: std::collections::BTreeSet<&[u8]> = first["lm_head.weight"].2.chunks(512).collect();
    assert_eq!(rows.len(), 4096, "every row has its own values");
}

#[test]
fn layers_and_mtp_follow_the_options_and_other_keys_stay() {
    let root = tempfile::tempdir().unwrap();
    let output = root.path().join("model");
    let options =
        SynthOptions { layers: Some(3), dense_layers: Some(2), with_mtp: false, ..options(SynthFormat::Bf16) };
    synth_checkpoint(&tiny_config(), &output, &options, &mut |_| {}).unwrap();
    let mut expected: Map<String, Value> = serde_json::from_str(&tiny_config()).unwrap();
    expected.insert("num_hidden_layers".into(), 3.into());
    expected.insert("first_k_dense_replace".into(), 2.into());
    expected.insert("num_nextn_predict_layers".into(), 0.into());
    expected.remove("quantization_config");
    let found: Map<String, Value> = serde_json::from_slice(&fs::read(output.join("config.json")).unwrap()).unwrap();
    assert_eq!(found, expected);
    let tensors = read(&output);
    assert!(tensors.contains_key("model.layers.1.mlp.gate_proj.weight"));
    assert!(tensors.contains_key("model.layers.2.mlp.experts.15.down_proj.weight"));
    assert!(tensors.keys().all(|name| !name.starts_with("model.layers.3.")));
}

#[test]
fn the_mtp_module_repeats_embedding_and_head() {
    let (tensors, _) = synth(&tiny_config(), &options(SynthFormat::Fp8Block));
    assert_eq!(tensors["model.layers.5.embed_tokens.weight"].2, tensors["model.embed_tokens.weight"].2);
    assert_eq!(tensors["model.layers.5.shared_head.head.weight"].2, tensors["lm_head.weight"].2);
    assert_ne!(tensors["model.embed_tokens.weight"].2, tensors["lm_head.weight"].2);
    let tied = tiny_config().replace("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    let (tensors, config) = synth(&tied, &options(SynthFormat::Fp8Block));
    assert!(config.tie_word_embeddings && !tensors.contains_key("lm_head.weight"));
    assert_eq!(tensors["model.layers.5.shared_head.head.weight"].2, tensors["model.embed_tokens.weight"].2);
}

#[test]
fn progress_rises_to_the_total() {
    let root = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    let report = synth_checkpoint(&tiny_config(), &root.path().join("m"), &options(SynthFormat::Bf16), &mut |p| {
        seen.push((p.done_bytes, p.total_bytes));
    })
    .unwrap();
    assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert_eq!(seen.last(), Some(&(report.total_bytes, report.total_bytes)));
}

#[test]
fn a_refused_configuration_leaves_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    for config in ["[]", "{}", "not json", &tiny_config().replace("\"hidden_size\": 256", "\"hidden_size\": -1")] {
        synth_checkpoint(config, &root.path().join("m"), &options(SynthFormat::Bf16), &mut |_| {}).unwrap_err();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "{config}");
    }
}
