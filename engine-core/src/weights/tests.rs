#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use super::*;
use crate::config::ModelConfig;

fn model(name: &str) -> (Checkpoint, ModelConfig) {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models").join(name);
    (Checkpoint::open(&dir).unwrap(), ModelConfig::from_dir(&dir).unwrap())
}

#[test]
fn the_tiny_models_hold_what_their_configurations_ask_for() {
    for name in ["tiny-deepseek-v3-bf16", "tiny-deepseek-v3-fp8"] {
        let (checkpoint, config) = model(name);
        let report = checkpoint.check(&config).unwrap();
        assert_eq!(report, CheckpointReport { has_mtp: true, unknown: vec![] }, "{name}");
    }
}
