//! Models divided among the ranks of a group: the CPU's own ranks, which exchange sums through the host's memory.
#![cfg(feature = "cpu")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use backend_cpu::{CpuBackend, CpuOptions};
use bathysphere::{Device, Engine, Error, SamplingParams};
use conformance::faulty::{Fault, Faulty};
use conformance::golden::{GoldenMode, Goldens, check_prompts, heldout, load_tiny, load_tiny_group, model_dir};
use conformance::group::check_all_reduce;
use engine_core::backend::{
    ActTensor, Backend, Capabilities, Checked, Rank, SequenceStep, StepError, delegate_backend,
};
use engine_core::config::ModelConfig;
use engine_core::noop::NoopBackend;
use engine_core::quant::PrecisionPolicy;
use engine_core::reference::{ActivationRounding, Numerics, ReferenceBackend};
use engine_core::runner::{StepOutput, StepRunner as _, WantedRows};

fn cpus(world_size: usize) -> Vec<CpuBackend> {
    CpuBackend::group(world_size, &CpuOptions::default()).unwrap()
}

fn references(world_size: usize, activations: ActivationRounding) -> Vec<ReferenceBackend> {
    let numerics = Numerics { activations, ..Numerics::default() };
    Rank::group(world_size).into_iter().map(|rank| ReferenceBackend::new(numerics).with_rank(rank)).collect()
}

#[test]
fn ranks_add_up_what_they_bring() {
    for world_size in [2, 3, 8] {
        assert_eq!(check_all_reduce(&references(world_size, ActivationRounding::F32)), [""; 0]);
        assert!(!check_all_reduce(&references(world_size, ActivationRounding::Bf16)).is_empty(), "f32 is asked of f32");
        assert_eq!(check_all_reduce(&cpus(world_size)), [""; 0]);
    }
}

/// The default body: what a device without a communicator of its own does.
#[test]
fn ranks_without_a_sum_of_their_own_add_up_through_the_host() {
    struct Plain<B>(B);
    impl<B: Backend> Backend for Plain<B> {
        delegate_backend!(0: B; types, device, uncaptured, prepare, ops except [all_reduce]);
    }
    let ranks: Vec<_> = cpus(3).into_iter().map(Plain).collect();
    assert_eq!(check_all_reduce(&ranks), [""; 0]);
}

#[test]
fn a_faulty_sum_is_found() {
    for fault in Fault::ALL {
        // On one rank alone.
        let ranks = Rank::group(2).into_iter().map(|rank| {
            let op = if rank.index() == 1 { "all_reduce" } else { "none" };
            Faulty::new(ReferenceBackend::new(Numerics::default()).with_rank(rank), op, fault)
        });
        let found = check_all_reduce(&ranks.collect::<Vec<_>>());
        println!("{fault:?}: {found:?}");
        assert!(!found.is_empty(), "{fault:?}");
    }
}

#[test]
fn goldens_on_two_and_four_ranks() {
    let goldens = Goldens::load();
    let mode = GoldenMode::Bf16WeightsF32;
    for world_size in [2, 4] {
        let mut runner = load_tiny_group(cpus(world_size), &mode.model_dir(), &PrecisionPolicy::default()).unwrap();
        check_prompts(&goldens, mode, runner.as_mut()).assert_none();
        let result = heldout(&goldens, mode, ("heldout_kjv.txt", 512), runner.as_mut());
        println!("{world_size} ranks: {result:?}");
        assert!((result.perplexity / result.golden_perplexity - 1.0).abs() < 5e-5, "{result:?}");
        assert!((result.draft_acceptance - result.golden_draft_acceptance).abs() < 0.002, "{result:?}");
    }
}

/// FP8 and INT8 weights, cut within blocks and by channels. The tiny model's heads do not end with FP8 blocks, so its
/// attention is widened. Bounds as for one device (docs/numerics.md).
#[test]
fn quantised_weights_on_two_ranks() {
    let goldens = Goldens::load();
    for (mode, precision) in [
        (GoldenMode::Fp8WeightsF32, "attention=bf16"),
        (GoldenMode::Bf16WeightsF32, "int8"),
        (GoldenMode::Bf16WeightsF32, "int4"),
    ] {
        let mut runner = load_tiny_group(cpus(2), &mode.model_dir(), &precision.parse().unwrap()).unwrap();
        let result = heldout(&goldens, mode, ("heldout_kjv.txt", 512), runner.as_mut());
        let increase = result.perplexity / result.golden_perplexity - 1.0;
        println!("{} with {precision}: {:+.3} %", mode.name(), increase * 100.0);
        let bound = if precision == "int4" { 0.025 } else { 0.005 };
        assert!(increase.abs() < bound, "{result:?}");
    }
}

/// Draws from the highest logits of both ranks, and from whole rows (logprobs), as one device draws them.
#[test]
fn draws_on_two_ranks() {
    let text = |world_size: usize| {
        let ranks = references(world_size, ActivationRounding::F32);
        let engine = Engine::builder(model_dir("bf16")).max_model_len(64).build_with_group(ranks).unwrap();
        [None, Some(3)].map(|logprobs| {
            let params = SamplingParams { max_tokens: Some(10), seed: Some(5), logprobs, ..SamplingParams::default() };
            engine.generate("In the beginning", params).unwrap().text
        })
    };
    assert_eq!(text(2), text(1));
}

#[test]
fn every_op_of_a_rank_is_the_reference_s() {
    let run = |rank: CpuBackend| {
        let mut runner = load_tiny(Checked::new(rank), &model_dir("bf16"), &PrecisionPolicy::default()).unwrap();
        let step = SequenceStep { tokens: &[17, 18, 19], context_len: 0, block_table: &[0] };
        runner.step(&[step], WantedRows::logits(&[2]), &mut StepOutput::default()).unwrap();
        assert!(runner.backend().num_compared() > 50);
        assert_eq!(runner.backend().first_mismatch(), None);
    };
    thread::scope(|scope| cpus(2).into_iter().for_each(|rank| drop(scope.spawn(move || run(rank)))));
}

/// Two sums a layer, and none alone.
#[test]
fn the_graph_adds_up_after_attention_and_after_the_ffn() {
    let dir = model_dir("bf16");
    let num_layers = ModelConfig::from_dir(&dir).unwrap().num_hidden_layers;
    for (world_size, expected) in [(1, 0), (2, 2 * num_layers)] {
        let backends: Vec<_> =
            Rank::group(world_size).into_iter().map(|rank| NoopBackend::new().with_rank(rank)).collect();
        let calls = backends[0].calls();
        let engine = Engine::builder(&dir).build_with_group(backends).unwrap();
        let params = SamplingParams { max_tokens: Some(1), ignore_eos: true, ..SamplingParams::greedy() };
        engine.generate(vec![5, 6], params).unwrap();
        let calls = calls.lock().unwrap();
        assert_eq!(calls.iter().filter(|call| call.op == "all_reduce").count(), expected);
        let heads = calls.iter().find(|call| call.op == "mla_attention").unwrap().cols;
        assert_eq!(heads, 4 * 64 / world_size, "heads are divided");
    }
}

/// What happens to rank 1 in one of its sums.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Accident {
    Memory,
    Panic,
}

struct Unlucky<B> {
    inner: B,
    accident: Accident,
    steps_left: Arc<AtomicU32>,
}

impl<B: Backend> Backend for Unlucky<B> {
    delegate_backend!(inner: B; types, device, uncaptured, prepare, ops except [all_reduce]);

    fn all_reduce(&self, stream: &mut B::Stream, x: &mut ActTensor<B>) -> Result<(), StepError> {
        if self.rank().index() == 1 && self.steps_left.fetch_sub(1, Ordering::Relaxed) == 0 {
            match self.accident {
                Accident::Panic => panic!("planted"),
                Accident::Memory => {
                    let device = "cpu".into();
                    return Err(StepError::OutOfMemory { device, what: "a test".into(), requested_bytes: 7 });
                }
            }
        }
        self.inner.all_reduce(stream, x)
    }
}

/// The others wait for its part of a sum: they come back, and nothing after that hangs.
#[test]
fn a_rank_that_fails_ends_the_group() {
    for (accident, reason) in [
        (Accident::Memory, "rank 1: communication failed (cpu: out of memory asking for 7 bytes for a test"),
        (Accident::Panic, "rank 1: communication failed (its thread panicked); restart all ranks"),
    ] {
        for sums in [0, 7, 40] {
            let steps_left = Arc::new(AtomicU32::new(sums));
            let unlucky = |inner| Unlucky { inner, accident, steps_left: steps_left.clone() };
            let group = cpus(4).into_iter().map(unlucky).collect();
            let engine = Engine::builder(model_dir("bf16")).max_model_len(64).build_with_group(group).unwrap();
            let generate = || engine.generate("In the beginning", SamplingParams::greedy()).unwrap_err();
            let error = generate();
            assert!(error.to_string().contains(reason) && error.is_fatal(), "{error}");
            assert!(generate().is_fatal());
        }
    }
}

/// A backend that says it is another device.
struct Renamed<B>(B, Capabilities);

impl<B: Backend> Backend for Renamed<B> {
    delegate_backend!(0: B; types, device except [capabilities], uncaptured, prepare, ops);

    fn capabilities(&self) -> &Capabilities {
        &self.1
    }
}

#[test]
fn devices_that_differ_are_no_group() {
    let renamed = |device: &'static str, memory_bytes| {
        move |inner: CpuBackend| {
            let capabilities = Capabilities {
                device: device.into(),
                memory_bytes: Some(memory_bytes),
                ..inner.capabilities().clone()
            };
            Renamed(inner, capabilities)
        }
    };
    let group = |second: &'static str, memory_bytes| {
        let mut ranks = cpus(2).into_iter();
        let first = ranks.next().map(renamed("A", 1 << 40)).unwrap();
        vec![first, ranks.next().map(renamed(second, memory_bytes)).unwrap()]
    };
    let build = |group| Engine::builder(model_dir("bf16")).build_with_group(group);
    let error = build(group("B", 1 << 40)).unwrap_err().to_string();
    assert!(error.contains("cpu (A) cannot run a model together with cpu (B) as rank 1"), "{error}");
    assert!(build(group("A", 1 << 40)).is_ok());
    let error = build(group("A", 1 << 20)).unwrap_err();
    assert!(matches!(error, Error::Plan(_)), "the smallest device counts: {error}");
}

#[test]
fn the_facade_opens_groups_and_plans_for_them() {
    let builder =
        |size| Engine::builder(model_dir("fp8")).device(Device::Cpu).precision(policy()).tensor_parallel_size(size);
    let (alone, two) = (builder(1).plan().unwrap(), builder(2).plan().unwrap());
    assert!(two.weight_bytes < alone.weight_bytes && two.total_parameters == alone.total_parameters);
    assert_eq!(two.cache_bytes_per_token, alone.cache_bytes_per_token, "the latent cache serves all heads");
    assert!(two.to_string().starts_with("on each of 2 devices\n"), "{two}");
    let params = || SamplingParams { max_tokens: Some(8), ..SamplingParams::greedy() };
    let text = |size| builder(size).build().unwrap().generate("In the beginning", params()).unwrap().text;
    assert_eq!(text(2), text(1));
    for (size, message) in [
        (0, "tensor_parallel_size = 0 is outside 1..=64"),
        (3, "tensor_parallel_size = 3 is outside the divisors of num_attention_heads = 4"),
        (65, "tensor_parallel_size = 65 is outside 1..=64"),
    ] {
        for error in [builder(size).build().unwrap_err(), builder(size).plan().unwrap_err()] {
            assert_eq!(error.to_string(), message);
        }
    }
    let cut = builder(2).precision(PrecisionPolicy::default()).build().unwrap_err().to_string();
    assert!(cut.contains("layers.0.self_attn.q_b_proj.weight: rows 192..384 cut a block of 128"), "{cut}");
}

fn policy() -> PrecisionPolicy {
    "attention=bf16".parse().unwrap()
}
