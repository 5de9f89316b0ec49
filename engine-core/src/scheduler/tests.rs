#![allow(clippy::unwrap_used)]

use super::*;

fn limits(max_num_batched_tokens: usize, max_num_seqs: usize) -> StepLimits {
    StepLimits { max_num_batched_tokens, max_num_seqs, max_model_len: 64, block_size: 4 }
}

fn sequence(id: u64, len: usize) -> Sequence {
    Sequence::new(SequenceId(id), &vec![7; len], 64)
}

/// Runs one step: everything scheduled advances, sequences that caught up get a token.
fn run_step(scheduler: &mut Scheduler) -> Vec<(u64, usize)> {
    let mut step = Vec::new();
    scheduler.schedule(&mut step);
    let mut ran = Vec::new();
    for entry in &step {
        let sequence = &mut scheduler.running_mut()[entry.index];
        assert!(sequence.block_table().len() * 4 >= sequence.num_computed() + entry.num_tokens);
        sequence.advance(entry.num_tokens);
        if sequence.num_pending() == 0 {
            sequence.push(9);
        }
        ran.push((sequence.id().0, entry.num_tokens));
    }
    ran
}

#[test]
fn long_prompts_are_run_in_chunks_and_decodes_go_first() {
    let mut scheduler = Scheduler::new(limits(8, 4), 32);
    scheduler.add(sequence(0, 3));
    scheduler.add(sequence(1, 20));
    assert_eq!(run_step(&mut scheduler), [(0, 3), (1, 5)]);
    assert_eq!(run_step(&mut scheduler), [(0, 1), (1, 7)]);
    assert_eq!(run_step(&mut scheduler), [(0, 1), (1, 7)]);
    assert_eq!(run_step(&mut scheduler), [(0, 1), (1, 1)], "the last prompt token, then decoding");
    assert_eq!(run_step(&mut scheduler), [(0, 1), (1, 1)]);
}

#[test]
fn no_more_sequences_than_allowed_run_at_once() {
    let mut scheduler = Scheduler::new(limits(64, 2), 32);
    (0..3).for_each(|id| scheduler.add(sequence(id, 2)));
    assert_eq!(run_step(&mut scheduler), [(0, 2), (1, 2)]);
    scheduler.retire(|id| id.0 == 0);
    assert_eq!(run_step(&mut scheduler), [(1, 1), (2, 2)]);
}

#[test]
fn the_last_arrival_is_preempted_and_recomputed_whole() {
    let mut scheduler = Scheduler::new(limits(64, 4), 4);
    scheduler.add(sequence(0, 7));
    scheduler.add(sequence(1, 7));
    assert_eq!(run_step(&mut scheduler), [(0, 7), (1, 7)]);
    assert_eq!(run_step(&mut scheduler), [(0, 1), (1, 1)]);
    assert_eq!(run_step(&mut scheduler), [(0, 1)], "position 8 needs a third block: sequence 1 gives way");
    assert_eq!(scheduler.num_preemptions(), 1);
    scheduler.retire(|id| id.0 == 0);
    assert_eq!(run_step(&mut scheduler), [(1, 9)], "prompt and generated tokens are computed again");
    scheduler.retire(|_| true);
    assert!(scheduler.is_idle());
    assert_eq!(scheduler.pool().num_free(), 4, "every block came back");
}

#[test]
fn lent_blocks_come_from_running_sequences_when_none_are_free() {
    let mut scheduler = Scheduler::new(limits(64, 4), 4);
    scheduler.add(sequence(0, 8));
    scheduler.add(sequence(1, 8));
    run_step(&mut scheduler);
    let lent = scheduler.lend_blocks(9);
    assert_eq!(lent.len(), 3);
    scheduler.return_blocks(lent);
    scheduler.retire(|_| true);
    assert_eq!(scheduler.pool().num_free(), 4);
}
