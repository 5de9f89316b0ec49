//! Checkpoints that are unusual and whole: one file, no index, tied head, no MTP module, mixed formats, odd paths.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bathysphere::convert::{ConvertOptions, convert_checkpoint};
use bathysphere::{Device, Engine, Error, PrecisionPolicy, RequestError, ScoreOptions, WeightClass, WeightFormat};
use conformance::golden::model_dir;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::rig::{Rig, engine, greedy, prompt};

/// Name, type, shape and bytes of a tensor.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// A copy of the tiny model, its weights linked, with another configuration.
pub(crate) fn changed_config(change: impl FnOnce(&mut Value)) -> TempDir {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    copy_model(dir.path(), |_| true);
    let file = dir.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut config);
    fs::remove_file(&file).unwrap();
    fs::write(file, config.to_string()).unwrap();
    dir
}

/// Links those files of the tiny model that are wanted.
fn copy_model(to: &Path, wanted: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(model_dir("fp8")).unwrap() {
        let (from, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if wanted(name.to_str().unwrap()) && fs::hard_link(&from, to.join(&name)).is_err() {
            fs::copy(&from, to.join(&name)).unwrap();
        }
    }
}

fn is_weights(name: &str) -> bool {
    name.contains("safetensors")
}

fn read_tensors() -> Tensors {
    let mut tensors = Tensors::new();
    for file in ["model-00001-of-000002.safetensors", "model-00002-of-000002.safetensors"] {
        let bytes = fs::read(model_dir("fp8").join(file)).unwrap();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            tensors.insert(name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()));
        }
    }
    tensors
}

fn write_tensors(file: &Path, tensors: &Tensors) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, file).unwrap();
}

/// A checkpoint of these tensors in one file, without an index.
fn single_file(tensors: &Tensors) -> TempDir {
    let dir = changed_config(|_| {});
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if is_weights(path.file_name().unwrap().to_str().unwrap()) {
            fs::remove_file(path).unwrap();
        }
    }
    write_tensors(&dir.path().join("model.safetensors"), tensors);
    dir
}

fn tokens_of(dir: impl Into<PathBuf>) -> Vec<u32> {
    let engine = Engine::builder(dir).device(Rig::default()).build().unwrap();
    engine.generate(prompt(40, 0), greedy(24)).unwrap().token_ids
}

fn usual_tokens() -> Vec<u32> {
    engine(&Rig::default()).generate(prompt(40, 0), greedy(24)).unwrap().token_ids
}

#[test]
fn one_file_without_an_index_is_the_same_model() {
    assert_eq!(tokens_of(single_file(&read_tensors()).path()), usual_tokens());
}

#[test]
fn scales_may_lie_in_another_file_than_their_weights() {
    let dir = single_file(&Tensors::new());
    let (scales, values): (Tensors, Tensors) =
        read_tensors().into_iter().partition(|(name, _)| name.ends_with("_scale_inv"));
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let mut map = serde_json::Map::new();
    for (file, tensors) in [("scales.safetensors", &scales), ("values.safetensors", &values)] {
        write_tensors(&dir.path().join(file), tensors);
        map.extend(tensors.keys().map(|name| (name.clone(), json!(file))));
    }
    fs::write(dir.path().join("model.safetensors.index.json"), json!({ "weight_map": map }).to_string()).unwrap();
    assert_eq!(tokens_of(dir.path()), usual_tokens());
}

#[test]
fn a_checkpoint_without_its_mtp_module_loads_and_refuses_drafts_by_name() {
    let mut tensors = read_tensors();
    tensors.retain(|name, _| !name.starts_with("model.layers.5."));
    let dir = single_file(&tensors);
    assert_eq!(tokens_of(dir.path()), usual_tokens());
    let error = Engine::builder(dir.path()).device(Device::Cpu).load_mtp(true).build().unwrap_err();
    assert!(matches!(error, Error::Request(RequestError::NoMtp)), "{error}");
    // Part of a module is none.
    tensors.insert("model.layers.5.enorm.weight".into(), (Dtype::BF16, vec![256], vec![0; 512]));
    let error = Engine::builder(single_file(&tensors).path()).device(Device::Cpu).build().unwrap_err();
    assert!(error.to_string().contains("model.layers.5."), "{error}");
}

#[test]
fn a_tied_head_is_the_embedding() {
    let mut tensors = read_tensors();
    let embedding = tensors["model.embed_tokens.weight"].clone();
    tensors.insert("lm_head.weight".into(), embedding);
    let written_twice = single_file(&tensors);
    tensors.remove("lm_head.weight");
    let tied = single_file(&tensors);
    let error = Engine::builder(tied.path()).device(Device::Cpu).build().unwrap_err();
    assert!(error.to_string().contains("lm_head.weight"), "{error}");
    let file = tied.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    config["tie_word_embeddings"] = json!(true);
    fs::write(file, config.to_string()).unwrap();
    let scores = |dir: &Path| {
        let engine = Engine::builder(dir).device(Device::Cpu).load_mtp(true).build().unwrap();
        engine.score(&prompt(40, 0), ScoreOptions { window: None, drafts: true }).unwrap()
    };
    assert_eq!(scores(tied.path()), scores(written_twice.path()));
}

/// Converted on disk or while loading: the same weights, the same tokens.
#[test]
fn an_fp8_checkpoint_may_keep_some_linears_in_bf16() {
    let policy: PrecisionPolicy = "attention=bf16,shared_experts=bf16".parse().unwrap();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mixed = dir.path().join("mixed");
    convert_checkpoint(&model_dir("fp8"), &mixed, &ConvertOptions { policy: policy.clone() }, &mut |_| {}).unwrap();
    let engine = Engine::builder(&mixed).device(Device::Cpu).build().unwrap();
    assert_eq!(engine.formats()[&WeightClass::Attention], WeightFormat::Bf16);
    assert_eq!(engine.formats()[&WeightClass::Experts], WeightFormat::Fp8Block);
    let while_loading = Engine::builder(model_dir("fp8")).device(Device::Cpu).precision(policy).build().unwrap();
    let tokens = |engine: &Engine| engine.generate(prompt(40, 0), greedy(24)).unwrap().token_ids;
    assert_eq!(tokens(&engine), tokens(&while_loading));
}

#[test]
fn paths_may_be_relative_and_hold_spaces_and_any_letters() {
    assert_eq!(tokens_of("../models/tiny-deepseek-v3-fp8"), usual_tokens());
    assert_eq!(tokens_of("./../models/./tiny-deepseek-v3-fp8/"), usual_tokens());
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // Quotes and line ends are letters like others where the file system has them.
    let dir =
        root.path().join(if cfg!(unix) { "модель 模型 🐚 'q\"\n%s" } else { "модель 模型 🐚 %s" });
    fs::create_dir(&dir).unwrap();
    copy_model(&dir, |_| true);
    assert_eq!(tokens_of(&dir), usual_tokens());
    let converted = root.path().join("aus gabe 🐚");
    let options = ConvertOptions { policy: "int8".parse().unwrap() };
    assert_eq!(convert_checkpoint(&dir, &converted, &options, &mut |_| {}).unwrap().path, converted);
    assert_eq!(tokens_of(converted).len(), 24);
}

#[test]
fn directories_that_are_none_are_named() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let empty = root.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let file = root.path().join("file");
    fs::write(&file, "x").unwrap();
    for dir in [empty, root.path().join("absent"), file, PathBuf::new()] {
        let error = Engine::builder(&dir).device(Device::Cpu).build().unwrap_err();
        assert!(error.to_string().contains(&dir.join("config.json").display().to_string()), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn what_may_not_be_read_or_written_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let dir = changed_config(|_| {});
    let closed = dir.path().join("config.json");
    set_mode(&closed, 0o000);
    if fs::File::open(&closed).is_ok() {
        println!("this user may read everything: permissions are not tested");
        return;
    }
    let error = Engine::builder(dir.path()).device(Device::Cpu).build().unwrap_err();
    assert!(error.to_string().contains("config.json: cannot be read"), "{error}");
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    set_mode(root.path(), 0o500);
    let options = ConvertOptions::default();
    let error = convert_checkpoint(&model_dir("fp8"), &root.path().join("out"), &options, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains(&root.path().display().to_string()), "{error}");
    set_mode(root.path(), 0o700);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

/// A pipe would block for ever, a device never end.
#[cfg(unix)]
#[test]
fn files_that_are_no_files_are_refused() {
    for name in ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"] {
        let dir = changed_config(|_| {});
        let file = dir.path().join(name);
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
        let error = Engine::builder(dir.path()).device(Device::Cpu).build().unwrap_err();
        assert!(error.to_string().contains(name) && error.to_string().contains("regular"), "{error}");
    }
}
