//! The index and the files it names.

use super::*;

fn one(name: &str) -> Vec<u8> {
    shard(&[(name, "F32", vec![1], f32s(&[1.0]))])
}

#[test]
fn a_missing_shard_is_named_with_a_tensor_it_should_hold() {
    let dir = indexed(json!({"x": "a.safetensors", "y": "b.safetensors"}), &[("a.safetensors", one("x"))]);
    let error = open_error(&dir);
    assert!(matches!(error, CheckpointError::MissingShard { .. }));
    says(&error, &["b.safetensors: missing", "index.json says it holds y"]);
}

#[test]
fn a_tensor_that_is_not_in_its_shard() {
    let dir = indexed(json!({"x": "a.safetensors", "y": "a.safetensors"}), &[("a.safetensors", one("x"))]);
    let error = open_error(&dir);
    assert!(matches!(error, CheckpointError::NotInShard { .. }));
    says(&error, &["a.safetensors: lacks tensor y"]);
    // It being in another file of the index does not help.
    let files = [("a.safetensors", one("x")), ("b.safetensors", one("y"))];
    let error = open_error(&indexed(json!({"x": "b.safetensors", "y": "b.safetensors"}), &files));
    says(&error, &["b.safetensors: lacks tensor x"]);
}

#[test]
fn file_names_that_leave_the_directory() {
    for name in ["../a.safetensors", "/a.safetensors", "sub/a.safetensors", "..", ".", "", "c:a", "s\\a", "a/"] {
        let error = open_error(&indexed(json!({"x": name}), &[]));
        assert!(matches!(error, CheckpointError::FileName { .. }), "{name}: {error}");
        says(&error, &["tensor x", "only plain file names"]);
    }
}

#[test]
fn an_index_that_is_none() {
    for text in ["", "[]", "{}", r#"{"weight_map": {"x": 1}}"#, r#"{"weight_map": ["x"]}"#] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("model.safetensors.index.json"), text).unwrap();
        let error = open_error(&dir);
        assert!(matches!(error, CheckpointError::Index { .. }), "{text}: {error}");
    }
}

#[test]
fn a_tensor_in_two_files_is_taken_from_the_one_the_index_names() {
    let x = |value| shard(&[("x", "F32", vec![1], f32s(&[value])), ("extra", "F32", vec![1], f32s(&[0.0]))]);
    let b = shard(&[("x", "F32", vec![1], f32s(&[2.0])), ("y", "F32", vec![1], f32s(&[3.0]))]);
    let files = [("a.safetensors", x(1.0)), ("b.safetensors", b)];
    let checkpoint = open(&indexed(json!({"x": "b.safetensors", "y": "b.safetensors"}), &files));
    assert_eq!(checkpoint.vector_f32("x", 1).unwrap(), [2.0]);
    assert!(!checkpoint.contains("extra"), "a file that the index does not name is not opened");

    let files = [("a.safetensors", x(1.0)), ("b.safetensors", x(2.0))];
    let map = json!({"x": "a.safetensors", "y": "b.safetensors"});
    says(&open_error(&indexed(map, &files)), &["tensor extra is both in", "a.safetensors", "b.safetensors"]);
}
