//! The flags of the commands that run a model on prompts.

use std::path::PathBuf;

use clap::Args;

use super::{ModelArgs, PromptArgs, SamplingArgs};

/// List the devices this build knows, and why one cannot be used.
///
/// Example:
///   bathysphere devices
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct DevicesArgs {
    /// Print one JSON array.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Continue a prompt, or answer it.
///
/// When the checkpoint has a chat template, the prompt is put as a user's message; --raw continues the text as it is.
/// Text appears as it is generated; Ctrl-C stops and keeps what is there (exit code 130). Without a tokenizer, ids are
/// printed.
///
/// Examples:
///   bathysphere generate --prompt "What is a slice?"
///   bathysphere generate --raw --prompt "And Moses said unto the people," --seed 3
///   bathysphere generate --model DIR --tokens-file ids.json --ignore-eos --json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    /// Continue the text as it is, without the chat template.
    #[arg(long)]
    pub(crate) raw: bool,
    /// Print one JSON object: token_ids, text, finish_reason, usage and timings.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

/// Talk with the model, turn by turn.
///
/// The conversation so far goes through the checkpoint's chat template. `/clear` forgets it, `/exit` or the end of
/// input leaves, Ctrl-C stops an answer. From a pipe, every line is one message.
///
/// Examples:
///   bathysphere chat
///   printf 'What is a slice?\nAnd a Vec?\n' | bathysphere chat --temperature 0
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Instructions that stand before the conversation.
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

/// Run many prompts together.
///
/// A file of plain prompts, one a line, or of JSON objects, one a line (when the first line starts with `{`):
///   {"prompt": "What is a slice?", "temperature": 0}
///   {"messages": [{"role": "user", "content": "What is a slice?"}], "max_tokens": 32}
///   {"token_ids": [0, 706, 2772]}
/// Further keys are sampling parameters under vLLM's names; what a line does not say, the flags do. No result is
/// written before all lines are checked. Results are JSON lines in the order of the input, with index, line, token_ids,
/// text, finish_reason, usage and timings.
///
/// Example:
///   bathysphere batch --input-file prompts.jsonl --output answers.jsonl
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct BatchArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The prompts; `-` reads stdin.
    #[arg(long, value_name = "FILE")]
    pub(crate) input_file: PathBuf,
    /// Where results go, when all are there [default: stdout, one by one].
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Continue texts as they are, without the chat template. Messages always go through it.
    #[arg(long)]
    pub(crate) raw: bool,
    /// Prompts that run together at most.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) max_num_seqs: usize,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

/// Score a text: negative log-likelihood (NLL) and perplexity.
///
/// Every token is predicted from those before it in its window; windows of --window tokens follow each other and do
/// not see one another. The text is taken as it is, without the chat template. NLL is in nats (natural logarithm).
///
/// Examples:
///   bathysphere score --prompt-file book.txt --window 512
///   bathysphere score --tokens-file ids.json --logits logits.safetensors --json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ScoreArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    /// Tokens per window [default: the largest the model takes].
    #[arg(long, value_name = "W")]
    pub(crate) window: Option<usize>,
    /// Run the MTP module too and count the drafts that equal the main model's choice.
    #[arg(long)]
    pub(crate) mtp: bool,
    /// Also write all logits, tensor `logits` [tokens, vocabulary] in f32: row t follows token t.
    #[arg(long, value_name = "FILE")]
    pub(crate) logits: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}
