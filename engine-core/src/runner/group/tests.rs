#![allow(clippy::unwrap_used)]

use super::*;
use crate::backend::{NO_TOKEN, StepLimits, Tensor, TopLogits};
use crate::reference::{Numerics, ReferenceBackend, ReferenceStream};
use crate::runner::TopRows;
use crate::sampling::argmax;

const NUM_TOP: usize = 4;

/// Ids of three ranks; those from 17 on stand for no token, so the last rank has none at all.
const PARTS: [usize; 3] = [6, 11, 3];
const NUM_TOKEN_IDS: usize = 17;

fn info(vocab_size: usize, num_token_ids: usize) -> RunnerInfo {
    let limits = StepLimits { max_num_batched_tokens: 8, max_num_seqs: 8, max_model_len: 8, block_size: 8 };
    let (num_blocks, num_top_logits, has_mtp) = (1, NUM_TOP, false);
    RunnerInfo { limits, num_blocks, vocab_size, num_token_ids, num_top_logits, has_mtp }
}

fn vocabulary() -> Vocabulary {
    Vocabulary::new([info(6, 6), info(11, 11), info(3, 0)].into_iter())
}

fn top_of(logits: &[f32], num_ids: usize, inverse_temperature: f32) -> Vec<u32> {
    let backend = ReferenceBackend::new(Numerics::default());
    let stream = &mut ReferenceStream;
    let logits = Tensor::from_slice(&backend, stream, logits.len(), logits).unwrap();
    let inverse = Tensor::from_slice(&backend, stream, 1, &[inverse_temperature]).unwrap();
    let mut top = Tensor::alloc(&backend, 1, TopLogits::num_words(NUM_TOP)).unwrap();
    backend.top_logits(stream, &logits, &inverse, num_ids, &mut top).unwrap();
    top.as_slice().to_vec()
}

/// What each rank finds of rows that it has a part of.
fn found(rows: &[Vec<f32>], inverse_temperatures: &[f32]) -> Vec<RankResult> {
    let mut first_id = 0;
    let rank = |(index, len): (usize, usize)| {
        let mut result = RankResult::default();
        for (row, inverse_temperature) in rows.iter().zip(inverse_temperatures) {
            let part = &row[first_id..][..len];
            let num_ids = if index == 2 { 0 } else { len };
            result.output.logits.extend_from_slice(part);
            result.output.top_logits.extend(top_of(part, num_ids, *inverse_temperature));
        }
        first_id += len;
        result
    };
    PARTS.into_iter().enumerate().map(rank).collect()
}

fn rows() -> Vec<Vec<f32>> {
    let vocab_size: usize = PARTS.iter().sum();
    let spread = |seed: usize| (0..vocab_size).map(|i| ((i * 37 + seed * 11) % 19) as f32 - 9.0).collect::<Vec<_>>();
    let with = |mut row: Vec<f32>, changes: &[(usize, f32)]| {
        changes.iter().for_each(|(id, value)| row[*id] = *value);
        row
    };
    let none = vec![f32::NEG_INFINITY; vocab_size];
    vec![
        spread(0),
        spread(1),
        // Equals on two ranks and within one; the highest of all is no token.
        with(vec![1.0; vocab_size], &[(5, 7.0), (6, 7.0), (16, 7.0), (18, 9.0)]),
        with(spread(3), &[(2, f32::NAN), (8, f32::NAN), (9, f32::INFINITY)]),
        // One rank has nothing, the other a single candidate; then the other way round.
        with(none.clone(), &[(13, -3.0)]),
        with(none.clone(), &[(0, -3.0), (1, f32::NAN)]),
        // No candidate anywhere.
        with(none, &[(7, f32::NAN), (19, 5.0)]),
    ]
}

/// Parts of the ids, put together, are what one device finds of all of them.
#[test]
fn ranks_find_together_what_one_device_finds() {
    let rows = rows();
    let inverse: Vec<f32> = (0..rows.len()).map(|i| 0.5 + i as f32).collect();
    let ranks = found(&rows, &inverse);
    let all: Vec<u32> = (0..rows.len() as u32).collect();
    let mut vocabulary = vocabulary();
    let mut output = StepOutput::default();
    let wanted = WantedRows {
        logits: &all,
        top_logits: TopRows { rows: &all, inverse_temperatures: &inverse },
        best_tokens: &[],
    };
    assert_eq!(vocabulary.join((wanted, true), &ranks, &mut output), None);
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&output.logits), bits(&rows.concat()));
    for (i, words) in output.top_logits.chunks(TopLogits::num_words(NUM_TOP)).enumerate() {
        let expected = top_of(&rows[i], NUM_TOKEN_IDS, inverse[i]);
        let (expected, found) = (TopLogits::from_words(&expected), TopLogits::from_words(words));
        assert_eq!((found.ids, found.logits), (expected.ids, expected.logits), "row {i}");
        let means_something = expected.logits[0].is_finite();
        let error = (found.total - expected.total).abs() / expected.total;
        assert!(!means_something || error < 1e-6, "row {i}: {found:?}, expected {expected:?}");
    }
}

#[test]
fn the_best_token_is_that_of_all_ranks_or_there_is_none() {
    let rows = rows();
    let ranks = found(&rows, &vec![1.0; rows.len()]);
    let all: Vec<u32> = (0..rows.len() as u32).collect();
    for by_top in [true, false] {
        let mut output = StepOutput::default();
        let wanted = WantedRows::best_tokens(&all);
        let without = vocabulary().join((wanted, by_top), &ranks, &mut output);
        assert_eq!(without, Some(6), "the last row");
        let expected: Vec<_> = rows[..6].iter().map(|row| argmax(&row[..NUM_TOKEN_IDS]).unwrap()).collect();
        let found: Vec<_> = output.best_tokens.iter().map(|best| *best.as_ref().unwrap()).collect();
        assert_eq!(found, expected, "by top: {by_top}");
        assert!(!found.contains(&NO_TOKEN));
    }
}

/// A rank that finds the same in every step: all that is asked of the first rows of [`rows`].
struct Fixed {
    rows: Vec<Vec<f32>>,
    info: RunnerInfo,
    asked: Vec<usize>,
}

impl StepRunner for Fixed {
    fn capabilities(&self) -> &Capabilities {
        unreachable!("not asked")
    }

    fn info(&self) -> RunnerInfo {
        self.info
    }

    fn formats(&self) -> &BTreeMap<WeightClass, WeightFormat> {
        unreachable!("not asked")
    }

    fn step(
        &mut self,
        _: &[SequenceStep<'_>],
        wanted: WantedRows<'_>,
        output: &mut StepOutput,
    ) -> Result<(), StepError> {
        let rows = |rows: &[u32]| rows.iter().map(|row| *row as usize).collect::<Vec<_>>();
        self.asked = [rows(wanted.logits), rows(wanted.top_logits.rows)].concat();
        let logits = wanted.logits.iter().flat_map(|row| self.rows[*row as usize].iter().copied());
        output.logits = logits.collect();
        let top = wanted.top_logits.rows.iter().zip(wanted.top_logits.inverse_temperatures);
        output.top_logits = top
            .flat_map(|(row, inverse)| top_of(&self.rows[*row as usize], self.info.num_token_ids, *inverse))
            .collect();
        Ok(())
    }

    fn draft(&mut self, _: &[u32], wanted: WantedRows<'_>, output: &mut StepOutput) -> Result<(), StepError> {
        self.step(&[], wanted, output)
    }

    fn read_logits(&mut self, index: usize, logits: &mut Vec<f32>) -> Result<(), StepError> {
        self.rows[self.asked[index]].clone_into(logits);
        Ok(())
    }
}

/// Rows without a candidate are read again, in between and in every step, and the others keep what was found of them.
#[test]
fn rows_without_a_candidate_say_so_and_the_others_go_on() {
    let rows = rows();
    let parts = [(0..6, 6), (6..17, 11), (17..20, 0)];
    let ranks = Rank::group(parts.len()).into_iter().zip(parts).map(|(rank, (ids, num_token_ids))| {
        let info = info(ids.len(), num_token_ids);
        let rows = rows.iter().map(|row| row[ids.clone()].to_vec()).collect();
        let runner: Box<dyn StepRunner> = Box::new(Fixed { rows, info, asked: Vec::new() });
        (rank, runner)
    });
    let mut group = GroupRunner::new(ranks.collect()).unwrap();
    let best = |row: usize| {
        argmax(&rows[row][..NUM_TOKEN_IDS]).ok_or_else(|| SamplingError::no_candidate(&rows[row][..NUM_TOKEN_IDS]))
    };
    // At most eight rows are held together; of more, all logits are asked for.
    for asked in [vec![6, 0, 6, 1, 2], vec![0, 1], vec![6, 0, 1, 2, 3, 4, 5, 6, 0, 6]] {
        let wanted = WantedRows { logits: &[3], ..WantedRows::best_tokens(&asked) };
        let mut output = StepOutput::default();
        for _ in 0..2 {
            group.step(&[], wanted, &mut output).unwrap();
            let expected: Vec<_> = asked.iter().map(|row| best(*row as usize)).collect();
            assert_eq!(output.best_tokens, expected, "{asked:?}");
            assert_eq!(output.logits.len(), 20);
        }
    }
}

#[test]
fn a_group_speaks_of_all_ids() {
    let info = vocabulary().info(info(6, 6));
    assert_eq!((info.vocab_size, info.num_token_ids, info.num_top_logits), (20, NUM_TOKEN_IDS, NUM_TOP));
}
