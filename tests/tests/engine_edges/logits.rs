//! Logits and scores beside generations, with consumers that read, wait or leave.

use bathysphere::{Error, RequestError, ScoreOptions};

use crate::rig::{Rig, builder, engine, greedy, prompt};

/// Four chunks of logits.
const TEXT: usize = 500;

fn rows(engine: &bathysphere::Engine, tokens: &[u32]) -> Vec<f32> {
    engine.logits(tokens, false).unwrap().flat_map(|chunk| chunk.unwrap().logits).collect()
}

/// In a cache of a single window both sides take the blocks from each other and start over.
#[test]
fn neither_scores_nor_generations_change_beside_each_other() {
    let text = prompt(TEXT, 7);
    let expected_rows = rows(&engine(&Rig::default()), &text);
    let expected = engine(&Rig::default()).generate(prompt(100, 0), greedy(60)).unwrap().token_ids;
    for num_cache_tokens in [512, 4096] {
        let rig = Rig::default();
        let engine = builder(&rig).max_model_len(512).num_cache_tokens(num_cache_tokens).build().unwrap();
        let streams: Vec<_> = (0..3).map(|_| engine.stream(prompt(100, 0), greedy(60)).unwrap()).collect();
        for _ in 0..3 {
            assert_eq!(rows(&engine, &text), expected_rows);
        }
        for stream in streams {
            assert_eq!(stream.collect_all().unwrap().token_ids, expected);
        }
    }
}

#[test]
fn logits_that_nobody_reads_hold_up_nobody() {
    let rig = Rig::default();
    let engine = builder(&rig).max_model_len(512).num_cache_tokens(512).load_mtp(true).build().unwrap();
    let (a, b) = (prompt(TEXT, 1), prompt(TEXT, 2));
    let expected = (rows(&engine, &a), rows(&engine, &b));
    let expected_drafts: Vec<_> = engine.logits(&a, true).unwrap().map(|chunk| chunk.unwrap().draft_logits).collect();
    let tokens = engine.generate(prompt(100, 0), greedy(20)).unwrap().token_ids;

    let mut first = engine.logits(&a, true).unwrap();
    let mut second = engine.logits(&b, false).unwrap();
    let (mut read_a, mut drafts, mut read_b) = (Vec::new(), Vec::new(), Vec::new());
    // One chunk of each in turn, a generation between them: each takes the single window's blocks from the others.
    loop {
        let (chunk_a, chunk_b) = (first.next(), second.next());
        assert_eq!(engine.generate(prompt(100, 0), greedy(20)).unwrap().token_ids, tokens);
        if chunk_a.is_none() && chunk_b.is_none() {
            break;
        }
        if let Some(chunk) = chunk_a {
            let chunk = chunk.unwrap();
            assert_eq!(chunk.first_position * engine.config().vocab_size, read_a.len());
            read_a.extend(chunk.logits);
            drafts.push(chunk.draft_logits);
        }
        read_b.extend(chunk_b.into_iter().flat_map(|chunk| chunk.unwrap().logits));
    }
    assert_eq!((read_a, read_b), expected);
    assert_eq!(drafts, expected_drafts);
}

#[test]
fn a_consumer_of_logits_that_leaves_frees_the_window() {
    let rig = Rig::default();
    let engine = builder(&rig).max_model_len(512).num_cache_tokens(512).build().unwrap();
    for num_read in 0..3 {
        let mut logits = engine.logits(&prompt(TEXT, 1), false).unwrap();
        logits.by_ref().take(num_read).for_each(|chunk| drop(chunk.unwrap()));
        drop(logits);
    }
    assert_eq!(engine.generate(prompt(511, 0), greedy(5)).unwrap().token_ids.len(), 1, "a whole window fits");
    let unread = engine.logits(&prompt(TEXT, 1), false).unwrap();
    drop(engine);
    drop(unread);
}

#[test]
fn a_text_longer_than_the_window_is_scored_window_by_window() {
    let engine = builder(&Rig::default()).max_model_len(100).build().unwrap();
    let text = prompt(250, 3);
    let whole = engine.score(&text, ScoreOptions::default()).unwrap();
    assert_eq!(whole.tokens.len(), 249);
    let mut parts = Vec::new();
    for (start, end) in [(0, 101), (100, 201), (200, 250)] {
        parts.extend(engine.score(&text[start..end], ScoreOptions::default()).unwrap().tokens);
    }
    assert_eq!(whole.tokens, parts);
    let sum: f64 = parts.iter().map(|token| token.nll).sum();
    assert_eq!(whole.nll_sum, sum);
}

#[test]
fn what_cannot_be_scored_is_refused_by_name() {
    let engine = engine(&Rig::default());
    let refused = |tokens: &[u32], window, drafts| match engine.score(tokens, ScoreOptions { window, drafts }) {
        Err(Error::Request(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&[], None, false), RequestError::NothingToScore { num_tokens: 0 });
    assert_eq!(refused(&[5], None, false), RequestError::NothingToScore { num_tokens: 1 });
    let unknown = RequestError::UnknownToken { token_id: 4096, position: 2, vocab_size: 4096 };
    assert_eq!(refused(&[5, 6, 4096], None, false), unknown, "predicted, never run");
    assert_eq!(refused(&[5, 6], Some(0), false), RequestError::Window { window: 0, max_model_len: 2048 });
    assert_eq!(refused(&[5, 6], Some(2049), false), RequestError::Window { window: 2049, max_model_len: 2048 });
    assert_eq!(refused(&[5, 6], None, true), RequestError::NoMtp);
    assert!(matches!(engine.logits(&[], false), Err(Error::Request(RequestError::EmptyPrompt))));
}
