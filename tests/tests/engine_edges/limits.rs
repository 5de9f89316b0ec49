//! The smallest and the largest sizes an engine can be built with.

use bathysphere::{Device, Engine, Error, FinishReason, RequestError, SamplingParams};
use conformance::golden::model_dir;

use crate::rig::{Rig, builder, engine, greedy, prompt};

#[test]
fn sizes_of_steps_blocks_and_windows_do_not_change_the_tokens() {
    let expected = engine(&Rig::default()).generate(prompt(50, 0), greedy(30)).unwrap().token_ids;
    let together = |rig: &Rig, engine: Engine| {
        let streams: Vec<_> = (0..5).map(|_| engine.stream(prompt(50, 0), greedy(30)).unwrap()).collect();
        for stream in streams {
            assert_eq!(stream.collect_all().unwrap().token_ids, expected);
        }
        rig.largest_batch()
    };
    let rig = Rig::default();
    assert_eq!(together(&rig, builder(&rig).max_num_batched_tokens(1).build().unwrap()), 1);
    let rig = Rig::default();
    together(&rig, builder(&rig).block_size(1).max_num_batched_tokens(7).build().unwrap());
    let rig = Rig::default();
    assert!(together(&rig, builder(&rig).max_num_seqs(2).build().unwrap()) <= 2);
    let rig = Rig::default();
    together(&rig, builder(&rig).max_model_len(97).block_size(64).build().unwrap());
    let rig = Rig::default();
    together(&rig, builder(&rig).max_model_len(80).block_size(65_536).num_cache_tokens(80).build().unwrap());
}

#[test]
fn a_cache_of_one_window_serves_many_sequences_in_a_bounded_number_of_steps() {
    let expected: Vec<_> = {
        let engine = engine(&Rig::default());
        (0..12).map(|i| engine.generate(prompt(30, i), greedy(60)).unwrap().token_ids).collect()
    };
    let rig = Rig::default();
    let engine = builder(&rig).max_model_len(96).num_cache_tokens(96).block_size(4).build().unwrap();
    let streams: Vec<_> = (0..12).map(|i| engine.stream(prompt(30, i), greedy(60)).unwrap()).collect();
    for (stream, expected) in streams.into_iter().zip(expected) {
        assert_eq!(stream.collect_all().unwrap().token_ids, expected);
    }
    // The first of them advances with every step: never more than one after the other.
    assert!(rig.num_steps() <= 12 * 61, "{} steps", rig.num_steps());
}

#[test]
fn a_prompt_may_fill_the_window_but_for_one_token() {
    let engine = builder(&Rig::default()).max_model_len(40).block_size(16).max_num_batched_tokens(16).build().unwrap();
    let full = engine.generate(prompt(39, 0), SamplingParams::greedy()).unwrap();
    assert_eq!((full.token_ids.len(), full.finish_reason), (1, FinishReason::Length));
    let half = engine.generate(prompt(20, 0), greedy(1000)).unwrap();
    assert_eq!((half.token_ids.len(), half.finish_reason), (20, FinishReason::Length));
    let refused = engine.generate(prompt(40, 0), greedy(1)).unwrap_err();
    assert!(refused.to_string().contains("at most 39 tokens"), "{refused}");
    assert_eq!(engine.score(&prompt(41, 0), Default::default()).unwrap().tokens.len(), 40, "a whole window is scored");
}

#[test]
fn impossible_sizes_are_refused_before_anything_is_allocated() {
    type Set = fn(bathysphere::EngineBuilder<Device>, usize) -> bathysphere::EngineBuilder<Device>;
    let options: [(&str, Set); 5] = [
        ("max_model_len", |builder, value| builder.max_model_len(value)),
        ("max_num_seqs", |builder, value| builder.max_num_seqs(value)),
        ("max_num_batched_tokens", |builder, value| builder.max_num_batched_tokens(value)),
        ("num_cache_tokens", |builder, value| builder.num_cache_tokens(value)),
        ("block_size", |builder, value| builder.block_size(value)),
    ];
    for device in [Device::Cpu, Device::Reference] {
        for (name, set) in options {
            for wrong in [0, usize::MAX, usize::MAX / 2, 1 << 40] {
                let builder = set(Engine::builder(model_dir("fp8")).device(device), wrong);
                match builder.build().map(drop) {
                    Err(Error::Request(RequestError::BuildOption { option, value, accepted })) => {
                        assert_eq!((option, value), (name, wrong));
                        assert!(accepted.contains("..="), "{accepted}");
                    }
                    other => panic!("{device}, {name} = {wrong}: {other:?}"),
                }
            }
        }
        let one = Engine::builder(model_dir("fp8")).device(device).max_model_len(1).build();
        assert!(matches!(one, Err(Error::Request(RequestError::BuildOption { option: "max_model_len", .. }))));
    }
}

/// The reference knows no limit of memory: what it cannot allocate is an error, not the end of the process.
#[test]
fn memory_that_is_not_there_is_an_error() {
    let limit = 1 << 31;
    let error = Engine::builder(model_dir("fp8")).device(Device::Reference).num_cache_tokens(limit).build();
    // 8 TiB. A system that promises any amount may let it pass; then nothing of it is touched.
    if let Err(error) = error {
        assert!(error.to_string().contains("out of memory"), "{error}");
    }
    let error = Engine::builder(model_dir("fp8")).device(Device::Cpu).num_cache_tokens(limit).build().unwrap_err();
    assert!(error.to_string().contains("num_cache_tokens"), "{error}");
}
