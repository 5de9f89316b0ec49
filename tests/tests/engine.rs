//! The engine end to end on the default device: golden text, batches, cancellation, scores, refusals.
#![cfg(feature = "cpu")]
#![allow(clippy::unwrap_used)]

use std::thread;

use bathysphere::{
    ChatMessage, Device, Engine, Error, FinishReason, Prompt, RequestError, SamplingParams, ScoreOptions,
};
use conformance::golden::{GoldenMode, Goldens, model_dir};

fn engine() -> Engine {
    Engine::builder(model_dir("fp8")).device(Device::Cpu).load_mtp(true).build().unwrap()
}

fn greedy(max_tokens: usize) -> SamplingParams {
    SamplingParams { max_tokens: Some(max_tokens), ignore_eos: true, ..SamplingParams::greedy() }
}

#[test]
fn greedy_text_is_the_goldens_alone_and_in_a_batch() {
    let goldens = Goldens::load();
    let engine = engine();
    let alone: Vec<_> =
        goldens.json.prompts.iter().map(|p| engine.generate(p.ids.clone(), greedy(64)).unwrap()).collect();
    let streams: Vec<_> =
        goldens.json.prompts.iter().map(|p| engine.stream(p.ids.clone(), greedy(64)).unwrap()).collect();
    let together: Vec<_> = streams.into_iter().map(|s| s.collect_all().unwrap()).collect();
    for ((prompt, alone), together) in goldens.json.prompts.iter().zip(&alone).zip(&together) {
        let golden = goldens.result(GoldenMode::Fp8WeightsF32, &prompt.name);
        let first_tie = golden.gaps.iter().position(|gap| *gap < 0.01).unwrap_or(64);
        assert_eq!(alone.token_ids[..first_tie], golden.greedy[..first_tie], "{}", prompt.name);
        assert_eq!(alone.token_ids, together.token_ids, "{}: alone and in a batch of 12", prompt.name);
        if first_tie == 64 {
            assert_eq!(alone.text.as_deref(), Some(golden.text.as_str()), "{}", prompt.name);
        }
        assert_eq!(alone.finish_reason, FinishReason::Length);
        assert_eq!(alone.usage.prompt_tokens, prompt.ids.len());
        assert_eq!(alone.usage.completion_tokens, 64);
    }
}

#[test]
fn seeded_sampling_does_not_depend_on_the_batch() {
    let engine = engine();
    let params = |seed| SamplingParams { max_tokens: Some(24), seed: Some(seed), top_p: 0.95, ..Default::default() };
    let alone: Vec<_> = (0..4).map(|seed| engine.generate("fn main() {", params(seed)).unwrap().token_ids).collect();
    let streams: Vec<_> = (0..4).map(|seed| engine.stream("fn main() {", params(seed)).unwrap()).collect();
    let together: Vec<_> = streams.into_iter().map(|s| s.collect_all().unwrap().token_ids).collect();
    assert_eq!(alone, together);
    assert_ne!(alone[0], alone[1], "different seeds, different text");
}

#[test]
fn a_full_cache_preempts_and_changes_nothing() {
    let prompt: Vec<u32> = (10..130).collect();
    let wide = engine();
    let expected = wide.generate(prompt.clone(), greedy(80)).unwrap().token_ids;
    let narrow = Engine::builder(model_dir("fp8"))
        .device(Device::Cpu)
        .max_model_len(256)
        .num_cache_tokens(512)
        .max_num_batched_tokens(100)
        .build()
        .unwrap();
    let streams: Vec<_> = (0..6).map(|_| narrow.stream(prompt.clone(), greedy(80)).unwrap()).collect();
    for stream in streams {
        assert_eq!(stream.collect_all().unwrap().token_ids, expected);
    }
}

#[test]
fn dropping_a_stream_frees_its_place() {
    let engine = Engine::builder(model_dir("fp8")).device(Device::Cpu).max_num_seqs(1).build().unwrap();
    let mut long = engine.stream("In the beginning", greedy(2000)).unwrap();
    long.next().unwrap().unwrap();
    drop(long);
    let next = engine.generate("fn main() {", greedy(4)).unwrap();
    assert_eq!(next.token_ids.len(), 4);
}

#[test]
fn one_engine_serves_many_threads_and_outlives_its_first_handle() {
    let engine = engine();
    let expected = engine.generate("use std::", greedy(16)).unwrap().token_ids;
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let engine = engine.clone();
            thread::spawn(move || engine.generate("use std::", greedy(16)).unwrap().token_ids)
        })
        .collect();
    let stream = engine.stream("use std::", greedy(16)).unwrap();
    drop(engine);
    for thread in threads {
        assert_eq!(thread.join().unwrap(), expected);
    }
    assert_eq!(stream.collect_all().unwrap().token_ids, expected, "a stream keeps its engine alive");
}

#[test]
fn chat_goes_through_the_checkpoints_template_and_stops_at_its_end() {
    let engine = engine();
    let messages = [ChatMessage::user("What is a trait?")];
    let answer = engine.chat(&messages, SamplingParams { max_tokens: Some(200), ..SamplingParams::greedy() }).unwrap();
    let text = answer.text.unwrap();
    assert!(!text.contains('｜'), "no marker in the text: {text}");
    assert!(answer.usage.prompt_tokens > 4);
}

#[test]
fn stop_strings_end_the_text_before_them() {
    let engine = engine();
    let whole = engine.generate("In the beginning", greedy(40)).unwrap().text.unwrap();
    let stop = whole.char_indices().nth(whole.chars().count() / 2).map(|(at, _)| &whole[at..at + 3]).unwrap();
    let params = SamplingParams { stop: vec![stop.to_owned()], ..greedy(40) };
    let cut = engine.generate("In the beginning", params).unwrap();
    assert_eq!(cut.finish_reason, FinishReason::Stop);
    assert_eq!(cut.text.unwrap(), whole[..whole.find(stop).unwrap()]);
}

#[test]
fn scores_are_the_goldens_to_four_digits() {
    let goldens = Goldens::load();
    let engine = engine();
    for file in ["heldout_kjv.txt", "heldout_rust.txt"] {
        let golden = goldens.json.heldout.modes["fp8w_f32"][file]["window_512"];
        let options = ScoreOptions { window: Some(512), drafts: true };
        let report = engine.score(&goldens.json.heldout.files[file].ids, options).unwrap();
        assert_eq!(report.tokens.len(), golden.tokens);
        assert!((report.perplexity / golden.perplexity - 1.0).abs() < 5e-5, "{} {golden:?}", report.perplexity);
        let drafts = report.drafts.unwrap();
        let acceptance = drafts.equal as f64 / drafts.compared as f64;
        assert!((acceptance - golden.draft_acceptance).abs() < 0.002, "{acceptance} {golden:?}");
    }
}

#[test]
fn impossible_requests_are_refused_by_name() {
    let engine = engine();
    let refused = |prompt: Prompt| match engine.generate(prompt, greedy(1)) {
        Err(Error::Request(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(Prompt::Tokens(vec![])), RequestError::EmptyPrompt);
    assert!(matches!(refused(vec![5; 2048].into()), RequestError::PromptTooLong { num_tokens: 2048, .. }));
    assert_eq!(
        refused(vec![1, 4096].into()),
        RequestError::UnknownToken { token_id: 4096, position: 1, vocab_size: 4096 }
    );
    let hot = SamplingParams { temperature: f32::NAN, ..Default::default() };
    assert!(matches!(engine.generate("a", hot), Err(Error::Sampling(_))));
    let longest = engine.generate(vec![5; 2047], greedy(50)).unwrap();
    assert_eq!((longest.token_ids.len(), longest.finish_reason), (1, FinishReason::Length), "one place was left");
    let too_long = Engine::builder(model_dir("fp8")).device(Device::Cpu).max_model_len(4096).build();
    assert!(matches!(too_long, Err(Error::Request(RequestError::BuildOption { option: "max_model_len", .. }))));
}
