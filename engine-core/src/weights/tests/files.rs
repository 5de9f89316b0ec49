//! Files and their headers.

use super::*;

#[test]
fn the_tiny_models_hold_what_their_configurations_ask_for() {
    for name in ["tiny-deepseek-v3-bf16", "tiny-deepseek-v3-fp8"] {
        let checkpoint = Checkpoint::open(&model_dir(name)).unwrap();
        let config = ModelConfig::from_dir(&model_dir(name)).unwrap();
        let report = checkpoint.check(&config).unwrap();
        assert_eq!(report, CheckpointReport { has_mtp: true, unknown: vec![] }, "{name}");
        assert_eq!(checkpoint.dir(), model_dir(name));
    }
}

/// Every byte of every tensor, against the safetensors crate's own reader.
#[test]
fn bytes_are_those_another_reader_finds() {
    let dir = model_dir("tiny-deepseek-v3-fp8");
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let mut seen = 0;
    for file in ["model-00001-of-000002.safetensors", "model-00002-of-000002.safetensors"] {
        let content = std::fs::read(dir.join(file)).unwrap();
        let other = safetensors::SafeTensors::deserialize(&content).unwrap();
        for (name, tensor) in other.iter() {
            assert_eq!(&*checkpoint.bytes(name).unwrap(), tensor.data(), "{name}");
            let info = checkpoint.tensor_info(name).unwrap();
            assert_eq!((info.dtype, info.shape.as_slice()), (tensor.dtype(), tensor.shape()), "{name}");
            assert_eq!(info.num_bytes, tensor.data().len());
            seen += 1;
        }
    }
    assert_eq!(checkpoint.names().count(), seen);
    assert!(checkpoint.names().is_sorted());
}

#[test]
fn a_directory_without_weights() {
    let dir = tempfile::tempdir().unwrap();
    let error = open_error(&dir);
    assert!(matches!(error, CheckpointError::NoWeights { .. }));
    says(&error, &["neither model.safetensors.index.json nor model.safetensors"]);
}

#[test]
fn files_too_short_for_their_own_header() {
    let whole = shard(&[("a", "F32", vec![2], f32s(&[1.0, 2.0]))]);
    for (len, expected) in [(0, 8), (7, 8), (20, whole.len() - 8), (whole.len() - 1, whole.len())] {
        let error = open_error(&single(&whole[..len]));
        says(&error, &["model.safetensors", &format!("{len} bytes, expected {expected}")]);
        assert!(matches!(error, CheckpointError::Truncated { .. }), "{error}");
    }
}

#[test]
fn a_header_that_claims_too_much_is_refused_before_anything_is_allocated() {
    for claimed in [1u64 << 60, u64::MAX, 100_000_001] {
        let mut content = claimed.to_le_bytes().to_vec();
        content.extend_from_slice(b"{}");
        let error = open_error(&single(&content));
        says(&error, &[&format!("header of {claimed} bytes, at most 100000000")]);
    }
}

#[test]
fn headers_that_are_no_headers() {
    for header in [
        "",
        "[]",
        "{\"a\"",
        r#"{"a": 1}"#,
        r#"{"a": {"dtype": "F7", "shape": [1], "data_offsets": [0, 1]}}"#,
        r#"{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}"#,
    ] {
        let error = open_error(&single(&raw(header, &[0; 4])));
        assert!(matches!(error, CheckpointError::Header { .. }), "{header}: {error}");
    }
    let error = open_error(&single(&[&2u64.to_le_bytes()[..], &[0xFF, 0xFE]].concat()));
    assert!(matches!(error, CheckpointError::Header { .. }), "{error}");
}

#[test]
fn byte_ranges_that_overlap_leave_gaps_or_have_the_wrong_size() {
    let two = |a: &str, b: &str, data: usize| {
        let header = format!(
            r#"{{"__metadata__": {{"format": "pt"}},
            "first": {{"dtype": "F32", "shape": [2], "data_offsets": {a}}},
            "second": {{"dtype": "F32", "shape": [2], "data_offsets": {b}}}}}"#
        );
        Checkpoint::open(single(&raw(&header, &vec![0; data])).path())
    };
    assert!(two("[0, 8]", "[8, 16]", 16).is_ok());
    assert!(two("[8, 16]", "[0, 8]", 16).is_ok());
    says(&two("[0, 8]", "[4, 12]", 12).unwrap_err(), &["first and second overlap at byte 4"]);
    says(&two("[0, 8]", "[0, 8]", 8).unwrap_err(), &["first and second overlap at byte 0"]);
    says(&two("[0, 8]", "[12, 20]", 20).unwrap_err(), &["bytes 8 to 12, next to tensor second"]);
    says(&two("[4, 12]", "[12, 20]", 20).unwrap_err(), &["bytes 0 to 4, next to tensor first"]);
    says(&two("[0, 8]", "[8, 16]", 20).unwrap_err(), &["bytes 16 to 20, next to tensor second"]);
    says(&two("[0, 8]", "[8, 17]", 17).unwrap_err(), &["second (F32 [2]) spans bytes 8 to 17"]);
    says(&two("[0, 8]", "[16, 8]", 16).unwrap_err(), &["second (F32 [2]) spans bytes 16 to 8"]);
    says(&two("[0, 8]", "[8, 16]", 12).unwrap_err(), &["expected", "the download is incomplete"]);
}

#[test]
fn sizes_that_overflow() {
    let one = |shape: &str, end: u64| {
        let header = format!(r#"{{"a": {{"dtype": "F32", "shape": {shape}, "data_offsets": [0, {end}]}}}}"#);
        open_error(&single(&raw(&header, &[0; 8])))
    };
    says(&one("[4294967296, 4294967296]", 8), &["tensor a", "which is not its size"]);
    says(&one("[2305843009213693951]", u64::MAX - 3), &["tensor a"]);
    // Eight tensors whose sizes are each possible but add up past 2^64.
    let size = (1u64 << 61) - 1;
    let entries = (0..9u64).map(|i| {
        let (begin, end) = (i.wrapping_mul(size), (i + 1).wrapping_mul(size));
        format!(r#""t{i}": {{"dtype": "U8", "shape": [{size}], "data_offsets": [{begin}, {end}]}}"#)
    });
    let header = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
    assert!(Checkpoint::open(single(&raw(&header, &[0; 8])).path()).is_err());
}

#[test]
fn types_that_do_not_fill_whole_bytes() {
    let header = r#"{"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 1]}}"#;
    says(&open_error(&single(&raw(header, &[0]))), &["a (F4 [3]) spans bytes 0 to 1"]);
}

#[test]
fn a_path_that_is_no_regular_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    says(&open_error(&dir), &["model.safetensors: cannot be read (not a regular file)"]);
}

/// Whatever one byte of a file is changed to, opening and reading it gives a value or an error.
#[test]
fn no_single_damaged_byte_causes_a_panic() {
    let content = shard(&[
        ("l.weight", "F8_E4M3", vec![1, 2], vec![0x38; 2]),
        ("l.weight_scale_inv", "F32", vec![1, 1], f32s(&[1.0])),
    ]);
    for at in 0..content.len() {
        for byte in [0x00, 0xFF, b'9', b'"', b'[', content[at] ^ 1] {
            let mut damaged = content.clone();
            damaged[at] = byte;
            if let Ok(checkpoint) = Checkpoint::open(single(&damaged).path()) {
                let _ = checkpoint.linear("l", MatrixShape::new(1, 2), Some(&FP8));
                checkpoint.names().for_each(|name| drop(checkpoint.bytes(name)));
            }
        }
    }
}
