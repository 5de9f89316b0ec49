//! How the wgpu backend behaves: alone and beside others, step after step, when memory ends and when the device goes.
#![cfg(feature = "wgpu")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use backend_wgpu::{WgpuBackend, WgpuCounts, WgpuOptions};
use bathysphere::{Device, Engine, SamplingParams};
use conformance::golden::model_dir;
use conformance::harness::not_run;
use engine_core::backend::{Backend, CacheFormat, DType, PrepareError, SequenceStep, StepError, StepLimits};
use engine_core::config::ModelConfig;
use engine_core::engine::OpenDevice;
use engine_core::model::{LoadOptions, Model};
use engine_core::quant::{PrecisionPolicy, QuantisedInputs};
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

/// Small steps, so that 96 KiB hold any tensor of one.
const LIMITS: StepLimits =
    StepLimits { max_num_batched_tokens: 16, max_num_seqs: 4, max_model_len: 64, block_size: 16 };

fn load(backend: WgpuBackend) -> Result<Runner<WgpuBackend>, bathysphere::Error> {
    let dir = model_dir("fp8");
    let (config, checkpoint) = (ModelConfig::from_dir(&dir)?, Checkpoint::open(&dir)?);
    let options = RunnerOptions {
        precision: PrecisionPolicy::default(),
        with_mtp: false,
        cache_format: CacheFormat::Native,
        num_token_ids: None,
        num_blocks: 8,
        limits: LIMITS,
    };
    Runner::load(backend, &checkpoint, &config, &options, &mut |_| {})
}

fn greedy(runner: &mut Runner<WgpuBackend>, prompt: &[u32], num_tokens: usize) -> Result<Vec<u32>, StepError> {
    let (mut tokens, mut made, mut output) = (prompt.to_vec(), Vec::new(), StepOutput::default());
    for _ in 0..num_tokens {
        let context_len = if made.is_empty() { 0 } else { tokens.len() - 1 };
        let step = SequenceStep { tokens: &tokens[context_len..], context_len, block_table: &[5, 2, 0, 7] };
        let last = (tokens.len() - context_len) as u32 - 1;
        runner.step(&[step], WantedRows::best_tokens(&[last]), &mut output)?;
        tokens.push(*output.best_tokens[0].as_ref().unwrap());
        made.extend(tokens.last());
    }
    Ok(made)
}

fn is_loss(error: &bathysphere::Error) -> bool {
    let text = error.to_string();
    error.is_fatal() && text.contains("device lost") && text.contains("build a new engine")
}

/// What `action` yields, unless it takes longer than any wait for a device may.
fn without_hanging<T: Send + 'static>(action: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = channel();
    thread::spawn(move || sender.send(action()));
    receiver.recv_timeout(Duration::from_secs(60)).expect("it neither ended nor failed within a minute")
}

#[test]
fn two_engines_on_one_adapter_do_not_know_of_each_other() {
    on_every_adapter("two engines on one adapter", |options| {
        let engine = || Engine::builder(model_dir("fp8")).max_num_seqs(2).build_with(open(&options)).unwrap();
        let params = || SamplingParams { max_tokens: Some(12), ..SamplingParams::greedy() };
        let prompts = ["In the beginning", "fn main() {"];
        let alone = prompts.map(|prompt| engine().generate(prompt, params()).unwrap().token_ids);
        let engines = [engine(), engine()];
        let mut streams = [0, 1].map(|i| engines[i].stream(prompts[i], params()).unwrap());
        // A token of one, a token of the other, to the end.
        let mut together = [Vec::new(), Vec::new()];
        loop {
            let mut ended = 0;
            for (stream, tokens) in streams.iter_mut().zip(&mut together) {
                match stream.next() {
                    Some(chunk) => tokens.push(chunk.unwrap().token_id),
                    None => ended += 1,
                }
            }
            if ended == 2 {
                break;
            }
        }
        assert_eq!(together, alone);
    });
}

#[test]
fn a_thousand_short_generations_hold_no_memory() {
    on_every_adapter("a thousand short generations", |options| {
        let mut runner = load(open(&options)).unwrap();
        let blocks = [[0, 1], [2, 3], [4, 5], [6, 7]];
        let mut output = StepOutput::default();
        // Four prompts of two tokens, and two tokens made of each.
        let mut round = |runner: &mut Runner<WgpuBackend>, i: u32| {
            let prompts = [0, 1, 2, 3].map(|sequence| [5 + i % 7, 6 + sequence]);
            let sequence = |s: usize| SequenceStep { tokens: &prompts[s], context_len: 0, block_table: &blocks[s] };
            let wanted = |best_tokens| WantedRows::best_tokens(best_tokens);
            runner.step(&[0, 1, 2, 3].map(sequence), wanted(&[1, 3, 5, 7]), &mut output).unwrap();
            let made = [0, 1, 2, 3].map(|s| [*output.best_tokens[s].as_ref().unwrap()]);
            let sequence = |s: usize| SequenceStep { tokens: &made[s], context_len: 2, block_table: &blocks[s] };
            runner.step(&[0, 1, 2, 3].map(sequence), wanted(&[0, 1, 2, 3]), &mut output).unwrap();
            assert_eq!(output.best_tokens.len(), 4);
        };
        let totals = |runner: &Runner<WgpuBackend>| {
            let report = runner.backend().device().generate_allocator_report();
            let report = report.map(|report| (report.total_allocated_bytes, report.allocations.len()));
            (runner.backend().allocated_bytes(), report)
        };
        (0..10).for_each(|i| round(&mut runner, i));
        let before = totals(&runner);
        (0..250).for_each(|i| round(&mut runner, i));
        println!("bytes by our account, bytes and allocations by the allocator's: {before:?}");
        assert_eq!(totals(&runner), before);
    });
}

#[test]
fn a_step_like_the_one_before_is_one_submission_and_makes_nothing() {
    on_every_adapter("one submission per step", |options| {
        let mut runner = load(open(&options)).unwrap();
        let mut output = StepOutput::default();
        let blocks = [[0, 1, 2, 3], [4, 5, 6, 7]];
        let mut decode = |runner: &mut Runner<WgpuBackend>, position: usize| {
            let tokens = [17 + position as u32];
            let sequence = |i: usize| SequenceStep { tokens: &tokens, context_len: position, block_table: &blocks[i] };
            let wanted = WantedRows::best_tokens(&[0, 1]);
            runner.step(&[sequence(0), sequence(1)], wanted, &mut output).unwrap();
        };
        (0..4).for_each(|position| decode(&mut runner, position));
        let WgpuCounts { buffers, bind_groups, pipelines, submissions } = runner.backend().counts();
        (4..44).for_each(|position| decode(&mut runner, position));
        let expected = WgpuCounts { buffers, bind_groups, pipelines, submissions: submissions + 40 };
        assert_eq!(runner.backend().counts(), expected);
    });
}

/// Every limit fails somewhere else while loading.
#[test]
fn a_full_device_is_a_typed_error_that_leaves_nothing_allocated() {
    on_every_adapter("out of memory", |options| {
        let dir = model_dir("fp8");
        let (config, checkpoint) = (ModelConfig::from_dir(&dir).unwrap(), Checkpoint::open(&dir).unwrap());
        let load_options =
            LoadOptions { precision: PrecisionPolicy::default(), with_mtp: false, max_model_len: LIMITS.max_model_len };
        let load = |backend: &WgpuBackend| Model::load(backend, &checkpoint, &config, &load_options, &mut |_| {});
        let roomy = open(&options);
        let model = load(&roomy).unwrap();
        let needed = roomy.allocated_bytes();
        drop(model);
        for limit in [0, 100_000, needed / 2, needed - 1] {
            let backend = open(&WgpuOptions { memory_limit_bytes: Some(limit), ..options.clone() });
            let before = backend.allocated_bytes();
            let Err(error) = load(&backend) else { panic!("{limit} of {needed} bytes were enough") };
            let bathysphere::Error::Prepare(PrepareError::Device(StepError::OutOfMemory {
                what, requested_bytes, ..
            })) = &error
            else {
                panic!("{error}");
            };
            assert!(*requested_bytes > 0 && what.contains(&format!("of at most {limit} bytes")), "{error}");
            assert!(error.to_string().contains(&requested_bytes.to_string()) && !error.is_fatal(), "{error}");
            assert_eq!(backend.allocated_bytes(), before, "a failed load keeps memory");
        }
        let exact = open(&WgpuOptions { memory_limit_bytes: Some(needed), ..options.clone() });
        drop(load(&exact).unwrap());
    });
}

#[test]
fn a_destroyed_device_fails_steps_and_nothing_hangs() {
    on_every_adapter("a destroyed device", |options| {
        let result = without_hanging(move || {
            let mut runner = load(open(&options)).unwrap();
            greedy(&mut runner, &[5, 6], 2).unwrap();
            runner.backend().device().destroy();
            let results = [0, 1].map(|_| greedy(&mut runner, &[5, 6], 2).err());
            let memory = runner.backend().alloc(1024).err();
            (results, memory)
        });
        let ([first, second], memory) = result;
        for error in [first, second, memory] {
            let error = error.expect("the device is gone");
            assert!(matches!(error, StepError::DeviceLost { .. }) && error.is_fatal(), "{error}");
        }
    });
}

#[test]
fn an_engine_whose_device_is_destroyed_says_so() {
    on_every_adapter("an engine on a destroyed device", |options| {
        let error = without_hanging(move || {
            let backend = open(&options);
            let device = backend.device().clone();
            let engine = Engine::builder(model_dir("fp8")).max_num_seqs(2).build_with(backend).unwrap();
            device.destroy();
            engine.generate("In the beginning", SamplingParams::greedy()).err().unwrap()
        });
        assert!(is_loss(&error), "{error}");
    });
}

#[test]
fn a_device_destroyed_before_loading_fails_the_load() {
    on_every_adapter("loading on a destroyed device", |options| {
        let error = without_hanging(move || {
            let backend = open(&options);
            backend.device().destroy();
            load(backend).err().unwrap()
        });
        assert!(is_loss(&error), "{error}");
    });
}

#[test]
fn the_default_cache_fits_a_binding_and_a_larger_one_is_refused() {
    on_every_adapter("cache and binding", |options| {
        // 16 sequences of 2048 tokens would take 20 MiB a layer.
        let most = 4 << 20;
        let backend = || open(&WgpuOptions { max_binding_bytes: Some(most), ..options.clone() });
        assert_eq!(backend().capabilities().max_cache_layer_bytes, Some(most));
        let builder = || Engine::builder(model_dir("fp8"));
        let params = || SamplingParams { max_tokens: Some(8), ..SamplingParams::greedy() };
        let tokens = |backend| {
            let engine = builder().build_with(backend).unwrap();
            engine.generate("In the beginning", params()).unwrap().token_ids
        };
        assert_eq!(tokens(backend()), tokens(open(&options)));
        let error = builder().num_cache_tokens(32_768).build_with(backend()).err().unwrap().to_string();
        assert!(error.contains("4.0 MiB") && error.contains("lower num_cache_tokens to 6 528"), "{error}");
    });
}

#[test]
fn an_adapter_that_is_not_there_is_answered_with_those_that_are() {
    let adapters = WgpuBackend::adapters().len();
    let device: Device = "wgpu:7".parse().unwrap();
    let reason = match device.capabilities(1) {
        Ok(capabilities) => {
            assert!(adapters > 7, "{capabilities:?}");
            return;
        }
        Err(error) => error.to_string(),
    };
    assert!(reason.starts_with("device wgpu:7 is unavailable"), "{reason}");
    match adapters {
        0 => assert!(reason.contains("no adapter found"), "{reason}"),
        n => assert!(reason.contains(&format!("numbered 0 to {}", n - 1)), "{reason}"),
    }
    let error = "wgpu:first".parse::<Device>().unwrap_err().to_string();
    assert!(error.contains("\"first\"") && error.contains("bathysphere devices"), "{error}");
}

/// What the documents say about its arithmetic.
#[test]
fn activations_and_cache_are_f32() {
    on_every_adapter("activations and cache", |options| {
        let backend = open(&options);
        let capabilities = backend.capabilities();
        assert_eq!((capabilities.activation, capabilities.cache_element_bytes), (DType::F32, 4));
        assert_eq!(capabilities.quantised_inputs, QuantisedInputs::NONE);
    });
}

/// The cache may be absent, this driver's, or anything else: it never changes what comes out.
#[test]
fn compiled_kernels_are_kept_in_a_file() {
    on_every_adapter("compiled_kernels_are_kept_in_a_file", |options| {
        let prompt = [5, 6, 7, 8];
        let expected = greedy(&mut load(open(&options)).unwrap(), &prompt, 6).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kernels.bin");
        let options = WgpuOptions { pipeline_cache: Some(file.clone()), ..options };
        for content in ["absent", "its own", "damaged", "cut short"] {
            match content {
                "damaged" => std::fs::write(&file, [0x5a; 4096]).unwrap(),
                "cut short" => {
                    let whole = std::fs::read(&file).unwrap();
                    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
                }
                _ => {}
            }
            let mut runner = load(open(&options)).unwrap();
            assert_eq!(greedy(&mut runner, &prompt, 6).unwrap(), expected, "with a cache that is {content}");
            let kept = std::fs::metadata(&file).map_or(0, |metadata| metadata.len());
            println!("cache {content}: {kept} bytes afterwards");
        }
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), usize::from(file.exists()), "nothing half-written");
    });
}
