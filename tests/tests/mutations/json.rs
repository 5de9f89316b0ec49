//! Changes to JSON files: keys removed, values of every wrong kind.

use serde_json::{Map, Value, json};

use crate::run::{Case, Content, original};

/// Steps from the root of a JSON document to one of its values.
pub(crate) type Place = Vec<Step>;

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// Values that are wrong somewhere.
pub(crate) fn values() -> Vec<Value> {
    vec![
        json!(0),
        json!(-1),
        json!(1),
        json!(3),
        json!(0.5),
        json!(1e30),
        json!(1e-30),
        json!(1u64 << 32),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(null),
        json!(true),
        json!("NaN"),
        json!(""),
        json!([]),
        json!([1, 2]),
        json!({}),
    ]
}

/// Every value of `root` down to `depth` levels, the first `breadth` entries of each array and object.
pub(crate) fn places(root: &Value, depth: usize, breadth: usize) -> Vec<Place> {
    let mut found = Vec::new();
    collect(root, &mut Vec::new(), (depth, breadth), &mut found);
    found
}

fn collect(value: &Value, at: &mut Place, (depth, breadth): (usize, usize), found: &mut Vec<Place>) {
    if depth == 0 {
        return;
    }
    let children: Vec<(Step, &Value)> = match value {
        Value::Object(map) => map.iter().take(breadth).map(|(key, value)| (Step::Key(key.clone()), value)).collect(),
        Value::Array(list) => {
            list.iter().take(breadth).enumerate().map(|(index, value)| (Step::Index(index), value)).collect()
        }
        _ => Vec::new(),
    };
    for (step, child) in children {
        at.push(step);
        found.push(at.clone());
        collect(child, at, (depth - 1, breadth), found);
        at.pop();
    }
}

/// `root` with the value at `place` replaced, or removed.
pub(crate) fn changed(mut root: Value, place: &[Step], replacement: Option<Value>) -> Vec<u8> {
    let (last, parents) = place.split_last().unwrap();
    let mut at = &mut root;
    for step in parents {
        at = match step {
            Step::Key(key) => &mut at[key],
            Step::Index(index) => &mut at[index],
        };
    }
    match (last, replacement) {
        (Step::Key(key), Some(value)) => at[key] = value,
        (Step::Index(index), Some(value)) => at[index] = value,
        (Step::Key(key), None) => drop(at.as_object_mut().unwrap().shift_remove(key)),
        (Step::Index(index), None) => drop(at.as_array_mut().unwrap().remove(*index)),
    }
    serde_json::to_vec(&root).unwrap()
}

pub(crate) fn name(place: &[Step]) -> String {
    let steps = place.iter().map(|step| match step {
        Step::Key(key) => key.clone(),
        Step::Index(index) => index.to_string(),
    });
    steps.collect::<Vec<_>>().join(".")
}

pub(crate) fn parsed(file: &str) -> Value {
    serde_json::from_slice(&original(file)).unwrap()
}

/// Each of `places` removed and replaced by each of `values`.
pub(crate) fn cases_at(file: &'static str, root: &Value, places: &[Place], values: &[Value]) -> Vec<Case> {
    let mut cases = Vec::new();
    for place in places {
        let replacements = values.iter().cloned().map(Some).chain([None]);
        for replacement in replacements {
            let what = replacement.as_ref().map_or("removed".to_owned(), Value::to_string);
            let content = Content::Bytes(changed(root.clone(), place, replacement));
            cases.push(Case::new(file, format!("{} = {what}", name(place)), content));
        }
    }
    cases
}

/// Files that are not the JSON document that belongs there.
pub(crate) fn broken_documents(file: &'static str) -> Vec<Case> {
    let whole = original(file);
    let deep = "[".repeat(100_000).into_bytes();
    let half = whole[..whole.len() / 2].to_vec();
    let nan = String::from_utf8(whole.clone()).unwrap().replacen(": ", ": NaN, \"x\": ", 1).into_bytes();
    let not_utf8 = [whole.as_slice(), &[0xFF]].concat();
    let documents: [(&str, Vec<u8>); 9] = [
        ("empty", Vec::new()),
        ("null", b"null".to_vec()),
        ("list", b"[]".to_vec()),
        ("empty object", b"{}".to_vec()),
        ("number", b"1e999".to_vec()),
        ("deep", deep),
        ("half", half),
        ("NaN", nan),
        ("not UTF-8", not_utf8),
    ];
    let mut cases: Vec<Case> =
        documents.into_iter().map(|(name, bytes)| Case::new(file, name, Content::Bytes(bytes))).collect();
    cases.push(Case::new(file, "removed", Content::Removed));
    cases
}

pub(crate) fn config_cases() -> Vec<Case> {
    let root = parsed("config.json");
    let mut cases = cases_at("config.json", &root, &places(&root, 3, 100), &values());
    cases.extend(broken_documents("config.json"));
    // Keys that the file does not have, and combinations that a single change does not reach.
    let extra = [
        json!({"rope_parameters": {"rope_type": "yarn", "factor": 1e30}}),
        json!({"rope_parameters": [1]}),
        json!({"rope_scaling": null, "max_position_embeddings": 4096}),
        json!({"mlp_layer_types": ["dense"]}),
        json!({"n_routed_experts": 4096, "num_hidden_layers": 64, "n_group": 1, "topk_group": 1}),
        json!({"n_routed_experts": null}),
        json!({"n_shared_experts": 0}),
        json!({"q_lora_rank": null}),
        json!({"num_nextn_predict_layers": 16}),
        json!({"num_nextn_predict_layers": 0}),
        json!({"tie_word_embeddings": true}),
        json!({"vocab_size": 4_194_304, "hidden_size": 131_072}),
        json!({"eos_token_id": (0..64).collect::<Vec<_>>()}),
        json!({"eos_token_id": vec![0; 65]}),
        json!({"scoring_func": "softmax", "topk_method": "greedy", "norm_topk_prob": false}),
        json!({"quantization_config": {"quant_method": "compressed-tensors", "format": "int-quantized"}}),
        json!({"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized",
               "config_groups": {"a": {"weights": {"num_bits": 4, "group_size": 1}}}}}),
    ];
    for change in extra {
        let mut root = root.clone();
        let name = change.to_string();
        let Value::Object(change) = change else { unreachable!() };
        root.as_object_mut().unwrap().extend(change);
        cases.push(Case::new("config.json", name, Content::Bytes(serde_json::to_vec(&root).unwrap())));
    }
    cases
}

pub(crate) fn generation_config_cases() -> Vec<Case> {
    let root = parsed("generation_config.json");
    let mut cases = cases_at("generation_config.json", &root, &places(&root, 2, 100), &values());
    cases.extend(broken_documents("generation_config.json"));
    cases
}

pub(crate) fn index_cases() -> Vec<Case> {
    const FILE: &str = "model.safetensors.index.json";
    let root = parsed(FILE);
    let top = places(&root, 1, 10);
    let mut cases = cases_at(FILE, &root, &top, &values());
    cases.extend(broken_documents(FILE));
    let first_tensors: Vec<Place> =
        places(&root, 2, 3).into_iter().filter(|place| name(place).starts_with("weight_map.")).collect();
    let file_names =
        ["", ".", "..", "/", "/etc/passwd", "../model.safetensors", "a/b", "a\\b", "c:x", "x\0y", "absent"]
            .map(|name| json!(name));
    cases.extend(cases_at(FILE, &root, &first_tensors, &[&values()[..], &file_names].concat()));
    cases.extend(shard_swaps(FILE, &root));
    // An index without tensors is one: then the first tensor is what is missing.
    cases.into_iter().map(|case| case.or_named("no tensor model.embed_tokens.weight")).collect()
}

/// Every tensor said to be in the other file, and the index without any tensor of one of them.
fn shard_swaps(file: &'static str, root: &Value) -> Vec<Case> {
    let map = root["weight_map"].as_object().unwrap();
    let names = ["model-00001-of-000002.safetensors", "model-00002-of-000002.safetensors"];
    let index_of = |map: Map<String, Value>| Content::Bytes(serde_json::to_vec(&json!({ "weight_map": map })).unwrap());
    let swapped: Map<String, Value> = map
        .iter()
        .map(|(tensor, file)| (tensor.clone(), json!(if *file == names[0] { names[1] } else { names[0] })))
        .collect();
    let only = |file: &str| -> Map<String, Value> {
        map.iter().filter(|(_, f)| *f == file).map(|(tensor, file)| (tensor.clone(), file.clone())).collect()
    };
    vec![
        Case::new(file, "files swapped", index_of(swapped)),
        Case::new(file, "first file only", index_of(only(names[0]))).or_named("no tensor"),
        Case::new(file, "second file only", index_of(only(names[1]))),
        Case::new(file, "no tensors", index_of(Map::new())),
    ]
}
