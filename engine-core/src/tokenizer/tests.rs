//! The tokenizer against text and ids made by `transformers` (tests/goldens), and against the library's own decoder.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::Arc;

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use serde_json::Value;

use super::*;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn model_dir() -> PathBuf {
    repository().join("models/tiny-deepseek-v3-bf16")
}

fn tokenizer() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::from_dir(&model_dir()).unwrap().unwrap())
}

fn goldens() -> Value {
    let text = std::fs::read_to_string(repository().join("tests/goldens/goldens.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The pieces a stream gives for `ids`, and what `finish` adds.
fn stream(tokenizer: &Arc<Tokenizer>, ids: &[u32], skip_special_tokens: bool) -> (Vec<String>, String) {
    let mut stream = DetokenizeStream::new(tokenizer.clone(), skip_special_tokens);
    let pieces = ids.iter().filter_map(|&id| stream.push(id)).collect();
    (pieces, stream.finish())
}

#[test]
fn encodes_every_golden_prompt() {
    let (tokenizer, goldens) = (tokenizer(), goldens());
    let mut num_checked = 0;
    for prompt in goldens["prompts"].as_array().unwrap() {
        let Some(text) = prompt["text"].as_str() else { continue };
        assert_eq!(tokenizer.encode(text, true).unwrap(), ids(&prompt["ids"]), "{}", prompt["name"]);
        num_checked += 1;
    }
    assert_eq!(num_checked, 10);
    for (file, data) in goldens["heldout"]["files"].as_object().unwrap() {
        let text = std::fs::read_to_string(repository().join("tests/goldens").join(file)).unwrap();
        assert_eq!(tokenizer.encode(&text, true).unwrap(), ids(&data["ids"]), "{file}");
    }
}

#[test]
fn renders_and_encodes_every_golden_chat() {
    let (tokenizer, goldens) = (tokenizer(), goldens());
    let template = ChatTemplate::from_dir(&model_dir()).unwrap().unwrap();
    let mut num_checked = 0;
    for prompt in goldens["prompts"].as_array().unwrap().iter().filter(|p| p["kind"] == "chat") {
        let messages: Vec<ChatMessage> = serde_json::from_value(prompt["messages"].clone()).unwrap();
        let add_generation_prompt = prompt["add_generation_prompt"].as_bool().unwrap();
        let options = ChatOptions { add_generation_prompt, ..ChatOptions::default() };
        let text = template.render(&messages, &options).unwrap();
        assert_eq!(text, prompt["text"].as_str().unwrap(), "{}", prompt["name"]);
        assert_eq!(tokenizer.encode(&text, true).unwrap(), ids(&prompt["ids"]), "{}", prompt["name"]);
        num_checked += 1;
    }
    assert_eq!(num_checked, 3);
}

#[test]
fn decodes_every_golden_continuation_whole_and_in_pieces() {
    let (tokenizer, goldens) = (tokenizer(), goldens());
    let mut num_checked = 0;
    for (mode, prompts) in goldens["results"].as_object().unwrap() {
        for (name, result) in prompts.as_object().unwrap() {
            let (ids, text) = (ids(&result["greedy"]), result["text"].as_str().unwrap());
            assert_eq!(tokenizer.decode(&ids, false), text, "{mode}/{name}");
            let (pieces, rest) = stream(&tokenizer, &ids, false);
            assert!(pieces.iter().all(|p| !p.is_empty() && !p.contains('\u{FFFD}')), "{mode}/{name}");
            assert_eq!(pieces.concat() + &rest, text, "{mode}/{name}");
            num_checked += 1;
        }
    }
    assert_eq!(num_checked, 60);
}

#[test]
fn characters_over_several_tokens_come_out_whole() {
    let tokenizer = tokenizer();
    let text = " leading  spaces 🙂👩‍👩‍👧 日本語 Здравствуйте naïve\r\n\t e\u{301} \u{10FFFF}";
    let ids = tokenizer.encode(text, false).unwrap();
    assert!(ids.iter().any(|&id| std::str::from_utf8(tokenizer.token_bytes(id).unwrap()).is_err()));
    let (pieces, rest) = stream(&tokenizer, &ids, true);
    assert_eq!((pieces.concat().as_str(), rest.as_str()), (text, ""));
    assert!(pieces.iter().all(|p| !p.contains('\u{FFFD}')));

    let smile = tokenizer.encode("🙂", false).unwrap();
    let (pieces, rest) = stream(&tokenizer, &smile[..smile.len() - 1], true);
    assert_eq!((pieces, rest.as_str()), (vec![], "\u{FFFD}"));
}

#[test]
fn random_ids_stream_to_what_the_library_decodes() {
    let tokenizer = tokenizer();
    let mut rng = Pcg64::seed_from_u64(7);
    for round in 0..400 {
        // Half the rounds from the 256 single bytes, where characters break most; ids up to 4200 include unknown ones.
        let num_ids = if round % 2 == 0 { 300 } else { 4200 };
        let ids: Vec<u32> = (0..64).map(|_| (rng.next_u64() % num_ids) as u32).collect();
        for skip in [false, true] {
            let expected = tokenizer.inner.decode(&ids, skip).unwrap();
            assert_eq!(tokenizer.decode(&ids, skip), expected, "{ids:?}");
            let (pieces, rest) = stream(&tokenizer, &ids, skip);
            assert_eq!(pieces.concat() + &rest, expected, "{ids:?}");
        }
    }
}

#[test]
fn ids_without_a_token_are_counted_and_silent() {
    let tokenizer = tokenizer();
    assert_eq!(tokenizer.vocab_size(), 4096);
    let ids = [706, 4096, u32::MAX, 2772];
    assert_eq!(tokenizer.decode(&ids, false), tokenizer.decode(&[706, 2772], false));
    assert_eq!(tokenizer.num_unknown(&ids), 2);
    assert_eq!(tokenizer.token_bytes(4096), None);
    let mut stream = DetokenizeStream::new(tokenizer.clone(), false);
    assert_eq!(ids.map(|id| stream.push(id).is_some()), [true, false, false, true]);
    assert_eq!(stream.num_unknown(), 2);
}

#[test]
fn only_flagged_tokens_are_skipped() {
    let tokenizer = tokenizer();
    let text = "<｜User｜>a<｜end▁of▁sentence｜><｜tool▁sep｜><|EOT|>";
    let ids = tokenizer.encode(text, true).unwrap();
    assert_eq!(tokenizer.decode(&ids, false), format!("<｜begin▁of▁sentence｜>{text}"));
    assert_eq!(tokenizer.decode(&ids, true), "<｜User｜>a<｜tool▁sep｜>");
}

#[test]
fn begin_of_sentence_comes_once_and_only_when_asked_for() {
    let tokenizer = tokenizer();
    assert_eq!((tokenizer.bos_token_id(), tokenizer.eos_token_id()), (Some(0), Some(1)));
    assert_eq!(tokenizer.encode("<｜begin▁of▁sentence｜>a", true).unwrap(), tokenizer.encode("a", true).unwrap());
    assert_eq!(tokenizer.encode("", false).unwrap(), Vec::<u32>::new());
    let config = |text: &str| {
        let dir = copy_with("tokenizer_config.json", Some(text.as_bytes()));
        Tokenizer::from_dir(dir.path()).unwrap().unwrap().encode("a", true).unwrap().len()
    };
    let bos = r#""bos_token": "<｜begin▁of▁sentence｜>""#;
    assert_eq!(config(&format!(r#"{{{bos}, "add_bos_token": true}}"#)), 2);
    assert_eq!(config(&format!(r#"{{{bos}, "add_bos_token": false}}"#)), 1);
    assert_eq!(config(&format!(r#"{{{bos}, "tokenizer_class": "LlamaTokenizerFast"}}"#)), 2);
    assert_eq!(config(&format!(r#"{{{bos}, "tokenizer_class": "PreTrainedTokenizerFast"}}"#)), 1);
}

/// A directory with the tiny model's tokenizer files, `name` replaced by `bytes` or left out.
fn copy_with(name: &str, bytes: Option<&[u8]>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(model_dir().join(file), dir.path().join(file)).unwrap();
    }
    match bytes {
        Some(bytes) => std::fs::write(dir.path().join(name), bytes).unwrap(),
        None => std::fs::remove_file(dir.path().join(name)).unwrap(),
    }
    dir
}

fn load_error(name: &str, bytes: &[u8]) -> TokenizerError {
    Tokenizer::from_dir(copy_with(name, Some(bytes)).path()).unwrap_err()
}

#[test]
fn absent_files_are_no_error() {
    let empty = tempfile::tempdir().unwrap();
    assert!(Tokenizer::from_dir(empty.path()).unwrap().is_none());
    assert!(ChatTemplate::from_dir(empty.path()).unwrap().is_none());
    let dir = copy_with("tokenizer_config.json", None);
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap().unwrap();
    assert_eq!(tokenizer.bos_token_id(), None);
    assert_eq!(tokenizer.encode("a", true).unwrap().len(), 1);
}

#[test]
fn damaged_files_are_named_with_the_place() {
    let json = std::fs::read_to_string(model_dir().join("tokenizer.json")).unwrap();
    let edited = |from: &str, to: &str| {
        assert!(json.contains(from), "{from}");
        load_error("tokenizer.json", json.replace(from, to).as_bytes())
    };
    assert!(matches!(load_error("tokenizer.json", b"ab\xFF"), TokenizerError::NotUtf8 { offset: 2, .. }));
    assert!(matches!(load_error("tokenizer.json", b"{\n\"a\": ]"), TokenizerError::Json { line: 2, .. }));
    assert!(matches!(load_error("tokenizer.json", b"{}"), TokenizerError::Definition { .. }));
    assert!(matches!(load_error("tokenizer.json", b""), TokenizerError::Json { .. }));
    let decoder = json.rfind(r#""decoder""#).unwrap();
    let no_decoder = json[..decoder].to_owned() + &json[decoder..].replacen("ByteLevel", "Fuse", 1);
    let error = load_error("tokenizer.json", no_decoder.as_bytes());
    assert!(matches!(&error, TokenizerError::Part { section: "decoder", found, .. } if found == "Fuse"), "{error}");
    assert!(error.to_string().contains("tokenizer.json"));

    let error = edited(r#""continuing_subword_prefix": null"#, r#""continuing_subword_prefix": "@@@@""#);
    assert!(matches!(error, TokenizerError::Part { section: "model.continuing_subword_prefix", .. }), "{error}");
    let error = edited(r#""normalizers": []"#, r#""normalizers": [{"type": "NFC"}, {"type": "Precompiled"}]"#);
    assert!(matches!(&error, TokenizerError::Part { section: "normalizer", found, .. } if found == "Precompiled"));
    let error = edited("\"<｜begin▁of▁sentence｜>\"", "\"<｜other｜>\"");
    assert!(matches!(error, TokenizerError::SpecialToken { key: "bos_token", .. }), "{error}");
    let error = load_error("tokenizer_config.json", br#"{"add_bos_token": "yes"}"#);
    assert!(matches!(error, TokenizerError::Value { key: "add_bos_token", .. }), "{error}");
    let error = load_error("tokenizer_config.json", br#"{"eos_token": 1}"#);
    assert!(matches!(error, TokenizerError::Value { key: "eos_token", .. }), "{error}");
    assert!(matches!(load_error("tokenizer_config.json", b"[1"), TokenizerError::Json { .. }));
}

#[test]
fn an_absurd_id_is_refused_before_memory_is_taken_for_it() {
    let json = std::fs::read_to_string(model_dir().join("tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_str(&json).unwrap();
    json["model"]["vocab"]["far"] = u32::MAX.into();
    let error = load_error("tokenizer.json", json.to_string().as_bytes());
    assert!(matches!(error, TokenizerError::TokenId { id: u32::MAX, .. }), "{error}");
}

/// Beyond a million steps the pattern engine would split such a run differently from every other implementation.
#[test]
fn whitespace_without_end_is_refused_and_not_split_wrongly() {
    let tokenizer = tokenizer();
    let run = |length: usize| "é".to_owned() + &" ".repeat(length) + "x";
    let per_token = " ".repeat(16);
    let ids = tokenizer.encode(&run(MAX_WHITESPACE_RUN), false).unwrap();
    let whole = tokenizer.token_to_id(&per_token.replace(' ', "Ġ")).unwrap();
    assert!(ids.iter().filter(|&&id| id == whole).count() >= MAX_WHITESPACE_RUN / 16 - 1);
    let error = tokenizer.encode(&run(MAX_WHITESPACE_RUN + 1), false).unwrap_err();
    assert!(matches!(error, TokenizerError::WhitespaceRun { offset: 2, run: 500_001, .. }), "{error}");
}

#[test]
fn tokenizer_and_streams_cross_threads() {
    fn check<T: Send + Sync>() {}
    check::<Tokenizer>();
    check::<ChatTemplate>();
    check::<DetokenizeStream>();
    check::<StopStrings>();
}
