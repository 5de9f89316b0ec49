//! Damaged and hostile checkpoints: the tiny model with one file changed at a time, in several hundred seeded ways.
//!
//! Whatever is in the files, opening, planning, building and generating either work or end in an error that names the
//! file, key or tensor at fault. Never a panic, never a hang, never an allocation of a size that a file claims.
#![cfg(feature = "cpu")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod json;
mod run;
mod shards;
mod text;

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
