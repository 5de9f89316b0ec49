//! What an embedder holds.
//!
//! An [`Engine`] is one plain handle (`Clone + Send + Sync`) on a thread that owns the device. Requests go in over a
//! channel, tokens come back over another; there is no async runtime, no global state and nothing printed. The thread
//! ends when the last handle and the last stream are dropped.

mod active;
mod builder;
mod logits;
mod options;
mod request;
mod score;
mod stream;
mod worker;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Instant;

pub use builder::{EngineBuilder, Loader, NoDevice, OpenDevice};
pub use logits::{LogitChunk, LogitStream};
pub use request::{Chunk, FinishReason, Finished, Generation, Prompt, RequestError, Timings, Usage};
pub use score::{DraftReport, ScoreOptions, ScoreReport, TokenScore};
pub use stream::TokenStream;

use crate::Error;
use crate::backend::Capabilities;
use crate::config::ModelConfig;
use crate::quant::{WeightClass, WeightFormat};
use crate::runner::RunnerInfo;
use crate::sampling::SamplingParams;
use crate::tokenizer::{ChatMessage, ChatOptions, ChatTemplate, Tokenizer};
use request::CheckedRequest;
use worker::Command;

/// A loaded model, ready for requests; cloning shares it.
///
/// Generations of one engine run together in one batch. Results do not depend on what else is in the batch on backends
/// that promise it (the CPU does, bit for bit).
#[derive(Debug, Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// `None` only while dropping.
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
    model: ModelFacts,
}

/// What is known about the loaded model; requests are checked against it before they reach the thread.
#[derive(Debug)]
struct ModelFacts {
    dir: PathBuf,
    config: ModelConfig,
    capabilities: Capabilities,
    info: RunnerInfo,
    formats: BTreeMap<WeightClass, WeightFormat>,
    tokenizer: Option<Arc<Tokenizer>>,
    template: Option<ChatTemplate>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        drop(self.commands.take());
        let Some(thread) = self.thread.take() else { return };
        // A waker that owns the last handle drops it on the engine's own thread, which then ends by itself.
        if thread.thread().id() != std::thread::current().id() {
            // A panic of the thread has already reached every stream as `RequestError::Stopped`.
            let _ = thread.join();
        }
    }
}

impl Engine {
    /// Starts building an engine for the checkpoint directory `dir` (Hugging Face layout).
    pub fn builder(dir: impl Into<PathBuf>) -> EngineBuilder<NoDevice> {
        EngineBuilder::new(dir.into())
    }

    /// Continues a prompt and waits for the end.
    ///
    /// # Errors
    /// [`RequestError`] or a sampling error before it runs, [`Error::Step`] while it runs.
    pub fn generate(&self, prompt: impl Into<Prompt>, params: SamplingParams) -> Result<Generation, Error> {
        self.stream(prompt, params)?.collect_all()
    }

    /// Continues a prompt, token by token. Drop the stream to cancel.
    ///
    /// # Errors
    /// [`RequestError`] or a sampling error; later errors come through the stream.
    pub fn stream(&self, prompt: impl Into<Prompt>, params: SamplingParams) -> Result<TokenStream, Error> {
        let prompt = self.encode(prompt)?;
        self.submit(prompt, params)
    }

    /// Answers a conversation through the checkpoint's chat template and waits for the end.
    ///
    /// # Errors
    /// As [`Engine::generate`], and when there is no template.
    pub fn chat(&self, messages: &[ChatMessage], params: SamplingParams) -> Result<Generation, Error> {
        self.chat_stream(messages, params)?.collect_all()
    }

    /// Answers a conversation token by token.
    ///
    /// # Errors
    /// As [`Engine::stream`], and when there is no template.
    pub fn chat_stream(&self, messages: &[ChatMessage], params: SamplingParams) -> Result<TokenStream, Error> {
        let text = self.render_chat(messages, &ChatOptions::default())?;
        let tokens = self.tokenizer()?.encode(&text, false)?;
        self.submit(tokens, params)
    }

    /// The text a conversation becomes.
    ///
    /// # Errors
    /// [`RequestError::NoChatTemplate`], or what the template itself refuses.
    pub fn render_chat(&self, messages: &[ChatMessage], options: &ChatOptions) -> Result<String, Error> {
        let template = self.facts().template.as_ref();
        let template = template.ok_or_else(|| RequestError::NoChatTemplate { dir: self.dir_name() })?;
        Ok(template.render(messages, options)?)
    }

    /// Token ids of a prompt; text gets a begin-of-sentence token where the checkpoint asks for one.
    ///
    /// # Errors
    /// [`RequestError::NoTokenizer`] for text without a tokenizer.
    pub fn encode(&self, prompt: impl Into<Prompt>) -> Result<Vec<u32>, Error> {
        match prompt.into() {
            Prompt::Tokens(tokens) => Ok(tokens),
            Prompt::Text(text) => Ok(self.tokenizer()?.encode(&text, true)?),
        }
    }

    /// The checkpoint's tokenizer.
    ///
    /// # Errors
    /// [`RequestError::NoTokenizer`].
    pub fn tokenizer(&self) -> Result<&Arc<Tokenizer>, Error> {
        let tokenizer = self.facts().tokenizer.as_ref();
        Ok(tokenizer.ok_or_else(|| RequestError::NoTokenizer { dir: self.dir_name() })?)
    }

    /// True when conversations can be rendered.
    pub fn has_chat_template(&self) -> bool {
        self.facts().template.is_some()
    }

    /// The checkpoint's directory.
    pub fn dir(&self) -> &Path {
        &self.facts().dir
    }

    /// The checkpoint's architecture.
    pub fn config(&self) -> &ModelConfig {
        &self.facts().config
    }

    /// The device it runs on.
    pub fn capabilities(&self) -> &Capabilities {
        &self.facts().capabilities
    }

    /// The format each class of weights was loaded in: what `Precision::Auto` chose.
    pub fn formats(&self) -> &BTreeMap<WeightClass, WeightFormat> {
        &self.facts().formats
    }

    /// Limits it was built with.
    pub fn info(&self) -> RunnerInfo {
        self.facts().info
    }

    /// Logits of every token of `tokens`, run as one window from position 0, in chunks. With `drafts` the MTP module's
    /// logits come along. Chunks are computed at most two ahead of what is read; generations go on meanwhile, where the
    /// cache has room for both.
    ///
    /// # Errors
    /// [`RequestError`] before it runs; later errors come through the stream.
    pub fn logits(&self, tokens: &[u32], drafts: bool) -> Result<LogitStream, Error> {
        self.check_tokens(tokens, self.info().limits.max_model_len)?;
        if drafts && !self.info().has_mtp {
            return Err(RequestError::NoMtp.into());
        }
        let (run, stream) = logits::logit_stream(self.clone(), tokens, drafts);
        self.send(Command::Logits { run })?;
        Ok(stream)
    }

    /// Teacher-forced scores of a text: negative log-likelihood of each token given those before it in its window.
    ///
    /// # Errors
    /// As [`Engine::logits`].
    pub fn score(&self, tokens: &[u32], options: ScoreOptions) -> Result<ScoreReport, Error> {
        score::score(self, tokens, options)
    }

    fn facts(&self) -> &ModelFacts {
        &self.shared.model
    }

    fn dir_name(&self) -> String {
        self.facts().dir.display().to_string()
    }

    fn submit(&self, prompt: Vec<u32>, params: SamplingParams) -> Result<TokenStream, Error> {
        let facts = self.facts();
        params.validate(facts.config.vocab_size)?;
        let window = facts.info.limits.max_model_len;
        self.check_tokens(&prompt, window - 1)?;
        let room = window - prompt.len();
        let max_tokens = params.max_tokens.map_or(room, |max| max.min(room));
        let (sink, stream) = stream::token_stream(self.clone());
        let request = CheckedRequest { prompt, params, max_tokens, submitted: Instant::now() };
        self.send(Command::Generate { request, sink })?;
        Ok(stream)
    }

    fn check_tokens(&self, tokens: &[u32], max_len: usize) -> Result<(), RequestError> {
        if tokens.is_empty() {
            return Err(RequestError::EmptyPrompt);
        }
        let facts = self.facts();
        if tokens.len() > max_len {
            let max_model_len = facts.info.limits.max_model_len;
            return Err(RequestError::PromptTooLong { num_tokens: tokens.len(), max_model_len });
        }
        self.check_vocabulary(tokens)
    }

    fn check_vocabulary(&self, tokens: &[u32]) -> Result<(), RequestError> {
        let vocab_size = self.facts().config.vocab_size;
        match tokens.iter().position(|id| *id as usize >= vocab_size) {
            None => Ok(()),
            Some(position) => Err(RequestError::UnknownToken { token_id: tokens[position], position, vocab_size }),
        }
    }

    fn send(&self, command: Command) -> Result<(), RequestError> {
        let commands = self.shared.commands.as_ref().ok_or(RequestError::Stopped)?;
        commands.send(command).map_err(|_| RequestError::Stopped)
    }
}
