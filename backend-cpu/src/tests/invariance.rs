//! A token's result is its own, bit for bit.

use engine_core::backend::ExpertsWeights;
use engine_core::quant::WeightFormat;

use super::attention::{FORMS, HIDDEN, RAGGED, WHOLE};
use super::moe::{random_choice, run_experts};
use super::world::{Attention, Part, Random, cpu};
use crate::{CpuBackend, CpuOptions, MlaForm, SimdLevel};

const LEN: usize = 200;

/// The sequence alone, in steps that end at `ends`, in the given blocks.
fn alone(attention: &mut Attention<'_, CpuBackend>, x: &[f32], ends: &[usize], blocks: &[u32]) -> Vec<f32> {
    let starts = std::iter::once(&0).chain(ends);
    starts.zip(ends).flat_map(|(start, end)| attention.step(&[Part { x, positions: *start..*end, blocks }])).collect()
}

#[test]
fn attention_does_not_depend_on_chunks_blocks_neighbours_or_threads() {
    for level in SimdLevel::available() {
        for (form, dims) in FORMS.into_iter().flat_map(|form| [(form, RAGGED), (form, WHOLE)]) {
            let mut random = Random::new(50);
            let (spec, weights) = random.mla(WeightFormat::Fp8Block, dims, HIDDEN);
            let x = random.values(LEN * HIDDEN);
            let other = random.values(LEN * HIDDEN);
            let blocks: Vec<u32> = (0..13).collect();
            let backend = cpu(level, form);
            let whole = alone(&mut Attention::new(&backend, &spec, &weights, 32), &x, &[LEN], &blocks);
            let width = whole.len() / LEN;

            let chunked = [1, 2, 17, 64, 65, 130, 131, 199, LEN];
            let scattered: Vec<u32> = (0..13).map(|i| (i * 7 + 3) % 32).collect();
            let again = alone(&mut Attention::new(&backend, &spec, &weights, 32), &x, &chunked, &scattered);
            assert!(again == whole, "{level} {form:?}: chunks or blocks changed a result");

            for threads in [1, 2, 5] {
                let options = CpuOptions { threads: Some(threads), mla_form: form, simd: Some(level) };
                let backend = CpuBackend::new(options).unwrap();
                let again = alone(&mut Attention::new(&backend, &spec, &weights, 32), &x, &[LEN], &blocks);
                assert!(again == whole, "{level} {form:?}: {threads} threads changed a result");
            }

            let other_blocks: Vec<u32> = (13..26).collect();
            let mut attention = Attention::new(&backend, &spec, &weights, 32);
            for (mine, theirs) in [(0..90, 0..3), (90..91, 3..50), (91..LEN, 50..51)] {
                let part = Part { x: &x, positions: mine.clone(), blocks: &blocks };
                let neighbour = Part { x: &other, positions: theirs.clone(), blocks: &other_blocks };
                let both = attention.step(&[neighbour, part]);
                let found = &both[theirs.len() * width..];
                let expected = &whole[mine.start * width..mine.end * width];
                assert!(found == expected, "{level} {form:?}: a neighbour changed positions {mine:?}");
            }
        }
    }
}

#[test]
fn experts_do_not_depend_on_other_tokens_or_threads() {
    let (hidden, top_k, num_tokens) = (160, 3, 40);
    for level in SimdLevel::available() {
        let mut random = Random::new(60);
        let weights = ExpertsWeights {
            routed: (0..6).map(|_| random.ffn(WeightFormat::Fp8Block, hidden, 72)).collect(),
            shared: Some(random.ffn(WeightFormat::Fp8Block, hidden, 72)),
        };
        let x = random.values(num_tokens * hidden);
        let (ids, combine) = random_choice(&mut random, num_tokens, 6, top_k);
        let together = |threads| {
            let options = CpuOptions { threads: Some(threads), mla_form: MlaForm::Absorbed, simd: Some(level) };
            let backend = CpuBackend::new(options).unwrap();
            run_experts(&backend, &weights, &x, (&ids, &combine), (hidden, top_k))
        };
        let expected = together(1);
        assert!(together(4) == expected, "{level}: threads changed a result");
        let backend = cpu(level, MlaForm::Absorbed);
        for token in 0..num_tokens {
            let choice = (&ids[token * top_k..][..top_k], &combine[token * top_k..][..top_k]);
            let alone = run_experts(&backend, &weights, &x[token * hidden..][..hidden], choice, (hidden, top_k));
            assert!(alone == expected[token * hidden..][..hidden], "{level}: token {token} differs alone");
        }
    }
}
