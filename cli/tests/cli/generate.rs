use serde_json::{Value, json};

use crate::support::{Scratch, bathysphere, fp8_model, golden, repository, run, run_with_input};

#[test]
fn devices_are_listed() {
    let devices = run(&["devices", "--json"]).json();
    let names: Vec<&str> = devices.as_array().unwrap().iter().map(|d| d["name"].as_str().unwrap()).collect();
    assert_eq!(names[names.len() - 1], "reference");
    assert!(names.contains(&"cpu"), "{names:?}");
    for device in devices.as_array().unwrap() {
        assert!(["available", "unavailable"].contains(&device["status"].as_str().unwrap()), "{device}");
    }
    let text = run(&["devices"]).success();
    assert!(names.iter().all(|name| text.contains(&format!("{name}: "))), "{text}");
}

#[test]
fn greedy_ids_are_those_of_the_goldens() {
    let scratch = Scratch::new();
    for prompt in ["short_code", "kjv"] {
        let (ids, greedy) = golden(prompt);
        let file = scratch.file("ids.json", serde_json::to_vec(&ids).unwrap());
        for device in ["cpu", "reference"] {
            let args = [
                "generate",
                "--tokens-file",
                &file,
                "--temperature",
                "0",
                "--max-tokens",
                "16",
                "--json",
                "--ignore-eos",
            ];
            let found = run(&[&args[..], &["--device", device]].concat()).json();
            assert_eq!(found["token_ids"], json!(greedy[..16]), "{prompt} on {device}");
            let usage = json!({"prompt_tokens": ids.len(), "completion_tokens": 16, "total_tokens": ids.len() + 16});
            assert_eq!((&found["usage"], &found["finish_reason"]), (&usage, &json!("length")));
            for timing in ["load_s", "prefill_tok_s", "decode_tok_s"] {
                assert!(found[timing].as_f64().unwrap() > 0.0, "{timing}: {found}");
            }
        }
    }
}

#[test]
fn text_goes_in_and_comes_out() {
    // The golden text of the same prompt, up to where 16 tokens end.
    let prompt = "Psa, chapter 23\n\n1 The LORD is my";
    let args = ["generate", "--raw", "--prompt", prompt, "--temperature", "0", "--max-tokens", "16"];
    let text = run(&args).success();
    assert!(text.starts_with(" God, and my God, and my soul"), "{text:?}");

    let scratch = Scratch::new();
    let file = scratch.file("prompt.txt", prompt);
    let rest = ["--temperature", "0", "--max-tokens", "16"];
    let from_file = run(&[&["generate", "--raw", "--prompt-file", &file], &rest[..]].concat()).success();
    let from_stdin = run_with_input(&[&["generate", "--raw", "--prompt-file", "-"], &rest[..]].concat(), prompt);
    assert_eq!((&from_file, &from_stdin.success()), (&text, &text));
}

#[test]
fn a_prompt_is_a_message_unless_raw() {
    let framed = |flags: &[&str]| {
        let args =
            ["generate", "--prompt", "What is `std::vec::Vec`?", "--json", "--temperature", "0", "--max-tokens", "8"];
        run(&[&args[..], flags].concat()).json()
    };
    let (chat, raw) = (framed(&[]), framed(&["--raw"]));
    let (ids, greedy) = golden("chat_single");
    assert_eq!(chat["usage"]["prompt_tokens"], ids.len());
    assert_eq!(chat["token_ids"], json!(greedy[..8]));
    // The template's two markers around the text are missing.
    assert_eq!(raw["usage"]["prompt_tokens"], ids.len() - 2);
}

#[test]
fn sampling_flags_reach_the_sampler() {
    let sampled = |flags: &[&str]| {
        let args = ["generate", "--raw", "--prompt", "The LORD is my", "--json", "--max-tokens", "24"];
        run(&[&args[..], flags].concat()).json()
    };
    let ids = |found: Value| found["token_ids"].clone();
    let seeded = ids(sampled(&["--seed", "3"]));
    assert_eq!(seeded, ids(sampled(&["--seed", "3"])));
    assert_ne!(seeded, ids(sampled(&["--seed", "4"])));
    let greedy = ids(sampled(&["--temperature", "0"]));
    assert_ne!(seeded, greedy);
    for only_the_likeliest in [["--top-k", "1"], ["--top-p", "0"], ["--min-p", "1"]] {
        assert_eq!(ids(sampled(&[&only_the_likeliest[..], &["--temperature", "1.5"]].concat())), greedy);
    }
    let stopped = sampled(&["--temperature", "0", "--stop", "nowhere", "--stop", " hosts"]);
    assert_eq!(stopped["finish_reason"], "stop");
    assert_eq!(stopped["text"], " God, and the LORD God of");
}

#[test]
fn without_a_tokenizer_there_is_no_text() {
    let scratch = Scratch::new();
    let model = scratch.model(|name| !name.starts_with("tokenizer"));
    let (ids, greedy) = golden("kjv");
    let file = scratch.file("ids.json", serde_json::to_vec(&ids).unwrap());
    let args = ["generate", "--model", &model, "--tokens-file", &file, "--temperature", "0", "--max-tokens", "8"];
    let found = run(&[&args[..], &["--json"]].concat()).json();
    assert_eq!((&found["text"], &found["token_ids"]), (&Value::Null, &json!(greedy[..8])));
    let printed: Vec<String> = greedy[..8].iter().map(u64::to_string).collect();
    assert_eq!(run(&args).success(), printed.join(" ") + "\n");

    let refused = run(&["generate", "--model", &model, "--prompt", "x"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""));
    assert!(refused.stderr.contains("tokenizer.json") && refused.stderr.contains(&model), "{}", refused.stderr);
}

#[test]
fn the_own_model_is_found_from_anywhere() {
    let scratch = Scratch::new();
    let args = ["generate", "--raw", "--prompt", "The", "--temperature", "0", "--max-tokens", "4"];
    let named = run(&[&args[..], &["--model", &fp8_model()]].concat()).success();
    for dir in [repository("engine-core/src"), scratch.path("").into()] {
        let output = bathysphere().args(args).current_dir(&dir).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), named, "from {}", dir.display());
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let mut child = bathysphere()
        .args(["generate", "--prompt", "What is a slice?", "--ignore-eos", "--max-tokens", "1000"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
}
