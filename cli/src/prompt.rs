//! From what the user gives to token ids.

use std::fs;
use std::io::Read;
use std::path::Path;

use bathysphere::{ChatMessage, ChatOptions, Engine};

use crate::args::{PromptArgs, PromptSource};
use crate::error::CliError;

/// Whether a text goes through the chat template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// As a user's message, where the checkpoint has a template.
    Chat,
    /// As it is, after begin-of-sentence where the checkpoint asks for it.
    Raw,
}

/// Reads the prompt's source. What can be refused without a model is refused here.
pub(crate) fn read(args: &PromptArgs) -> Result<bathysphere::Prompt, CliError> {
    match args.source() {
        PromptSource::Text(text) => not_empty(text.to_owned(), "--prompt").map(Into::into),
        PromptSource::TextFile(path) => not_empty(read_text(path)?, &path.display().to_string()).map(Into::into),
        PromptSource::TokensFile(path) => read_tokens(path).map(Into::into),
    }
}

/// The ids of a prompt; ids are taken as they are, whatever the framing.
pub(crate) fn encode(
    engine: &Engine,
    prompt: bathysphere::Prompt,
    framing: Framing,
) -> Result<Vec<u32>, bathysphere::Error> {
    match prompt {
        bathysphere::Prompt::Text(text) if framing == Framing::Chat && engine.has_chat_template() => {
            encode_chat(engine, &[ChatMessage::user(text)])
        }
        prompt => engine.encode(prompt),
    }
}

/// The ids of a conversation, up to where the model answers.
pub(crate) fn encode_chat(engine: &Engine, messages: &[ChatMessage]) -> Result<Vec<u32>, bathysphere::Error> {
    let text = engine.render_chat(messages, &ChatOptions::default())?;
    Ok(engine.tokenizer()?.encode(&text, false)?)
}

/// A whole UTF-8 file; `-` is stdin.
pub(crate) fn read_text(path: &Path) -> Result<String, CliError> {
    let (name, bytes) = if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        (Path::new("stdin"), std::io::stdin().read_to_end(&mut bytes).map(|_| bytes))
    } else {
        (path, fs::read(path))
    };
    let bytes = bytes.map_err(CliError::file("read", name))?;
    String::from_utf8(bytes)
        .map_err(|error| CliError::NotUtf8 { path: name.to_owned(), offset: error.utf8_error().valid_up_to() })
}

fn read_tokens(path: &Path) -> Result<Vec<u32>, CliError> {
    let text = read_text(path)?;
    serde_json::from_str(&text).map_err(|reason| CliError::Tokens { path: path.to_owned(), reason })
}

fn not_empty(text: String, origin: &str) -> Result<String, CliError> {
    if text.is_empty() { Err(CliError::EmptyText { origin: origin.to_owned() }) } else { Ok(text) }
}
