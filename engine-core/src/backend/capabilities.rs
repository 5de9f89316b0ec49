//! What a device can run, as plain data.

use serde::Serialize;

use super::{DType, Unsupported};
use crate::quant::{QuantisedInputs, WeightFormat};

/// A device's abilities and limits. Plain data: `devices --json` prints it, `plan` reads it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Capabilities {
    /// Backend name as in `--device`: `cpu`, `reference`, `cuda` …
    pub backend: String,
    /// Device name as its maker calls it.
    pub device: String,
    /// Formats the device's linear ops take, best first.
    pub weight_formats: Vec<WeightFormat>,
    /// Which linears quantise their inputs.
    pub quantised_inputs: QuantisedInputs,
    /// Element of activations.
    pub activation: DType,
    /// Bytes of one value of the latent cache.
    pub cache_element_bytes: usize,
    /// Memory that weights and cache may take, if known, in bytes.
    pub memory_bytes: Option<u64>,
    /// Largest latent cache of one layer, in bytes, if the device limits it: some bind only so much of a buffer at once.
    pub max_cache_layer_bytes: Option<u64>,
    /// What else a user may want to know, e.g. the instruction set in use.
    pub notes: Vec<String>,
}

/// Something a model needs from a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// Linear weights of this format.
    WeightFormat(WeightFormat),
}

impl Capabilities {
    /// Checks one requirement.
    ///
    /// # Errors
    /// [`Unsupported`] with what the device can do instead.
    pub fn check(&self, requirement: Requirement) -> Result<(), Unsupported> {
        match requirement {
            Requirement::WeightFormat(format) => {
                if self.weight_formats.contains(&format) {
                    return Ok(());
                }
                let known: Vec<String> = self.weight_formats.iter().map(ToString::to_string).collect();
                Err(Unsupported {
                    backend: format!("{} ({})", self.backend, self.device),
                    what: format!("{format} weights"),
                    reason: format!("its linear ops take {}", known.join(", ")),
                    action: "choose one of these with precision".into(),
                })
            }
        }
    }
}
