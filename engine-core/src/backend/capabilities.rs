//! What a device can run, as plain data.

use serde::Serialize;

use super::{CacheFormat, DType, Unsupported};
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
    /// Bytes of one value of the latent cache in the device's own element.
    pub cache_element_bytes: usize,
    /// Formats the latent cache can have.
    pub cache_formats: Vec<CacheFormat>,
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
    /// A latent cache of this format.
    CacheFormat(CacheFormat),
}

impl Capabilities {
    /// Checks one requirement.
    ///
    /// # Errors
    /// [`Unsupported`] with what the device can do instead.
    pub fn check(&self, requirement: Requirement) -> Result<(), Unsupported> {
        let (is_met, what, reason, action) = match requirement {
            Requirement::WeightFormat(format) => (
                self.weight_formats.contains(&format),
                format!("{format} weights"),
                format!("its linear ops take {}", listed(&self.weight_formats)),
                "choose one of these with precision",
            ),
            Requirement::CacheFormat(format) => (
                self.cache_formats.contains(&format),
                format!("a latent cache in {format}"),
                format!("its latent cache can be {}", listed(&self.cache_formats)),
                "choose one of these with kv_cache_dtype",
            ),
        };
        if is_met {
            return Ok(());
        }
        let backend = format!("{} ({})", self.backend, self.device);
        Err(Unsupported { backend, what, reason, action: action.into() })
    }
}

impl Capabilities {
    /// What a group of these devices can do: the memory of the smallest.
    ///
    /// # Errors
    /// [`Unsupported`] for devices that differ in anything else. They would round differently, and each rank goes on with
    /// its own copy of what all computed: experts chosen by one would not be those chosen by another.
    ///
    /// # Panics
    /// Without any device.
    pub fn of_group(devices: &[&Capabilities]) -> Result<Capabilities, Unsupported> {
        let [first, others @ ..] = devices else { panic!("a group has a device at least") };
        let mut group = (*first).clone();
        for (rank, device) in (1..).zip(others) {
            group.memory_bytes = smaller(group.memory_bytes, device.memory_bytes);
            group.max_cache_layer_bytes = smaller(group.max_cache_layer_bytes, device.max_cache_layer_bytes);
            let Capabilities { memory_bytes, max_cache_layer_bytes, .. } = group.clone();
            let alike = Capabilities { memory_bytes, max_cache_layer_bytes, ..(*device).clone() };
            if alike != group {
                return Err(Unsupported {
                    backend: format!("{} ({})", first.backend, first.device),
                    what: format!("a model together with {} ({}) as rank {rank}", device.backend, device.device),
                    reason: "devices of a group must be alike, or they would compute differently".into(),
                    action: "choose devices of one kind, or lower tensor_parallel_size".into(),
                });
            }
        }
        Ok(group)
    }
}

/// The smaller of two limits, where there are any.
fn smaller(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    [a, b].into_iter().flatten().min()
}

fn listed(formats: &[impl ToString]) -> String {
    let names: Vec<String> = formats.iter().map(ToString::to_string).collect();
    names.join(", ")
}
