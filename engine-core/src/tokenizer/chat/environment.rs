//! The Jinja dialect of chat templates: what `transformers` sets up around a template, on `minijinja`.

use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use super::strftime::strftime;

/// Steps one rendering may take. A conversation of ten thousand messages takes some two million; a template that loops
/// over everything it can takes all of them in seconds and is refused.
const FUEL: u64 = 50_000_000;

/// `raise_exception` was called; carried as the source of the engine's error.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Refusal {
    pub(super) message: String,
}

pub(super) fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    env.set_syntax(syntax.expect("Jinja's own delimiters"));
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.set_fuel(Some(FUEL));
    env.add_function("raise_exception", raise_exception);
    env.add_function("strftime_now", strftime_now);
    env.add_filter("tojson", tojson);
    env
}

/// Replaces the `generation` blocks, which only training needs and `minijinja` does not know, by blocks that always
/// render. The whitespace control of the tags stays as it is.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(open) = rest.find("{%") {
        let Some(close) = rest[open..].find("%}").map(|at| open + at) else { break };
        let inner = &rest[open + 2..close];
        out.push_str(&rest[..open + 2]);
        let word = inner.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        match word {
            "generation" => out.push_str(&inner.replacen(word, "if true", 1)),
            "endgeneration" => out.push_str(&inner.replacen(word, "endif", 1)),
            _ => out.push_str(inner),
        }
        out.push_str("%}");
        rest = &rest[close + 2..];
    }
    out.push_str(rest);
    out
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Refusal { message }))
}

/// The current time in UTC (a server's local time zone is nothing a prompt should depend on).
fn strftime_now(format: &str) -> Result<String, Error> {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    strftime(seconds, format).map_err(|directive| {
        Error::new(ErrorKind::InvalidOperation, format!("strftime_now: directive {directive:?} is not supported"))
    })
}

/// Python's `json.dumps(value, ensure_ascii=False, indent=…, sort_keys=…)`: a space after `,` and `:`, nothing escaped
/// for HTML, keys in the order they came.
fn tojson(value: Value, options: Kwargs) -> Result<Value, Error> {
    let failed = |e: serde_json::Error| Error::new(ErrorKind::BadSerialization, e.to_string());
    let indent: Option<usize> = options.get("indent")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    let _ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut json = serde_json::to_value(&value).map_err(failed)?;
    if sort_keys == Some(true) {
        json.sort_all_objects();
    }
    let text = match indent {
        None => write_json(&json, OneLine),
        Some(width) => write_json(&json, PrettyFormatter::with_indent(" ".repeat(width.min(64)).as_bytes())),
    };
    text.map(Value::from).map_err(failed)
}

fn write_json(json: &serde_json::Value, formatter: impl Formatter) -> Result<String, serde_json::Error> {
    let mut out = Vec::new();
    json.serialize(&mut Serializer::with_formatter(&mut out, formatter))?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// Python's default separators, `", "` and `": "`.
struct OneLine;

impl Formatter for OneLine {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use minijinja::value::Serde;
    use serde_json::json;

    use super::*;

    fn render(source: &str, json: serde_json::Value) -> String {
        environment().render_str(&without_generation_tags(source), Serde(json!({ "x": json }))).unwrap()
    }

    #[test]
    fn tojson_writes_what_python_writes() {
        let value = json!({"b": [1, 2.5, null], "a": {"é<&'": "\n\""}, "e": [], "o": {}});
        assert_eq!(
            render("{{ x | tojson }}", value.clone()),
            r#"{"b": [1, 2.5, null], "a": {"é<&'": "\n\""}, "e": [], "o": {}}"#
        );
        assert_eq!(
            render("{{ x | tojson(indent=2) }}", json!({"b": [1], "e": []})),
            "{\n  \"b\": [\n    1\n  ],\n  \"e\": []\n}"
        );
        assert_eq!(render("{{ x | tojson(sort_keys=true) }}", json!({"b": 1, "a": 2})), r#"{"a": 2, "b": 1}"#);
        assert_eq!(render("{{ x | tojson(ensure_ascii=False) }}", json!("é")), "\"é\"");
    }

    #[test]
    fn generation_tags_leave_their_content_and_their_whitespace_control() {
        assert_eq!(
            without_generation_tags("a {%- generation -%} b {% endgeneration %}"),
            "a {%- if true -%} b {% endif %}"
        );
        assert_eq!(without_generation_tags("{% if generation %}{{ '{%' }}"), "{% if generation %}{{ '{%' }}");
        assert_eq!(render("a {%- generation -%} {{ x }} {%- endgeneration %}\n c", json!(1)), "a1 c");
    }

    #[test]
    fn blocks_on_their_own_lines_leave_no_trace() {
        assert_eq!(render("a\n  {% if true %}\nb\n  {% endif %}\nc", json!(1)), "a\nb\nc");
    }

    #[test]
    fn a_template_that_runs_on_is_stopped() {
        let source = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}";
        let error = environment().render_str(source, ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfFuel);
    }
}
