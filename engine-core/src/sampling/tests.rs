//! The sampler against plain f64 formulas and against the distribution it claims.
#![allow(clippy::unwrap_used)]

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64;

use super::candidates::{Beginning, Scale, candidates, id_of, logit_of};
use super::*;
use crate::backend::{NO_TOKEN, TopLogits};

/// Normal-ish logits: sums of uniforms, standard deviation `spread`.
fn random_logits(rng: &mut Pcg64, len: usize, spread: f32) -> Vec<f32> {
    let mut uniform = || (rng.next_u64() >> 40) as f32 / (1 << 24) as f32 - 0.5;
    (0..len).map(|_| (0..12).map(|_| uniform()).sum::<f32>() * spread).collect()
}

/// (id, probability) after temperature, min_p, top_k, top_p by sorting everything in f64. `slack` moves the two
/// thresholds, for tokens whose side rounding may decide.
fn naive(logits: &[f32], params: &SamplingParams, slack: f64) -> Vec<(u32, f64)> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |l: f32| ((f64::from(l) - f64::from(max)) / f64::from(params.temperature)).exp();
    let mut kept: Vec<(u32, f64)> = logits.iter().enumerate().map(|(id, &l)| (id as u32, weight(l))).collect();
    kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    kept.retain(|&(_, w)| w >= f64::from(params.min_p) * (1.0 - slack));
    if params.top_k > 0 {
        kept.truncate(params.top_k);
    }
    let total: f64 = kept.iter().map(|(_, w)| w).sum();
    let mut before = 0.0;
    let wanted = f64::from(params.top_p) * total * (1.0 + slack);
    let num_kept = kept.iter().take_while(|(_, w)| (before < wanted, before += w).0).count().max(1);
    kept.truncate(num_kept);
    let total: f64 = kept.iter().map(|(_, w)| w).sum();
    kept.iter().map(|&(id, w)| (id, w / total)).collect()
}

/// (id, probability) as the sampler has them before the draw.
fn support(logits: &[f32], params: &SamplingParams) -> Vec<(u32, f64)> {
    let mut scratch = SamplingScratch::default();
    let max = logits[argmax(logits).unwrap() as usize];
    let scale = Scale { max, inverse_temperature: 1.0 / params.temperature };
    // All of them, where top_p does not choose.
    let share = if params.top_p < 1.0 { f64::from(params.top_p) } else { f64::INFINITY };
    let Beginning { len, .. } = candidates(logits, params, share, scale, &mut scratch);
    let weight = |&key: &u64| (f64::from(logit_of(key) - max) / f64::from(params.temperature)).exp();
    let weights: Vec<(u32, f64)> = scratch.keys[..len].iter().map(|key| (id_of(*key), weight(key))).collect();
    let total: f64 = weights.iter().map(|(_, w)| w).sum();
    weights.into_iter().filter(|&(_, w)| w > 0.0).map(|(id, w)| (id, w / total)).collect()
}

#[test]
fn what_remains_is_what_sorting_everything_leaves() {
    let mut rng = Pcg64::seed_from_u64(11);
    for round in 0..600 {
        let len = [1, 2, 50, 3000][round % 4];
        let mut logits = random_logits(&mut rng, len, [0.3, 1.0, 4.0][round % 3]);
        if round % 5 == 0 {
            // Ties in plenty.
            logits.iter_mut().for_each(|l| *l = l.round());
        }
        let pick = |rng: &mut Pcg64, of: &[f32]| of[(rng.next_u64() % of.len() as u64) as usize];
        let params = SamplingParams {
            temperature: pick(&mut rng, &[0.3, 1.0, 2.0]),
            top_k: pick(&mut rng, &[0.0, 1.0, 7.0, 700.0, 1e6]) as usize,
            top_p: pick(&mut rng, &[0.0, 0.5, 0.95, 0.999, 1.0]),
            min_p: pick(&mut rng, &[0.0, 0.0, 0.01, 0.2, 1.0]),
            ..SamplingParams::default()
        };
        let got = support(&logits, &params);
        let ids = |kept: &[(u32, f64)]| kept.iter().map(|k| k.0).collect::<std::collections::BTreeSet<u32>>();
        // Between the sets of thresholds a rounding error lower and higher; for nearly all the two are one.
        let (fewest, most) = (naive(&logits, &params, -1e-5), naive(&logits, &params, 1e-5));
        let all: Vec<_> = fewest.iter().chain(&most).copied().collect();
        let common: std::collections::BTreeSet<u32> = ids(&fewest).intersection(&ids(&most)).copied().collect();
        assert!(ids(&got).is_subset(&ids(&all)) && ids(&got).is_superset(&common), "{params:?}");
        let exact = naive(&logits, &params, 0.0);
        if ids(&got) == ids(&exact) {
            for (id, p) in &exact {
                let q = got.iter().find(|g| g.0 == *id).unwrap().1;
                assert!((p - q).abs() < 1e-6 * p, "{p} {q} {params:?}");
            }
        } else {
            assert_ne!(ids(&fewest), ids(&most), "{params:?}");
        }
    }
}

#[test]
fn equal_tokens_are_kept_from_the_lowest_id_up() {
    let logits = [0.0, 1.0, -0.0, 1.0, 0.0];
    let kept = |top_k, top_p| {
        let params = SamplingParams { top_k, top_p, ..SamplingParams::default() };
        support(&logits, &params).iter().map(|k| k.0).collect::<Vec<_>>()
    };
    assert_eq!(kept(3, 1.0), [1, 3, 0]);
    assert_eq!(kept(4, 1.0), [1, 3, 0, 2]);
    assert_eq!(kept(0, 0.0), [1]);
    assert_eq!(kept(0, 0.4), [1, 3]);
}

/// Draws `n` tokens from fixed logits.
fn draws(params: &SamplingParams, logits: &[f32], n: usize) -> Vec<u32> {
    let mut sampler = Sampler::new(params.clone(), &[], 5);
    let mut scratch = SamplingScratch::default();
    (0..n).map(|_| sampler.sample(&mut logits.to_vec(), History::default(), &mut scratch).unwrap().id).collect()
}

/// Pearson's statistic of 40 000 draws stays below mean + 5 standard deviations of its chi-square distribution
/// (df + 5·√(2·df)): with a right sampler, all seeds but about one in ten thousand do, and these do. A wrong
/// temperature or threshold moves it to thousands.
#[test]
fn draws_follow_the_distribution() {
    const DRAWS: usize = 40_000;
    let logits = random_logits(&mut Pcg64::seed_from_u64(2), 60, 1.0);
    let d = SamplingParams::default;
    let cases = [
        d(),
        SamplingParams { temperature: 0.6, top_p: 0.95, ..d() },
        SamplingParams { temperature: 1.5, top_k: 20, ..d() },
        SamplingParams { min_p: 0.1, ..d() },
        SamplingParams { top_k: 30, top_p: 0.9, min_p: 0.05, ..d() },
    ];
    for seed in [1, 2, 3] {
        for case in &cases {
            let params = SamplingParams { seed: Some(seed), ..case.clone() };
            let expected = naive(&logits, &params, 0.0);
            let mut counts = vec![0.0; logits.len()];
            for id in draws(&params, &logits, DRAWS) {
                counts[id as usize] += 1.0;
            }
            let in_support: f64 = expected.iter().map(|&(id, _)| counts[id as usize]).sum();
            assert_eq!(in_support as usize, DRAWS, "a draw outside the support: {params:?}");
            let statistic: f64 = expected
                .iter()
                .map(|&(id, p)| (counts[id as usize] - p * DRAWS as f64).powi(2) / (p * DRAWS as f64))
                .sum();
            let freedom = expected.len() as f64 - 1.0;
            assert!(statistic < freedom + 5.0 * (2.0 * freedom).sqrt(), "{statistic} of {freedom}: {params:?}");
        }
    }
}

#[test]
fn a_seed_gives_its_own_sequence_whatever_happens_beside_it() {
    let logits = random_logits(&mut Pcg64::seed_from_u64(4), 500, 1.0);
    let params = |seed| SamplingParams { seed, top_p: 0.9, ..SamplingParams::default() };
    let alone = draws(&params(Some(9)), &logits, 50);
    assert_ne!(alone, draws(&params(Some(10)), &logits, 50));

    // The same sampler beside another one, sharing the scratch.
    let mut scratch = SamplingScratch::default();
    let mut sampler = Sampler::new(params(Some(9)), &[], 0);
    let mut other = Sampler::new(SamplingParams { frequency_penalty: 1.0, ..params(None) }, &[], 77);
    let mut beside = Vec::new();
    for _ in 0..50 {
        let history = History { prompt: &[1, 2], output: &[3, 3] };
        other.sample(&mut logits[..100].to_vec(), history, &mut scratch).unwrap();
        beside.push(sampler.sample(&mut logits.clone(), History::default(), &mut scratch).unwrap().id);
    }
    assert_eq!(beside, alone);
    // Without a seed of its own, the one supplied counts.
    assert_eq!(draws(&params(None), &logits, 50), draws(&params(Some(5)), &logits, 50));
}

/// Pins generator, seeding and order of summation: what a seed gave once it must give for good. The expected ids come
/// from a computation in exact integers and f64 outside this crate.
#[test]
fn seeded_draws_are_pinned() {
    let logits: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 1000) as f32 * 0.01).collect();
    let d = SamplingParams { seed: Some(42), ..SamplingParams::default() };
    assert_eq!(draws(&d, &logits, 6), [346, 988, 224, 396, 313, 408]);
    assert_eq!(
        draws(&SamplingParams { temperature: 0.6, top_p: 0.95, ..d }, &logits, 6),
        [815, 136, 38, 482, 434, 667]
    );
}

/// Words of a row's highest logits, by sorting everything.
fn top_words(logits: &[f32], num_top: usize, inverse_temperature: f32) -> Vec<u32> {
    let mut order: Vec<usize> = (0..logits.len()).filter(|id| logits[*id] > f32::NEG_INFINITY).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    let max = order.first().map_or(0.0, |id| logits[*id]);
    let total: f64 = order.iter().map(|id| f64::from((logits[*id] - max) * inverse_temperature).exp()).sum();
    order.truncate(num_top);
    // Their order is free.
    order.reverse();
    let ids: Vec<u32> = order.iter().map(|id| *id as u32).chain([NO_TOKEN; 99]).take(num_top).collect();
    let values = order.iter().map(|id| logits[*id]).chain([f32::NEG_INFINITY; 99]);
    let values: Vec<f32> = values.take(num_top).collect();
    let mut words = vec![0; TopLogits::num_words(num_top)];
    TopLogits { ids: &ids, logits: &values, total: total as f32 }.write_words(&mut words);
    words
}

/// Whether the highest logits decide a draw or the whole row is needed, it is the same draw.
#[test]
fn the_highest_logits_draw_what_the_whole_row_does() {
    let mut rng = Pcg64::seed_from_u64(21);
    let (mut num_decided, mut num_left) = (0, 0);
    let mut scratch = SamplingScratch::default();
    for round in 0..4000 {
        let len = [3, 40, 900][round % 3];
        let mut logits = random_logits(&mut rng, len, [0.5, 2.0, 6.0][round / 3 % 3]);
        if round % 7 == 0 {
            logits.iter_mut().for_each(|l| *l = l.round());
        }
        if round % 11 == 0 {
            logits[0] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][round % 3];
        }
        let mut pick = |of: &[f32]| of[(rng.next_u64() % of.len() as u64) as usize];
        let params = SamplingParams {
            temperature: pick(&[0.3, 1.0, 2.0]),
            top_k: pick(&[0.0, 0.0, 1.0, 7.0, 32.0]) as usize,
            top_p: pick(&[0.5, 0.95, 1.0, 1.0]),
            min_p: pick(&[0.0, 0.0, 0.01, 0.2]),
            seed: Some(round as u64),
            ..SamplingParams::default()
        };
        let mut sampler = Sampler::new(params.clone(), &[], 0);
        assert!(sampler.takes_top(0, 32));
        let words = top_words(&logits, 32, sampler.inverse_temperature());
        let found = sampler.sample_top(TopLogits::from_words(&words), &mut scratch);
        let whole = |sampler: &mut Sampler| {
            sampler.sample(&mut logits.clone(), History::default(), &mut SamplingScratch::default()).unwrap().id
        };
        let expected = whole(&mut Sampler::new(params.clone(), &[], 0));
        match found {
            Some(id) => {
                assert_eq!(id, expected, "{params:?}");
                num_decided += 1;
            }
            None => {
                assert_eq!(whole(&mut sampler), expected, "nothing was drawn: {params:?}");
                num_left += 1;
            }
        }
        if len <= 32 {
            assert!(found.is_some(), "all there are");
        }
    }
    assert!(num_decided > 2500 && num_left > 300, "{num_decided} {num_left}");
}

#[test]
fn requests_that_change_or_tell_of_logits_need_the_whole_row() {
    let d = SamplingParams::default;
    let takes = |params: SamplingParams| Sampler::new(params, &[1], 0).takes_top(0, 32);
    assert!(takes(d()) && takes(SamplingParams { top_k: 32, top_p: 0.5, min_p: 0.1, ..d() }));
    assert!(!Sampler::new(d(), &[1], 0).takes_top(0, 0), "no device finds them");
    for params in [
        SamplingParams { top_k: 33, ..d() },
        SamplingParams { logprobs: Some(0), ..d() },
        SamplingParams { logit_bias: [(1, 1.0)].into(), ..d() },
        SamplingParams { presence_penalty: 1.0, ..d() },
        SamplingParams { min_tokens: 1, ..d() },
        SamplingParams::greedy(),
    ] {
        assert!(!takes(params.clone()), "{params:?}");
    }
    let nothing = top_words(&[f32::NAN, f32::NEG_INFINITY], 2, 1.0);
    let found = Sampler::new(d(), &[], 0).sample_top(TopLogits::from_words(&nothing), &mut Default::default());
    assert_eq!(found, None, "the whole row says why");
}

#[test]
fn greedy_takes_the_highest_and_draws_nothing() {
    let mut scratch = SamplingScratch::default();
    for temperature in [0.0, 9e-6] {
        let mut sampler = Sampler::new(SamplingParams { temperature, ..SamplingParams::greedy() }, &[], 1);
        let mut sample = |mut logits: Vec<f32>| sampler.sample(&mut logits, History::default(), &mut scratch);
        assert_eq!(sample(vec![1.0, f32::NAN, 5.0, 5.0]).unwrap().id, 2);
        let error = sample(vec![f32::NAN, f32::NEG_INFINITY]).unwrap_err();
        assert_eq!(error, SamplingError::NoCandidate { num_logits: 2, num_nan: 1 });
        assert!(sample(vec![]).is_err());
    }
}

#[test]
fn unusable_logits_are_never_drawn() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let d = SamplingParams::default;
    let cases = [
        d(),
        SamplingParams { top_k: 3, ..d() },
        SamplingParams { top_p: 0.9, ..d() },
        SamplingParams { min_p: 0.5, ..d() },
    ];
    for params in cases {
        let ids = draws(&params, &[nan, 1.0, -inf, 1.0, nan], 200);
        assert!(ids.iter().all(|id| [1, 3].contains(id)) && ids.contains(&1) && ids.contains(&3), "{params:?}");
        assert!(draws(&params, &[1e38, inf, nan, 0.0], 50).iter().all(|&id| id == 1), "{params:?}");
        let error = Sampler::new(params, &[], 0).sample(&mut [nan, nan], History::default(), &mut Default::default());
        assert_eq!(error, Err(SamplingError::NoCandidate { num_logits: 2, num_nan: 2 }));
    }
    // The coldest temperature that still draws, and the hottest.
    assert!(draws(&SamplingParams { temperature: 1e-5, ..d() }, &[-3e38, 1.0, 3e38], 50).iter().all(|&id| id == 2));
    assert_eq!(draws(&SamplingParams { temperature: f32::MAX, ..d() }, &[0.0, 1.0], 50).iter().max(), Some(&1));
}

#[test]
fn ids_without_a_token_and_early_ends_are_out_of_reach() {
    let mut scratch = SamplingScratch::default();
    let params = SamplingParams { min_tokens: 2, stop_token_ids: vec![1], ..SamplingParams::greedy() };
    let mut sampler = Sampler::new(params, &[2], 0).with_num_token_ids(4);
    let logits = [0.0, 3.0, 2.0, 1.0, 9.0, 9.0];
    let mut at =
        |output: &[u32]| sampler.sample(&mut logits.clone(), History { prompt: &[], output }, &mut scratch).unwrap().id;
    assert_eq!((at(&[]), at(&[0]), at(&[0, 0])), (3, 3, 1));
    assert!(sampler.ends_sequence(1) && sampler.ends_sequence(2) && !sampler.ends_sequence(3));
    let ignoring = SamplingParams { ignore_eos: true, ..SamplingParams::greedy() };
    assert!(!Sampler::new(ignoring, &[2], 0).ends_sequence(2));
}

#[test]
fn bias_and_penalties_reach_the_choice() {
    let mut scratch = SamplingScratch::default();
    let mut choose = |params: SamplingParams, output: &[u32]| {
        let history = History { prompt: &[], output };
        Sampler::new(params, &[], 0).sample(&mut [1.0, 2.0, 3.0], history, &mut scratch).unwrap().id
    };
    let greedy = SamplingParams::greedy;
    assert_eq!(choose(SamplingParams { logit_bias: [(0, 5.0)].into(), ..greedy() }, &[]), 0);
    assert_eq!(choose(SamplingParams { frequency_penalty: 0.75, ..greedy() }, &[2, 2]), 1);
    assert_eq!(choose(SamplingParams { repetition_penalty: 4.0, ..greedy() }, &[2, 1]), 0);
}

#[test]
fn logprobs_are_the_models_own() {
    let logits: Vec<f32> = (0..50).map(|i| ((i * 37) % 50) as f32 * 0.1).collect();
    let params = SamplingParams {
        logprobs: Some(3),
        temperature: 0.5,
        logit_bias: [(7, 100.0)].into(),
        ..SamplingParams::default()
    };
    let mut changed = logits.clone();
    let token = Sampler::new(params, &[], 0).sample(&mut changed, History::default(), &mut Default::default()).unwrap();
    assert_eq!(token.id, 7);
    let exact = |id: u32| {
        let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
        f64::from(logits[id as usize]) - total.ln()
    };
    assert!((f64::from(token.logprob.unwrap()) - exact(7)).abs() < 1e-6);
    let mut order: Vec<u32> = (0..50).collect();
    order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    assert_eq!(token.top_logprobs.iter().map(|t| t.id).collect::<Vec<_>>(), order[..3]);
    assert!(token.top_logprobs.iter().all(|t| (f64::from(t.logprob) - exact(t.id)).abs() < 1e-6));

    let zero = SamplingParams { logprobs: Some(0), ..SamplingParams::greedy() };
    let token =
        Sampler::new(zero, &[], 0).sample(&mut logits.clone(), History::default(), &mut Default::default()).unwrap();
    assert!(token.logprob.is_some() && token.top_logprobs.is_empty());
}

/// Whatever `validate` accepts, on whatever a broken model gives: an id that may be chosen, or a reason why none can.
#[test]
fn accepted_parameters_never_choose_what_cannot_be_chosen() {
    let mut rng = Pcg64::seed_from_u64(29);
    let mut below = |n: usize| (rng.next_u64() % n as u64) as usize;
    let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e-45, 0.0, -0.0, 1.0, -30.0];
    let (mut num_chosen, mut num_refused, mut num_best) = (0, 0, 0);
    for _ in 0..20_000 {
        let vocab_size = [1, 2, 17, 100][below(4)];
        let num_odd = [1, 3, odd.len()][below(3)];
        let mut logits: Vec<f32> = (0..vocab_size).map(|_| odd[below(num_odd)]).collect();
        let token = |below: &mut dyn FnMut(usize) -> usize| below(vocab_size) as u32;
        let params = SamplingParams {
            temperature: [0.0, 1e-30, 1e-5, 1.0, 1e30, f32::MAX][below(6)],
            top_p: [0.0, 1e-30, 0.5, 1.0][below(4)],
            top_k: [0, 1, vocab_size, usize::MAX][below(4)],
            min_p: [0.0, 1e-30, 0.5, 1.0][below(4)],
            seed: Some(below(9) as u64),
            min_tokens: [0, 2, usize::MAX][below(3)],
            presence_penalty: [0.0, -2.0, 2.0][below(3)],
            frequency_penalty: [0.0, -2.0, 2.0][below(3)],
            repetition_penalty: [1.0, f32::MIN_POSITIVE, f32::MAX][below(3)],
            logit_bias: (0..below(3)).map(|_| (token(&mut below), [f32::MIN, -1.0, f32::MAX][below(3)])).collect(),
            stop_token_ids: (0..below(3)).map(|_| token(&mut below)).collect(),
            logprobs: [None, Some(0), Some(vocab_size)][below(3)],
            ..SamplingParams::default()
        };
        assert_eq!(params.validate(vocab_size), Ok(()));
        let output: Vec<u32> = (0..below(4)).map(|_| token(&mut below)).collect();
        let usable: Vec<bool> = logits.iter().map(|l| !l.is_nan() && *l != f32::NEG_INFINITY).collect();
        let forbidden = |id: u32| output.len() < params.min_tokens && params.stop_token_ids.contains(&id);
        let mut sampler = Sampler::new(params.clone(), &[], 0);
        let history = History { prompt: &[0], output: &output };
        let best = sampler.takes_best(output.len()).then(|| argmax(&logits));
        let sampled = sampler.sample(&mut logits, history, &mut SamplingScratch::default());
        if let Some(best) = best {
            assert_eq!(sampled.as_ref().ok(), best.map(SampledToken::without_logprobs).as_ref(), "{params:?}");
            num_best += 1;
        }
        match sampled {
            Ok(chosen) => {
                assert!(usable[chosen.id as usize] && !forbidden(chosen.id), "{chosen:?} {params:?}");
                num_chosen += 1;
            }
            Err(SamplingError::NoCandidate { .. }) => num_refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(num_chosen > 5000 && num_refused > 1000 && num_best > 10, "{num_chosen} {num_refused} {num_best}");
}
