#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use super::*;
use crate::quant::{Precision, WeightClass};
use crate::weights::Checkpoint;

fn v3() -> ModelConfig {
    ModelConfig::from_json(crate::config::fixtures::DEEPSEEK_V3).unwrap()
}

fn directory(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models").join(name)
}

#[test]
fn deepseek_v3_has_its_published_sizes() {
    let plan = MemoryPlan::new(&v3(), &PlanRequest::new(&v3()));
    // README_WEIGHTS of the model: 671 B, 36.7 B active, MTP 11.5 B without what it shares; sums by hand below.
    assert_eq!(plan.total_parameters, 671_026_419_200);
    assert_eq!(plan.active_parameters, 36_625_618_432);
    assert_eq!(plan.mtp_parameters, 11_610_068_224);
    assert!((plan.total_parameters as f64 / 671e9 - 1.0).abs() < 0.001);
    assert!((plan.active_parameters as f64 / 36.7e9 - 1.0).abs() < 0.005);
    assert!((plan.mtp_parameters as f64 / 11.5e9 - 1.0).abs() < 0.01);
}

#[test]
fn deepseek_v3_caches_70_272_bytes_a_token_and_1_152_more_with_mtp() {
    let mut request = PlanRequest { with_mtp: false, ..PlanRequest::new(&v3()) };
    assert_eq!(MemoryPlan::new(&v3(), &request).cache_bytes_per_token, 70_272);
    request.with_mtp = true;
    assert_eq!(MemoryPlan::new(&v3(), &request).cache_bytes_per_token, 70_272 + 1_152);
    request.cache_element_bytes = 4;
    let plan = MemoryPlan::new(&v3(), &request);
    assert_eq!(plan.cache_bytes_per_token, 2 * (70_272 + 1_152));
    assert_eq!(plan.cache_bytes(1000), 1000 * 2 * (70_272 + 1_152));
}

/// Per token 512 codes, four scales and 64 bf16 values in every layer: 656 bytes.
#[test]
fn an_fp8_cache_takes_656_bytes_a_token_and_layer() {
    for (fixture, layers, bf16_bytes) in [
        (crate::config::fixtures::DEEPSEEK_V3, 61, 70_272),
        (crate::config::fixtures::DEEPSEEK_V2_LITE, 27, 31_104),
        (crate::config::fixtures::GLM_4_7_FLASH, 47, 54_144),
    ] {
        let config = ModelConfig::from_json(fixture).unwrap();
        let request = PlanRequest { with_mtp: false, ..PlanRequest::new(&config) };
        assert_eq!(MemoryPlan::new(&config, &request).cache_bytes_per_token, bf16_bytes);
        let request = PlanRequest { cache_format: CacheFormat::Fp8, ..request };
        let plan = MemoryPlan::new(&config, &request);
        assert_eq!(plan.cache_bytes_per_token, layers * 656);
        // The device's own element does not matter.
        let request = PlanRequest { cache_element_bytes: 4, ..request };
        assert_eq!(MemoryPlan::new(&config, &request).cache_bytes_per_token, plan.cache_bytes_per_token);
    }
}

#[test]
fn a_moe_layer_of_deepseek_v3_takes_eleven_and_a_half_gigabytes_in_fp8() {
    let with_layers = |num_hidden_layers| {
        let config = ModelConfig { num_hidden_layers, ..v3() };
        MemoryPlan::new(&config, &PlanRequest { with_mtp: false, ..PlanRequest::new(&config) }).weight_bytes
    };
    let layer = with_layers(5) - with_layers(4);
    assert!((layer as f64 / 11.5e9 - 1.0).abs() < 0.005, "{layer}");
}

/// Of 671 GB an eighth, and what every rank holds whole: embedding, router, norms, `q_a` and `kv_a`.
#[test]
fn eight_devices_hold_an_eighth_of_deepseek_v3_each() {
    let request = PlanRequest { with_mtp: false, ..PlanRequest::new(&v3()) };
    let alone = MemoryPlan::new(&v3(), &request);
    let each = MemoryPlan::new(&v3(), &PlanRequest { tensor_parallel_size: 8, ..request });
    assert_eq!(each.class_bytes(PlanClass::Experts) * 8, alone.class_bytes(PlanClass::Experts));
    assert_eq!(each.class_bytes(PlanClass::KvB) * 8, alone.class_bytes(PlanClass::KvB));
    // 1 010 blocks of 128 ids: 127 at most.
    assert_eq!(each.class_bytes(PlanClass::Head), 127 * 128 * 7168 * 2);
    assert_eq!(each.class_bytes(PlanClass::Embedding), alone.class_bytes(PlanClass::Embedding));
    let whole = 61 * (1536 + 576) * 7168;
    let attention = |plan: &MemoryPlan| plan.class_bytes(PlanClass::Attention);
    let divided = |plan: &MemoryPlan| attention(plan) as f64 - f64::from(whole);
    assert!((divided(&each) * 8.0 / divided(&alone) - 1.0).abs() < 1e-3);
    assert_eq!(
        (each.cache_bytes_per_token, each.total_parameters),
        (alone.cache_bytes_per_token, alone.total_parameters)
    );
    assert_eq!((alone.weight_bytes, each.weight_bytes), (673_150_611_808, 86_763_195_424));
}

/// 671 GB are more than four devices of 141 GB have.
#[test]
fn advice_counts_the_devices_that_there_are() {
    let advice = |num_devices| {
        let request = PlanRequest {
            available_bytes: Some(141_000_000_000),
            max_model_len: 4096,
            with_mtp: false,
            num_devices,
            ..PlanRequest::new(&v3())
        };
        MemoryPlan::new(&v3(), &request).check().unwrap_err().to_string()
    };
    assert!(advice(8).ends_with("131.3 GiB free: use tensor_parallel_size 8"), "{}", advice(8));
    assert!(advice(7).ends_with("131.3 GiB free: use a device with more memory"), "{}", advice(7));
}

#[test]
fn bytes_equal_those_of_the_tiny_models_files() {
    for name in ["tiny-deepseek-v3-bf16", "tiny-deepseek-v3-fp8"] {
        let config = ModelConfig::from_dir(&directory(name)).unwrap();
        let checkpoint = Checkpoint::open(&directory(name)).unwrap();
        // The MTP module's embedding and head are the main model's and counted once.
        let is_copy = |n: &str| n.ends_with("layers.5.embed_tokens.weight") || n.ends_with("shared_head.head.weight");
        let stored = checkpoint.names().filter(|n| !is_copy(n));
        let stored: usize = stored.map(|n| checkpoint.tensor_info(n).unwrap().num_bytes).sum();
        let plan = MemoryPlan::new(&config, &PlanRequest::new(&config));
        assert_eq!(plan.weight_bytes, stored as u64, "{name}");
        assert_eq!(plan.weights.iter().map(|line| line.bytes).sum::<u64>(), plan.weight_bytes);
    }
}

#[test]
fn each_class_follows_its_precision() {
    let policy = |text: &str| PlanRequest { policy: text.parse().unwrap(), ..PlanRequest::new(&v3()) };
    let auto = MemoryPlan::new(&v3(), &policy("auto"));
    let mixed = MemoryPlan::new(&v3(), &policy("experts=int4,kv_b=bf16"));
    assert_eq!(auto.class_bytes(PlanClass::Attention), mixed.class_bytes(PlanClass::Attention));
    // 4 bits a weight and an f32 scale per 32 of them is 5/8 of a byte.
    let experts = mixed.weights.iter().find(|line| line.class == PlanClass::Experts).unwrap();
    assert_eq!(experts.bytes, experts.parameters * 5 / 8);
    assert_eq!(experts.format, Some(WeightFormat::Int4Group));
    assert_eq!(mixed.class_bytes(PlanClass::KvB), 61 * 32_768 * 512 * 2);
    // 12 + 4 x 64 rows of scales by hand: kv_b is [32768, 512].
    assert_eq!(auto.class_bytes(PlanClass::KvB), 61 * (32_768 * 512 + 256 * 4 * 4));
    // INT8 leaves kv_b in bf16, and its scales are one f32 per row.
    let int8 = MemoryPlan::new(&v3(), &policy("int8"));
    assert_eq!(int8.class_bytes(PlanClass::KvB), 61 * 32_768 * 512 * 2);
    assert_eq!(int8.class_bytes(PlanClass::SharedExperts), 58 * (3 * 2048 * 7168 + (2048 + 2048 + 7168) * 4));
    assert_eq!(WeightClass::ALL.len() + 4, PlanClass::ALL.len());
}

#[test]
fn a_tied_head_is_stored_once_and_active() {
    let tied = ModelConfig { tie_word_embeddings: true, ..v3() };
    let request = PlanRequest::new(&v3());
    let (tied, untied) = (MemoryPlan::new(&tied, &request), MemoryPlan::new(&v3(), &request));
    assert_eq!(tied.class_bytes(PlanClass::Head), 0);
    assert_eq!(untied.total_parameters - tied.total_parameters, 129_280 * 7_168);
    assert_eq!(untied.active_parameters, tied.active_parameters);
}

#[test]
fn what_fits_is_bounded_by_the_byte() {
    let request = PlanRequest { max_model_len: 4096, ..PlanRequest::new(&v3()) };
    let unknown = MemoryPlan::new(&v3(), &request);
    assert_eq!((&unknown.verdict, unknown.max_cache_tokens), (&Verdict::Unknown, None));
    assert_eq!(unknown.cache_tokens(), 4096);
    let need = unknown.weight_bytes + unknown.workspace_bytes + unknown.cache_bytes(4096);

    let exact = MemoryPlan::new(&v3(), &PlanRequest { available_bytes: Some(need), ..request.clone() });
    assert_eq!((&exact.verdict, exact.max_cache_tokens), (&Verdict::Fits, Some(4096)));
    assert!(exact.check().is_ok());

    let short = MemoryPlan::new(&v3(), &PlanRequest { available_bytes: Some(need - 1), ..request });
    assert_eq!(short.max_cache_tokens, Some(4095));
    let advice = Advice { max_model_len: Some(4095), precision: Some(Precision::Int4), tensor_parallel_size: None };
    assert_eq!(short.check(), Err(PlanError::DoesNotFit { need, have: need - 1, advice }));
}

#[test]
fn a_layer_of_the_cache_is_bounded_by_the_block() {
    // 1 152 bytes a token of one layer in bf16; blocks of 64.
    let limit = 1_152 * 64 * 100;
    let request = PlanRequest { max_cache_layer_bytes: Some(limit), max_model_len: 6_400, ..PlanRequest::new(&v3()) };
    let exact = MemoryPlan::new(&v3(), &request);
    assert_eq!((&exact.verdict, exact.max_cache_layer_tokens), (&Verdict::Unknown, Some(6_400)));
    assert!(exact.check().is_ok());
    let many = MemoryPlan::new(&v3(), &PlanRequest { max_num_seqs: 9, ..request.clone() });
    assert_eq!(many.cache_tokens(), 6_400, "of 9 x 6 400");

    let long = PlanRequest { max_model_len: 6_401, available_bytes: Some(1 << 50), ..request.clone() };
    let plan = MemoryPlan::new(&v3(), &long);
    let excess =
        CacheLayerExcess { tokens: 6_401, need: 1_152 * 64 * 101, limit, option: "max_model_len", accepted: 6_400 };
    assert_eq!(plan.check(), Err(excess.clone().into()));
    assert!(plan.to_string().ends_with(&format!("does not fit: {excess}")), "{plan}");
    assert_eq!(serde_json::to_value(&plan).unwrap()["verdict"]["accepted"], 6_400);

    let one_byte_less = PlanRequest { max_cache_layer_bytes: Some(limit - 1), ..request };
    assert_eq!(MemoryPlan::new(&v3(), &one_byte_less).max_cache_layer_tokens, Some(6_336));
}

#[test]
fn only_the_first_mtp_module_is_counted_as_only_it_is_loaded() {
    let plan = |num_nextn_predict_layers| {
        let config = ModelConfig { num_nextn_predict_layers, ..v3() };
        MemoryPlan::new(&config, &PlanRequest::new(&config))
    };
    assert_eq!(plan(3), plan(1));
    assert!(plan(1).weight_bytes > plan(0).weight_bytes);
}

#[test]
fn advice_is_computed_and_true() {
    let fits = |policy: Precision, max_model_len, available| {
        let request = PlanRequest {
            policy: policy.into(),
            max_model_len,
            available_bytes: Some(available),
            ..PlanRequest::new(&v3())
        };
        MemoryPlan::new(&v3(), &request)
    };
    // Bf16 needs 1.25 TiB; 700 GB hold FP8.
    let error = fits(Precision::Bf16, 8192, 700_000_000_000).check().unwrap_err();
    assert!(error.to_string().ends_with("have 651.9 GiB free: use precision fp8"), "{error}");
    assert!(fits(Precision::Fp8, 8192, 700_000_000_000).check().is_ok());
    // Not even INT4 fits 80 GiB.
    let error = fits(Precision::Fp8, 8192, 80 << 30).check().unwrap_err();
    assert!(error.to_string().ends_with("have 80.0 GiB free: use a device with more memory"), "{error}");
    // A window that is too long.
    let error = fits(Precision::Fp8, 163_840, 690_000_000_000).check().unwrap_err();
    let PlanError::DoesNotFit { advice, .. } = &error else { panic!("{error}") };
    let len = advice.max_model_len.unwrap();
    assert!(fits(Precision::Fp8, len as usize, 690_000_000_000).check().is_ok());
    assert!(error.to_string().contains("lower max_model_len to "), "{error}");
}

#[test]
fn absurd_requests_saturate() {
    let request = PlanRequest {
        max_model_len: usize::MAX,
        max_num_seqs: usize::MAX,
        max_num_batched_tokens: usize::MAX,
        available_bytes: Some(1 << 40),
        ..PlanRequest::new(&v3())
    };
    let plan = MemoryPlan::new(&v3(), &request);
    assert!(plan.check().is_err());
    assert_eq!(plan.cache_tokens(), 0);
}

#[test]
fn the_table_is_aligned_and_serialises() {
    let request = PlanRequest { max_num_seqs: 16, available_bytes: Some(800 << 30), ..PlanRequest::new(&v3()) };
    let plan = MemoryPlan::new(&v3(), &request);
    let table = plan.to_string();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[6].split_whitespace().collect::<Vec<_>>(), ["experts", "fp8", "653.91", "B", "609.1", "GiB"]);
    let widths: Vec<usize> = lines.iter().filter(|l| l.ends_with("iB")).map(|l| l.chars().count()).collect();
    assert!(widths.iter().all(|w| *w == widths[0]), "{table}");
    assert_eq!(lines.last(), Some(&"fits"));

    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["weights"][5]["class"], "experts");
    assert_eq!(json["weights"][5]["format"], "fp8");
    assert_eq!(json["verdict"]["verdict"], "fits");
    assert_eq!(json["cache_bytes_per_token"], 70_272 + 1_152);
}
