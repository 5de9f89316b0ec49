//! Teacher-forced scores.

use serde::Serialize;

use super::{Engine, RequestError};
use crate::Error;
use crate::sampling::{argmax, log_softmax_at};

/// How to score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScoreOptions {
    /// Inputs per window; windows follow each other and do not see one another. `None` is the engine's window.
    pub window: Option<usize>,
    /// Also run the MTP module and count how often its draft equals the main model's choice.
    pub drafts: bool,
}

/// The score of one token given those before it in its window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TokenScore {
    /// The token.
    pub token_id: u32,
    /// Negative log-likelihood, natural logarithm.
    pub nll: f64,
    /// The model's most likely token in its place; none when its logits are not numbers.
    pub argmax: Option<u32>,
}

/// The score of a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScoreReport {
    /// Every predicted token: all but the first.
    pub tokens: Vec<TokenScore>,
    /// Σ nll.
    pub nll_sum: f64,
    /// Σ nll / tokens.
    pub nll_mean: f64,
    /// e^mean.
    pub perplexity: f64,
    /// Drafts that predict the same token as the main model, and drafts made; with [`ScoreOptions::drafts`].
    pub drafts: Option<DraftReport>,
}

/// How the MTP module did on a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DraftReport {
    /// Drafts equal to the main model's argmax for the same token.
    pub equal: usize,
    /// Drafts compared.
    pub compared: usize,
}

/// Window w reads `tokens[w·W..][..W]` alone from position 0 and predicts the token after each.
pub(super) fn score(engine: &Engine, tokens: &[u32], options: ScoreOptions) -> Result<ScoreReport, Error> {
    let max_model_len = engine.info().limits.max_model_len;
    let window = options.window.unwrap_or(max_model_len);
    if window == 0 || window > max_model_len {
        return Err(RequestError::Window { window, max_model_len }.into());
    }
    if tokens.len() < 2 {
        return Err(RequestError::NothingToScore { num_tokens: tokens.len() }.into());
    }
    // The last token is scored although it is no input.
    engine.check_vocabulary(tokens)?;
    let vocab_size = engine.config().vocab_size;
    let mut scores = Vec::with_capacity(tokens.len() - 1);
    let mut drafts = options.drafts.then_some(DraftReport { equal: 0, compared: 0 });
    for start in (0..tokens.len() - 1).step_by(window) {
        let inputs = &tokens[start..(start + window).min(tokens.len() - 1)];
        let first_score = scores.len();
        let mut draft_choices = Vec::new();
        for chunk in engine.logits(inputs, options.drafts)? {
            let chunk = chunk?;
            for (i, logits) in chunk.logits.chunks(vocab_size).enumerate() {
                let token_id = tokens[start + chunk.first_position + i + 1];
                let nll = -log_softmax_at(logits, token_id as usize);
                scores.push(TokenScore { token_id, nll, argmax: argmax(logits) });
            }
            for logits in chunk.draft_logits.iter().flat_map(|all| all.chunks(vocab_size)) {
                draft_choices.push(argmax(logits));
            }
        }
        if let Some(report) = &mut drafts {
            // The draft of slot i predicts token i+2, as the main model's row i+1 does.
            let main = scores[first_score..].iter().skip(1).map(|score| score.argmax);
            for (draft, main) in draft_choices.iter().zip(main) {
                report.compared += 1;
                report.equal += usize::from(draft.is_some() && *draft == main);
            }
        }
    }
    let nll_sum: f64 = scores.iter().map(|score| score.nll).sum();
    let nll_mean = nll_sum / scores.len() as f64;
    Ok(ScoreReport { nll_sum, nll_mean, perplexity: nll_mean.exp(), tokens: scores, drafts })
}
