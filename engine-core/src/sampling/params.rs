//! What a request asks for, under vLLM's names.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer, Serialize};

use super::SamplingError;

/// Temperatures below this mean: take the highest logit.
pub const GREEDY_TEMPERATURE: f32 = 1e-5;

/// How to choose tokens and when to stop. Names and defaults are vLLM's, but for [`max_tokens`](Self::max_tokens).
///
/// ```
/// use engine_core::sampling::SamplingParams;
///
/// let params = SamplingParams { temperature: 0.6, top_p: 0.95, seed: Some(7), ..SamplingParams::default() };
/// assert!(params.validate(129_280).is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SamplingParams {
    /// Divides the logits; 0 is greedy. Default 1.
    pub temperature: f32,
    /// Keep the likeliest tokens whose probabilities reach this sum, at least one. Default 1, off.
    pub top_p: f32,
    /// Keep this many of the likeliest tokens, of equal ones those with lower ids; 0 (read also from −1) is off, the
    /// default.
    #[serde(deserialize_with = "read_top_k")]
    pub top_k: usize,
    /// Keep tokens at least this likely relative to the likeliest. Default 0, off.
    pub min_p: f32,
    /// Seed of the sequence's own generator. The same seed, prompt and parameters give the same tokens whatever else is
    /// in the batch. `None`: the engine picks one.
    pub seed: Option<u64>,
    /// Strings that end the text when they appear in it. Reads one string or a list.
    #[serde(deserialize_with = "read_stop")]
    pub stop: Vec<String>,
    /// Ids that end the sequence, besides the checkpoint's end-of-sentence ids.
    pub stop_token_ids: Vec<u32>,
    /// Go on after end of sentence. Default false.
    pub ignore_eos: bool,
    /// Most tokens to generate. `None`, the default, generates until the window is full, where vLLM stops after 16.
    pub max_tokens: Option<usize>,
    /// Tokens to generate before anything may end the sequence. Default 0.
    pub min_tokens: usize,
    /// Subtracted from the logits of tokens generated before. −2 to 2, default 0.
    pub presence_penalty: f32,
    /// Subtracted once per time a token was generated before. −2 to 2, default 0.
    pub frequency_penalty: f32,
    /// Divides positive and multiplies negative logits of tokens in the prompt or generated before. Default 1, off.
    pub repetition_penalty: f32,
    /// Added to the logits of single tokens.
    pub logit_bias: BTreeMap<u32, f32>,
    /// Return the log-probability of each chosen token and of this many of the likeliest. They are the model's own:
    /// before bias, penalties and temperature. `None`, the default, returns none.
    pub logprobs: Option<usize>,
    /// Leave special tokens out of the text. Default true.
    pub skip_special_tokens: bool,
    /// Keep the stop string that ended the text. Default false.
    pub include_stop_str_in_output: bool,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            seed: None,
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            ignore_eos: false,
            max_tokens: None,
            min_tokens: 0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: BTreeMap::new(),
            logprobs: None,
            skip_special_tokens: true,
            include_stop_str_in_output: false,
        }
    }
}

impl SamplingParams {
    /// The highest logit at every step.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// True when the highest logit is taken and nothing is drawn.
    pub fn is_greedy(&self) -> bool {
        self.temperature < GREEDY_TEMPERATURE
    }

    /// True when no field changes single logits or tells of them, but for `min_tokens`: the highest ones are all that
    /// counts. Every field is named, so that a new one is thought of here.
    pub(super) fn takes_logits_as_they_are(&self) -> bool {
        let Self {
            // Greedy or not.
            temperature: _,
            // They keep the highest logits.
            top_p: _,
            top_k: _,
            min_p: _,
            // Where a draw comes from.
            seed: _,
            // They end a sequence and choose no token.
            stop: _,
            stop_token_ids: _,
            ignore_eos: _,
            max_tokens: _,
            min_tokens: _,
            // Three penalties.
            presence_penalty: _,
            frequency_penalty: _,
            repetition_penalty: _,
            logit_bias,
            logprobs,
            // Text only.
            skip_special_tokens: _,
            include_stop_str_in_output: _,
        } = self;
        !self.has_penalties() && logit_bias.is_empty() && logprobs.is_none()
    }

    /// True when tokens so far change the logits.
    pub(super) fn has_penalties(&self) -> bool {
        self.repetition_penalty != 1.0 || self.frequency_penalty != 0.0 || self.presence_penalty != 0.0
    }

    /// Checks every field, `vocab_size` being the model's.
    ///
    /// # Errors
    /// [`SamplingError`] naming the field, its value and the accepted range. NaN is in no range.
    pub fn validate(&self, vocab_size: usize) -> Result<(), SamplingError> {
        check_range("temperature", self.temperature, 0.0..=f32::MAX)?;
        check_range("top_p", self.top_p, 0.0..=1.0)?;
        check_range("min_p", self.min_p, 0.0..=1.0)?;
        check_range("presence_penalty", self.presence_penalty, -2.0..=2.0)?;
        check_range("frequency_penalty", self.frequency_penalty, -2.0..=2.0)?;
        check_range("repetition_penalty", self.repetition_penalty, f32::MIN_POSITIVE..=f32::MAX)?;
        self.validate_lengths(vocab_size)?;
        for (&id, &bias) in &self.logit_bias {
            check_id("logit_bias", id, vocab_size)?;
            check_range("logit_bias", bias, f32::MIN..=f32::MAX)?;
        }
        for &id in &self.stop_token_ids {
            check_id("stop_token_ids", id, vocab_size)?;
        }
        match self.stop.iter().position(String::is_empty) {
            Some(index) => Err(SamplingError::EmptyStop { index }),
            None => Ok(()),
        }
    }

    fn validate_lengths(&self, vocab_size: usize) -> Result<(), SamplingError> {
        let refused = |field, value: usize, accepted| {
            Err(SamplingError::OutOfRange { field, value: value.to_string(), accepted })
        };
        match (self.max_tokens, self.logprobs) {
            (Some(0), _) => refused("max_tokens", 0, "at least 1, or none".to_owned()),
            (Some(max), _) if self.min_tokens > max => {
                refused("min_tokens", self.min_tokens, format!("0 to max_tokens ({max})"))
            }
            (_, Some(n)) if n > vocab_size => refused("logprobs", n, format!("0 to vocab_size ({vocab_size})")),
            _ => Ok(()),
        }
    }
}

fn check_range(field: &'static str, value: f32, accepted: RangeInclusive<f32>) -> Result<(), SamplingError> {
    if accepted.contains(&value) {
        return Ok(());
    }
    let (low, high) = accepted.into_inner();
    let accepted = match (low, high) {
        (f32::MIN, f32::MAX) => "finite numbers".to_owned(),
        (f32::MIN_POSITIVE, f32::MAX) => "finite numbers above 0".to_owned(),
        (low, f32::MAX) => format!("finite numbers from {low}"),
        (low, high) => format!("{low} to {high}"),
    };
    Err(SamplingError::OutOfRange { field, value: value.to_string(), accepted })
}

fn check_id(field: &'static str, id: u32, vocab_size: usize) -> Result<(), SamplingError> {
    if (id as usize) < vocab_size { Ok(()) } else { Err(SamplingError::TokenId { field, id, vocab_size }) }
}

/// Older clients write "off" as −1.
fn read_top_k<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let top_k = i64::deserialize(deserializer)?;
    let off_or_count = if top_k == -1 { 0 } else { top_k };
    usize::try_from(off_or_count)
        .map_err(|_| serde::de::Error::custom(format!("top_k: found {top_k}, accepted −1, 0 (off) or a count")))
}

fn read_stop<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "stop must be a string, a list of strings or null")]
    enum Stop {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Option::<Stop>::deserialize(deserializer)? {
        None => Vec::new(),
        Some(Stop::One(stop)) => vec![stop],
        Some(Stop::Many(stop)) => stop,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refused_field(params: SamplingParams) -> &'static str {
        match params.validate(100).unwrap_err() {
            SamplingError::OutOfRange { field, .. } | SamplingError::TokenId { field, .. } => field,
            SamplingError::EmptyStop { .. } => "stop",
            SamplingError::NoCandidate { .. } => "",
        }
    }

    #[test]
    fn each_field_is_held_to_its_range() {
        let d = SamplingParams::default;
        assert_eq!(d().validate(1), Ok(()));
        assert_eq!(SamplingParams { top_p: 0.0, top_k: 1000, min_p: 1.0, ..d() }.validate(100), Ok(()));
        for value in [f32::NAN, f32::INFINITY, -0.1, -3.0] {
            assert_eq!(refused_field(SamplingParams { temperature: value, ..d() }), "temperature");
            assert_eq!(refused_field(SamplingParams { top_p: value, ..d() }), "top_p");
            assert_eq!(refused_field(SamplingParams { min_p: value, ..d() }), "min_p");
            assert_eq!(refused_field(SamplingParams { repetition_penalty: value, ..d() }), "repetition_penalty");
        }
        for value in [f32::NAN, 2.1, -2.1] {
            assert_eq!(refused_field(SamplingParams { presence_penalty: value, ..d() }), "presence_penalty");
            assert_eq!(refused_field(SamplingParams { frequency_penalty: value, ..d() }), "frequency_penalty");
        }
        assert_eq!(refused_field(SamplingParams { repetition_penalty: 0.0, ..d() }), "repetition_penalty");
        assert_eq!(refused_field(SamplingParams { top_p: 1.1, ..d() }), "top_p");
        assert_eq!(refused_field(SamplingParams { max_tokens: Some(0), ..d() }), "max_tokens");
        assert_eq!(refused_field(SamplingParams { max_tokens: Some(3), min_tokens: 4, ..d() }), "min_tokens");
        assert_eq!(refused_field(SamplingParams { logprobs: Some(101), ..d() }), "logprobs");
        assert_eq!(refused_field(SamplingParams { logit_bias: [(100, 0.0)].into(), ..d() }), "logit_bias");
        assert_eq!(refused_field(SamplingParams { logit_bias: [(1, f32::NAN)].into(), ..d() }), "logit_bias");
        assert_eq!(refused_field(SamplingParams { stop_token_ids: vec![100], ..d() }), "stop_token_ids");
        assert_eq!(refused_field(SamplingParams { stop: vec!["a".into(), String::new()], ..d() }), "stop");
        let error = SamplingParams { top_p: f32::NAN, ..d() }.validate(100).unwrap_err().to_string();
        assert!(error.contains("top_p: found NaN, accepted 0 to 1"), "{error}");
    }

    #[test]
    fn reads_the_json_of_clients() {
        let read = |text| serde_json::from_str::<SamplingParams>(text);
        assert_eq!(read("{}").unwrap(), SamplingParams::default());
        let params = read(r#"{"top_k": -1, "stop": "x", "logit_bias": {"7": -100}, "seed": 3, "unknown": 1}"#).unwrap();
        assert_eq!((params.top_k, params.stop[0].as_str(), params.logit_bias[&7]), (0, "x", -100.0));
        assert_eq!(read(r#"{"stop": null}"#).unwrap().stop, Vec::<String>::new());
        assert_eq!(read(r#"{"stop": ["a", "b"]}"#).unwrap().stop, ["a", "b"]);
        assert!(read(r#"{"top_k": -2}"#).unwrap_err().to_string().contains("-2"));
        assert!(read(r#"{"stop": 1}"#).unwrap_err().to_string().contains("stop"));
        let text = serde_json::to_string(&params).unwrap();
        assert_eq!(read(&text).unwrap(), params);
    }
}
