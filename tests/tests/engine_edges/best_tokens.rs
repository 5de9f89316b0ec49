//! Greedy requests of which only the token counts need no logits, and give the same tokens.

use bathysphere::SamplingParams;

use crate::rig::{Rig, engine, greedy, prompt};

/// A greedy request whose every token is chosen from logits: it wants to know their log-probabilities.
fn with_logits(max_tokens: usize) -> SamplingParams {
    SamplingParams { logprobs: Some(0), ..greedy(max_tokens) }
}

#[test]
fn greedy_tokens_are_the_same_with_and_without_logits() {
    let rig = Rig::default();
    let engine = engine(&rig);
    for salt in 0..4 {
        let before = rig.num_rows();
        let best = engine.generate(prompt(20, salt), greedy(40)).unwrap();
        assert_eq!(rig.num_rows(), (before.0, before.1 + 40), "no row of logits");
        let sampled = engine.generate(prompt(20, salt), with_logits(40)).unwrap();
        assert_eq!(rig.num_rows(), (before.0 + 40, before.1 + 40), "rows of logits only");
        assert_eq!((best.token_ids, best.text), (sampled.token_ids, sampled.text));
        assert_eq!((best.logprobs.is_some(), sampled.logprobs.unwrap().len()), (false, 40));
    }
}

#[test]
fn a_batch_may_mix_both_and_draws() {
    let rig = Rig::default();
    let engine = engine(&rig);
    let params = |i: u32| match i % 3 {
        0 => greedy(30),
        1 => with_logits(30),
        _ => SamplingParams { temperature: 0.8, seed: Some(u64::from(i)), ..greedy(30) },
    };
    let expected: Vec<_> =
        (0..12).map(|i| engine.generate(prompt(10 + i as usize, i), params(i)).unwrap().token_ids).collect();
    let before = rig.num_rows();
    rig.hold();
    let streams: Vec<_> = (0..12).map(|i| engine.stream(prompt(10 + i as usize, i), params(i)).unwrap()).collect();
    rig.release();
    for (stream, expected) in streams.into_iter().zip(expected) {
        assert_eq!(stream.collect_all().unwrap().token_ids, expected);
    }
    assert_eq!(rig.num_rows(), (before.0 + 8 * 30, before.1 + 4 * 30));
    assert!(rig.largest_batch() > 3, "they ran together");
}

#[test]
fn whatever_changes_logits_gets_logits() {
    let rig = Rig::default();
    let engine = engine(&rig);
    let num_logit_rows = |params: SamplingParams| {
        let before = rig.num_rows();
        engine.generate(prompt(20, 0), params).unwrap();
        let after = rig.num_rows();
        assert_eq!(after.0 - before.0 + after.1 - before.1, 10);
        after.0 - before.0
    };
    let base = || greedy(10);
    assert_eq!(num_logit_rows(base()), 0);
    assert_eq!(num_logit_rows(SamplingParams { top_p: 0.5, top_k: 3, min_p: 0.1, seed: Some(1), ..base() }), 0);
    assert_eq!(num_logit_rows(SamplingParams { logprobs: Some(0), ..base() }), 10);
    assert_eq!(num_logit_rows(SamplingParams { logit_bias: [(7, 0.0)].into(), ..base() }), 10);
    assert_eq!(num_logit_rows(SamplingParams { repetition_penalty: 1.1, ..base() }), 10);
    assert_eq!(num_logit_rows(SamplingParams { frequency_penalty: 0.1, ..base() }), 10);
    assert_eq!(num_logit_rows(SamplingParams { presence_penalty: 0.1, ..base() }), 10);
    assert_eq!(num_logit_rows(SamplingParams { temperature: 0.5, ..base() }), 10);
    // Ends are forbidden until min_tokens are there; without ends nothing is.
    let stop = SamplingParams { min_tokens: 4, stop_token_ids: vec![4095], ..base() };
    assert_eq!(num_logit_rows(stop), 4);
    assert_eq!(num_logit_rows(SamplingParams { min_tokens: 4, ..base() }), 0);
}
