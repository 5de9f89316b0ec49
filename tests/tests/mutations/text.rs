//! Changes to tokenizers and chat templates.

use conformance::harness::Rng;
use serde_json::{Value, json};

use crate::json::{broken_documents, cases_at, parsed, places};
use crate::run::{Case, Content, original};

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = tokenizer_cases();
    cases.extend(foreign_cases());
    cases.extend(config_cases());
    cases.extend(template_cases());
    cases
}

fn tokenizer_cases() -> Vec<Case> {
    let root = parsed(TOKENIZER);
    let values = [
        json!(null),
        json!(0),
        json!(-1),
        json!(4_294_967_295u32),
        json!(1e30),
        json!(true),
        json!("x"),
        json!(""),
        json!([]),
        json!({}),
    ];
    let mut cases = cases_at(TOKENIZER, &root, &places(&root, 4, 3), &values);
    cases.extend(broken_documents(TOKENIZER));
    let mut rng = Rng::from_name(TOKENIZER);
    let whole = original(TOKENIZER);
    for _ in 0..24 {
        let (at, byte) = (rng.below(whole.len()), rng.below(256) as u8);
        let mut bytes = whole.clone();
        bytes[at] = byte;
        cases.push(Case::new(TOKENIZER, format!("byte {at} = {byte}"), Content::Bytes(bytes)));
    }
    // Token ids that the model does not have, and special tokens that are gone.
    cases.into_iter().map(|case| case.or_named("token id").or_named(CONFIG)).collect()
}

/// Parts that other tokenizers have, some of them malformed in ways that only show when they run.
fn foreign_cases() -> Vec<Case> {
    let split = |pattern: Value| json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false});
    let template =
        |single: Value| json!({"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {}});
    let added = |id: u32, content: &str, special: bool| {
        json!({"id": id, "content": content, "special": special, "single_word": true, "lstrip": true, "rstrip": true,
               "normalized": true})
    };
    let parts = [
        ("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": ""})),
        ("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"})),
        ("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "/////w=="})),
        ("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "BAAAAAQAAAA="})),
        ("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "CAAAAP////////8="})),
        ("normalizer", json!({"type": "Replace", "pattern": {"Regex": "("}, "content": "x"})),
        ("normalizer", json!({"type": "Replace", "pattern": {"Regex": ""}, "content": "xx"})),
        ("normalizer", json!({"type": "Replace", "pattern": {"String": ""}, "content": "xx"})),
        ("normalizer", json!({"type": "Prepend", "prepend": ""})),
        ("normalizer", json!({"type": "Strip", "strip_left": true, "strip_right": true})),
        ("normalizer", json!({"type": "Sequence", "normalizers": []})),
        (
            "normalizer",
            json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                              "strip_accents": true, "lowercase": true}),
        ),
        ("normalizer", json!({"type": "Unknown"})),
        ("pre_tokenizer", split(json!({"Regex": ""}))),
        ("pre_tokenizer", split(json!({"String": ""}))),
        ("pre_tokenizer", split(json!({"Regex": "(a+)+$"}))),
        ("pre_tokenizer", split(json!({"Regex": "("}))),
        ("pre_tokenizer", json!({"type": "Metaspace", "replacement": "", "prepend_scheme": "always"})),
        ("pre_tokenizer", json!({"type": "Digits", "individual_digits": true})),
        ("pre_tokenizer", json!({"type": "FixedLength", "length": 0})),
        ("pre_tokenizer", json!({"type": "FixedLength", "length": u64::MAX})),
        ("post_processor", template(json!([{"SpecialToken": {"id": "absent", "type_id": 0}}]))),
        ("post_processor", template(json!([{"Sequence": {"id": "A", "type_id": 4_000_000_000u32}}]))),
        ("post_processor", json!({"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 2]})),
        ("truncation", json!({"max_length": 0, "strategy": "LongestFirst", "stride": 0, "direction": "Right"})),
        ("truncation", json!({"max_length": 1, "strategy": "OnlyFirst", "stride": 9, "direction": "Left"})),
        (
            "padding",
            json!({"strategy": {"Fixed": 1_000_000_000}, "direction": "Right", "pad_to_multiple_of": 0,
                           "pad_id": 0, "pad_type_id": 0, "pad_token": ""}),
        ),
        ("added_tokens", json!([added(0, "", true)])),
        ("added_tokens", json!([added(0, " ", false), added(0, " ", true)])),
        ("added_tokens", json!([added(16_777_215, "<｜begin▁of▁sentence｜>", true)])),
        ("added_tokens", json!([added(u32::MAX, "x", true)])),
        ("added_tokens", json!((0..2000u32).map(|i| added(i, &"a".repeat(i as usize + 1), false)).collect::<Vec<_>>())),
        ("model", json!({"type": "BPE", "vocab": {}, "merges": []})),
        ("model", json!({"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []})),
        ("model", json!({"type": "BPE", "vocab": {"a": 0}, "merges": ["a a"]})),
        ("model", json!({"type": "BPE", "vocab": {"a": 0, "aa": 1}, "merges": [["a", "a"]], "dropout": 2.0})),
        ("model", json!({"type": "BPE", "vocab": {"a": 0, "aa": 1}, "merges": [["a", "a"]], "dropout": 0.5})),
        ("model", json!({"type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": "absent"})),
        ("model", json!({"type": "BPE", "vocab": {"a": 0}, "merges": [], "end_of_word_suffix": "</w>"})),
        ("model", json!({"type": "BPE", "vocab": {"a": 0}, "merges": [], "byte_fallback": true, "fuse_unk": true})),
        (
            "model",
            json!({"type": "WordPiece", "vocab": {}, "unk_token": "x", "max_input_chars_per_word": 0,
                         "continuing_subword_prefix": ""}),
        ),
        ("model", json!({"type": "WordLevel", "vocab": {}, "unk_token": "x"})),
        ("model", json!({"type": "Unigram", "vocab": [], "unk_id": 5})),
        ("model", json!({"type": "Unigram", "vocab": [["a", -1e308]], "unk_id": null})),
    ];
    let root = parsed(TOKENIZER);
    let cases = parts.into_iter().map(|(key, value)| {
        let name = format!("{key} = {}", value.to_string().chars().take(90).collect::<String>());
        let mut root = root.clone();
        root[key] = value;
        Case::new(TOKENIZER, name, Content::Bytes(serde_json::to_vec(&root).unwrap()))
    });
    // Special tokens that are gone, text that cannot be encoded, ids that the model does not have.
    cases.map(|case| case.or_named(CONFIG).or_named("cannot be encoded").or_named("token id")).collect()
}

fn config_cases() -> Vec<Case> {
    let root = parsed(CONFIG);
    let values =
        [json!(null), json!(0), json!(-1), json!(true), json!("x"), json!(""), json!([]), json!([1]), json!({})];
    let mut cases = cases_at(CONFIG, &root, &places(&root, 2, 100), &values);
    cases.extend(broken_documents(CONFIG));
    cases
}

/// Templates that do not parse, run on, or ask for too much.
fn template_cases() -> Vec<Case> {
    let sources = [
        "{% if",
        "{{",
        "{% for x in y %}",
        "{% endif %}",
        "{{ messages[9]['role'] }}",
        "{{ 1 // 0 }}",
        "{{ 1 % 0 }}",
        "{{ 'a' * 10000000000 }}",
        "{{ 'a' * 9223372036854775807 }}",
        "{{ [0] * 10000000000 }}",
        "{{ range(100000000000) }}",
        "{{ range(0, 10, 0) }}",
        "{{ 'x'.ljust(100000000000) }}",
        "{{ 2 ** 100000 }}",
        "{{ messages | tojson(indent=100000000000) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% include 'default' %}",
        "{% extends 'default' %}",
        "{% import 'default' as d %}",
        "{{ raise_exception(1) }}",
        "{{ raise_exception('no') }}",
        "{{ strftime_now('%Q') }}",
        "{{ strftime_now(messages) }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='a') %}{% for a in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
        "{{ undefined.attribute.of_it }}",
        "{{ messages | unknown_filter }}",
        "{{ messages.unknown_method() }}",
        "{{ ((((((((((((((((((((((((((((((((1)))))))))))))))))))))))))))))))) }}",
    ];
    let nested = format!("{{{{ {}1{} }}}}", "(".repeat(50_000), ")".repeat(50_000));
    let ifs = "{% if true %}".repeat(50_000);
    let sources = sources.iter().map(|source| (*source).to_owned()).chain([nested, ifs]);
    sources
        .map(|source| {
            let name = format!("chat_template {:?}", source.chars().take(60).collect::<String>());
            let mut root = parsed(CONFIG);
            root["chat_template"] = json!(source);
            let content = Content::Bytes(serde_json::to_vec(&root).unwrap());
            Case::new(CONFIG, name, content).or_named("chat template")
        })
        .collect()
}
