//! Checks one device and says what came out: for real hardware, and for the tests over emulated drivers.
//!
//! ```text
//! device-check cuda:0 ops           every conformance case, or those whose name starts with a word given after it
//! device-check cuda:0 runtime       memory, launches, capture and replay, below the ops
//! device-check cuda:0 goldens       the tiny model against reference values of another implementation; one of its
//!                                   checkpoints if bf16 or fp8 is given after it
//! device-check cuda:0 generate      a few tokens of the tiny model through the engine
//! device-check rocm:0 …             the same on an AMD GPU; HIP_LIB names the file of HIP's runtime, if it lies elsewhere
//! device-check ascend:0 operators   how many operators of CANN the ops of a decoding step take
//! device-check ascend:0 steady      what steady decoding allocates and plans
//! device-check cuda:0 capture       captured decode steps against launched ones, and what a steady step asks for
//! device-check cuda:0 group 2       sums over devices, and the tiny model on them: this one and those that follow it.
//!                                   `generate` and `capture` take a number of devices too
//! device-check cuda:0 bench         whole steps of published shapes with random weights
//! device-check cuda:0 kernels       single ops of published shapes
//! device-check cuda:0 cublaslt      our products of FP8 blocks and NVIDIA's library's: are they the same, and who is faster?
//! device-check all devices          which devices there are, and why one cannot be used
//! ```
//!
//! `bench`, `kernels` and `cublaslt` take `--quick` or `--tiny` (sizes for a software device), `--dir DIR` for random checkpoints of up to
//! 47 GB, and, for a card whose name they do not know, `--bandwidth GB/S --fp8 TFLOP/S --bf16 TFLOP/S`.
//!
//! The last line is one JSON object. Status 0: passed; 1: failed; 2: no such check; 3: the device failed, with a typed
//! error; 4: it cannot be used.
#![allow(clippy::print_stdout, reason = "a command talks to who started it")]

use std::alloc::System;
use std::path::PathBuf;
use std::process::ExitCode;

use bathysphere::{Device, DeviceStatus, Engine, SamplingParams};
#[cfg(feature = "ascend")]
use conformance::ascend;
use conformance::bench::{BenchOptions, Card, Limits, Scale};
#[cfg(feature = "cuda")]
use conformance::bench::{PairRow, pair_products};
use conformance::capture::Steps;
use conformance::golden::{divisible, model_dir};
use conformance::gpu::{self, Vendor};
use conformance::harness::{Profile, run_selected};
use engine_core::backend::Backend;
use engine_core::quant::QuantisedInputs;
use engine_core::reference::{Numerics, ReferenceBackend};
use gpu_common::{GpuOptions, GpuRuntime as _};
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// Counts what the whole process allocates.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const USAGE_TEXT: &str = "device-check DEVICE devices | ops [PREFIX] | runtime | goldens [bf16 | fp8] | generate [N] | capture [N] | group N | operators | random-model | steady | \
                          bench [OPTIONS] | kernels [OPTIONS] | cublaslt [OPTIONS]";

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const DEVICE_FAILED: u8 = 3;
const UNAVAILABLE: u8 = 4;

/// Status, and the last line.
type Answer = (u8, serde_json::Value);

/// Calls a function for the vendor of a GPU.
macro_rules! on_gpu {
    ($device:expr, $function:ident($($argument:expr),*)) => {
        match $device.split(':').next() {
            #[cfg(feature = "cuda")]
            Some("cuda") => $function::<gpu::Cuda>(ordinal($device), $($argument),*),
            #[cfg(feature = "rocm")]
            Some("rocm") => $function::<gpu::Rocm>(ordinal($device), $($argument),*),
            _ => no_check(stringify!($function), $device),
        }
    };
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (status, report) = match words[..] {
        [_, "devices"] => devices(),
        [device, "ops"] => ops(device, ""),
        [device, "ops", prefix] => ops(device, prefix),
        [device, "runtime"] => on_gpu!(device, runtime()),
        #[cfg(feature = "ascend")]
        [device, "goldens"] if device.starts_with("ascend") => ascend_goldens(device),
        [device, "goldens"] => on_gpu!(device, goldens(&["bf16", "fp8"])),
        [device, "goldens", weights @ ("bf16" | "fp8")] => on_gpu!(device, goldens(&[weights])),
        [device, "generate"] => generate(device, "1"),
        [device, "generate", world_size] => generate(device, world_size),
        #[cfg(feature = "ascend")]
        [device, "group", world_size] if device.starts_with("ascend") => {
            report_group(ascend::group(&ordinals(ordinal(device), world_size)))
        }
        [device, "group", world_size] => on_gpu!(device, group(world_size)),
        #[cfg(feature = "ascend")]
        [device, "operators"] => on_ascend(device, "operators", ascend::operators),
        #[cfg(feature = "ascend")]
        [device, "random-model"] => report_goldens(ascend::random_model(ordinal(device))),
        #[cfg(feature = "ascend")]
        [device, "steady"] => ascend_report("steady", ascend::steady(ordinal(device))),
        #[cfg(feature = "ascend")]
        [device, "capture"] if device.starts_with("ascend") => {
            ascend_report("capture", ascend::capture(ordinal(device)))
        }
        [device, "capture"] => on_gpu!(device, capture("1")),
        [device, "capture", world_size] => on_gpu!(device, capture(world_size)),
        #[cfg(feature = "cuda")]
        [device, "cublaslt", ref options @ ..] if device.starts_with("cuda") => match BenchArgs::parse(options) {
            Ok(args) => cublaslt(ordinal(device), args.scale),
            Err(error) => (USAGE, json!({ "check": "cublaslt", "error": error })),
        },
        [device, what @ ("bench" | "kernels"), ref options @ ..] => match BenchArgs::parse(options) {
            Ok(args) => bench(device, what, &args),
            Err(error) => (USAGE, json!({ "check": what, "error": error })),
        },
        _ => (USAGE, json!({ "usage": USAGE_TEXT })),
    };
    println!("{report}");
    ExitCode::from(status)
}

fn devices() -> Answer {
    let devices = Device::available();
    for device in &devices {
        match &device.status {
            DeviceStatus::Available(capabilities) => println!("{}: {}", device.name, capabilities.device),
            DeviceStatus::Unavailable { reason } => println!("{}: not available: {reason}", device.name),
        }
    }
    (0, json!({ "check": "devices", "devices": devices }))
}

fn ops(device: &str, prefix: &str) -> Answer {
    match device.split(':').next() {
        #[cfg(feature = "ascend")]
        Some("ascend") => on_ascend(device, "ops", |backend| {
            let profile = ascend::profile(backend);
            run_profile(backend, &profile, prefix)
        }),
        Some("reference") => {
            let backend = ReferenceBackend::new(Numerics::default());
            run_profile(&backend, &Profile::new("reference", Numerics::default()), prefix)
        }
        _ => on_gpu!(device, gpu_ops(prefix)),
    }
}

/// With quantised activations, and without.
fn gpu_ops<V: Vendor>(ordinal: u32, prefix: &str) -> Answer {
    let mut reports = Vec::new();
    for quantised_inputs in [QuantisedInputs::ALL, QuantisedInputs::NONE] {
        let options = GpuOptions { quantised_inputs, ..GpuOptions::default() };
        match V::open(ordinal, options) {
            Ok(backend) => reports.push(run_profile(&backend, &gpu::profile(&backend), prefix)),
            Err(error) => return (UNAVAILABLE, json!({ "check": "ops", "error": error.to_string() })),
        }
    }
    let status = reports.iter().map(|(status, _)| *status).max().unwrap_or(FAILED);
    let runs: Vec<serde_json::Value> = reports.into_iter().map(|(_, report)| report).collect();
    (status, json!({ "check": "ops", "runs": runs }))
}

fn run_profile<B: Backend>(backend: &B, profile: &Profile, prefix: &str) -> Answer {
    let capabilities = backend.capabilities();
    let report = run_selected(backend, profile, prefix);
    println!("{report}");
    let num_failed = report.failures().count();
    let status = if num_failed == 0 && !report.rows().is_empty() { 0 } else { FAILED };
    (status, json!({ "check": "ops", "device": capabilities, "result": report.closing_count(), "failed": num_failed }))
}

/// Runs a check on an Ascend device.
#[cfg(feature = "ascend")]
fn on_ascend(device: &str, check: &str, run: impl FnOnce(&backend_ascend::AscendBackend) -> Answer) -> Answer {
    match backend_ascend::AscendBackend::open(ordinal(device)) {
        Ok(backend) => run(&backend),
        Err(error) => (UNAVAILABLE, json!({ "check": check, "error": error.to_string() })),
    }
}

fn ordinal(device: &str) -> u32 {
    device.split(':').nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn no_check(check: &str, device: &str) -> Answer {
    (UNAVAILABLE, json!({ "check": check, "error": format!("no {check} check for {device}") }))
}

fn generate(device: &str, world_size: &str) -> Answer {
    let failed = |error: &bathysphere::Error| {
        let status = if matches!(error, bathysphere::Error::Unavailable(_)) { UNAVAILABLE } else { DEVICE_FAILED };
        (status, json!({ "check": "generate", "error": error.to_string(), "is_fatal": error.is_fatal() }))
    };
    let device: Device = match device.parse() {
        Ok(device) => device,
        Err(error) => return failed(&bathysphere::Error::Unavailable(error)),
    };
    let world_size = world_size.parse().unwrap_or(0);
    let mut builder = Engine::builder(model_dir("fp8")).device(device).max_model_len(128);
    if world_size != 1 {
        builder = builder.tensor_parallel_size(world_size).precision(divisible());
    }
    let engine = match builder.build() {
        Ok(engine) => engine,
        Err(error) => return failed(&error),
    };
    let params = SamplingParams { max_tokens: Some(8), ..SamplingParams::greedy() };
    match engine.generate("In the beginning", params) {
        Ok(answer) => (0, json!({ "check": "generate", "device": device.to_string(), "text": answer.text })),
        Err(error) => failed(&error),
    }
}

fn runtime<V: Vendor>(ordinal: u32) -> Answer {
    let runtime = match V::runtime(ordinal) {
        Ok(runtime) => runtime,
        Err(error) => return (UNAVAILABLE, json!({ "check": "runtime", "error": error.to_string() })),
    };
    match conformance::gpu_runtime::check(&runtime) {
        Ok(passed) => (0, json!({ "check": "runtime", "passed": passed, "captures": runtime.captures() })),
        Err(error) => (FAILED, json!({ "check": "runtime", "error": error })),
    }
}

/// A device's number and those that follow it.
fn ordinals(first: u32, world_size: &str) -> Vec<u32> {
    (first..).take(world_size.parse().unwrap_or(0)).collect()
}

fn group<V: Vendor>(ordinal: u32, world_size: &str) -> Answer {
    report_group(gpu::group::<V>(&ordinals(ordinal, world_size)))
}

fn report_group(outcome: Result<(bool, serde_json::Value), bathysphere::Error>) -> Answer {
    match outcome {
        Ok((passed, report)) => (if passed { 0 } else { FAILED }, report),
        Err(error) => (UNAVAILABLE, json!({ "check": "group", "error": error.to_string() })),
    }
}

fn capture<V: Vendor>(ordinal: u32, world_size: &str) -> Answer {
    let ordinals = ordinals(ordinal, world_size);
    let open = |steps: Steps| {
        let counted = |ordinal| Ok(steps.on(V::runtime(ordinal)?));
        let opened = gpu_common::open_group(&V::COLLECTIVES, (V::NAME, &ordinals), counted);
        opened.map_err(|error| error.to_string())
    };
    if let Err(error) = open(Steps::Unpadded) {
        return (UNAVAILABLE, json!({ "check": "capture", "error": error }));
    }
    match conformance::capture::check(open, || ALLOCATOR.stats().allocations as u64) {
        Ok(report) => {
            let fault = conformance::capture::fault_of(&report);
            let status = if fault.is_none() { 0 } else { FAILED };
            (status, json!({ "check": "capture", "report": report, "fault": fault }))
        }
        Err(error) => (FAILED, json!({ "check": "capture", "error": error })),
    }
}

/// What `bench` and `kernels` are told.
struct BenchArgs {
    scale: Scale,
    dir: PathBuf,
    limits: Option<Limits>,
}

impl BenchArgs {
    fn parse(words: &[&str]) -> Result<Self, String> {
        let (mut scale, mut dir, mut ceilings) = (Scale::Full, std::env::temp_dir(), [None; 3]);
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            let mut number = |scale: f64| -> Result<Option<f64>, String> {
                let text = value()?;
                let number: f64 = text.parse().map_err(|_| format!("{word} {text}: not a number"))?;
                Ok(Some(number * scale))
            };
            match *word {
                "--quick" => scale = Scale::Quick,
                "--tiny" => scale = Scale::Tiny,
                "--bandwidth" => ceilings[0] = number(1e9)?,
                "--fp8" => ceilings[1] = number(1e12)?,
                "--bf16" => ceilings[2] = number(1e12)?,
                "--dir" => dir = PathBuf::from(value()?),
                _ => return Err(format!("{word} is no option of this check")),
            }
        }
        let limits = match ceilings {
            [None, None, None] => None,
            [Some(bytes_s), Some(fp8_flop_s), Some(bf16_flop_s)] => Some(Limits { bytes_s, fp8_flop_s, bf16_flop_s }),
            _ => return Err("--bandwidth, --fp8 and --bf16 are given together".into()),
        };
        Ok(Self { scale, dir, limits })
    }
}

/// The cases of products of FP8 blocks through cuBLASLt, and then every shape by both. Where the library cannot be used the
/// cases run all the same, by our own kernels, and the reason is what is wrong.
#[cfg(feature = "cuda")]
fn cublaslt(ordinal: u32, scale: Scale) -> Answer {
    let pair = match gpu::cublaslt::Pair::open(ordinal) {
        Ok(pair) => pair,
        Err(error) => return (UNAVAILABLE, json!({ "check": "cublaslt", "error": error.to_string() })),
    };
    let (ops_status, ops) = run_profile(&pair.theirs, &gpu::profile(&pair.theirs), "linear/fp8/");
    let version = match pair.version() {
        Ok(version) => version,
        Err(reason) => {
            let status = if ops_status == 0 { UNAVAILABLE } else { ops_status };
            return (status, json!({ "check": "cublaslt", "error": reason, "ops": ops }));
        }
    };
    let num_in_ops = pair.num_products();
    let tell = |row: &PairRow| {
        println!(
            "{}, {} rows: ours {:.4} ms, theirs {:.4} ms, ratio {:.3}; {:.2} % the same, nmse {:.1e}{}{}",
            row.what,
            row.rows,
            row.ours_ms,
            row.theirs_ms,
            row.ratio,
            100.0 * row.same,
            row.nmse,
            if row.agrees { "" } else { ", WRONG" },
            if row.is_theirs { "" } else { ", BOTH ARE OURS" },
        );
    };
    match pair_products([&pair.ours, &pair.theirs], scale, || pair.num_products(), tell) {
        Ok(rows) => {
            let is_right = rows.iter().all(|row| row.agrees && row.is_theirs) && ops_status == 0 && num_in_ops > 0;
            let device = pair.ours.capabilities();
            let report = json!({
                "check": "cublaslt", "version": version, "device": device, "ops": ops, "products_in_ops": num_in_ops,
                "rows": rows,
            });
            (if is_right { 0 } else { FAILED }, report)
        }
        Err(error) => {
            (DEVICE_FAILED, json!({ "check": "cublaslt", "error": error.to_string(), "is_fatal": error.is_fatal() }))
        }
    }
}

/// Runs a benchmark on a device of any kind.
fn bench(device: &str, what: &str, args: &BenchArgs) -> Answer {
    match device.split(':').next() {
        #[cfg(feature = "cpu")]
        Some("cpu") => bench_on(what, args, || {
            backend_cpu::CpuBackend::new(backend_cpu::CpuOptions::default()).map_err(bathysphere::Error::from)
        }),
        _ => on_gpu!(device, bench_gpu(what, args)),
    }
}

fn bench_gpu<V: Vendor>(ordinal: u32, what: &str, args: &BenchArgs) -> Answer {
    bench_on(what, args, || V::open(ordinal, GpuOptions::default()).map_err(bathysphere::Error::from))
}

fn bench_on<B: Backend>(what: &str, args: &BenchArgs, open: impl Fn() -> Result<B, bathysphere::Error>) -> Answer {
    let failed = |error: &bathysphere::Error| {
        let status = if matches!(error, bathysphere::Error::Unavailable(_)) { UNAVAILABLE } else { DEVICE_FAILED };
        (status, json!({ "check": what, "error": error.to_string(), "is_fatal": error.is_fatal() }))
    };
    let backend = match open() {
        Ok(backend) => backend,
        Err(error) => return failed(&error),
    };
    let capabilities = backend.capabilities().clone();
    let limits = args.limits.or_else(|| Card::named(&capabilities.device).map(|card| card.limits));
    let options = BenchOptions { scale: args.scale, limits, dir: args.dir.clone() };
    let tell = |text: &str| println!("{text}");
    let rows = match what {
        "kernels" => conformance::bench::kernels(&backend, &options, tell),
        _ => {
            drop(backend);
            conformance::bench::models(&options, open, tell)
        }
    };
    match rows {
        Ok(rows) => {
            println!("\n{}", conformance::bench::table(&rows));
            let scale = format!("{:?}", args.scale).to_lowercase();
            (0, json!({ "check": what, "scale": scale, "device": capabilities, "limits": limits, "rows": rows }))
        }
        Err(error) => failed(&error),
    }
}

fn goldens<V: Vendor>(ordinal: u32, weights: &[&str]) -> Answer {
    report_goldens(gpu::goldens::<V>(ordinal, weights))
}

#[cfg(feature = "ascend")]
fn ascend_goldens(device: &str) -> Answer {
    report_goldens(ascend::goldens(ordinal(device)))
}

#[cfg(feature = "ascend")]
fn ascend_report(check: &str, outcome: Result<(bool, serde_json::Value), bathysphere::Error>) -> Answer {
    match outcome {
        Ok((passed, report)) => (if passed { 0 } else { FAILED }, report),
        Err(error @ bathysphere::Error::Unavailable(_)) => {
            (UNAVAILABLE, json!({ "check": check, "error": error.to_string() }))
        }
        Err(error) => (DEVICE_FAILED, json!({ "check": check, "error": error.to_string() })),
    }
}

fn report_goldens(outcome: Result<(bool, serde_json::Value), bathysphere::Error>) -> Answer {
    match outcome {
        Ok((passed, report)) => (if passed { 0 } else { FAILED }, report),
        Err(error) => (UNAVAILABLE, json!({ "check": "goldens", "error": error.to_string() })),
    }
}
