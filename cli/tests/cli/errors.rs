use crate::support::{Outcome, Scratch, fp8_model, run};

/// A command that must be refused: one line on stderr with the culprit in it, nothing on stdout, no panic.
#[track_caller]
fn refused(args: &[&str], code: i32, culprit: &str) {
    let outcome = run(args);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (code, ""), "{args:?}: {outcome:?}");
    let Outcome { stderr, .. } = outcome;
    assert!(stderr.starts_with("error: "), "{args:?}: {stderr}");
    assert!(stderr.contains(culprit), "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    // Usage errors come with a hint how to get help.
    assert!(code == 2 || stderr.lines().count() == 1, "{args:?}: {stderr}");
}

#[test]
fn bad_prompts() {
    let scratch = Scratch::new();
    let long = scratch.file("long.txt", "word ".repeat(3000));
    let invalid = scratch.file("invalid.txt", b"good \xff bad");
    let empty = scratch.file("empty.txt", "");
    let no_ids = scratch.file("no_ids.json", "[]");
    let unknown = scratch.file("unknown.json", "[0, 4096]");
    let negative = scratch.file("negative.json", "[0, -1]");
    let truncated = scratch.file("truncated.json", "[0, 1");
    for command in ["generate", "score"] {
        refused(
            &[command, "--prompt-file", &invalid],
            1,
            "invalid.txt is not UTF-8: the first invalid byte is at offset 5",
        );
        refused(&[command, "--prompt-file", &empty], 1, "empty.txt is empty");
        refused(&[command, "--prompt", ""], 1, "--prompt is empty");
        refused(&[command, "--prompt-file", &scratch.path("absent.txt")], 1, "absent.txt");
        refused(&[command, "--prompt-file", &scratch.path("")], 1, "cannot read");
        refused(&[command, "--tokens-file", &unknown], 1, "token id 4096 at position 1");
        refused(&[command, "--tokens-file", &negative], 1, "negative.json");
        refused(&[command, "--tokens-file", &truncated], 1, "truncated.json");
        refused(&[command, "--tokens-file", &no_ids], 1, "token");
        refused(&[command, "--prompt", "a", "--tokens-file", &no_ids], 2, "--tokens-file");
        refused(&[command], 2, "--prompt");
    }
    refused(&["generate", "--prompt-file", &long], 1, "the window holds 2048");
    refused(&["generate", "--prompt", "a", "--raw", "--max-model-len", "2"], 1, "the window holds 2");
    refused(&["score", "--prompt", "a b c", "--window", "0"], 1, "window of 0");
    refused(&["score", "--prompt", "a b c", "--window", "2049"], 1, "window of 2049");
}

#[test]
fn bad_models_and_devices() {
    let scratch = Scratch::new();
    let absent = scratch.path("absent");
    let empty_dir = scratch.path("");
    let no_weights = scratch.model(|name| !name.ends_with(".safetensors"));
    for command in ["generate", "score"] {
        refused(&[command, "--prompt", "a", "--model", &absent], 1, "absent");
        refused(&[command, "--prompt", "a", "--model", &empty_dir], 1, "config.json");
        refused(&[command, "--prompt", "a", "--model", &no_weights], 1, ".safetensors");
        refused(&[command, "--prompt", "a", "--device", "abacus"], 2, "abacus");
        refused(&[command, "--prompt", "a", "--precision", "int3"], 2, "int3");
        refused(&[command, "--prompt", "a", "--precision", "int8,nothing=fp8"], 2, "nothing");
        refused(&[command, "--prompt", "a", "--kv-cache-dtype", "int3"], 2, "int3");
        refused(&[command, "--prompt", "a", "--device", "cpu", "--kv-cache-dtype", "fp8"], 1, "a latent cache in fp8");
        refused(&[command, "--prompt", "a", "--max-model-len", "2049"], 1, "max_model_len = 2049");
        refused(&[command, "--prompt", "a", "--max-model-len", "-1"], 2, "-1");
    }
    refused(&["chat", "--model", &absent], 1, "absent");
    refused(&["plan", "--model", &absent], 1, "absent");
    refused(&["bench", "--model", &absent], 1, "absent");
    refused(&["devices", "--log", "loud"], 2, "loud");
    refused(&["swim"], 2, "swim");
}

#[test]
fn bad_sampling_parameters() {
    for (flag, value, culprit) in [
        ("--temperature", "-1", "temperature"),
        ("--temperature", "NaN", "temperature"),
        ("--top-p", "1.5", "top_p"),
        ("--min-p", "2", "min_p"),
        ("--max-tokens", "0", "max_tokens"),
        ("--stop", "", "stop"),
    ] {
        refused(&["generate", "--prompt", "a", &format!("{flag}={value}")], 1, culprit);
    }
    refused(&["generate", "--prompt", "a", "--top-k", "many"], 2, "many");
}

#[test]
fn bad_outputs_leave_nothing_behind() {
    let scratch = Scratch::new();
    let model = fp8_model();
    let config = format!("{model}/config.json");
    std::fs::create_dir(scratch.path("full")).unwrap();
    let kept = scratch.file("full/kept.txt", "mine");
    let (full, no_parent) = (scratch.path("full"), scratch.path("no/parent"));
    refused(&["convert", "--input", &model, "--output", &full, "--precision", "int8"], 1, "full");
    refused(&["convert", "--input", &model, "--output", &no_parent, "--precision", "int8"], 1, "no/parent");
    refused(&["convert", "--input", &full, "--output", &scratch.path("new"), "--precision", "int8"], 1, "config.json");
    refused(&["convert", "--input", &model, "--output", &scratch.path("new"), "--precision", "int9"], 2, "int9");
    refused(&["synth", "--config", &config, "--output", &full], 1, "full");
    refused(&["synth", "--config", &kept, "--output", &scratch.path("new")], 1, "config.json");
    refused(&["synth", "--config", &config, "--output", &scratch.path("new"), "--layers", "0"], 1, "num_hidden_layers");
    refused(&["score", "--prompt", "a b", "--logits", &no_parent], 1, "no/parent");
    refused(&["score", "--prompt", "a b", "--logits", &full], 1, "full");
    refused(&["batch", "--input-file", &kept, "--output", &no_parent], 1, "no/parent");
    assert_eq!(scratch.names(), ["full"]);
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), "mine");
    assert_eq!(std::fs::read_dir(&full).unwrap().count(), 1);
}

#[test]
fn benchmarks_that_do_not_fit_the_window() {
    refused(&["bench", "--prompt-len", "2000", "--gen-len", "100"], 1, "--prompt-len");
    refused(&["bench", "--gen-len", "1"], 2, "--gen-len");
    refused(&["bench", "--batch", "0"], 2, "--batch");
}
