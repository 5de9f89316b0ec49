use serde_json::Value;

use crate::support::{Scratch, fp8_model, repository, run, text_of};

#[test]
fn converted_checkpoints_score_alike() {
    let scratch = Scratch::new();
    let text = text_of(&repository("tests/goldens/heldout_kjv.txt"));
    for precision in ["int8", "bf16"] {
        let output = scratch.path(precision);
        let said = run(&["convert", "--input", &fp8_model(), "--output", &output, "--precision", precision]).success();
        assert!(said.contains("weights converted"), "{said}");
        let found = run(&["score", "--model", &output, "--prompt-file", &text, "--window", "512", "--json"]).json();
        // The golden of the fp8 checkpoint; int8 per channel moves it by some hundredths.
        assert!((found["perplexity"].as_f64().unwrap() - 25.4414).abs() < 0.08, "{precision}: {found}");
        let plan = run(&["plan", "--model", &output, "--json"]).json();
        let experts = plan["weights"].as_array().unwrap().iter().find(|line| line["class"] == "experts").unwrap();
        assert_eq!(experts["format"], precision);
    }
    assert_eq!(scratch.names(), ["bf16", "int8"]);
}

#[test]
fn a_plan_needs_the_configuration_only() {
    let scratch = Scratch::new();
    let model = scratch.model(|name| name == "config.json");
    let plan = run(&["plan", "--model", &model, "--mtp", "--json"]).json();
    let complete = run(&["plan", "--mtp", "--json"]).json();
    // Not the memory that happens to be free.
    for key in ["weights", "weight_bytes", "active_parameters", "cache_bytes_per_token", "workspace_bytes"] {
        assert!(!plan[key].is_null() && plan[key] == complete[key], "{key}: {plan} and {complete}");
    }
    // The model card: 8.32 M parameters, MTP module included.
    let parameters = plan["total_parameters"].as_u64().unwrap() + plan["mtp_parameters"].as_u64().unwrap();
    assert!((8_315_000..8_325_000).contains(&parameters), "{plan}");
    assert_eq!(plan["max_model_len"], 2048);
    let shorter = run(&["plan", "--model", &model, "--max-model-len", "100", "--precision", "bf16", "--json"]).json();
    assert_eq!(shorter["max_model_len"], 100);
    let table = run(&["plan", "--model", &model]).success();
    assert!(table.contains("experts") && table.contains("latent cache"), "{table}");
}

/// 128 values of `kv_c` and 32 of `k_pe` in five layers: f32, or codes with a scale and bf16.
#[test]
fn an_fp8_cache_is_planned_for_and_generates() {
    for (dtype, bytes) in [("auto", 5 * 4 * (128 + 32)), ("fp8", 5 * (128 + 4 + 2 * 32))] {
        let flags = ["--device", "reference", "--kv-cache-dtype", dtype, "--json"];
        let plan = run(&[&["plan"][..], &flags].concat()).json();
        assert_eq!((&plan["cache_format"], &plan["cache_bytes_per_token"]), (&dtype.into(), &bytes.into()));
        let prompt = ["generate", "--prompt", "In the beginning", "--max-tokens", "2", "--max-model-len", "64"];
        let found = run(&[&prompt[..], &flags].concat()).json();
        assert!(!found["token_ids"].as_array().unwrap().is_empty(), "{found}");
    }
}

#[test]
fn a_synthetic_checkpoint_runs() {
    let scratch = Scratch::new();
    let config = text_of(&repository("models/tiny-deepseek-v3-fp8/config.json"));
    let ids = scratch.file("ids.json", "[0, 1, 2]");
    for precision in ["fp8", "bf16"] {
        let output = scratch.path(precision);
        let args = ["synth", "--config", &config, "--output", &output, "--layers", "2", "--dense-layers", "1"];
        run(&[&args[..], &["--precision", precision, "--mtp", "--seed", "3"]].concat()).success();
        let args = ["generate", "--model", &output, "--tokens-file", &ids, "--max-tokens", "6", "--ignore-eos"];
        let found = run(&[&args[..], &["--json"]].concat()).json();
        assert_eq!((found["token_ids"].as_array().unwrap().len(), &found["text"]), (6, &Value::Null));
        let mtp = run(&["score", "--model", &output, "--tokens-file", &ids, "--mtp", "--json"]).json();
        assert_eq!(mtp["drafts"]["compared"], 1);
    }
}

#[test]
fn the_benchmark_reports_what_it_measured() {
    let args = ["bench", "--prompt-len", "32", "--gen-len", "8", "--runs", "1", "--json"];
    let alone = run(&args).json();
    let together = run(&[&args[..], &["--batch", "3"]].concat()).json();
    for key in ["load_s", "prefill_tok_s", "decode_tok_s", "decode_step_s", "bandwidth_bytes_s", "bandwidth_share_min"]
    {
        assert!(alone[key].as_f64().unwrap() > 0.0 && together[key].as_f64().unwrap() > 0.0, "{key}: {together}");
    }
    assert_eq!((&together["batch"], &together["prompt_len"], &together["gen_len"]), (&3.into(), &32.into(), &8.into()));
    let bytes = |report: &Value, key: &str| report["step_traffic"][key].as_u64().unwrap();
    assert_eq!(bytes(&alone, "weight_bytes_min"), bytes(&alone, "weight_bytes_max"));
    assert_eq!(bytes(&alone, "weight_bytes_min"), bytes(&together, "weight_bytes_min"));
    assert!(bytes(&together, "weight_bytes_max") > bytes(&together, "weight_bytes_min"));
    assert_eq!(bytes(&together, "cache_bytes"), 3 * bytes(&alone, "cache_bytes"));
}

#[test]
fn every_command_has_a_manual_with_an_example() {
    let help = run(&["--help"]).success();
    for command in ["devices", "generate", "chat", "batch", "score", "convert", "plan", "bench", "synth"] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
        let manual = run(&[command, "--help"]).success();
        assert!(manual.contains("Example"), "{manual}");
        assert!(manual.contains(&format!("bathysphere {command}")), "{manual}");
    }
}
