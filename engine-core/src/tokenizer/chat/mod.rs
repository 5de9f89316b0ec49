//! Chat templates: messages to the text of a prompt.

mod environment;
mod message;
mod strftime;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::path::{Path, PathBuf};

pub use message::{ChatMessage, Role};
use minijinja::value::Serde;
use minijinja::{Environment, Value};

use super::TokenizerError;
use super::config::TokenizerConfig;
use super::files::read_text;
use environment::{Refusal, environment, without_generation_tags};

/// The template used when tools are given, where the checkpoint has one of its own for that.
const TOOL_USE: &str = "tool_use";
const DEFAULT: &str = "default";

/// A checkpoint's chat template: Jinja, rendered as `transformers` renders it.
///
/// The rendered text contains begin-of-sentence where the template writes it;
/// [`Tokenizer::encode`](super::Tokenizer::encode) does not add a second one.
#[derive(Debug)]
pub struct ChatTemplate {
    env: Environment<'static>,
    file: PathBuf,
    special_tokens: Vec<(&'static str, String)>,
}

/// What a chat template is told besides the messages.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatOptions {
    /// End with the marker after which the model answers. Default true.
    pub add_generation_prompt: bool,
    /// Ask the model to think, or not to, where the template knows the choice (V3.1: `<think>` or `</think>` after the
    /// marker). Handed over as `thinking` and as `enable_thinking`. `None` leaves it to the template.
    pub thinking: Option<bool>,
    /// Tool schemas, as OpenAI's `tools`.
    pub tools: Option<serde_json::Value>,
    /// Further variables of the template (`chat_template_kwargs`); those above win.
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl Default for ChatOptions {
    fn default() -> Self {
        Self { add_generation_prompt: true, thinking: None, tools: None, extra: serde_json::Map::new() }
    }
}

impl ChatTemplate {
    /// Reads `chat_template.jinja`, else `chat_template` of `tokenizer_config.json`. `None` when there is neither.
    ///
    /// # Errors
    /// [`TokenizerError`] naming the file, and for a template that does not parse its line.
    pub fn from_dir(dir: &Path) -> Result<Option<Self>, TokenizerError> {
        let config = TokenizerConfig::from_dir(dir)?;
        let jinja = dir.join("chat_template.jinja");
        let (file, sources) = match read_text(&jinja)? {
            Some(source) => (jinja, vec![(DEFAULT.to_owned(), source)]),
            None => (config.file, config.chat_templates),
        };
        if !sources.iter().any(|(name, _)| name == DEFAULT) {
            return Ok(None);
        }
        Self::new(file, sources, config.special_tokens).map(Some)
    }

    /// A template from its source, for a checkpoint that has none or a wrong one. `special_tokens` are (variable,
    /// text), as in `("bos_token", "<s>")`.
    ///
    /// # Errors
    /// [`TokenizerError::TemplateSyntax`].
    pub fn from_source(source: &str, special_tokens: &[(&'static str, &str)]) -> Result<Self, TokenizerError> {
        let special_tokens = special_tokens.iter().map(|&(key, token)| (key, token.to_owned())).collect();
        Self::new(PathBuf::from("chat template"), vec![(DEFAULT.to_owned(), source.to_owned())], special_tokens)
    }

    fn new(
        file: PathBuf,
        sources: Vec<(String, String)>,
        special_tokens: Vec<(&'static str, String)>,
    ) -> Result<Self, TokenizerError> {
        let mut env = environment();
        for (name, source) in sources {
            env.add_template_owned(name, without_generation_tags(&source)).map_err(|e| {
                TokenizerError::TemplateSyntax { file: file.clone(), line: e.line().unwrap_or(0), reason: reason(&e) }
            })?;
        }
        Ok(Self { env, file, special_tokens })
    }

    /// The prompt for `messages`.
    ///
    /// # Errors
    /// [`TokenizerError::TemplateRefusal`] when the template raises an exception of its own,
    /// [`TokenizerError::TemplateRender`] when it fails on the messages.
    pub fn render(&self, messages: &[ChatMessage], options: &ChatOptions) -> Result<String, TokenizerError> {
        let tool_use = options.tools.is_some() && self.env.get_template(TOOL_USE).is_ok();
        self.env
            .get_template(if tool_use { TOOL_USE } else { DEFAULT })
            .and_then(|template| template.render(self.variables(messages, options)))
            .map_err(|e| self.render_error(&e))
    }

    /// As `transformers` names them; later entries win.
    fn variables(&self, messages: &[ChatMessage], options: &ChatOptions) -> Value {
        let mut variables: Vec<(String, Value)> = Vec::new();
        variables
            .extend(self.special_tokens.iter().map(|(key, token)| ((*key).to_owned(), Value::from(token.as_str()))));
        variables.extend(options.extra.iter().map(|(key, value)| (key.clone(), Value::from(Serde(value)))));
        if let Some(thinking) = options.thinking {
            variables.extend(["thinking", "enable_thinking"].map(|key| (key.to_owned(), Value::from(thinking))));
        }
        variables.extend([
            ("messages".to_owned(), Value::from(Serde(messages))),
            ("tools".to_owned(), Value::from(Serde(&options.tools))),
            ("add_generation_prompt".to_owned(), Value::from(options.add_generation_prompt)),
        ]);
        Value::from_pairs(variables)
    }

    fn render_error(&self, error: &minijinja::Error) -> TokenizerError {
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(Refusal { message }) = cause.downcast_ref() {
                return TokenizerError::TemplateRefusal { message: message.clone() };
            }
            source = cause.source();
        }
        TokenizerError::TemplateRender {
            file: self.file.clone(),
            line: error.line().unwrap_or(0),
            reason: reason(error),
        }
    }
}

/// The error without the template's name and line, which [`TokenizerError`] gives itself.
fn reason(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}
