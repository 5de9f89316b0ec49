//! The input of `bathysphere batch`: plain prompts or JSON objects, one a line.

use bathysphere::{ChatMessage, Engine, SamplingParams};
use serde_json::{Map, Value};

use crate::prompt::{self, Framing};

/// What to run for one line.
#[derive(Debug, PartialEq)]
pub(crate) struct BatchRequest {
    /// Line of the input, from 1.
    pub(crate) line: usize,
    source: Source,
    pub(crate) params: SamplingParams,
}

#[derive(Debug, PartialEq)]
enum Source {
    Text(String),
    Messages(Vec<ChatMessage>),
    Tokens(Vec<u32>),
}

/// The keys of which a line has exactly one.
const SOURCES: [&str; 3] = ["prompt", "messages", "token_ids"];

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error("not a JSON object: {0}")]
    Json(#[source] serde_json::Error),
    #[error("found {found}, accepted exactly one of prompt, messages and token_ids")]
    Source { found: String },
    #[error("{key}: {reason}")]
    Value { key: String, reason: serde_json::Error },
    #[error("unknown key {key}; accepted {} and sampling parameters: {accepted}", SOURCES.join(", "))]
    UnknownKey { key: String, accepted: String },
    #[error(transparent)]
    Engine(Box<bathysphere::Error>),
}

/// The requests of a file. It holds JSON lines when its first line that is not blank starts with `{`, else a prompt a
/// line; blank lines are skipped. An error comes with its line's number.
pub(crate) fn parse(text: &str, defaults: &SamplingParams) -> Result<Vec<BatchRequest>, (usize, LineError)> {
    let lines = || text.lines().enumerate().map(|(i, line)| (i + 1, line)).filter(|(_, line)| !line.trim().is_empty());
    let is_json = lines().next().is_some_and(|(_, line)| line.trim_start().starts_with('{'));
    lines()
        .map(|(line, text)| {
            let (source, params) = if is_json {
                parse_object(text, defaults).map_err(|error| (line, error))?
            } else {
                (Source::Text(text.to_owned()), defaults.clone())
            };
            Ok(BatchRequest { line, source, params })
        })
        .collect()
}

fn parse_object(text: &str, defaults: &SamplingParams) -> Result<(Source, SamplingParams), LineError> {
    let mut object: Map<String, Value> = serde_json::from_str(text).map_err(LineError::Json)?;
    let found: Vec<&str> = SOURCES.into_iter().filter(|key| object.contains_key(*key)).collect();
    let [key] = found[..] else {
        let found = if found.is_empty() { "none".to_owned() } else { found.join(" and ") };
        return Err(LineError::Source { found });
    };
    let value = object.remove(key).unwrap_or_default();
    let bad_value = |reason| LineError::Value { key: key.to_owned(), reason };
    let source = match key {
        "prompt" => Source::Text(serde_json::from_value(value).map_err(bad_value)?),
        "messages" => Source::Messages(serde_json::from_value(value).map_err(bad_value)?),
        _ => Source::Tokens(serde_json::from_value(value).map_err(bad_value)?),
    };
    Ok((source, override_params(defaults, object)?))
}

/// `defaults` with what a line says otherwise. Names are those of [`SamplingParams`].
fn override_params(defaults: &SamplingParams, changes: Map<String, Value>) -> Result<SamplingParams, LineError> {
    let sampling = |reason| LineError::Value { key: "sampling parameters".to_owned(), reason };
    let mut params = match serde_json::to_value(defaults).map_err(sampling)? {
        Value::Object(params) => params,
        _ => Map::new(),
    };
    for (key, value) in changes {
        if !params.contains_key(&key) {
            let accepted: Vec<&str> = params.keys().map(String::as_str).collect();
            return Err(LineError::UnknownKey { key, accepted: accepted.join(", ") });
        }
        // Alone first, so that an error can name its key.
        let alone = Map::from_iter([(key.clone(), value.clone())]);
        serde_json::from_value::<SamplingParams>(alone.into())
            .map_err(|reason| LineError::Value { key: key.clone(), reason })?;
        params.insert(key, value);
    }
    serde_json::from_value(params.into()).map_err(sampling)
}

impl BatchRequest {
    /// The ids to continue. Messages always go through the chat template, a text as `framing` says.
    pub(crate) fn encode(&self, engine: &Engine, framing: Framing) -> Result<Vec<u32>, bathysphere::Error> {
        match &self.source {
            Source::Text(text) => prompt::encode(engine, text.as_str().into(), framing),
            Source::Messages(messages) => prompt::encode_chat(engine, messages),
            Source::Tokens(tokens) => Ok(tokens.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn error_of(text: &str) -> (usize, String) {
        let (line, error) = parse(text, &SamplingParams::default()).unwrap_err();
        (line, error.to_string())
    }

    #[test]
    fn plain_lines_are_prompts() {
        let defaults = SamplingParams::greedy();
        let requests = parse("one\n\n  {two}\n", &defaults).unwrap();
        let texts: Vec<_> = requests.iter().map(|r| (r.line, &r.source)).collect();
        let (one, two) = (Source::Text("one".into()), Source::Text("  {two}".into()));
        assert_eq!(texts, [(1, &one), (3, &two)]);
        assert_eq!(requests[0].params, defaults);
    }

    #[test]
    fn objects_override_the_defaults() {
        let defaults = SamplingParams { temperature: 0.6, seed: Some(3), ..SamplingParams::default() };
        let text = r#"{"token_ids": [0, 5], "temperature": 0, "stop": "x"}
{"messages": [{"role": "user", "content": "Hi"}]}"#;
        let requests = parse(text, &defaults).unwrap();
        assert_eq!(requests[0].source, Source::Tokens(vec![0, 5]));
        assert_eq!(requests[0].params, SamplingParams { temperature: 0.0, stop: vec!["x".into()], ..defaults.clone() });
        assert_eq!(requests[1].source, Source::Messages(vec![ChatMessage::user("Hi")]));
        assert_eq!(requests[1].params, defaults);
    }

    #[test]
    fn a_bad_line_is_named() {
        assert_eq!(error_of("{\"prompt\": \"a\"}\nplain").0, 2);
        let cases = [
            ("{}", "found none"),
            (r#"{"prompt": "a", "token_ids": [1]}"#, "found prompt and token_ids"),
            (r#"{"prompt": 3}"#, "prompt: invalid type"),
            (r#"{"token_ids": [-1]}"#, "token_ids: invalid value"),
            (r#"{"prompt": "a", "temprature": 1}"#, "unknown key temprature"),
            (r#"{"prompt": "a", "top_p": "b"}"#, "top_p: invalid type"),
        ];
        for (text, message) in cases {
            let (line, error) = error_of(text);
            assert!(line == 1 && error.contains(message), "{text}: {error}");
        }
    }
}
