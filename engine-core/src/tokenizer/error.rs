//! What can be wrong with a tokenizer, a chat template or their input.

use std::path::PathBuf;

/// A tokenizer or chat template that cannot be used, or text either of them refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The file exists but cannot be read.
    #[error("{}: cannot be read: {source}; check that it is a file this user may read", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not UTF-8.
    #[error("{}: not UTF-8 at byte {offset}; copy the file again from the checkpoint", file.display())]
    NotUtf8 {
        /// The file.
        file: PathBuf,
        /// First byte that is not part of a UTF-8 character.
        offset: usize,
    },
    /// The file is not JSON.
    #[error("{}:{line}:{column}: not JSON: {reason}; copy the file again from the checkpoint", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the parser met.
        reason: String,
    },
    /// The `tokenizers` library refuses the file.
    #[error("{}: not a tokenizer this library reads: {reason}; export it again with tokenizers 0.22 or older", file.display())]
    Definition {
        /// The file.
        file: PathBuf,
        /// What the library said.
        reason: String,
    },
    /// The tokenizer is made of something else than byte-level BPE.
    #[error("{}: {section}: found {found}, accepted {accepted}; use token ids instead of text with this checkpoint", file.display())]
    Part {
        /// The file.
        file: PathBuf,
        /// Section of the file.
        section: &'static str,
        /// Its type in the file, or `null`.
        found: String,
        /// What may stand there.
        accepted: &'static str,
    },
    /// A token's id is so large that it cannot belong to a model's vocabulary.
    #[error("{}: a token has id {id}, accepted 0 to {limit}; copy the file again from the checkpoint", file.display())]
    TokenId {
        /// The file.
        file: PathBuf,
        /// The id.
        id: u32,
        /// Largest id accepted.
        limit: u32,
    },
    /// A value of `tokenizer_config.json` has the wrong type.
    #[error("{}: {key}: found {found}, accepted {accepted}; correct the file", file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// The key.
        key: &'static str,
        /// The value found, shortened.
        found: String,
        /// What is accepted there.
        accepted: &'static str,
    },
    /// A special token of `tokenizer_config.json` is missing from `tokenizer.json`.
    #[error("{}: {key} is {token:?}, which tokenizer.json does not have; take both files from one checkpoint", file.display())]
    SpecialToken {
        /// The file.
        file: PathBuf,
        /// `bos_token` or `eos_token`.
        key: &'static str,
        /// The token's text.
        token: String,
    },
    /// The text cannot be encoded.
    #[error("text of {bytes} bytes cannot be encoded: {reason}; give token ids instead")]
    Encode {
        /// Length of the text.
        bytes: usize,
        /// What the library said.
        reason: String,
    },
    /// So much whitespace in one run that the tokenizer's patterns would give up on it and the ids be wrong.
    #[error(
        "text cannot be encoded: the tokenizer gives up on a run of {run} whitespace characters at byte {offset}, \
         accepted are {accepted}; shorten the run"
    )]
    WhitespaceRun {
        /// Where the run starts.
        offset: usize,
        /// Its length in characters.
        run: usize,
        /// Longest run accepted.
        accepted: usize,
    },
    /// The checkpoint has no chat template.
    #[error(
        "the checkpoint has no chat template (no chat_template in tokenizer_config.json, no chat_template.jinja): use a raw prompt instead of messages"
    )]
    NoChatTemplate,
    /// The chat template does not parse.
    #[error("{}:{line}: chat template: {reason}; correct the template or use a raw prompt", file.display())]
    TemplateSyntax {
        /// The file the template came from.
        file: PathBuf,
        /// Line within the template, from 1.
        line: usize,
        /// What the parser met.
        reason: String,
    },
    /// The chat template failed on these messages.
    #[error("{}:{line}: chat template: {reason}; check the messages against the template, or use a raw prompt", file.display())]
    TemplateRender {
        /// The file the template came from.
        file: PathBuf,
        /// Line within the template, from 1; 0 when unknown.
        line: usize,
        /// What failed.
        reason: String,
    },
    /// The chat template refuses these messages (`raise_exception`).
    #[error("the chat template refuses the messages: {message}")]
    TemplateRefusal {
        /// The template's own words.
        message: String,
    },
}
