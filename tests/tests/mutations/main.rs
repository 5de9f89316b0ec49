//! Damaged and hostile checkpoints: the tiny model with one file changed at a time, in several hundred seeded ways.
//!
//! Whatever is in the files, opening, planning, building and generating either work or end in an error that names the
//! file, key or tensor at fault. Never a panic, never a hang, never an allocation of a size that a file claims.
#![cfg(feature = "cpu")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod json;
mod quantised;
mod run;
mod shards;
mod text;

use bathysphere::Precision;
use bathysphere::convert::{ConvertOptions, convert_checkpoint};
use conformance::golden::model_dir;

use run::Tally;

#[test]
fn configurations() {
    let mut tally = Tally::default();
    for case in json::config_cases().into_iter().chain(json::generation_config_cases()) {
        tally.run(case);
    }
    tally.finish(500);
}

#[test]
fn indices_and_shards() {
    let mut tally = Tally::default();
    for case in json::index_cases().into_iter().chain(shards::cases()) {
        tally.run(case);
    }
    tally.finish(200);
}

#[test]
fn tokenizers_and_templates() {
    let mut tally = Tally::default();
    for case in text::cases() {
        tally.run(case);
    }
    tally.finish(300);
}

#[test]
fn int8_and_int4_checkpoints() {
    let mut tally = Tally::default();
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let int8 = [(".weight", "I8"), (".weight_scale", "F32")];
    let int4 = [(".weight_packed", "I32"), (".weight_scale", "F32"), (".weight_shape", "I64")];
    for (precision, stored) in [(Precision::Int8, &int8[..]), (Precision::Int4, &int4[..])] {
        let dir = root.path().join(precision.to_string());
        let options = ConvertOptions { policy: precision.into() };
        convert_checkpoint(&model_dir("fp8"), &dir, &options, &mut |_| {}).unwrap();
        for case in quantised::cases(&dir, stored) {
            tally.run(case);
        }
    }
    tally.finish(300);
}
