//! What can be wrong with sampling.

/// A sampling parameter outside its range, or logits no token can be chosen from.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplingError {
    /// A parameter is outside its range.
    #[error("sampling parameter {field}: found {value}, accepted {accepted}; correct the request")]
    OutOfRange {
        /// Name of the parameter.
        field: &'static str,
        /// The value found.
        value: String,
        /// The values accepted.
        accepted: String,
    },
    /// A parameter names a token id that the model does not have.
    #[error("sampling parameter {field}: found token id {id}, accepted ids below {vocab_size}; correct the request")]
    TokenId {
        /// Name of the parameter.
        field: &'static str,
        /// The id found.
        id: u32,
        /// The model's `vocab_size`.
        vocab_size: usize,
    },
    /// A stop string is empty: it would stop before the first token.
    #[error(
        "sampling parameter stop: entry {index} is empty, accepted are strings of at least one character; remove it"
    )]
    EmptyStop {
        /// Index within `stop`.
        index: usize,
    },
    /// Every logit is NaN or −∞.
    #[error(
        "no token can be chosen: of {num_logits} logits {num_nan} are NaN and the others −∞; \
         check logit_bias and min_tokens, else the model's weights"
    )]
    NoCandidate {
        /// Logits looked at.
        num_logits: usize,
        /// How many of them are NaN.
        num_nan: usize,
    },
}

impl SamplingError {
    /// The error of logits that are all NaN or −∞.
    pub(crate) fn no_candidate(logits: &[f32]) -> Self {
        let num_nan = logits.iter().filter(|logit| logit.is_nan()).count();
        SamplingError::NoCandidate { num_logits: logits.len(), num_nan }
    }
}
