//! How much memory a model needs, answered from its configuration before anything is loaded.
//!
//! ```
//! use engine_core::config::ModelConfig;
//! use engine_core::plan::{MemoryPlan, PlanRequest};
//! use engine_core::quant::Precision;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = std::path::Path::new("../models/tiny-deepseek-v3-fp8");
//! let config = ModelConfig::from_dir(dir)?;
//! let mut request = PlanRequest::new(&config);
//! request.policy = Precision::Int8.into();
//! request.available_bytes = Some(24 << 30);
//! let plan = MemoryPlan::new(&config, &request);
//! plan.check()?;
//! let table = plan.to_string();
//! # assert!(table.contains("experts"));
//! # Ok(())
//! # }
//! ```

mod cache_layer;
mod display;
mod fit;
#[cfg(test)]
mod tests;
mod weights;
mod workspace;

use serde::Serialize;

use crate::backend::CacheFormat;
use crate::cache::DEFAULT_BLOCK_SIZE;
use crate::config::{ModelConfig, QuantizationConfig};
use crate::quant::{PrecisionPolicy, WeightFormat};

pub(crate) use cache_layer::CacheLayer;
pub use cache_layer::CacheLayerExcess;
pub use fit::{Advice, PlanError, Verdict};
pub use weights::{PlanClass, WeightLine};

/// What is to be planned for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanRequest {
    /// Precision asked for, per class of weight.
    pub policy: PrecisionPolicy,
    /// Format of the checkpoint's linears: what `auto` keeps.
    pub stored: WeightFormat,
    /// Load the MTP module too: the first, where the configuration has more.
    pub with_mtp: bool,
    /// Bytes of one value of the latent cache in the device's own element: 4 for f32, 2 for bf16.
    pub cache_element_bytes: usize,
    /// Format of the latent cache.
    pub cache_format: CacheFormat,
    /// Bytes of one activation: 4 for f32, 2 for bf16.
    pub act_element_bytes: usize,
    /// Longest sequence, in tokens.
    pub max_model_len: usize,
    /// Sequences that run at once.
    pub max_num_seqs: usize,
    /// Tokens of one step.
    pub max_num_batched_tokens: usize,
    /// Slots per block of the latent cache.
    pub block_size: usize,
    /// Memory free on the device, if known.
    pub available_bytes: Option<u64>,
    /// Largest latent cache of one layer, in bytes, if the device limits it.
    pub max_cache_layer_bytes: Option<u64>,
    /// Devices that share the model; the plan is for one of them.
    pub tensor_parallel_size: usize,
    /// Devices that could: what advice may count on.
    pub num_devices: usize,
}

impl PlanRequest {
    /// The checkpoint as it is, with its MTP module, at its full window: one sequence, bf16 cache and activations,
    /// 2048 tokens a step, limits of the device unknown.
    pub fn new(config: &ModelConfig) -> Self {
        Self {
            policy: PrecisionPolicy::default(),
            stored: stored_format(config),
            with_mtp: config.num_nextn_predict_layers > 0,
            cache_element_bytes: 2,
            cache_format: CacheFormat::Native,
            act_element_bytes: 2,
            max_model_len: config.max_position_embeddings,
            max_num_seqs: 1,
            max_num_batched_tokens: 2048,
            block_size: DEFAULT_BLOCK_SIZE,
            available_bytes: None,
            max_cache_layer_bytes: None,
            tensor_parallel_size: 1,
            num_devices: 1,
        }
    }
}

/// The format of a checkpoint's linears as its configuration declares it; without a declaration, bf16.
pub fn stored_format(config: &ModelConfig) -> WeightFormat {
    match config.quantization {
        None => WeightFormat::Bf16,
        Some(QuantizationConfig::Fp8Block { .. }) => WeightFormat::Fp8Block,
        Some(QuantizationConfig::Int8Channel) => WeightFormat::Int8Channel,
        Some(QuantizationConfig::Int4Group { .. }) => WeightFormat::Int4Group,
    }
}

/// What loading and running a model takes, in bytes, and whether it fits. `Display` gives a table.
///
/// For a group of devices, bytes and tokens are those of the one with the largest share; parameters are the model's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// One line per class of weight that the model has.
    pub weights: Vec<WeightLine>,
    /// Devices that share the model.
    pub tensor_parallel_size: u64,
    /// Sum of the lines.
    pub weight_bytes: u64,
    /// Parameters of the main model.
    pub total_parameters: u64,
    /// Parameters of the main model that a token is multiplied with: K of E experts of each layer, and no embedding,
    /// which is looked up (unless it is the head as well).
    pub active_parameters: u64,
    /// Parameters of the MTP module, without the embedding and head that it shares with the main model.
    pub mtp_parameters: u64,
    /// Format of the latent cache.
    pub cache_format: CacheFormat,
    /// Latent cache of one token over all layers, the MTP module's included when loaded.
    pub cache_bytes_per_token: u64,
    /// Longest sequence planned for, in tokens.
    pub max_model_len: u64,
    /// Sequences planned for.
    pub max_num_seqs: u64,
    /// Latent cache when every sequence has its full length.
    pub full_cache_bytes: u64,
    /// Activations, logits and tables of one step: an upper estimate.
    pub workspace_bytes: u64,
    /// Memory free on the device, if known.
    pub available_bytes: Option<u64>,
    /// Tokens of latent cache that fit beside weights and workspace, if the memory is known.
    pub max_cache_tokens: Option<u64>,
    /// Tokens, in whole blocks, of the largest latent cache of one layer that the device allows, if it limits it.
    pub max_cache_layer_tokens: Option<u64>,
    /// Whether it fits.
    pub verdict: Verdict,
}

impl MemoryPlan {
    /// Plans from the configuration alone.
    pub fn new(config: &ModelConfig, request: &PlanRequest) -> Self {
        // The loader takes the first MTP module and leaves the others.
        let config = &ModelConfig {
            num_nextn_predict_layers: config.num_nextn_predict_layers.min(usize::from(request.with_mtp)),
            ..config.clone()
        };
        let tensors = weights::PlannedTensors::new(config, request);
        let lines = tensors.lines(request);
        let parameters = tensors.parameters(config);
        let weight_bytes = lines.iter().map(|line| line.bytes).sum();
        let cache_layer = CacheLayer::new(config, request);
        let cache_bytes_per_token =
            cache_layer.bytes_per_token * (config.num_hidden_layers + config.num_nextn_predict_layers) as u64;
        let workspace_bytes = workspace::bytes(config, request);
        let fit = fit::Fit {
            weight_bytes,
            workspace_bytes,
            cache_bytes_per_token,
            max_model_len: request.max_model_len as u64,
            cache_layer,
        };
        let max_cache_tokens = request.available_bytes.map(|have| fit.cache_tokens(have));
        let full_tokens = (request.max_model_len as u64).saturating_mul(request.max_num_seqs as u64);
        Self {
            weights: lines,
            tensor_parallel_size: request.tensor_parallel_size as u64,
            weight_bytes,
            total_parameters: parameters.total,
            active_parameters: parameters.active,
            mtp_parameters: parameters.mtp,
            cache_format: request.cache_format,
            cache_bytes_per_token,
            max_model_len: request.max_model_len as u64,
            max_num_seqs: request.max_num_seqs as u64,
            full_cache_bytes: full_tokens.saturating_mul(cache_bytes_per_token),
            workspace_bytes,
            available_bytes: request.available_bytes,
            max_cache_tokens,
            max_cache_layer_tokens: cache_layer.max_tokens(),
            verdict: fit.verdict(config, request, &tensors),
        }
    }

    /// Latent cache of `tokens` tokens.
    pub fn cache_bytes(&self, tokens: u64) -> u64 {
        tokens.saturating_mul(self.cache_bytes_per_token)
    }

    /// Bytes of one class of weight; 0 when the model has none.
    pub fn class_bytes(&self, class: PlanClass) -> u64 {
        self.weights.iter().filter(|line| line.class == class).map(|line| line.bytes).sum()
    }

    /// The tokens of cache to allocate: every sequence at full length, or as many as fit.
    pub fn cache_tokens(&self) -> u64 {
        let full = self.max_model_len.saturating_mul(self.max_num_seqs);
        [self.max_cache_tokens, self.max_cache_layer_tokens].into_iter().flatten().fold(full, u64::min)
    }

    /// An error when the plan does not fit.
    ///
    /// # Errors
    /// [`PlanError`], for the memory or for the cache of one layer.
    pub fn check(&self) -> Result<(), PlanError> {
        match &self.verdict {
            Verdict::Unknown | Verdict::Fits => Ok(()),
            Verdict::CacheLayerTooLarge(excess) => Err(excess.clone().into()),
            Verdict::DoesNotFit { need, have, advice } => {
                Err(PlanError::DoesNotFit { need: *need, have: *have, advice: advice.clone() })
            }
        }
    }
}
