//! One generation, shown as it goes and stopped by Ctrl-C.

use std::time::Instant;

use bathysphere::{Chunk, Engine, FinishReason, Finished, SamplingParams, Timings, Usage};
use serde::Serialize;

use crate::error::CliError;
use crate::interrupt::{Event, Interrupt};
use crate::output::{self, rate};

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ending {
    Interrupted,
    #[serde(untagged)]
    Finished(FinishReason),
}

/// What was generated until it ended or was interrupted.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) token_ids: Vec<u32>,
    /// `None` without a tokenizer.
    pub(crate) text: Option<String>,
    pub(crate) ending: Ending,
    pub(crate) usage: Usage,
    pub(crate) timings: Timings,
}

impl Outcome {
    /// Counts and rates, for people.
    pub(crate) fn summary(&self) -> String {
        format!(
            "[prompt {} tokens, {} tok/s; generated {} tokens, {} tok/s]",
            output::count(self.usage.prompt_tokens),
            rate(self.timings.prefill_tok_s),
            output::count(self.usage.completion_tokens),
            rate(self.timings.decode_tok_s),
        )
    }
}

/// Runs one generation to its end or to Ctrl-C, showing every token to `show`.
pub(crate) fn generate(
    engine: &Engine,
    interrupt: &Interrupt,
    tokens: Vec<u32>,
    params: SamplingParams,
    mut show: impl FnMut(&Chunk) -> Result<(), CliError>,
) -> Result<Outcome, CliError> {
    let prompt_tokens = tokens.len();
    let has_text = engine.tokenizer().is_ok();
    let stoppable = interrupt.stoppable();
    let submitted = Instant::now();
    let mut first_token = None;
    let mut stream = engine.stream(tokens, params)?;
    let mut token_ids = Vec::new();
    let mut text = has_text.then(String::new);
    let mut end: Option<Finished> = None;
    while let Event::Token(chunk) = stoppable.next(&mut stream)? {
        first_token.get_or_insert_with(Instant::now);
        show(&chunk)?;
        token_ids.push(chunk.token_id);
        if let (Some(text), Some(piece)) = (&mut text, &chunk.text) {
            text.push_str(piece);
        }
        end = chunk.finished;
    }
    let (ending, usage, timings) = match end {
        Some(end) => (Ending::Finished(end.reason), end.usage, end.timings),
        None => {
            let (usage, timings) = until_now(prompt_tokens, token_ids.len(), submitted, first_token);
            (Ending::Interrupted, usage, timings)
        }
    };
    Ok(Outcome { token_ids, text, ending, usage, timings })
}

/// The figures of an interrupted generation, as this end saw it.
fn until_now(
    prompt_tokens: usize,
    completion_tokens: usize,
    submitted: Instant,
    first_token: Option<Instant>,
) -> (Usage, Timings) {
    let usage = Usage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens };
    let Some(first_token) = first_token else { return (usage, Timings::default()) };
    let prefill_s = (first_token - submitted).as_secs_f64();
    let decode_s = first_token.elapsed().as_secs_f64();
    let timings = Timings {
        prefill_s,
        decode_s,
        prefill_tok_s: prompt_tokens as f64 / prefill_s.max(f64::MIN_POSITIVE),
        decode_tok_s: (completion_tokens - 1) as f64 / decode_s.max(f64::MIN_POSITIVE),
    };
    (usage, timings)
}
