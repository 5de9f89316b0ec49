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

impl Unavailable {
    /// Of a group of a vendor's devices, by their numbers.
    pub fn of_group(vendor: &str, ordinals: &[u32], reason: String) -> Self {
        let names: Vec<String> = ordinals.iter().map(u32::to_string).collect();
        Self { device: format!("{vendor}:{}", names.join(",")), reason }
    }

    /// Refuses a group in which a device is named twice.
    ///
    /// # Errors
    /// [`Unavailable`] with its number.
    pub fn check_group(vendor: &str, ordinals: &[u32]) -> Result<(), Self> {
        let mut rest = ordinals.iter();
        while let Some(ordinal) = rest.next() {
            if rest.as_slice().contains(ordinal) {
                let reason = format!("device {ordinal} is named twice; a rank needs a device of its own");
                return Err(Self::of_group(vendor, ordinals, reason));
            }
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_named_twice_is_refused_by_its_number() {
        assert_eq!(Unavailable::check_group("gpu", &[0, 1, 2]), Ok(()));
        let refused = Unavailable::check_group("gpu", &[0, 1, 0]).map_err(|error| error.to_string());
        let expected = "device gpu:0,1,0 is unavailable: device 0 is named twice; a rank needs a device of its own";
        assert_eq!(refused, Err(expected.to_owned()));
    }
}
