//! Flags that several commands share.

use std::path::PathBuf;

use bathysphere::{CacheFormat, Device, PrecisionPolicy, SamplingParams};
use clap::Args;

/// Which model, where, and in which form.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// Checkpoint directory, in Hugging Face's layout [default: the small model of this repository].
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    /// Device to run on: `auto`, or a name that `bathysphere devices` lists.
    #[arg(long, value_name = "NAME", default_value_t)]
    pub(crate) device: Device,
    /// Format of the weights: auto, fp8, bf16, int8 or int4; or by class, e.g. `int8,experts=int4`.
    ///
    /// `auto` keeps what the checkpoint has. Other formats are converted while loading. Classes: attention, kv_b,
    /// dense_ffn, experts, shared_experts.
    #[arg(long, value_name = "PRECISION", default_value_t)]
    pub(crate) precision: PrecisionPolicy,
    /// Longest window in tokens, prompt and generation together [default: the checkpoint's, or what fits].
    #[arg(long, value_name = "N")]
    pub(crate) max_model_len: Option<usize>,
    /// Format of the latent cache: auto or fp8.
    ///
    /// `auto` is the device's own, without loss. `fp8` holds nearly twice as many tokens in the same memory and costs some
    /// accuracy; `bathysphere devices` says which devices have it.
    #[arg(long, value_name = "FORMAT", default_value_t)]
    pub(crate) kv_cache_dtype: CacheFormat,
    /// Devices that share the model: the chosen one and those whose numbers follow it.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) tensor_parallel_size: usize,
}

/// The text or the ids to work on.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct PromptArgs {
    /// The text.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// A UTF-8 file with the text; `-` reads stdin.
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// A file with one JSON array of token ids; works without a tokenizer.
    #[arg(long, value_name = "FILE")]
    tokens_file: Option<PathBuf>,
}

/// [`PromptArgs`], of which exactly one was given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PromptSource<'a> {
    Text(&'a str),
    TextFile(&'a PathBuf),
    TokensFile(&'a PathBuf),
}

impl PromptArgs {
    pub(crate) fn source(&self) -> PromptSource<'_> {
        match (&self.prompt, &self.prompt_file, &self.tokens_file) {
            (Some(text), _, _) => PromptSource::Text(text),
            (None, Some(path), _) => PromptSource::TextFile(path),
            (None, None, Some(path)) => PromptSource::TokensFile(path),
            // The parser has refused this; an empty text is refused again.
            (None, None, None) => PromptSource::Text(""),
        }
    }
}

/// How to choose tokens and when to stop.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Most tokens to generate.
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_tokens: usize,
    /// Divides the logits; 0 always takes the likeliest token. 0.6 is what DeepSeek recommends.
    #[arg(long, value_name = "T", default_value_t = 0.6)]
    temperature: f32,
    /// Keep the N likeliest tokens; 0 keeps all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    top_k: usize,
    /// Keep the likeliest tokens whose probabilities reach this sum; 1 keeps all.
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Keep tokens at least this likely relative to the likeliest; 0 keeps all.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f32,
    /// Makes the choice repeatable [default: another one in every run].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// End before this string; may be given several times.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Go on after end of sentence, up to --max-tokens.
    #[arg(long)]
    ignore_eos: bool,
}

impl SamplingArgs {
    pub(crate) fn params(&self) -> SamplingParams {
        SamplingParams {
            max_tokens: Some(self.max_tokens),
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            seed: self.seed,
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
            ..SamplingParams::default()
        }
    }
}
