//! Changes to INT8 and INT4 checkpoints, made from the tiny model.

use std::path::Path;

use conformance::harness::Rng;
use serde_json::{Value, json};

use crate::json::{Step, changed, places};
use crate::run::{Case, Content};
use crate::shards::{Shard, entry_cases, overwritten};

/// Changes to the checkpoint in `dir`, whose linears are stored in these tensors (suffix, type).
pub(crate) fn cases(dir: &Path, stored: &[(&str, &str)]) -> Vec<Case> {
    let first_file = "model-00001-of-00001.safetensors";
    let shard = Shard::read(dir, first_file);
    let mut rng = Rng::from_name("quantised");
    let mut cases = config_cases(dir);
    for (suffix, dtype) in stored {
        let tensors = shard.tensors(suffix, dtype, 1);
        cases.extend(entry_cases(&shard, &tensors));
        let values: Vec<Vec<u8>> = match *dtype {
            "F32" => [f32::NAN, f32::NEG_INFINITY, -1.0, 0.0, 1e38].map(|value| value.to_le_bytes().to_vec()).into(),
            "I64" => [0i64, -1, i64::MIN, i64::MAX, 1 << 32].map(|value| value.to_le_bytes().to_vec()).into(),
            _ => vec![vec![0x80], vec![0xFF], vec![0]],
        };
        for value in values {
            cases.push(overwritten(&shard, &mut rng, &tensors[0], &value));
        }
    }
    cases.into_iter().map(|case| case.of(dir)).collect()
}

/// Every key of `quantization_config`.
fn config_cases(dir: &Path) -> Vec<Case> {
    const KEY: &str = "quantization_config";
    let text = std::fs::read(dir.join("config.json")).unwrap();
    let root: Value = serde_json::from_slice(&text).unwrap();
    let values = [
        json!(null),
        json!(0),
        json!(-1),
        json!(2),
        json!(3),
        json!(64),
        json!(4096),
        json!(1e30),
        json!(true),
        json!("x"),
        json!([]),
        json!({}),
    ];
    let mut cases = Vec::new();
    // The list of modules left out is the same to us whatever it says.
    for place in places(&root[KEY], 4, 10).into_iter().filter(|place| crate::json::name(place).starts_with("config_g"))
    {
        let at: Vec<Step> = [Step::Key(KEY.to_owned())].into_iter().chain(place.clone()).collect();
        for value in values.iter().cloned().map(Some).chain([None]) {
            let name = format!("{} = {value:?}", crate::json::name(&place));
            let content = Content::Bytes(changed(root.clone(), &at, value));
            cases.push(Case::new("config.json", name, content));
        }
    }
    cases
}
