//! Changes to tokenizers and chat templates.

use conformance::harness::Rng;
use serde_json::json;

use crate::json::{broken_documents, cases_at, parsed, places};
use crate::run::{Case, Content, original};

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = tokenizer_cases();
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
