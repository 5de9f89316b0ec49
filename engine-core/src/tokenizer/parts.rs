//! The parts a `tokenizer.json` may be made of: those of byte-level BPE.
//!
//! They are checked before the library reads the file. It knows parts of other tokenizers too, whose decoding is not
//! byte by byte, and some of which it answers with a panic when they are malformed.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::TokenizerError;
use super::files::json_error;

/// The sections of the file looked at here.
#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    model: ModelOutline,
    #[serde(default)]
    decoder: Value,
}

#[derive(Deserialize)]
struct ModelOutline {
    /// Older files leave it out.
    #[serde(rename = "type")]
    model_type: Option<String>,
    continuing_subword_prefix: Option<String>,
}

/// What may stand in a section; `steps` is the key under which a `Sequence` lists its own parts.
struct Section {
    name: &'static str,
    types: &'static [&'static str],
    accepted: &'static str,
    steps: &'static str,
}

const NORMALIZER: Section = Section {
    name: "normalizer",
    types: &["NFC", "NFD", "NFKC", "NFKD"],
    accepted: "null, NFC, NFD, NFKC, NFKD or a Sequence of these",
    steps: "normalizers",
};

const PRE_TOKENIZER: Section = Section {
    name: "pre_tokenizer",
    types: &["ByteLevel", "Split", "Digits", "Punctuation"],
    accepted: "ByteLevel, Split, Digits, Punctuation or a Sequence of these",
    steps: "pretokenizers",
};

/// Refuses whatever byte-level BPE has no use for.
pub(super) fn check_parts(file: &Path, text: &str) -> Result<(), TokenizerError> {
    let outline: Outline = serde_json::from_str(text).map_err(|e| {
        let reason = e.to_string();
        if e.is_data() { TokenizerError::Definition { file: file.to_owned(), reason } } else { json_error(file, &e) }
    })?;
    let refuse = |section, found, accepted| TokenizerError::Part { file: file.to_owned(), section, found, accepted };
    check_section(&outline.normalizer, &NORMALIZER, refuse)?;
    check_section(&outline.pre_tokenizer, &PRE_TOKENIZER, refuse)?;
    if let Some(found) = outline.model.model_type.filter(|found| found != "BPE") {
        return Err(refuse("model", found, "BPE"));
    }
    // Byte-level tokenizers have none, and the library panics where a merge is shorter than the prefix.
    if let Some(prefix) = outline.model.continuing_subword_prefix.filter(|prefix| !prefix.is_empty()) {
        return Err(refuse("model.continuing_subword_prefix", format!("{prefix:?}"), "null"));
    }
    match type_of(&outline.decoder) {
        "ByteLevel" => Ok(()),
        found => Err(refuse("decoder", found.to_owned(), "ByteLevel")),
    }
}

fn check_section(
    part: &Value,
    section: &Section,
    refuse: impl Fn(&'static str, String, &'static str) -> TokenizerError + Copy,
) -> Result<(), TokenizerError> {
    match (type_of(part), part.get(section.steps)) {
        ("null", _) => Ok(()),
        ("Sequence", Some(Value::Array(steps))) => {
            steps.iter().try_for_each(|part| check_section(part, section, refuse))
        }
        (found, _) if section.types.contains(&found) => Ok(()),
        (found, _) => Err(refuse(section.name, found.to_owned(), section.accepted)),
    }
}

/// The `type` of a part, `null` for a part that is not there.
fn type_of(part: &Value) -> &str {
    match part {
        Value::Null => "null",
        part => part.get("type").and_then(Value::as_str).unwrap_or("a part without a type"),
    }
}
