//! The latent cache of one layer, where a device limits it.

use serde::Serialize;

use super::PlanRequest;
use super::display::{bytes, count};
use crate::config::{AttentionConfig, ModelConfig};

/// Size and limit of the latent cache of one layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CacheLayer {
    pub(super) bytes_per_token: u64,
    block_size: u64,
    max_bytes: Option<u64>,
}

/// A latent cache that is larger than a device allows in one layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error(
    "a latent cache of {} tokens needs {} a layer, the device holds at most {}: lower {option} to {}",
    count(*tokens), bytes(*need), bytes(*limit), count(*accepted)
)]
pub struct CacheLayerExcess {
    /// Tokens asked for.
    pub tokens: u64,
    /// Bytes of one layer that they need, in whole blocks.
    pub need: u64,
    /// Bytes of one layer that the device allows.
    pub limit: u64,
    /// The option that asks for too much.
    pub option: &'static str,
    /// Its largest value that the device allows.
    pub accepted: u64,
}

impl CacheLayer {
    /// Lkv + R values per token (spec 3.2).
    pub(crate) fn new(config: &ModelConfig, request: &PlanRequest) -> Self {
        let AttentionConfig { kv_lora_rank, qk_rope_head_dim, .. } = config.attention;
        let bytes_per_token =
            request.cache_format.bytes_per_slot(kv_lora_rank, qk_rope_head_dim, request.cache_element_bytes);
        Self {
            bytes_per_token: bytes_per_token as u64,
            block_size: request.block_size.max(1) as u64,
            max_bytes: request.max_cache_layer_bytes,
        }
    }

    /// Whole blocks that the device allows, in tokens; `None` if it has no limit.
    pub(super) fn max_tokens(&self) -> Option<u64> {
        let tokens = self.max_bytes? / self.bytes_per_token.max(1);
        Some(tokens - tokens % self.block_size)
    }

    /// An error when `tokens`, asked for by `option`, are more than the device allows.
    pub(crate) fn check(&self, option: &'static str, tokens: u64) -> Result<(), CacheLayerExcess> {
        let (Some(limit), Some(max_tokens)) = (self.max_bytes, self.max_tokens()) else { return Ok(()) };
        if tokens <= max_tokens {
            return Ok(());
        }
        let slots = tokens.div_ceil(self.block_size).saturating_mul(self.block_size);
        let need = slots.saturating_mul(self.bytes_per_token);
        // Not even one block: it is the blocks that are too large.
        let (option, accepted) = match max_tokens {
            0 => ("block_size", limit / self.bytes_per_token.max(1)),
            tokens => (option, tokens),
        };
        Err(CacheLayerExcess { tokens, need, limit, option, accepted })
    }
}
