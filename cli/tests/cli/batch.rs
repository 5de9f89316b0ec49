use serde_json::{Value, json};

use crate::support::{Outcome, Scratch, golden, run, run_with_input};

const GREEDY: [&str; 2] = ["--temperature", "0"];

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn results_come_in_the_order_of_the_input() {
    let (ids, greedy) = golden("kjv");
    let input = format!(
        "{}\n\n{}\n{}\n",
        json!({"prompt": "What is a slice?", "max_tokens": 40}),
        json!({"token_ids": ids, "max_tokens": 2}),
        json!({"messages": [{"role": "user", "content": "What is `std::vec::Vec`?"}], "max_tokens": 5, "stop": ["?"]}),
    );
    let scratch = Scratch::new();
    let (file, output) = (scratch.file("in.jsonl", &input), scratch.path("out.jsonl"));
    let printed = run(&[&["batch", "--input-file", &file], &GREEDY[..]].concat()).success();
    let results = lines(&printed);
    let places: Vec<_> = results.iter().map(|r| (r["index"].as_u64(), r["line"].as_u64())).collect();
    assert_eq!(places, [(Some(0), Some(1)), (Some(1), Some(3)), (Some(2), Some(4))]);
    let counts: Vec<_> = results.iter().map(|r| r["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    assert_eq!(counts, [40, 2, 5]);
    assert_eq!(results[1]["token_ids"], json!(greedy[..2]));
    assert_eq!(results[2]["token_ids"], json!(golden("chat_single").1[..5]));
    // What runs together gives what runs alone.
    let alone =
        run(&["generate", "--prompt", "What is a slice?", "--max-tokens", "40", "--json", "--temperature", "0"]);
    assert_eq!(results[0]["text"], alone.json()["text"]);

    let said = run(&[&["batch", "--input-file", &file, "--output", &output], &GREEDY[..]].concat()).success();
    assert_eq!(said, "");
    let written = lines(&std::fs::read_to_string(&output).unwrap());
    let without_timings = |results: Vec<Value>| -> Vec<Value> {
        results
            .into_iter()
            .map(|mut r| {
                r["timings"].take();
                r
            })
            .collect()
    };
    assert_eq!(without_timings(written), without_timings(results));
    assert_eq!(scratch.names(), ["in.jsonl", "out.jsonl"]);
}

#[test]
fn plain_lines_are_prompts() {
    let args = ["batch", "--input-file", "-", "--raw", "--max-tokens", "4"];
    let found = lines(&run_with_input(&[&args[..], &GREEDY[..]].concat(), "The LORD is my\nThe\n").success());
    assert_eq!(found[0]["text"], " God, and the");
    assert_eq!((found.len(), found[1]["usage"]["prompt_tokens"].as_u64()), (2, Some(2)));
}

#[test]
fn a_bad_line_is_named_and_nothing_is_written() {
    let good = json!({"prompt": "a"}).to_string();
    let long = json!({"token_ids": vec![5; 3000]}).to_string();
    let cases = [
        ("{\"prompt\": ", "not a JSON object"),
        ("{\"token_ids\": [4096]}", "4096"),
        ("{\"token_ids\": []}", "no tokens"),
        ("{\"prompt\": \"a\", \"temperature\": -1}", "temperature"),
        ("{\"prompt\": \"a\", \"max_token\": 1}", "max_token"),
        ("{\"messages\": [{\"role\": \"robot\", \"content\": \"a\"}]}", "robot"),
        (&long, "3000"),
    ];
    for (bad, culprit) in cases {
        let scratch = Scratch::new();
        let input = scratch.file("in.jsonl", format!("{good}\n{bad}\n{good}\n"));
        let args = ["batch", "--input-file", &input, "--output", &scratch.path("out.jsonl")];
        let Outcome { code, stdout, stderr } = run(&args);
        assert_eq!((code, stdout.as_str()), (1, ""), "{bad}");
        assert!(stderr.contains("in.jsonl, line 2: ") && stderr.contains(culprit), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert_eq!(scratch.names(), ["in.jsonl"]);
    }
}
