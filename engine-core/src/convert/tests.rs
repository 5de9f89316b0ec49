//! Conversions of the tiny trained model, checked from the files' raw bytes.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use super::shards::INDEX_FILE;
use super::*;
use crate::config::QuantizationConfig;
use crate::error::Error;
use crate::quant::fp8::e4m3_to_f32;
use crate::quant::{HostWeight, Precision, WeightClass, WeightError, WeightFormat};
use crate::weights::layout::{TensorKind, checkpoint_tensors};

const FP8: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny-deepseek-v3-fp8");
const BF16: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny-deepseek-v3-bf16");

/// Tensor name → (type, shape, bytes), read with the safetensors crate alone.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn raw(dir: &Path) -> Tensors {
    let index: Value = serde_json::from_slice(&fs::read(dir.join(INDEX_FILE)).unwrap()).unwrap();
    let map = index["weight_map"].as_object().unwrap();
    let files: BTreeSet<&str> = map.values().map(|file| file.as_str().unwrap()).collect();
    let mut tensors = Tensors::new();
    for file in files {
        let bytes = fs::read(dir.join(file)).unwrap();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
            assert_eq!(map[name], file, "{name}");
            tensors.insert(name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()));
        }
    }
    assert_eq!(tensors.len(), map.len(), "every tensor of the index is in a file");
    assert_eq!(index["metadata"]["total_size"], tensors.values().map(|t| t.2.len()).sum::<usize>());
    tensors
}

struct Converted {
    /// Keeps the directory alive.
    _root: tempfile::TempDir,
    report: ConvertReport,
}

impl Converted {
    fn dir(&self) -> &Path {
        &self.report.path
    }
    fn json(&self) -> Value {
        serde_json::from_slice(&fs::read(self.dir().join("config.json")).unwrap()).unwrap()
    }
}

fn options(policy: &str) -> ConvertOptions {
    ConvertOptions { policy: policy.parse().unwrap() }
}

fn convert(input: &str, policy: &str) -> Converted {
    let root = tempfile::tempdir().unwrap();
    let report = convert_checkpoint(Path::new(input), &root.path().join("out"), &options(policy), &mut |_| {}).unwrap();
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "only the output remains");
    Converted { _root: root, report }
}

/// Copies a checkpoint directory so that a test can damage it.
fn copy_of(model: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(model).unwrap() {
        let path = entry.unwrap().path();
        fs::write(dir.path().join(path.file_name().unwrap()), fs::read(&path).unwrap()).unwrap();
    }
    dir
}

/// Replaces text of equal length wherever it stands in a directory's files.
fn replace_in_files(dir: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let places: Vec<usize> =
            (0..bytes.len().saturating_sub(from.len())).filter(|i| bytes[*i..].starts_with(from.as_bytes())).collect();
        for place in &places {
            bytes[*place..place + from.len()].copy_from_slice(to.as_bytes());
        }
        if !places.is_empty() {
            fs::write(&path, bytes).unwrap();
        }
    }
}

fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) as u16
}

#[test]
fn bf16_is_the_rounded_product_of_fp8_and_scale_to_the_bit() {
    let (source, out) = (raw(Path::new(FP8)), convert(FP8, "bf16"));
    let result = raw(out.dir());
    let mut converted = 0;
    for (name, (dtype, shape, bytes)) in &source {
        if name.ends_with("_scale_inv") {
            assert!(!result.contains_key(name), "{name} was kept");
            continue;
        }
        if *dtype != Dtype::F8_E4M3 {
            assert_eq!(result[name], source[name], "{name}");
            continue;
        }
        let scales = &source[&format!("{name}_scale_inv")].2;
        let scales: Vec<f32> = scales.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let expected: Vec<u8> = bytes
            .iter()
            .enumerate()
            .flat_map(|(i, byte)| {
                let (row, column) = (i / shape[1], i % shape[1]);
                let scale = scales[row / 128 * shape[1].div_ceil(128) + column / 128];
                bf16_bits(e4m3_to_f32(*byte) * scale).to_le_bytes()
            })
            .collect();
        assert_eq!(result[name], (Dtype::BF16, shape.clone(), expected), "{name}");
        converted += 1;
    }
    assert_eq!(out.report.num_converted, converted);
    assert_eq!(out.report.num_copied + converted, result.len());
    assert_eq!(out.json().get("quantization_config"), None);
    assert_eq!(ModelConfig::from_dir(out.dir()).unwrap().quantization, None);
}

/// Reopens a converted checkpoint and compares every weight with the source's, converted.
fn assert_reopens(input: &str, out: &Converted, format: WeightFormat, quantization: Option<QuantizationConfig>) {
    let (old_config, new_config) =
        (ModelConfig::from_dir(Path::new(input)).unwrap(), ModelConfig::from_dir(out.dir()).unwrap());
    assert_eq!(new_config, ModelConfig { quantization, ..old_config.clone() });
    let (old, new) = (Checkpoint::open(Path::new(input)).unwrap(), Checkpoint::open(out.dir()).unwrap());
    let report = new.check(&new_config).unwrap();
    assert!(report.has_mtp);
    assert_eq!(report.unknown, [""; 0]);
    let mut formats = BTreeMap::new();
    for spec in checkpoint_tensors(&new_config, true) {
        let TensorKind::Linear(class, shape) = spec.kind else {
            assert_eq!(old.bytes(&spec.name).unwrap().as_slice(), new.bytes(&spec.name).unwrap().as_slice());
            continue;
        };
        let target = match (class, format) {
            (WeightClass::KvB, WeightFormat::Int8Channel | WeightFormat::Int4Group) => WeightFormat::Bf16,
            (_, format) => format,
        };
        let expected = old.linear(spec.prefix(), shape, old_config.quantization.as_ref()).unwrap();
        let expected = expected.convert(target).unwrap();
        let found = new.linear(spec.prefix(), shape, new_config.quantization.as_ref()).unwrap();
        assert_same(&found, &expected, &spec.name);
        *formats.entry(found.format()).or_insert(0) += 1;
    }
    assert!(formats[&format] > 200, "{formats:?}");
}

fn assert_same(found: &HostWeight, expected: &HostWeight, name: &str) {
    match (found, expected) {
        (HostWeight::Bf16(a), HostWeight::Bf16(b)) => assert_eq!(a.values().as_slice(), b.values().as_slice()),
        (HostWeight::Fp8Block(a), HostWeight::Fp8Block(b)) => {
            assert_eq!(a.values().as_slice(), b.values().as_slice(), "{name}");
            assert_eq!(a.scales().as_slice(), b.scales().as_slice(), "{name}");
        }
        (HostWeight::Int8Channel(a), HostWeight::Int8Channel(b)) => {
            assert_eq!(a.values().as_slice(), b.values().as_slice(), "{name}");
            assert_eq!(a.scales().as_slice(), b.scales().as_slice(), "{name}");
        }
        (HostWeight::Int4Group(a), HostWeight::Int4Group(b)) => {
            assert_eq!(a.group_size(), b.group_size(), "{name}");
            assert_eq!(a.packed().as_slice(), b.packed().as_slice(), "{name}");
            assert_eq!(a.scales().as_slice(), b.scales().as_slice(), "{name}");
        }
        _ => panic!("{name}: {} in place of {}", found.format(), expected.format()),
    }
}

#[test]
fn int8_reopens_as_compressed_tensors_per_channel() {
    let out = convert(FP8, "int8");
    assert_reopens(FP8, &out, WeightFormat::Int8Channel, Some(QuantizationConfig::Int8Channel));
    let tensors = raw(out.dir());
    let prefix = "model.layers.1.mlp.experts.3.down_proj";
    let outline = |suffix: &str| {
        let (dtype, shape, _) = &tensors[&format!("{prefix}{suffix}")];
        (*dtype, shape.clone())
    };
    assert_eq!(outline(".weight"), (Dtype::I8, vec![256, 64]));
    assert_eq!(outline(".weight_scale"), (Dtype::F32, vec![256, 1]));
    assert!(tensors.keys().all(|name| !name.ends_with("_scale_inv")));
    let quantization = &out.json()["quantization_config"];
    assert_eq!(quantization["format"], "int-quantized");
    let ignored: Vec<&str> =
        quantization["ignore"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    for name in [
        "lm_head",
        "model.layers.1.mlp.gate",
        "model.layers.0.self_attn.kv_b_proj",
        "model.layers.5.self_attn.kv_b_proj",
        "model.layers.5.eh_proj",
        "model.layers.5.shared_head.head",
    ] {
        assert!(ignored.contains(&name), "{name} is not quantised");
    }
    assert_eq!(ignored.len(), 6 + 5 + 3, "kv_b of 6 layers, 5 routers, 2 heads and eh_proj");
}

#[test]
fn int4_reopens_as_compressed_tensors_packed() {
    let out = convert(FP8, "int4");
    assert_reopens(FP8, &out, WeightFormat::Int4Group, Some(QuantizationConfig::Int4Group { group_size: 32 }));
    let tensors = raw(out.dir());
    let outline = |suffix: &str| {
        let (dtype, shape, _) = &tensors[&format!("model.layers.0.mlp.down_proj{suffix}")];
        (*dtype, shape.clone())
    };
    assert_eq!(outline(".weight_packed"), (Dtype::I32, vec![256, 80]));
    assert_eq!(outline(".weight_scale"), (Dtype::F32, vec![256, 20]));
    assert_eq!(outline(".weight_shape"), (Dtype::I64, vec![2]));
    let shape: &[u8] = &tensors["model.layers.0.mlp.down_proj.weight_shape"].2;
    assert_eq!(shape, [256u64.to_le_bytes(), 640u64.to_le_bytes()].concat());
    assert!(!tensors.contains_key("model.layers.0.mlp.down_proj.weight"));
}

#[test]
fn fp8_is_made_from_bf16_and_gets_deepseeks_configuration() {
    let out = convert(BF16, "fp8");
    let quantization = QuantizationConfig::Fp8Block { block: (128, 128), ue8m0: false };
    assert_reopens(BF16, &out, WeightFormat::Fp8Block, Some(quantization));
    let trained: Value = serde_json::from_slice(&fs::read(Path::new(FP8).join("config.json")).unwrap()).unwrap();
    assert_eq!(out.json()["quantization_config"], trained["quantization_config"]);
}

#[test]
fn a_quantised_checkpoint_converts_back_to_bf16() {
    let int8 = convert(FP8, "int8");
    let back = convert(int8.dir().to_str().unwrap(), "bf16");
    let tensors = raw(back.dir());
    let original = raw(Path::new(BF16));
    assert!(tensors.keys().eq(original.keys()));
    assert!(tensors.iter().all(|(name, (dtype, ..))| *dtype == original[name].0), "types of the bf16 model");
}

#[test]
fn auto_copies_every_tensor_and_the_configuration() {
    let out = convert(FP8, "auto");
    assert_eq!(out.report.num_converted, 0);
    assert!(raw(out.dir()) == raw(Path::new(FP8)));
    let config = |dir: &Path| fs::read(dir.join("config.json")).unwrap();
    assert_eq!(config(out.dir()), config(Path::new(FP8)));
}

#[test]
fn fp8_may_leave_classes_in_bf16_and_says_which() {
    let out = convert(FP8, "fp8,kv_b=bf16");
    assert_eq!(out.report.num_converted, 6);
    let named = out.json()["quantization_config"]["modules_to_not_convert"].clone();
    assert_eq!(named.as_array().unwrap().len(), 6);
    assert_eq!(named[0], "model.layers.0.self_attn.kv_b_proj");
    let checkpoint = Checkpoint::open(out.dir()).unwrap();
    checkpoint.check(&ModelConfig::from_dir(out.dir()).unwrap()).unwrap();
}

#[test]
fn side_files_are_copied_and_nothing_else_is_there() {
    let out = convert(FP8, "bf16");
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "README.md"] {
        assert_eq!(fs::read(out.dir().join(name)).unwrap(), fs::read(Path::new(FP8).join(name)).unwrap(), "{name}");
    }
    let names: BTreeSet<String> =
        fs::read_dir(out.dir()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let expected = [
        "README.md",
        "config.json",
        "generation_config.json",
        "model-00001-of-00001.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert!(names.iter().eq(expected.iter()), "{names:?}");
}

#[test]
fn unknown_tensors_are_copied() {
    let input = copy_of(BF16);
    // Without its MTP modules in the configuration, the tensors of layer 5 are unknown.
    let config = fs::read_to_string(input.path().join("config.json")).unwrap();
    let config = config.replace("\"num_nextn_predict_layers\": 1", "\"num_nextn_predict_layers\": 0");
    fs::write(input.path().join("config.json"), config).unwrap();
    let out = convert(input.path().to_str().unwrap(), "int8");
    let (before, after) = (raw(input.path()), raw(out.dir()));
    let of_layer_5 = |name: &&String| name.starts_with("model.layers.5.");
    assert!(before.keys().filter(of_layer_5).count() > 50);
    for name in before.keys().filter(of_layer_5) {
        assert_eq!(after[name], before[name], "{name}");
    }
}

/// Runs a conversion that must fail, and checks that it leaves no trace.
fn failure(input: &Path, policy: &str) -> Error {
    let root = tempfile::tempdir().unwrap();
    let output = root.path().join("out");
    let error = convert_checkpoint(input, &output, &options(policy), &mut |_| {}).unwrap_err();
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "nothing is left behind");
    error
}

#[test]
fn a_nan_is_refused_by_name_and_place() {
    let input = copy_of(FP8);
    let name = "model.layers.2.mlp.experts.7.up_proj.weight";
    let tensors = raw(input.path());
    let victim = &tensors[name].2;
    for entry in fs::read_dir(input.path()).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if let Some(place) = bytes.windows(victim.len()).position(|w| w == victim.as_slice()) {
            bytes[place + 256 + 3] = 0x7F;
            fs::write(&path, bytes).unwrap();
        }
    }
    for policy in ["bf16", "int8", "int4"] {
        match failure(input.path(), policy) {
            Error::Weight(WeightError::NotFinite { tensor, row: 1, column: 3, .. }) => assert_eq!(tensor, name),
            other => panic!("{policy}: {other}"),
        }
    }
}

#[test]
fn a_missing_scale_is_refused_by_name() {
    let input = copy_of(FP8);
    let scale = "model.layers.1.mlp.experts.0.up_proj.weight_scale_inv";
    replace_in_files(input.path(), scale, &scale.replace("scale_inv", "scale_xyz"));
    let error = failure(input.path(), "bf16");
    assert!(matches!(error, Error::Checkpoint(CheckpointError::MissingCompanion { .. })), "{error}");
    assert!(error.to_string().contains(scale), "{error}");
}

#[test]
fn formats_that_no_configuration_describes_are_refused() {
    for (policy, found) in
        [("auto,experts=int4", "fp8 and int4 in groups of 32"), ("int8,experts=int4", "int8 and int4 in groups of 32")]
    {
        match failure(Path::new(FP8), policy) {
            Error::Convert(error @ ConvertError::MixedFormats { .. }) => {
                assert!(error.to_string().contains(found), "{error}");
            }
            other => panic!("{policy}: {other}"),
        }
    }
}

/// Rewrites an INT4 checkpoint as one with groups of 64, keeping every other scale.
fn double_the_groups(dir: &Path) {
    let path = dir.join("model-00001-of-00001.safetensors");
    let mut tensors = raw(dir);
    for (name, (_, shape, bytes)) in &mut tensors {
        if name.ends_with(".weight_scale") {
            *bytes =
                bytes.chunks(4 * shape[1]).flat_map(|row| row.chunks(8).flat_map(|pair| &pair[..4])).copied().collect();
            shape[1] = shape[1].div_ceil(2);
        }
    }
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    let config = fs::read_to_string(dir.join("config.json")).unwrap();
    let regrouped = config.replace("\"group_size\": 32", "\"group_size\": 64");
    assert_ne!(regrouped, config);
    fs::write(dir.join("config.json"), regrouped).unwrap();
}

#[test]
fn two_int4_group_sizes_are_refused_and_one_may_be_extended() {
    let int4 = convert(BF16, "bf16,experts=int4");
    let extended = convert(int4.dir().to_str().unwrap(), "auto,shared_experts=int4");
    assert_eq!(extended.report.num_converted, 5 * 3);
    double_the_groups(int4.dir());
    assert_eq!(convert(int4.dir().to_str().unwrap(), "auto,experts=bf16").report.num_converted, 5 * 16 * 3);
    let error = failure(int4.dir(), "auto,shared_experts=int4").to_string();
    assert!(error.contains("int4 in groups of 32 and int4 in groups of 64"), "{error}");
}

#[test]
fn occupied_outputs_are_refused_before_any_work() {
    let root = tempfile::tempdir().unwrap();
    let occupied = root.path().join("occupied");
    fs::create_dir(&occupied).unwrap();
    fs::write(occupied.join("thesis.txt"), "years of work").unwrap();
    let mut calls = 0;
    let error = convert_checkpoint(Path::new(FP8), &occupied, &options("bf16"), &mut |_| calls += 1).unwrap_err();
    assert!(matches!(error, Error::Convert(ConvertError::OutputExists { .. })), "{error}");
    assert_eq!((calls, fs::read_dir(&occupied).unwrap().count()), (0, 1));

    let input = copy_of(BF16);
    let same = input.path().join(".");
    let error = convert_checkpoint(input.path(), &same, &options("int8"), &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::Convert(ConvertError::OutputIsInput { .. })), "{error}");
    assert!(raw(input.path()) == raw(Path::new(BF16)));
}

#[test]
fn an_input_that_is_no_checkpoint_leaves_nothing_behind() {
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(failure(empty.path(), "bf16"), Error::Config(_)));
    assert!(matches!(failure(&empty.path().join("missing"), "bf16"), Error::Config(_)));
    fs::copy(Path::new(FP8).join("config.json"), empty.path().join("config.json")).unwrap();
    assert!(matches!(failure(empty.path(), "bf16"), Error::Checkpoint(_)));
}

#[test]
fn progress_rises_to_the_total() {
    let root = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    let options = ConvertOptions { policy: Precision::Bf16.into() };
    let report = convert_checkpoint(Path::new(FP8), &root.path().join("out"), &options, &mut |p| {
        assert!(!p.tensor.is_empty());
        seen.push((p.done_bytes, p.total_bytes));
    })
    .unwrap();
    assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert_eq!(seen.last(), Some(&(report.total_bytes, report.total_bytes)));
}
