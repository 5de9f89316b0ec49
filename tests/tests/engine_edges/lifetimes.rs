//! Handles and streams that go away, engines side by side.

use std::thread;

use crate::rig::{Rig, builder, engine, greedy, prompt};

#[test]
fn two_engines_in_one_process_do_not_see_each_other() {
    let expected = engine(&Rig::default()).generate(prompt(30, 0), greedy(30)).unwrap().token_ids;
    let engines = [engine(&Rig::default()), engine(&Rig::default())];
    thread::scope(|scope| {
        for engine in &engines {
            for _ in 0..2 {
                scope.spawn(|| {
                    assert_eq!(engine.generate(prompt(30, 0), greedy(30)).unwrap().token_ids, expected);
                });
            }
        }
    });
    let [first, second] = engines;
    drop(first);
    assert_eq!(second.generate(prompt(30, 0), greedy(30)).unwrap().token_ids, expected);
}

#[test]
fn streams_outlive_the_handle_and_the_engine_ends_with_the_last() {
    let rig = Rig::default();
    let engine = engine(&rig);
    let expected = engine.generate(prompt(30, 0), greedy(20)).unwrap().token_ids;
    let mut streams: Vec<_> = (0..3).map(|_| engine.stream(prompt(30, 0), greedy(20)).unwrap()).collect();
    drop(engine);
    let last = streams.pop().unwrap();
    drop(streams);
    assert_eq!(last.collect_all().unwrap().token_ids, expected);
    let steps = rig.num_steps();
    thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(rig.num_steps(), steps, "nothing runs after the last stream");
}

#[test]
fn a_stream_dropped_before_its_first_token_costs_no_step() {
    let rig = Rig::default();
    let engine = builder(&rig).max_num_seqs(1).build().unwrap();
    rig.hold();
    // Held at its first step, before which the others wait in the queue.
    let running = engine.stream(prompt(30, 0), greedy(2)).unwrap();
    for i in 0..100 {
        drop(engine.stream(prompt(30, i), greedy(1000)).unwrap());
    }
    rig.release();
    assert_eq!(running.collect_all().unwrap().token_ids.len(), 2);
    assert_eq!(engine.generate(prompt(30, 1), greedy(3)).unwrap().token_ids.len(), 3);
    assert!(rig.num_steps() <= 5, "{} steps", rig.num_steps());
}

#[test]
fn a_thousand_short_generations_leave_every_block_free() {
    let rig = Rig::default();
    let engine = builder(&rig).max_model_len(64).num_cache_tokens(64).block_size(4).max_num_seqs(4).build().unwrap();
    let mut expected = Vec::new();
    for i in 0..1000 {
        let stream = engine.stream(prompt(6, i % 5), greedy(3)).unwrap();
        match i % 10 {
            // Some are dropped at once, or after a token.
            7 => drop(stream),
            8 => drop(stream.into_iter().next().unwrap().unwrap()),
            _ => {
                let tokens = stream.collect_all().unwrap().token_ids;
                match expected.get(i as usize % 5) {
                    Some(known) => assert_eq!(tokens, *known),
                    None => expected.push(tokens),
                }
            }
        }
    }
    // The check of every step sees that the blocks are there.
    assert_eq!(engine.generate(prompt(63, 0), greedy(1)).unwrap().token_ids.len(), 1);
    assert_eq!(engine.generate(prompt(2, 0), greedy(62)).unwrap().token_ids.len(), 62);
}
