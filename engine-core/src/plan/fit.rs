//! Does it fit, and what to change if not.

use serde::{Serialize, Serializer};

use super::PlanRequest;
use super::cache_layer::{CacheLayer, CacheLayerExcess};
use super::display::{bytes, count};
use super::weights::PlannedTensors;
use super::workspace;
use crate::config::ModelConfig;
use crate::quant::{Precision, PrecisionPolicy};
use crate::weights::shares::indivisible;

/// Whether a plan fits the device. It does when weights, workspace and the latent cache of one sequence of
/// full length do: more sequences then share what is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// The available memory is not known.
    Unknown,
    /// It fits.
    Fits,
    /// The latent cache of one sequence is larger than the device allows in a layer, whatever its memory.
    CacheLayerTooLarge(CacheLayerExcess),
    /// It does not.
    DoesNotFit {
        /// Bytes needed at least.
        need: u64,
        /// Bytes available.
        have: u64,
        /// What would make it fit.
        advice: Advice,
    },
}

/// Changes that would each make a plan fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// The largest `max_model_len` that fits, if weights and workspace do.
    pub max_model_len: Option<u64>,
    /// The first smaller precision that fits.
    #[serde(serialize_with = "precision_name")]
    pub precision: Option<Precision>,
    /// The fewest devices among which it fits, of those that there are.
    pub tensor_parallel_size: Option<u64>,
}

fn precision_name<S: Serializer>(precision: &Option<Precision>, serializer: S) -> Result<S::Ok, S::Error> {
    precision.map(|p| p.to_string()).serialize(serializer)
}

impl std::fmt::Display for Advice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let changes = [
            self.max_model_len.map(|len| format!("lower max_model_len to {}", count(len))),
            self.precision.map(|precision| format!("use precision {precision}")),
            self.tensor_parallel_size.map(|size| format!("use tensor_parallel_size {size}")),
        ];
        let changes: Vec<String> = changes.into_iter().flatten().collect();
        f.write_str(if changes.is_empty() { "use a device with more memory" } else { "" })?;
        f.write_str(&changes.join(" or "))
    }
}

/// A plan that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Weights, workspace and one full sequence need more memory than there is.
    #[error("need {}, have {} free: {advice}", bytes(*need), bytes(*have))]
    DoesNotFit {
        /// Bytes needed at least.
        need: u64,
        /// Bytes available.
        have: u64,
        /// What would make it fit.
        advice: Advice,
    },
    /// The latent cache is larger than the device allows in one layer.
    #[error(transparent)]
    CacheLayer(#[from] CacheLayerExcess),
}

/// The sums that decide.
pub(super) struct Fit {
    pub(super) weight_bytes: u64,
    pub(super) workspace_bytes: u64,
    pub(super) cache_bytes_per_token: u64,
    pub(super) max_model_len: u64,
    pub(super) cache_layer: CacheLayer,
}

impl Fit {
    /// Tokens of latent cache that fit into `have` bytes beside weights and workspace.
    pub(super) fn cache_tokens(&self, have: u64) -> u64 {
        have.saturating_sub(self.weight_bytes.saturating_add(self.workspace_bytes)) / self.cache_bytes_per_token.max(1)
    }

    fn need(&self) -> u64 {
        let one_sequence = self.max_model_len.saturating_mul(self.cache_bytes_per_token);
        self.weight_bytes.saturating_add(self.workspace_bytes).saturating_add(one_sequence)
    }

    pub(super) fn verdict(&self, config: &ModelConfig, request: &PlanRequest, tensors: &PlannedTensors) -> Verdict {
        if let Err(excess) = self.cache_layer.check("max_model_len", self.max_model_len) {
            return Verdict::CacheLayerTooLarge(excess);
        }
        let Some(have) = request.available_bytes else { return Verdict::Unknown };
        let need = self.need();
        if need <= have {
            return Verdict::Fits;
        }
        let max_model_len = Some(self.cache_tokens(have)).filter(|tokens| *tokens > 0);
        let fits = |precision: &Precision| {
            let weight_bytes = tensors.bytes(&PrecisionPolicy::uniform(*precision), request.stored);
            Fit { weight_bytes, ..*self }.need() <= have
        };
        let precision = [Precision::Fp8, Precision::Int8, Precision::Int4].into_iter().find(fits);
        let fits_among = |size: &usize| {
            let request = PlanRequest { tensor_parallel_size: *size, ..request.clone() };
            let weight_bytes = PlannedTensors::new(config, &request).bytes(&request.policy, request.stored);
            let workspace_bytes = workspace::bytes(config, &request);
            indivisible(config, *size).is_none() && Fit { weight_bytes, workspace_bytes, ..*self }.need() <= have
        };
        let more = request.tensor_parallel_size + 1..=request.num_devices;
        let tensor_parallel_size = more.into_iter().find(fits_among).map(|size| size as u64);
        Verdict::DoesNotFit { need, have, advice: Advice { max_model_len, precision, tensor_parallel_size } }
    }
}
