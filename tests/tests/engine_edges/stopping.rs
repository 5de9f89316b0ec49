//! When a generation ends, and with which text.

use bathysphere::{Engine, Error, FinishReason, SamplingParams};

use crate::rig::{Rig, builder, engine, greedy, prompt};

/// The tokens of a greedy generation, and their text.
fn plain(engine: &Engine) -> (Vec<u32>, String) {
    let generation = engine.generate(prompt(12, 0), greedy(40)).unwrap();
    (generation.token_ids, generation.text.unwrap())
}

#[test]
fn no_tokens_at_all_are_refused_with_the_accepted_range() {
    let engine = engine(&Rig::default());
    let error = engine.generate(prompt(4, 0), greedy(0)).unwrap_err();
    assert!(matches!(error, Error::Sampling(_)));
    assert!(error.to_string().contains("max_tokens: found 0, accepted at least 1"), "{error}");
    let params = SamplingParams { min_tokens: 5, ..greedy(4) };
    let error = engine.generate(prompt(4, 0), params).unwrap_err();
    assert!(error.to_string().contains("min_tokens: found 5, accepted 0 to max_tokens (4)"), "{error}");
}

#[test]
fn stop_ids_end_a_generation_once_min_tokens_are_there() {
    let engine = engine(&Rig::default());
    let (tokens, _) = plain(&engine);
    let stop = tokens[7];
    let first = tokens.iter().position(|token| *token == stop).unwrap();
    let params = SamplingParams { stop_token_ids: vec![stop], ..greedy(40) };
    let stopped = engine.generate(prompt(12, 0), params.clone()).unwrap();
    assert_eq!((stopped.token_ids.as_slice(), stopped.finish_reason), (&tokens[..=first], FinishReason::Stop));
    // Before min_tokens the stop id is not drawn at all.
    let later = engine.generate(prompt(12, 0), SamplingParams { min_tokens: 20, ..params }).unwrap();
    assert!(later.token_ids.len() >= 20);
    assert!(!later.token_ids[..20].contains(&stop));
}

#[test]
fn every_eos_id_of_a_list_ends_and_ignore_eos_passes_them_all() {
    let (tokens, _) = plain(&engine(&Rig::default()));
    let (first, second) = (tokens[5], tokens[9]);
    let dir = crate::checkpoints::changed_config(|config| config["eos_token_id"] = vec![second, first].into());
    std::fs::remove_file(dir.path().join("generation_config.json")).unwrap();
    let engine = Engine::builder(dir.path()).device(Rig::default()).build().unwrap();
    let end = tokens.iter().position(|token| [first, second].contains(token)).unwrap();
    let params = SamplingParams { max_tokens: Some(40), ..SamplingParams::greedy() };
    let stopped = engine.generate(prompt(12, 0), params).unwrap();
    assert_eq!((stopped.token_ids.as_slice(), stopped.finish_reason), (&tokens[..=end], FinishReason::Stop));
    assert_eq!(engine.generate(prompt(12, 0), greedy(40)).unwrap().token_ids, tokens);
}

#[test]
fn stop_strings_wait_for_min_tokens() {
    let engine = engine(&Rig::default());
    let (tokens, text) = plain(&engine);
    let stop: String = text.chars().take(3).collect();
    let params = SamplingParams { stop: vec![stop.clone()], ..greedy(40) };
    let at_once = engine.generate(prompt(12, 0), params.clone()).unwrap();
    assert_eq!((at_once.text.as_deref(), at_once.finish_reason), (Some(""), FinishReason::Stop));
    let all = SamplingParams { min_tokens: 40, ..params };
    let passed = engine.generate(prompt(12, 0), all).unwrap();
    assert_eq!((passed.token_ids, passed.text), (tokens, Some(text)));
}

/// A window that ends before `min_tokens` gives out the text that was held back as the beginning of a stop string.
#[test]
fn the_text_is_whole_where_the_window_ends_before_min_tokens() {
    let (tokens, _) = plain(&engine(&Rig::default()));
    let engine = builder(&Rig::default()).max_model_len(12 + 10).build().unwrap();
    let text = engine.generate(prompt(12, 0), greedy(1000)).unwrap().text.unwrap();
    let last = text.chars().last().unwrap();
    let params = SamplingParams { min_tokens: 30, stop: vec![format!("{last}never")], ..greedy(1000) };
    let generation = engine.generate(prompt(12, 0), params).unwrap();
    assert_eq!(generation.token_ids, tokens[..10]);
    assert_eq!((generation.text, generation.finish_reason), (Some(text), FinishReason::Length));
}
