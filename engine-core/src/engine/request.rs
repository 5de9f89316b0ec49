//! What goes in and what comes out.

use std::time::Instant;

use serde::Serialize;

use crate::sampling::{SamplingParams, TokenLogprob};

/// Text or token ids to continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Text; the tokenizer adds begin-of-sentence when the checkpoint asks for it.
    Text(String),
    /// Token ids, taken as they are.
    Tokens(Vec<u32>),
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Prompt::Text(text.to_owned())
    }
}

impl From<String> for Prompt {
    fn from(text: String) -> Self {
        Prompt::Text(text)
    }
}

impl From<Vec<u32>> for Prompt {
    fn from(tokens: Vec<u32>) -> Self {
        Prompt::Tokens(tokens)
    }
}

impl From<&[u32]> for Prompt {
    fn from(tokens: &[u32]) -> Self {
        Prompt::Tokens(tokens.to_vec())
    }
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// End of sentence, a stop token or a stop string.
    Stop,
    /// `max_tokens`, or the window is full.
    Length,
}

/// Tokens counted for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
}

/// How long the parts of a request took.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Timings {
    /// From submission to the first generated token, in seconds.
    pub prefill_s: f64,
    /// From the first to the last generated token, in seconds.
    pub decode_s: f64,
    /// Prompt tokens per second until the first generated token.
    pub prefill_tok_s: f64,
    /// Generated tokens per second after the first; 0 when there was only one.
    pub decode_tok_s: f64,
}

/// One generated token, as a stream delivers it.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// The token.
    pub token_id: u32,
    /// Text that became complete with this token: may be empty (half a character, a possible stop string), and may
    /// hold text of earlier tokens. `None` without a tokenizer.
    pub text: Option<String>,
    /// Log-probability of the token under the model, if `SamplingParams::logprobs` asked for it.
    pub logprob: Option<f32>,
    /// The most likely tokens, if `SamplingParams::logprobs` asked for them.
    pub top_logprobs: Vec<TokenLogprob>,
    /// Set on the last chunk.
    pub finished: Option<Finished>,
}

/// The end of a generation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finished {
    /// Why.
    pub reason: FinishReason,
    /// Token counts.
    pub usage: Usage,
    /// Durations.
    pub timings: Timings,
}

/// A whole generation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generation {
    /// Generated ids; a closing end-of-sentence is included.
    pub token_ids: Vec<u32>,
    /// Their text, without special tokens unless asked for; `None` without a tokenizer.
    pub text: Option<String>,
    /// Log-probabilities in the order of `token_ids`, if `SamplingParams::logprobs` asked for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<f32>>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Token counts.
    pub usage: Usage,
    /// Durations.
    pub timings: Timings,
}

/// A request as the engine's thread takes it: checked, in token ids.
#[derive(Debug)]
pub(super) struct CheckedRequest {
    pub(super) prompt: Vec<u32>,
    pub(super) params: SamplingParams,
    pub(super) max_tokens: usize,
    pub(super) submitted: Instant,
}

/// Why a request was refused before it ran.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Nothing to continue.
    #[error("the prompt has no tokens; give at least one, e.g. the begin-of-sentence id")]
    EmptyPrompt,
    /// No room for even one generated token.
    #[error("the prompt has {num_tokens} tokens, the window holds {max_model_len}: shorten the prompt to at most {} tokens or build the engine with a larger max_model_len", max_model_len - 1)]
    PromptTooLong {
        /// Tokens of the prompt.
        num_tokens: usize,
        /// The engine's window.
        max_model_len: usize,
    },
    /// An id outside the vocabulary.
    #[error("token id {token_id} at position {position} is not below the vocabulary size {vocab_size}")]
    UnknownToken {
        /// The id.
        token_id: u32,
        /// Its place in the prompt.
        position: usize,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// Text was given, but the checkpoint has no tokenizer.
    #[error("{dir} has no tokenizer.json, so text cannot be encoded; give token ids instead")]
    NoTokenizer {
        /// The checkpoint.
        dir: String,
    },
    /// Messages were given, but the checkpoint has no chat template.
    #[error("{dir} has no chat template; give the prompt as plain text instead of messages")]
    NoChatTemplate {
        /// The checkpoint.
        dir: String,
    },
    /// Draft logits were asked for without an MTP module.
    #[error("draft logits need the MTP module: build the engine with load_mtp(true) from a checkpoint that has one")]
    NoMtp,
    /// Nothing to predict.
    #[error(
        "a text of {num_tokens} tokens has none to score: the first token is given, each further one predicted; give at least 2"
    )]
    NothingToScore {
        /// Tokens of the text.
        num_tokens: usize,
    },
    /// A window of no tokens, or longer than the engine's.
    #[error("a scoring window of {window} tokens is not within 1..={max_model_len}")]
    Window {
        /// The window asked for.
        window: usize,
        /// The engine's window.
        max_model_len: usize,
    },
    /// The engine cannot be built with such a value.
    #[error("{option} = {value} is outside {accepted}")]
    BuildOption {
        /// Name of the builder's method.
        option: &'static str,
        /// Value given.
        value: usize,
        /// What is accepted.
        accepted: String,
    },
    /// The engine's thread is gone after an earlier fatal error.
    #[error("the engine has stopped after an earlier fatal error; build a new one")]
    Stopped,
}
