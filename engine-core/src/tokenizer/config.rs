//! `tokenizer_config.json`: special tokens, the begin-of-sentence rule, chat templates.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::TokenizerError;
use super::files::{parse_json, read_text};

/// Special tokens a chat template may name.
const SPECIAL_TOKEN_KEYS: [&str; 4] = ["bos_token", "eos_token", "pad_token", "unk_token"];

/// What this library reads of `tokenizer_config.json`; every field is empty when the file does not exist.
#[derive(Debug, Default)]
pub(super) struct TokenizerConfig {
    /// The file read.
    pub(super) file: PathBuf,
    /// (key, text) of the special tokens that are set.
    pub(super) special_tokens: Vec<(&'static str, String)>,
    /// `add_bos_token`; where it is absent, `Some(true)` for the class that defaults to it.
    pub(super) add_bos_token: Option<bool>,
    /// (name, source) of the chat templates; a single unnamed one is called `default`.
    pub(super) chat_templates: Vec<(String, String)>,
}

impl TokenizerConfig {
    pub(super) fn from_dir(dir: &Path) -> Result<Self, TokenizerError> {
        let file = dir.join("tokenizer_config.json");
        let Some(text) = read_text(&file)? else { return Ok(Self { file, ..Self::default() }) };
        let json = parse_json(&file, &text)?;
        let special_tokens = special_tokens(&file, &json)?;
        let add_bos_token = add_bos_token(&file, &json)?;
        let chat_templates = chat_templates(&file, &json)?;
        Ok(Self { file, special_tokens, add_bos_token, chat_templates })
    }

    /// The text of the special token `key`.
    pub(super) fn special_token(&self, key: &str) -> Option<&str> {
        self.special_tokens.iter().find(|(k, _)| *k == key).map(|(_, token)| token.as_str())
    }
}

/// Each special token is a string, an `AddedToken` object or null.
fn special_tokens(file: &Path, json: &Value) -> Result<Vec<(&'static str, String)>, TokenizerError> {
    let mut tokens = Vec::new();
    for key in SPECIAL_TOKEN_KEYS {
        match &json[key] {
            Value::Null => {}
            Value::String(token) => tokens.push((key, token.clone())),
            object => match object["content"].as_str() {
                Some(token) => tokens.push((key, token.to_owned())),
                None => return Err(wrong_type(file, key, object, "a string, an object with content, or null")),
            },
        }
    }
    Ok(tokens)
}

fn add_bos_token(file: &Path, json: &Value) -> Result<Option<bool>, TokenizerError> {
    match &json["add_bos_token"] {
        Value::Bool(add) => Ok(Some(*add)),
        // The class every DeepSeek checkpoint names adds BOS unless told otherwise.
        Value::Null if json["tokenizer_class"] == "LlamaTokenizerFast" => Ok(Some(true)),
        Value::Null => Ok(None),
        other => Err(wrong_type(file, "add_bos_token", other, "true, false or null")),
    }
}

/// `chat_template` is a string or a list of `{name, template}`.
fn chat_templates(file: &Path, json: &Value) -> Result<Vec<(String, String)>, TokenizerError> {
    const ACCEPTED: &str = "a string, or a list of objects with name and template";
    match &json["chat_template"] {
        Value::Null => Ok(Vec::new()),
        Value::String(source) => Ok(vec![("default".to_owned(), source.clone())]),
        Value::Array(list) => list
            .iter()
            .map(|entry| match (entry["name"].as_str(), entry["template"].as_str()) {
                (Some(name), Some(source)) => Ok((name.to_owned(), source.to_owned())),
                _ => Err(wrong_type(file, "chat_template", entry, ACCEPTED)),
            })
            .collect(),
        other => Err(wrong_type(file, "chat_template", other, ACCEPTED)),
    }
}

fn wrong_type(file: &Path, key: &'static str, found: &Value, accepted: &'static str) -> TokenizerError {
    const SHOWN: usize = 60;
    let mut text = found.to_string();
    if let Some((cut, _)) = text.char_indices().nth(SHOWN) {
        text.truncate(cut);
        text.push('…');
    }
    TokenizerError::Value { file: file.to_path_buf(), key, found: text, accepted }
}
