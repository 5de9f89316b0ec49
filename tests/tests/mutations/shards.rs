//! Changes to safetensors files: headers, lengths, values.

use std::fs;
use std::ops::Range;
use std::path::Path;

use conformance::golden::model_dir;
use conformance::harness::Rng;
use serde_json::{Value, json};

use crate::json::{Step, changed};
use crate::run::{Case, Content, original};

/// The file with the main model's layers.
const FILE: &str = "model-00001-of-000002.safetensors";

pub(crate) fn cases() -> Vec<Case> {
    let shard = Shard::read(&model_dir("fp8"), FILE);
    let mut cases = header_cases(&shard);
    cases.extend(length_cases(&shard));
    cases.extend(value_cases(&shard));
    cases.push(Case::new(FILE, "removed", Content::Removed));
    cases
}

pub(crate) struct Shard {
    file: String,
    header: Value,
    /// Where the values start.
    data_start: usize,
    len: usize,
}

impl Shard {
    pub(crate) fn read(dir: &Path, file: &str) -> Self {
        let bytes = fs::read(dir.join(file)).unwrap();
        let data_start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header = serde_json::from_slice(&bytes[8..data_start]).unwrap();
        Self { file: file.to_owned(), header, data_start, len: bytes.len() }
    }

    /// The file with another header, its values zeros.
    fn with_header(&self, header: &[u8]) -> Content {
        let start = [&(header.len() as u64).to_le_bytes()[..], header].concat();
        let len = start.len() + self.len - self.data_start;
        Content::Sparse(start, len)
    }

    /// Where in the file a tensor's values are.
    fn range(&self, tensor: &str) -> Range<usize> {
        let offset = |i: usize| self.data_start + self.header[tensor]["data_offsets"][i].as_u64().unwrap() as usize;
        offset(0)..offset(1)
    }

    /// The first tensors whose names end so, and of this type.
    pub(crate) fn tensors(&self, suffix: &str, dtype: &str, most: usize) -> Vec<String> {
        let map = self.header.as_object().unwrap();
        let wanted = map.iter().filter(|(name, entry)| name.ends_with(suffix) && entry["dtype"] == dtype);
        let tensors: Vec<String> = wanted.take(most).map(|(name, _)| name.clone()).collect();
        assert_eq!(tensors.len(), most, "{suffix} {dtype}");
        tensors
    }
}

fn header_cases(shard: &Shard) -> Vec<Case> {
    let tensors = [
        shard.tensors("_scale_inv", "F32", 1),
        shard.tensors("o_proj.weight", "F8_E4M3", 1),
        shard.tensors("layernorm.weight", "BF16", 1),
        shard.tensors("embed_tokens.weight", "BF16", 1),
        shard.tensors("e_score_correction_bias", "F32", 1),
    ];
    let mut cases = entry_cases(shard, &tensors.concat());
    for header in ["", "{", "{}", "null", "[]", "{\"__metadata__\": 1}", "{\"__metadata__\": {\"a\": 1}}", "\u{FFFD}"] {
        cases.push(Case::new(FILE, format!("header {header:?}"), shard.with_header(header.as_bytes())));
    }
    cases
}

/// Each field of the tensors' entries, with values that are wrong there.
pub(crate) fn entry_cases(shard: &Shard, tensors: &[String]) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |tensor: &str, steps: &[&str], value: Option<Value>| {
        let name = format!("{} = {value:?}", steps.join("."));
        let place: Vec<Step> = steps.iter().map(|step| Step::Key((*step).to_owned())).collect();
        let content = shard.with_header(&changed(shard.header.clone(), &place, value));
        cases.push(Case::new(&shard.file, name, content).or_named(tensor));
    };
    for tensor in tensors {
        add(tensor, &[tensor], None);
        for (field, values) in header_values() {
            add(tensor, &[tensor, field], None);
            values.into_iter().for_each(|value| add(tensor, &[tensor, field], Some(value)));
        }
    }
    cases
}

fn header_values() -> [(&'static str, Vec<Value>); 3] {
    let dtypes = ["BF16", "F16", "F32", "F64", "I8", "U8", "I64", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "XX"];
    let dtypes = dtypes.map(|dtype| json!(dtype)).into_iter().chain([json!(null), json!(1)]).collect();
    let shapes = vec![
        json!([]),
        json!([0]),
        json!([1]),
        json!([-1, 2]),
        json!([1u64 << 32, 1u64 << 32]),
        json!([u64::MAX, 2]),
        json!([0, u64::MAX]),
        json!([1.5]),
        json!("2"),
        json!(vec![1; 100]),
        json!(null),
    ];
    let offsets = vec![
        json!([0, 0]),
        json!([0, 1]),
        json!([1, 0]),
        json!([u64::MAX, u64::MAX]),
        json!([u64::MAX - 1, 1]),
        json!([0, 1u64 << 40]),
        json!([-1, 4]),
        json!([0]),
        json!([0, 1, 2]),
        json!([0.5, 1]),
        json!(null),
    ];
    [("dtype", dtypes), ("shape", shapes), ("data_offsets", offsets)]
}

/// Files cut short, grown, and with other lengths in front.
fn length_cases(shard: &Shard) -> Vec<Case> {
    let mut rng = Rng::from_name("lengths");
    let whole = original(FILE);
    let header_len = shard.data_start as u64 - 8;
    let mut cases = Vec::new();
    for length in [0, 1, 2, header_len - 1, header_len + 1, 100_000_000, 100_000_001, 1 << 40, 1 << 63, u64::MAX] {
        let content = Content::Patched(vec![(0, length.to_le_bytes().to_vec())]);
        cases.push(Case::new(FILE, format!("header length {length}"), content));
    }
    let points = [0, 1, 7, 8, 9, shard.data_start - 1, shard.data_start, shard.len - 1];
    for end in points.into_iter().chain((0..16).map(|_| rng.below(shard.len))) {
        cases.push(Case::new(FILE, format!("cut at {end}"), Content::Bytes(whole[..end].to_vec())));
    }
    for more in [1, 8, 4096] {
        let content = Content::Sparse(whole[..shard.data_start].to_vec(), shard.len + more);
        cases.push(Case::new(FILE, format!("{more} bytes more"), content));
    }
    cases
}

/// Values that are no numbers, and random bits.
fn value_cases(shard: &Shard) -> Vec<Case> {
    let f32s = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0, -0.0, 0.0, 1e38, 1e-45].map(f32::to_le_bytes);
    let bf16s = [0x7FC0u16, 0x7F80, 0xFF80, 0x7F7F, 0x8000].map(u16::to_le_bytes);
    let e4m3s = [[0x7Fu8], [0xFF], [0x7E], [0x80]];
    let mut rng = Rng::from_name("values");
    let mut cases = Vec::new();
    let mut add = |suffix: &str, dtype: &str, most: usize, value: &[u8]| {
        for tensor in shard.tensors(suffix, dtype, most) {
            cases.push(overwritten(shard, &mut rng, &tensor, value));
        }
    };
    for value in &f32s {
        add("_scale_inv", "F32", 3, value);
        add("e_score_correction_bias", "F32", 1, value);
    }
    for value in &bf16s {
        add("layernorm.weight", "BF16", 4, value);
        add("embed_tokens.weight", "BF16", 1, value);
        add("mlp.gate.weight", "BF16", 1, value);
    }
    for value in &e4m3s {
        add(".weight", "F8_E4M3", 4, value);
    }
    let whole = original(FILE);
    for _ in 0..24 {
        let (at, bit) = (shard.data_start + rng.below(shard.len - shard.data_start), rng.below(8));
        let content = Content::Patched(vec![(at, vec![whole[at] ^ (1 << bit)])]);
        cases.push(Case::new(FILE, format!("bit {bit} of byte {at} flipped"), content));
    }
    cases
}

/// One value of `tensor`, or all of it, replaced.
pub(crate) fn overwritten(shard: &Shard, rng: &mut Rng, tensor: &str, value: &[u8]) -> Case {
    let range = shard.range(tensor);
    let num_values = range.len() / value.len();
    let (place, at, bytes) = match rng.below(3) {
        0 => ("everywhere".to_owned(), range.start, value.repeat(num_values)),
        _ => {
            let index = rng.below(num_values);
            (index.to_string(), range.start + index * value.len(), value.to_vec())
        }
    };
    let content = Content::Patched(vec![(at, bytes)]);
    // What a device refuses it refuses by module: `model.layers.0.mlp`.
    let module: Vec<&str> = tensor.split('.').take(4).collect();
    Case::new(&shard.file, format!("{tensor} {place} = {value:02x?}"), content).or_named(&module.join("."))
}
