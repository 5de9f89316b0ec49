//! Errors in tiers: one category enum per concern, wrapped by [`Error`].
//!
//! Every message names the culprit (key, tensor, file, op), both values and the next action.

use crate::backend::{PrepareError, StepError, Unavailable};
use crate::config::ConfigError;
use crate::convert::ConvertError;
use crate::engine::RequestError;
use crate::plan::PlanError;
use crate::quant::WeightError;
use crate::sampling::SamplingError;
use crate::tokenizer::TokenizerError;
use crate::weights::CheckpointError;

/// Result of this crate's top-level operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Anything that can go wrong between opening a checkpoint and the last token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `config.json` or `generation_config.json` is missing, malformed or holds a value outside its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weight files are missing, malformed or do not hold what the configuration asks for.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A weight cannot be built or converted.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// The tokenizer or the chat template is missing, malformed or refuses its input.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A sampling parameter is outside its range, or no token can be chosen.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The device cannot be opened.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The device cannot run this model as asked, or is too small; known before the first step.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The model does not fit the device.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A request was refused before it ran.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A running step failed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// Writing a converted or synthetic checkpoint failed.
    #[error(transparent)]
    Convert(#[from] ConvertError),
}

impl Error {
    /// True when the engine that returned this error can serve no further request (device lost, communicator broken).
    pub fn is_fatal(&self) -> bool {
        match self {
            Error::Step(e) | Error::Prepare(PrepareError::Device(e)) => e.is_fatal(),
            Error::Request(e) => *e == RequestError::Stopped,
            Error::Config(_)
            | Error::Checkpoint(_)
            | Error::Weight(_)
            | Error::Tokenizer(_)
            | Error::Sampling(_)
            | Error::Unavailable(_)
            | Error::Prepare(_)
            | Error::Plan(_)
            | Error::Convert(_) => false,
        }
    }
}
