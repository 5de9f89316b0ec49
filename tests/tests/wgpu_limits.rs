//! Weights that do not fit one binding of wgpu are split without a trace in the results; what cannot be run is refused
//! while loading, with names.
#![cfg(feature = "wgpu")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::borrow::Cow;

use backend_wgpu::{MatmulStyle, WgpuBackend, WgpuOptions};
use conformance::cases::cases;
use conformance::golden::model_dir;
use conformance::harness::{
    CaseOutcome, Format, NO_FP8_CACHE, NO_TOP_LOGITS, Output, Profile, Rig, Rng, Stage, Stop, TestWeight, Tolerance,
    not_run, outputs,
};
use engine_core::backend::{
    Backend, CacheFormat, CacheSpec, ExpertsWeights, FfnWeights, GateSpec, GateWeights, PrepareError, SequenceStep,
    StepLimits,
};
use engine_core::config::{ModelConfig, Router};
use engine_core::quant::{HostWeight, Int4GroupWeight, MatrixShape, PrecisionPolicy};
use engine_core::reference::{Numerics, ReferenceBackend};
use engine_core::runner::{Runner, RunnerOptions, StepOutput, StepRunner, WantedRows};
use engine_core::weights::Checkpoint;

/// Runs `check` with the options of every adapter; says so where there is none.
fn on_every_adapter(test: &str, check: impl Fn(WgpuOptions)) {
    let adapters = WgpuBackend::adapters();
    for index in 0..adapters.len() {
        check(WgpuOptions { adapter: Some(index), ..WgpuOptions::default() });
    }
    if adapters.is_empty() {
        not_run(test, "no adapter");
    }
}

fn open(options: &WgpuOptions) -> WgpuBackend {
    WgpuBackend::new(options).unwrap()
}

fn profile() -> Profile {
    Profile::new("wgpu", Numerics::default())
}

/// Logits of a prefill in two chunks and of two decoded tokens, as bits; and how many buffers that took.
fn logits(backend: WgpuBackend) -> (Vec<u32>, u64) {
    let dir = model_dir("fp8");
    let (config, checkpoint) = (ModelConfig::from_dir(&dir).unwrap(), Checkpoint::open(&dir).unwrap());
    let limits = StepLimits { max_num_batched_tokens: 6, max_num_seqs: 2, max_model_len: 64, block_size: 16 };
    let options = RunnerOptions {
        precision: PrecisionPolicy::default(),
        with_mtp: true,
        cache_format: CacheFormat::Native,
        num_token_ids: None,
        num_blocks: 8,
        limits,
    };
    let mut runner = Runner::load(backend, &checkpoint, &config, &options, &mut |_| {}).unwrap();
    let (tokens, mut output, mut bits) = ((100..114).collect::<Vec<u32>>(), StepOutput::default(), Vec::new());
    for (start, end) in [(0, 6), (6, 12), (12, 13), (13, 14)] {
        let step = SequenceStep { tokens: &tokens[start..end], context_len: start, block_table: &[3, 6] };
        runner.step(&[step], WantedRows::logits(&[(end - start) as u32 - 1]), &mut output).unwrap();
        bits.extend(output.logits.iter().map(|logit| logit.to_bits()));
    }
    (bits, runner.backend().counts().buffers)
}

/// 96 KiB split the tiny model's embedding and head by rows, the dense layer's gate and up together by rows, and the
/// experts three by three.
#[test]
fn a_model_in_slabs_gives_the_same_bits() {
    on_every_adapter("a model in slabs", |options| {
        for matmul in [MatmulStyle::Tiles, MatmulStyle::Lanes] {
            let options = WgpuOptions { matmul: Some(matmul), ..options.clone() };
            let split = open(&WgpuOptions { max_binding_bytes: Some(96 << 10), ..options.clone() });
            let ((in_slabs, more), (whole, fewer)) = (logits(split), logits(open(&options)));
            assert!(in_slabs == whole, "{matmul:?}: slabs change the result");
            // Values and scales of 21 slabs more for the embedding, as many for the head, 7 for the experts of a layer.
            assert!(more > fewer + 150, "{matmul:?}: {more} buffers in slabs, {fewer} whole");
        }
    });
}

const SMALL_BINDING: u64 = 64 << 10;

/// Cases that cannot run with bindings of 64 KiB, by a part of their names, and what in them is too large.
const TOO_LARGE: [(&str, &str); 31] = [
    ("64x257", "activations of 67 rows of 257"),
    ("of 4099/rows", "logits of 6 rows of 4099"),
    ("1031 of 1031/rows 6", "logits of 67 rows of 1031"),
    ("of 129280/rows", "logits of a row of 129280"),
    ("24x10944/", "activations of a row of 10944 and its guards"),
    ("40x1408/rows 17", "activations of 20 rows of 1408"),
    ("40x1408/rows 64", "activations of 67 rows of 1408"),
    ("160x256/rows 64", "activations of 67 rows of 256"),
    ("576x136/rows 64", "activations of 67 rows of 576"),
    ("160x256/rows 100", "activations of 103 rows of 256"),
    ("160x256/rows 131", "activations of 134 rows of 256"),
    ("160x256/rows 300", "activations of 303 rows of 256"),
    ("576x136/rows 100", "activations of 103 rows of 576"),
    ("576x136/rows 131", "activations of 134 rows of 136"),
    ("576x136/rows 300", "activations of 303 rows of 136"),
    ("width 320/rows 70", "the hidden rows of a step of 73 tokens"),
    ("width 320/rows 130", "activations of 133 rows of 160"),
    ("width 104/rows 130", "activations of 133 rows of 136"),
    ("same for all/rows 150", "the hidden rows of a step of 153 tokens"),
    ("even only/rows 200", "activations of 203 rows of 96"),
    ("random/rows 600", "activations of 603 rows of 96"),
    ("width 1408/rows 33", "the hidden rows of a step of 36 tokens"),
    ("mla/bf16/chunked/q_lora, 4 heads 16/8/16/blocks of 64", "queries of a step"),
    ("mla/bf16/verify/q_lora, 4 heads 16/8/16/blocks of 64", "queries of a step"),
    ("mla/bf16/long/", "queries of a step"),
    ("mla/bf16/mixed/q_lora, 4 heads", "queries of a step"),
    ("ffn/fp8/hidden 64 width 1408", "128 rows of FP8 share scales, which are not parted"),
    ("ffn/fp8-ue8m0/hidden 64 width 1408", "128 rows of FP8 share scales, which are not parted"),
    ("mla/f32/verify/", "kv_b_proj, which all heads share in one piece"),
    ("heads 128/64/128", "kv_b_proj, which all heads share in one piece"),
    ("heads 192/64/256", "kv_b_proj, which all heads share in one piece"),
];

/// The suite itself runs on the backend without this limit (`wgpu.rs`); what is equal to that, passes.
#[test]
fn the_suite_in_slabs_gives_the_same_bits() {
    on_every_adapter("the suite in slabs", |options| {
        let whole = open(&options);
        let split = open(&WgpuOptions { max_binding_bytes: Some(SMALL_BINDING), ..options });
        let (mut num_equal, mut num_too_large, mut failures) = (0, 0, Vec::new());
        // Refused whatever can be bound.
        let is_refused =
            |name: &str| [NO_FP8_CACHE, NO_TOP_LOGITS].iter().any(|absent| name.starts_with(absent.prefix));
        for case in cases().into_iter().filter(|case| !is_refused(&case.name())) {
            let name = case.name();
            let declared = TOO_LARGE.iter().find(|(part, _)| name.contains(part));
            match (outputs(&case, &split, &profile()), declared) {
                (Ok(found), None) => {
                    num_equal += 1;
                    if outputs(&case, &whole, &profile()) != Ok(found) {
                        failures.push(format!("{name}: other bits"));
                    }
                }
                (Err(stop), Some(_)) if names_the_limit(&stop) => num_too_large += 1,
                (Ok(_), Some((_, reason))) => failures.push(format!("{name} runs in spite of {reason}")),
                (Err(stop), _) => failures.push(format!("{name}: {stop:?}")),
            }
        }
        println!("bindings of {SMALL_BINDING} bytes: {num_equal} cases equal, {num_too_large} too large as declared");
        assert!(failures.is_empty(), "{failures:#?}");
    });
}

fn names_the_limit(stop: &Stop) -> bool {
    let text = match stop {
        Stop::Unsupported(unsupported) => Cow::Owned(unsupported.to_string()),
        Stop::Failed(text) => Cow::Borrowed(text.as_str()),
    };
    text.contains("binds at most 65536")
}

/// The refusal's text.
fn refusal<T>(result: Result<T, PrepareError>) -> String {
    match result.err() {
        Some(PrepareError::Unsupported(unsupported)) => unsupported.to_string(),
        other => panic!("{other:?}"),
    }
}

fn assert_names(text: &str, names: &[&str]) {
    for name in names {
        assert!(text.contains(name), "{text:?} does not name {name:?}");
    }
}

#[test]
fn a_cache_layer_larger_than_a_binding_is_refused() {
    on_every_adapter("a cache layer larger than a binding", |options| {
        let backend = open(&WgpuOptions { max_binding_bytes: Some(1 << 20), ..options });
        let spec = CacheSpec {
            num_layers: 2,
            num_blocks: 8,
            block_size: 64,
            kv_lora_rank: 512,
            qk_rope_head_dim: 64,
            format: CacheFormat::Native,
        };
        // 512 tokens of 2304 bytes; 455 fit.
        assert_names(&refusal(backend.latent_cache(&spec)), &["1179648", "1048576", "num_cache_tokens", "455"]);
        backend.latent_cache(&CacheSpec { num_blocks: 7, ..spec }).unwrap();
    });
}

fn ffn(gate: HostWeight, up: HostWeight, down: HostWeight) -> FfnWeights {
    FfnWeights { gate, up, down }
}

fn weight(format: Format, out: usize, inp: usize) -> HostWeight {
    TestWeight::random(&mut Rng::from_name("limits"), format, out, inp).host
}

#[test]
fn more_than_1024_experts_are_refused() {
    on_every_adapter("1025 experts", |options| {
        let backend = open(&options);
        let w = |out, inp| weight(Format::Bf16, out, inp);
        let routed = vec![ffn(w(4, 8), w(4, 8), w(8, 4)); 1025];
        let text = refusal(backend.prepare_experts(ExpertsWeights { routed, shared: None }));
        assert_names(&text, &["1025 experts", "1024"]);
        let gate = |n_routed_experts: usize| {
            let spec = GateSpec {
                hidden_size: 8,
                n_routed_experts,
                num_experts_per_tok: 2,
                router: Router::SoftmaxGreedy,
                norm_topk_prob: true,
                routed_scaling_factor: 1.0,
            };
            backend.prepare_gate(&spec, GateWeights { weight: w(n_routed_experts, 8), correction_bias: None })
        };
        assert_names(&refusal(gate(1025)), &["1025 experts", "1024"]);
        gate(1024).unwrap();
    });
}

#[test]
fn formats_mixed_in_gate_and_up_are_refused_by_name() {
    on_every_adapter("mixed formats", |options| {
        let backend = open(&options);
        let mixed = ffn(weight(Format::Bf16, 8, 32), weight(Format::Int8, 8, 32), weight(Format::Bf16, 32, 8));
        assert_names(&refusal(backend.prepare_ffn(mixed)), &["bf16", "int8", "one precision"]);
        let groups = ffn(int4(8, 32, 8), int4(8, 32, 16), weight(Format::Bf16, 32, 8));
        assert_names(
            &refusal(backend.prepare_ffn(groups)),
            &["int4 [8, 32] in groups of 8", "int4 [8, 32] in groups of 16"],
        );
    });
}

/// Random values and scales.
fn int4(out: usize, inp: usize, group: usize) -> HostWeight {
    let mut rng = Rng::from_name(&format!("int4 {out} {inp} {group}"));
    let row_bytes = Int4GroupWeight::row_bytes(inp);
    let packed: Vec<u8> = (0..out * row_bytes).map(|_| rng.below(256) as u8).collect();
    let scales: Vec<f32> = (0..out * inp.div_ceil(group)).map(|_| rng.uniform(0.01, 0.03)).collect();
    let shape = MatrixShape::new(out, inp);
    HostWeight::Int4Group(Int4GroupWeight::new(shape, group, packed.into(), scales.into()).unwrap())
}

fn product<B: Backend>(backend: &B, profile: &Profile, weight: HostWeight, rows: usize) -> Vec<Output> {
    let shape = weight.shape();
    let x = Rng::from_name("int4 inputs").normals(rows * shape.in_features, 1.0);
    let weight = backend.prepare_linear(weight).unwrap();
    let mut rig = Rig::new(backend, profile).unwrap();
    let x = rig.act_input("x", shape.in_features, &x).unwrap();
    let mut out = rig.output::<B::Act>("out", rows, shape.out_features).unwrap();
    backend.linear(&mut rig.stream, &weight, &x.tensor, &mut out.tensor).unwrap();
    vec![rig.read(&out).unwrap()]
}

#[test]
fn int4_groups_of_any_four_are_right_and_of_two_are_refused() {
    on_every_adapter("int4 groups", |options| {
        let reference = ReferenceBackend::new(Numerics::default());
        for matmul in [MatmulStyle::Tiles, MatmulStyle::Lanes] {
            let backend = open(&WgpuOptions { matmul: Some(matmul), ..options.clone() });
            let text = refusal(backend.prepare_linear(int4(8, 32, 2)));
            assert_names(&text, &["int4", "groups hold 2 values", "convert"]);
            // 100 inputs leave a part of a group and of a word.
            for (group, inp) in [4, 8, 16, 64, 12].into_iter().flat_map(|group| [(group, 96), (group, 100)]) {
                for rows in [1, 3, 20, 70] {
                    let found = product(&backend, &profile(), int4(40, inp, group), rows);
                    let expected = product(&reference, &profile(), int4(40, inp, group), rows);
                    let tolerance = Tolerance::of_stages(&profile(), &[Stage::linear(Format::Int4, inp)], 1.0);
                    let outcome = CaseOutcome::judge(&expected, &found, &tolerance);
                    assert!(matches!(outcome, CaseOutcome::Passed(_)), "{matmul:?}, {group}, {inp}: {outcome:?}");
                }
            }
        }
    });
}

/// Scales of groups of four take more bytes than their values: they decide how large a slab is.
#[test]
fn scales_larger_than_their_values_are_split_too() {
    on_every_adapter("large scales", |options| {
        let split = open(&WgpuOptions { max_binding_bytes: Some(4 << 10), ..options.clone() });
        // 64 rows of 96 inputs: 3 KiB of values, 6 KiB of scales.
        let found = product(&split, &profile(), int4(64, 96, 4), 1);
        assert_eq!(found, product(&open(&options), &profile(), int4(64, 96, 4), 1));
        let text = refusal(split.prepare_linear(int4(2, 5000, 4)));
        assert_names(&text, &["1 of its rows take 5000 bytes", "4096"]);
    });
}

/// A head of 140 000 rows, two outputs in a workgroup: more workgroups than a grid has in one dimension.
#[test]
fn a_vocabulary_larger_than_a_grid_runs() {
    on_every_adapter("a large vocabulary", |options| {
        let reference = ReferenceBackend::new(Numerics::default());
        let expected = product(&reference, &profile(), weight(Format::Bf16, 140_000, 32), 1);
        for matmul in [MatmulStyle::Tiles, MatmulStyle::Lanes] {
            let backend = open(&WgpuOptions { matmul: Some(matmul), ..options.clone() });
            let found = product(&backend, &profile(), weight(Format::Bf16, 140_000, 32), 1);
            let tolerance = Tolerance::of_stages(&profile(), &[Stage::linear(Format::Bf16, 32)], 1.0);
            let outcome = CaseOutcome::judge(&expected, &found, &tolerance);
            assert!(matches!(outcome, CaseOutcome::Passed(_)), "{matmul:?}: {outcome:?}");
        }
    });
}
