//! Errors of backends: refusals while loading, failures while running.

use crate::quant::WeightError;

/// Something this device cannot run, and why. Known before the first step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{backend} cannot run {what}: {reason}; {action}")]
pub struct Unsupported {
    /// Backend and device.
    pub backend: String,
    /// Op, format or shape that was asked for.
    pub what: String,
    /// Why not, with the values that clash.
    pub reason: String,
    /// What the user can do.
    pub action: String,
}

/// A device that cannot be opened, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[error("device {device} is unavailable: {reason}")]
pub struct Unavailable {
    /// Device as asked for.
    pub device: String,
    /// Why it cannot be opened, and what to do.
    pub reason: String,
}

/// Why a weight, cache or workspace could not be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// The device cannot run it.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The weight itself is at fault.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// The device failed or is full.
    #[error(transparent)]
    Device(#[from] StepError),
}

impl PrepareError {
    /// Puts the name of the module whose weights were prepared (`model.layers.3.self_attn`) into the message.
    #[must_use]
    pub fn named(self, module: &str) -> Self {
        let with_module = |what: String| format!("{what} ({module})");
        match self {
            PrepareError::Unsupported(error) => {
                PrepareError::Unsupported(Unsupported { what: with_module(error.what), ..error })
            }
            PrepareError::Weight(error) => PrepareError::Weight(error.named(module)),
            PrepareError::Device(StepError::OutOfMemory { device, what, requested_bytes }) => {
                PrepareError::Device(StepError::OutOfMemory { device, what: with_module(what), requested_bytes })
            }
            PrepareError::Device(error) => PrepareError::Device(error),
        }
    }
}

/// The only ways in which a running step can fail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// Device memory is exhausted; the engine stays usable.
    #[error(
        "{device}: out of memory asking for {requested_bytes} bytes for {what}; lower max_model_len, max_num_seqs or \
         max_num_batched_tokens"
    )]
    OutOfMemory {
        /// Device that is full.
        device: String,
        /// What was being allocated.
        what: String,
        /// Bytes asked for.
        requested_bytes: u64,
    },
    /// The device is gone; build a new engine.
    #[error("{device}: device lost ({reason}); build a new engine")]
    DeviceLost {
        /// Device that was lost.
        device: String,
        /// What the driver said.
        reason: String,
    },
    /// The group of ranks cannot communicate any more; build a new engine.
    #[error("rank {rank}: communication failed ({reason}); restart all ranks")]
    Communicator {
        /// Rank that noticed.
        rank: usize,
        /// What the communication library said.
        reason: String,
    },
}

impl StepError {
    /// True when the engine cannot go on.
    pub fn is_fatal(&self) -> bool {
        match self {
            StepError::OutOfMemory { .. } => false,
            StepError::DeviceLost { .. } | StepError::Communicator { .. } => true,
        }
    }
}
