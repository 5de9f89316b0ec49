//! Whole models on every wgpu adapter: goldens in bf16 and fp8, and what int8 and int4 cost.
#![cfg(feature = "wgpu")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use backend_wgpu::{WgpuBackend, WgpuOptions};
use conformance::golden::{GoldenMode, Goldens, check_prompts, check_trace, heldout, load_tiny, model_dir};
use conformance::harness::not_run;
use engine_core::quant::{Precision, PrecisionPolicy};
use engine_core::runner::Runner;

/// Runs `check` on every adapter; says so where there is none.
fn on_every_adapter(what: &str, check: impl Fn(usize)) {
    let adapters = WgpuBackend::adapters();
    for (index, adapter) in adapters.iter().enumerate() {
        println!("wgpu:{index}, {} ({}): {what}", adapter.name, adapter.driver);
        check(index);
    }
    if adapters.is_empty() {
        not_run(&format!("wgpu, {what}"), "no adapter");
    }
}

fn load(adapter: usize, format: &str, precision: Precision) -> Runner<WgpuBackend> {
    let backend = WgpuBackend::new(&WgpuOptions { adapter: Some(adapter), ..WgpuOptions::default() }).unwrap();
    load_tiny(backend, &model_dir(format), &PrecisionPolicy::uniform(precision)).unwrap()
}

#[test]
fn goldens_with_bf16_and_fp8_weights() {
    let goldens = Goldens::load();
    on_every_adapter("goldens of all prompts", |adapter| {
        for (mode, format) in [(GoldenMode::Bf16WeightsF32, "bf16"), (GoldenMode::Fp8WeightsF32, "fp8")] {
            check_prompts(&goldens, mode, &mut load(adapter, format, Precision::Auto)).assert_none();
        }
    });
}

/// As on the CPU: f32 sums, 1e-6 is seen, 1e-4 catches any wrong formula.
#[test]
fn hidden_states_and_router_choices() {
    let goldens = Goldens::load();
    on_every_adapter("hidden states", |adapter| {
        let mut runner = load(adapter, "bf16", Precision::Auto);
        check_trace(&goldens, GoldenMode::Bf16WeightsF32, &mut runner, 1e-4).assert_none();
    });
}

/// fp8 weights against their own golden to four digits; int8 and int4 against bf16 within what they cost on the CPU.
#[test]
fn heldout_perplexity() {
    let goldens = Goldens::load();
    on_every_adapter("held-out perplexity", |adapter| {
        for (format, precision, mode, bound) in [
            ("fp8", Precision::Auto, GoldenMode::Fp8WeightsF32, 5e-5),
            ("bf16", Precision::Int8, GoldenMode::Bf16WeightsF32, 0.005),
            ("bf16", Precision::Int4, GoldenMode::Bf16WeightsF32, 0.025),
        ] {
            let mut runner = load(adapter, format, precision);
            let result = heldout(&goldens, mode, ("heldout_rust.txt", 512), &mut runner);
            let increase = result.perplexity / result.golden_perplexity - 1.0;
            println!("{format} as {precision}: perplexity {:.5}, {:+.4} %", result.perplexity, increase * 100.0);
            assert!(increase.abs() < bound, "{format} as {precision}: {result:?}");
        }
    });
}
