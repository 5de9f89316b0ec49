//! The wgpu backend's ops, on every adapter of this machine and with every way of cutting matrix products.
#![cfg(feature = "wgpu")]
#![allow(clippy::print_stdout, reason = "the report of a test run")]
#![allow(clippy::unwrap_used)]

use backend_wgpu::{MatmulStyle, WgpuBackend, WgpuOptions};
use conformance::harness::{NO_FP8_CACHE, NO_TOP_LOGITS, Profile, not_run, run_all};
use engine_core::reference::Numerics;

/// Runs the suite on every adapter; says so where there is none.
fn conforms(what: &str, options: &WgpuOptions) {
    let adapters = WgpuBackend::adapters();
    println!("wgpu, {what}: {} adapters", adapters.len());
    for (index, adapter) in adapters.iter().enumerate() {
        let backend = WgpuBackend::new(&WgpuOptions { adapter: Some(index), ..options.clone() }).unwrap();
        let name = format!("wgpu:{index}, {} ({}, {}), {what}", adapter.name, adapter.api, adapter.driver);
        let absent = [NO_FP8_CACHE, NO_TOP_LOGITS];
        let report = run_all(&backend, &Profile::new(name, Numerics::default()).with_unsupported(&absent));
        println!("{report}");
        report.assert_passed();
    }
    if adapters.is_empty() {
        not_run(&format!("wgpu, {what}"), "no adapter");
    }
}

#[test]
fn as_the_adapter_likes_it() {
    conforms("default", &WgpuOptions::default());
}

#[test]
fn in_tiles() {
    conforms("tiles", &WgpuOptions { matmul: Some(MatmulStyle::Tiles), ..WgpuOptions::default() });
}

#[test]
fn in_tiles_without_subgroups() {
    let options = WgpuOptions { matmul: Some(MatmulStyle::Tiles), subgroups: Some(false), ..WgpuOptions::default() };
    conforms("tiles, no subgroups", &options);
}

#[test]
fn in_lanes_without_subgroups() {
    let options = WgpuOptions { matmul: Some(MatmulStyle::Lanes), subgroups: Some(false), ..WgpuOptions::default() };
    conforms("lanes, no subgroups", &options);
}
