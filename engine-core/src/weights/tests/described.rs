//! INT8 checkpoints in the naming of msModelSlim, as vllm's plugins load them.

use std::collections::BTreeMap;

use safetensors::tensor::{TensorView, serialize_to_file};
use safetensors::{Dtype, SafeTensors};

use super::*;
use crate::convert::{ConvertOptions, convert_checkpoint};

const DESCRIPTION: &str = "quant_model_description.json";
const WEIGHTS: &str = "quant_model_weight_w8a8_dynamic.safetensors";

/// Type, shape and bytes of a tensor.
type Parts = (Dtype, Vec<usize>, Vec<u8>);

/// The tiny model in INT8, as this library writes it.
fn int8() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let options = ConvertOptions { policy: "int8".parse().unwrap() };
    convert_checkpoint(&model_dir("tiny-deepseek-v3-bf16"), dir.path(), &options, &mut |_| {}).unwrap();
    dir
}

/// All tensors of a directory.
fn tensors(dir: &Path) -> BTreeMap<String, Parts> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let bytes = std::fs::read(&path).unwrap();
            for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
                found.insert(name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()));
            }
        }
    }
    found
}

/// A checkpoint as the tool writes it: offsets beside the scales, a description, nothing in `config.json`.
fn described(config: &Value, tensors: &BTreeMap<String, Parts>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    serialize_to_file(views, None, &dir.path().join(WEIGHTS)).unwrap();
    let mut description = json!({"model_quant_type": "W8A8_DYNAMIC", "version": "1.0.0", "group_size": 0});
    for name in tensors.keys() {
        let prefix = name.rsplit_once('.').unwrap().0;
        let is_int8 = tensors.contains_key(&format!("{prefix}.weight_scale"));
        description[name] = json!(if is_int8 { "W8A8_DYNAMIC" } else { "FLOAT" });
    }
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    std::fs::write(dir.path().join(DESCRIPTION), description.to_string()).unwrap();
    dir
}

/// The tiny model so described.
fn tiny() -> (TempDir, TempDir) {
    let ours = int8();
    let mut tensors = tensors(ours.path());
    let offsets: Vec<(String, Parts)> = tensors
        .iter()
        .filter_map(|(name, (_, shape, _))| {
            let prefix = name.strip_suffix(".weight_scale")?;
            Some((format!("{prefix}.weight_offset"), (Dtype::BF16, shape.clone(), vec![0; 2 * shape[0]])))
        })
        .collect();
    assert!(offsets.len() > 100, "every expert has three");
    tensors.extend(offsets);
    let mut config: Value = serde_json::from_slice(&std::fs::read(ours.path().join("config.json")).unwrap()).unwrap();
    config.as_object_mut().unwrap().remove("quantization_config");
    (described(&config, &tensors), ours)
}

/// Every linear of a model.
fn linears(dir: &Path) -> Vec<(String, HostWeight)> {
    let (config, checkpoint) = (ModelConfig::from_dir(dir).unwrap(), Checkpoint::open(dir).unwrap());
    assert_eq!(config.quantization, Some(QuantizationConfig::Int8Channel));
    assert_eq!(checkpoint.check(&config).unwrap().unknown, Vec::<String>::new());
    let read = |spec: TensorSpec| match spec.kind {
        TensorKind::Linear(_, shape) => {
            let weight = checkpoint.linear(spec.prefix(), shape, config.quantization.as_ref()).unwrap();
            Some((spec.name, weight))
        }
        TensorKind::Plain(_) | TensorKind::Vector(_) => None,
    };
    checkpoint_tensors(&config, true).into_iter().filter_map(read).collect()
}

#[test]
fn a_described_checkpoint_gives_the_same_bits() {
    let (described, ours) = tiny();
    let (found, expected) = (linears(described.path()), linears(ours.path()));
    assert_eq!(found.len(), expected.len());
    let mut num_int8 = 0;
    for ((name, found), (_, expected)) in found.iter().zip(&expected) {
        assert_eq!(found.format(), expected.format(), "{name}");
        assert!(found.value_bytes() == expected.value_bytes(), "{name}");
        let bits = |weight: &HostWeight| weight.scales().iter().map(|scale| scale.to_bits()).collect::<Vec<u32>>();
        assert_eq!(bits(found), bits(expected), "{name}");
        num_int8 += usize::from(found.format() == WeightFormat::Int8Channel);
    }
    assert!(num_int8 > 100, "{num_int8}");
    let [found, expected] = [&described, &ours].map(|dir| ModelConfig::from_dir(dir.path()).unwrap());
    assert_eq!(found, expected);
}

#[test]
fn a_conversion_takes_the_description_away() {
    let (described, _ours) = tiny();
    let dir = tempfile::tempdir().unwrap();
    let convert = |policy: &str, name: &str| {
        let options = ConvertOptions { policy: policy.parse().unwrap() };
        let out = dir.path().join(name);
        convert_checkpoint(described.path(), &out, &options, &mut |_| {}).unwrap();
        out
    };
    let bf16 = convert("bf16", "bf16");
    assert!(!bf16.join(DESCRIPTION).exists());
    assert!(!Checkpoint::open(&bf16).unwrap().names().any(|name| name.ends_with("_offset")));
    assert_eq!(ModelConfig::from_dir(&bf16).unwrap().quantization, None);
    let same = convert("auto", "same");
    assert!(same.join(DESCRIPTION).exists(), "nothing changed");
    assert_eq!(linears(&same).len(), linears(described.path()).len());
}

#[test]
fn what_a_weight_cannot_have_is_named() {
    let weight = ("l.weight", "I8", vec![2, 2], vec![1, 2, 3, 4]);
    let scale = ("l.weight_scale", "F32", vec![2, 1], f32s(&[1.0, 1.0]));
    let read = |more: &[Tensor<'_>]| {
        let tensors = [&[weight.clone(), scale.clone()], more].concat();
        open(&single(&shard(&tensors))).linear(P, MatrixShape::new(2, 2), None)
    };
    for zeros in [f32s(&[0.0, -0.0]), f32s(&[0.0; 2])] {
        read(&[("l.weight_offset", "F32", vec![2, 1], zeros)]).unwrap();
    }
    let offset = |name, dtype, dims: &[usize], bytes| [(name, dtype, dims.to_vec(), bytes)];
    let name = "l.weight_offset";
    for (more, words) in [
        (offset(name, "F32", &[2, 1], f32s(&[0.0, 3.0])), ["l.weight_offset is 3 in row 1", "symmetrically"]),
        (offset(name, "BF16", &[2], bf16s(&[-1.0, 0.0])), ["l.weight_offset is -1 in row 0", "without offsets"]),
        (offset(name, "F32", &[2], f32s(&[0.0, f32::NAN])), ["l.weight_offset is NaN in row 1", "without offsets"]),
        (offset(name, "F32", &[1, 2], f32s(&[0.0; 2])), ["l.weight_offset has shape [1, 2]", "[2, 1]"]),
        (offset(name, "I8", &[2], vec![0; 2]), ["l.weight_offset is I8", "F32 and BF16"]),
        (offset("l.input_scale", "F32", &[1], f32s(&[1.0])), ["l.input_scale", "inputs of l.weight"]),
        (offset("l.input_offset", "I8", &[1], vec![0]), ["l.input_offset", "W8A8_DYNAMIC"]),
        (offset("l.deq_scale", "F32", &[2], f32s(&[1.0; 2])), ["l.deq_scale", "per token"]),
        (offset("l.quant_bias", "I32", &[2], vec![0; 8]), ["l.quant_bias", "inputs of l.weight"]),
    ] {
        says(&read(&more).unwrap_err(), &words);
    }
}

#[test]
fn what_a_description_cannot_ask_for_is_named() {
    let (dir, _ours) = tiny();
    let file = dir.path().join(DESCRIPTION);
    let description: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let error = |key: &str, value: Value| {
        let mut changed = description.clone();
        changed[key] = value;
        std::fs::write(&file, changed.to_string()).unwrap();
        ModelConfig::from_dir(dir.path()).unwrap_err().to_string()
    };
    for (key, value, words) in [
        ("model.layers.1.self_attn.o_proj.weight", json!("W8A8"), "\"W8A8\"; it must be \"FLOAT\" or"),
        ("model.layers.1.mlp.experts.0.up_proj.weight", json!("W4A8_DYNAMIC"), "W4A8_DYNAMIC"),
        ("model.layers.0.self_attn.fa_q.scale", json!(null), "null"),
        ("fa_quant_type", json!("FAKQuant"), "not quantised"),
        ("kv_cache_type", json!("C8"), "not quantised"),
        ("group_size", json!(64), "it must be 0"),
        ("is_rot_used", json!(true), "not undone"),
    ] {
        let message = error(key, value);
        assert!(message.contains(DESCRIPTION) && message.contains(key) && message.contains(words), "{message}");
    }
    std::fs::write(&file, "[]").unwrap();
    assert!(ModelConfig::from_dir(dir.path()).is_err());
    std::fs::write(&file, description.to_string()).unwrap();
    let config_file = dir.path().join("config.json");
    let config: Value = serde_json::from_slice(&std::fs::read(&config_file).unwrap()).unwrap();
    let with = |method: &str| {
        let mut changed = config.clone();
        changed["quantization_config"] = json!({"quant_method": method});
        std::fs::write(&config_file, changed.to_string()).unwrap();
        ModelConfig::from_dir(dir.path())
    };
    let message = with("fp8").unwrap_err().to_string();
    assert!(message.contains("quantization_config.quant_method") && message.contains(DESCRIPTION), "{message}");
    assert_eq!(with("another").unwrap().quantization, Some(QuantizationConfig::Int8Channel), "the description says it");
}

#[test]
fn of_two_files_that_begin_alike_neither_is_the_checkpoint() {
    let (dir, _ours) = tiny();
    std::fs::copy(dir.path().join(WEIGHTS), dir.path().join("quant_model_weight_2.safetensors")).unwrap();
    says(&open_error(&dir), &["quant_model_weight", "Hugging Face"]);
}
