//! Typed, range-checked access to the keys of a JSON object, with errors that name file, key, value and range.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::{Map, Value};

use super::ConfigError;

/// Longest rendering of a found value in a message, in characters.
const FOUND_CHARS: usize = 80;

/// One JSON object of a configuration file. A key that holds `null` counts as absent, as in the field's own loaders.
pub(super) struct Keys<'a> {
    file: &'a Path,
    /// Path of the enclosing keys with a trailing dot, or empty.
    parents: String,
    map: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    /// The whole file.
    pub(super) fn root(file: &'a Path, value: &'a Value) -> Result<Self, ConfigError> {
        match value {
            Value::Object(map) => Ok(Self { file, parents: String::new(), map }),
            other => Err(ConfigError::Value {
                file: file.to_owned(),
                key: "the file's content".into(),
                found: render(other),
                accepted: "a JSON object".into(),
            }),
        }
    }

    pub(super) fn file(&self) -> &'a Path {
        self.file
    }

    /// Full name of a key for messages.
    pub(super) fn full(&self, key: &str) -> String {
        format!("{}{key}", self.parents)
    }

    /// True when the key is written down, be it as `null`.
    pub(super) fn is_written(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// The error for a key whose value is not accepted.
    pub(super) fn reject(&self, key: &str, accepted: impl Display) -> ConfigError {
        match self.map.get(key) {
            None => self.missing(key, accepted),
            Some(value) => ConfigError::Value {
                file: self.file.to_owned(),
                key: self.full(key),
                found: render(value),
                accepted: accepted.to_string(),
            },
        }
    }

    pub(super) fn missing(&self, key: &str, accepted: impl Display) -> ConfigError {
        ConfigError::Missing { file: self.file.to_owned(), key: self.full(key), accepted: accepted.to_string() }
    }

    pub(super) fn usize_opt(&self, key: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match whole_number(value) {
            Some(n) if range.contains(&n) => Ok(Some(n)),
            _ => Err(self.reject(key, whole_range(&range))),
        }
    }

    pub(super) fn usize(&self, key: &str, range: RangeInclusive<usize>) -> Result<usize, ConfigError> {
        let accepted = whole_range(&range);
        self.usize_opt(key, range)?.ok_or_else(|| self.reject(key, accepted))
    }

    pub(super) fn f64_opt(&self, key: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64() {
            Some(x) if range.contains(&x) => Ok(Some(x)),
            _ => Err(self.reject(key, real_range(&range))),
        }
    }

    pub(super) fn f64(&self, key: &str, range: RangeInclusive<f64>) -> Result<f64, ConfigError> {
        let accepted = real_range(&range);
        self.f64_opt(key, range)?.ok_or_else(|| self.reject(key, accepted))
    }

    pub(super) fn bool_or(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.reject(key, "true or false")),
        }
    }

    pub(super) fn str_opt(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| self.reject(key, "a string")),
        }
    }

    /// Accepts absence and the one value given.
    pub(super) fn only(&self, key: &str, accepted: &Value) -> Result<(), ConfigError> {
        match self.get(key) {
            None => Ok(()),
            Some(value) if value == accepted => Ok(()),
            Some(_) => Err(self.reject(key, accepted)),
        }
    }

    /// The object under `key`.
    pub(super) fn object_opt(&self, key: &str) -> Result<Option<Keys<'a>>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| self.reject(key, "an object or null"))?;
        Ok(Some(Keys { file: self.file, parents: self.full(key) + ".", map }))
    }

    /// The object under `key`, which must be there.
    pub(super) fn object(&self, key: &str) -> Result<Keys<'a>, ConfigError> {
        self.object_opt(key)?.ok_or_else(|| self.reject(key, "an object"))
    }

    /// Names of all keys.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.map.keys().map(String::as_str)
    }
}

/// A number without a fraction, written as `1` or `1.0`.
pub(super) fn whole_number(value: &Value) -> Option<usize> {
    if let Some(n) = value.as_u64() {
        return usize::try_from(n).ok();
    }
    // Up to 2^53 every whole f64 is the number that was written.
    value.as_f64().filter(|x| x.fract() == 0.0 && (0.0..=9e15).contains(x)).map(|x| x as usize)
}

/// A value as JSON, cut to a length a message can bear.
pub(super) fn render(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(FOUND_CHARS) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

fn whole_range(range: &RangeInclusive<usize>) -> String {
    match (range.start(), range.end()) {
        (only, end) if only == end => only.to_string(),
        (start, end) => format!("a whole number from {start} to {end}"),
    }
}

fn real_range(range: &RangeInclusive<f64>) -> String {
    match (range.start(), range.end()) {
        (only, end) if only == end => only.to_string(),
        (start, end) => format!("a number from {start} to {end}"),
    }
}
