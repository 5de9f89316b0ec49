//! A request while it runs: sampling, text, and the decision when to stop.

use std::sync::Arc;
use std::time::Instant;

use super::request::{CheckedRequest, Chunk, FinishReason, Finished, Timings, Usage};
use super::stream::Sink;
use crate::backend::{StepError, TopLogits};
use crate::sampling::{History, SampledToken, Sampler, SamplingError, SamplingScratch};
use crate::tokenizer::{DetokenizeStream, StopStrings, Tokenizer};

/// What all requests of an engine share.
#[derive(Debug)]
pub(super) struct TextFacts {
    pub(super) tokenizer: Option<Arc<Tokenizer>>,
    pub(super) eos_token_ids: Vec<u32>,
    /// Ids past these have no text: they are never drawn.
    pub(super) num_token_ids: u32,
    pub(super) seed: u64,
}

/// What the runner says of a sequence's next token.
#[derive(Debug)]
pub(super) enum RowOutput<'a> {
    /// All logits.
    Logits(&'a mut [f32]),
    /// The token itself.
    Token(Result<u32, SamplingError>),
}

#[derive(Debug)]
pub(super) struct Active {
    max_tokens: usize,
    prompt_tokens: usize,
    num_generated: usize,
    sampler: Sampler,
    text: Option<Text>,
    sink: Sink,
    submitted: Instant,
    first_token: Option<Instant>,
}

#[derive(Debug)]
struct Text {
    detokenizer: DetokenizeStream,
    stop: StopStrings,
}

impl Active {
    pub(super) fn new(request: CheckedRequest, sink: Sink, facts: &TextFacts, stream: u64) -> Self {
        let params = request.params;
        let text = facts.tokenizer.as_ref().map(|tokenizer| Text {
            detokenizer: DetokenizeStream::new(tokenizer.clone(), params.skip_special_tokens),
            stop: StopStrings::new(&params.stop, params.include_stop_str_in_output),
        });
        // Without a seed of its own, a request gets one that differs from its neighbours'.
        let seed = facts.seed.wrapping_add(stream.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        Self {
            sampler: Sampler::new(params, &facts.eos_token_ids, seed).with_num_token_ids(facts.num_token_ids),
            max_tokens: request.max_tokens,
            prompt_tokens: request.prompt.len(),
            num_generated: 0,
            text,
            sink,
            submitted: request.submitted,
            first_token: None,
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.sink.is_cancelled()
    }

    pub(super) fn fail(self, error: StepError) {
        self.sink.send(Err(error.into()));
    }

    /// True when the next token needs no logits but the highest one's id.
    pub(super) fn takes_best(&self) -> bool {
        self.sampler.takes_best(self.num_generated)
    }

    /// What logits are multiplied by before the draw of the next token, when the `num_top` highest may do for it.
    pub(super) fn takes_top(&self, num_top: usize) -> Option<f32> {
        self.sampler.takes_top(self.num_generated, num_top).then(|| self.sampler.inverse_temperature())
    }

    /// Draws the next token, when [`Active::takes_top`] says so and `top` decides it.
    pub(super) fn draw_from_top(&mut self, top: TopLogits<'_>, scratch: &mut SamplingScratch) -> Option<u32> {
        self.sampler.sample_top(top, scratch)
    }

    /// Chooses the next token given all tokens so far, and hands it out. `None` when it was the last.
    pub(super) fn take_token(
        &mut self,
        row: RowOutput<'_>,
        tokens: &[u32],
        scratch: &mut SamplingScratch,
    ) -> Option<u32> {
        let (prompt, output) = tokens.split_at(self.prompt_tokens);
        let sampled = match row {
            RowOutput::Logits(logits) => self.sampler.sample(logits, History { prompt, output }, scratch),
            RowOutput::Token(token) => token.map(SampledToken::without_logprobs),
        };
        let sampled = match sampled {
            Ok(sampled) => sampled,
            Err(error) => {
                self.sink.send(Err(error.into()));
                return None;
            }
        };
        self.num_generated += 1;
        self.first_token.get_or_insert_with(Instant::now);
        let (text, reason) = self.take_text(sampled.id);
        let chunk = Chunk {
            token_id: sampled.id,
            text,
            logprob: sampled.logprob,
            top_logprobs: sampled.top_logprobs,
            finished: reason.map(|reason| self.finished(reason)),
        };
        self.sink.send(Ok(chunk));
        if reason.is_some() { None } else { Some(sampled.id) }
    }

    /// The text that token `id` completes, and whether the generation ends with it.
    fn take_text(&mut self, id: u32) -> (Option<String>, Option<FinishReason>) {
        let params = self.sampler.params();
        let may_stop = self.num_generated >= params.min_tokens;
        let stopped_by_token = may_stop && self.sampler.ends_sequence(id);
        let mut reason = if stopped_by_token {
            Some(FinishReason::Stop)
        } else if self.num_generated >= self.max_tokens {
            Some(FinishReason::Length)
        } else {
            None
        };
        let Some(Text { detokenizer, stop }) = &mut self.text else {
            return (None, reason);
        };
        let mut piece = String::new();
        if !stopped_by_token || params.include_stop_str_in_output {
            piece.extend(detokenizer.push(id));
        }
        if reason.is_some() {
            piece.push_str(&detokenizer.finish());
        }
        let mut text = if may_stop {
            let output = stop.push(&piece);
            if output.stop.is_some() {
                reason = Some(FinishReason::Stop);
            }
            output.text
        } else {
            stop.push_without_stopping(&piece)
        };
        if reason.is_some() {
            // Empty after a stop string.
            text.push_str(&stop.finish());
        }
        (Some(text), reason)
    }

    fn finished(&self, reason: FinishReason) -> Finished {
        let now = Instant::now();
        let first = self.first_token.unwrap_or(now);
        let prefill_s = (first - self.submitted).as_secs_f64();
        let decode_s = (now - first).as_secs_f64();
        let rate = |tokens: usize, seconds: f64| if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 };
        Finished {
            reason,
            usage: Usage {
                prompt_tokens: self.prompt_tokens,
                completion_tokens: self.num_generated,
                total_tokens: self.prompt_tokens + self.num_generated,
            },
            timings: Timings {
                prefill_s,
                decode_s,
                prefill_tok_s: rate(self.prompt_tokens, prefill_s),
                decode_tok_s: rate(self.num_generated - 1, decode_s),
            },
        }
    }
}
