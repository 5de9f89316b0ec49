//! The numbers an engine is built with, and how they become sizes on a device.

use std::ops::RangeInclusive;

use super::RequestError;
use crate::Error;
use crate::backend::{Capabilities, StepLimits};
use crate::cache::DEFAULT_BLOCK_SIZE;
use crate::config::ModelConfig;
use crate::plan::{MemoryPlan, PlanRequest, stored_format};
use crate::quant::PrecisionPolicy;
use crate::runner::RunnerOptions;

/// What the builder collects; its methods document each.
#[derive(Debug, Clone)]
pub(super) struct BuildOptions {
    pub(super) precision: PrecisionPolicy,
    pub(super) load_mtp: bool,
    pub(super) max_model_len: Option<usize>,
    pub(super) max_num_seqs: usize,
    pub(super) max_num_batched_tokens: usize,
    pub(super) num_cache_tokens: Option<usize>,
    pub(super) block_size: usize,
    pub(super) seed: Option<u64>,
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self {
            precision: PrecisionPolicy::default(),
            load_mtp: false,
            max_model_len: None,
            max_num_seqs: 16,
            max_num_batched_tokens: 512,
            num_cache_tokens: None,
            block_size: DEFAULT_BLOCK_SIZE,
            seed: None,
        }
    }
}

/// Tokens of cache per sequence that are reserved unless asked otherwise.
const DEFAULT_CACHE_TOKENS_PER_SEQUENCE: usize = 8192;

/// One token of prompt and one generated.
const SHORTEST_WINDOW: usize = 2;

/// Slots are numbered in 32 bits, the last of which is padding; half of them leaves room for rounding up to blocks.
const MAX_CACHE_TOKENS: usize = 1 << 31;

impl BuildOptions {
    pub(super) fn plan(
        &self,
        config: &ModelConfig,
        capabilities: &Capabilities,
        max_model_len: Option<usize>,
    ) -> MemoryPlan {
        let request = PlanRequest {
            policy: self.precision.clone(),
            stored: stored_format(config),
            with_mtp: self.load_mtp,
            cache_element_bytes: capabilities.cache_element_bytes,
            act_element_bytes: capabilities.activation.num_bytes(),
            max_model_len: max_model_len.unwrap_or(config.max_position_embeddings),
            max_num_seqs: self.max_num_seqs,
            max_num_batched_tokens: self.max_num_batched_tokens,
            block_size: self.block_size,
            available_bytes: capabilities.memory_bytes,
        };
        MemoryPlan::new(config, &request)
    }

    fn check(&self, config: &ModelConfig, has_mtp: bool) -> Result<(), RequestError> {
        let longest = config.max_position_embeddings;
        let window = self.max_model_len.unwrap_or(longest);
        for (option, value, range) in [
            ("max_model_len", window, SHORTEST_WINDOW..=longest),
            ("max_num_seqs", self.max_num_seqs, 1..=65_536),
            ("max_num_batched_tokens", self.max_num_batched_tokens, 1..=1_048_576),
            ("block_size", self.block_size, 1..=65_536),
        ] {
            check_option(option, value, range)?;
        }
        if self.load_mtp && !has_mtp { Err(RequestError::NoMtp) } else { Ok(()) }
    }

    /// Sizes for this device: what was asked for, else the model's window, else what fits.
    pub(super) fn resolve(
        &self,
        config: &ModelConfig,
        capabilities: &Capabilities,
        has_mtp: bool,
    ) -> Result<RunnerOptions, Error> {
        self.check(config, has_mtp)?;
        let mut plan = self.plan(config, capabilities, self.max_model_len);
        let fitting = plan.max_cache_tokens.map_or(usize::MAX, |tokens| tokens as usize);
        let fits_partly = (self.block_size.max(SHORTEST_WINDOW)..config.max_position_embeddings).contains(&fitting);
        if self.max_model_len.is_none() && fits_partly {
            let fitting = fitting - fitting % self.block_size;
            tracing::info!(max_model_len = fitting, "the window is limited by the device's memory");
            plan = self.plan(config, capabilities, Some(fitting));
        }
        plan.check()?;
        let max_model_len = plan.max_model_len as usize;
        let wanted = self.max_num_seqs * max_model_len.min(DEFAULT_CACHE_TOKENS_PER_SEQUENCE);
        let most = fitting.min(MAX_CACHE_TOKENS).max(max_model_len);
        let cache_tokens = self.num_cache_tokens.unwrap_or_else(|| wanted.clamp(max_model_len, most));
        check_option("num_cache_tokens", cache_tokens, max_model_len..=most)?;
        Ok(RunnerOptions {
            precision: self.precision.clone(),
            with_mtp: self.load_mtp,
            limits: StepLimits {
                max_num_batched_tokens: self.max_num_batched_tokens,
                max_num_seqs: self.max_num_seqs,
                max_model_len,
                block_size: self.block_size,
            },
            num_blocks: cache_tokens.div_ceil(self.block_size),
            num_token_ids: None,
        })
    }
}

fn check_option(option: &'static str, value: usize, range: RangeInclusive<usize>) -> Result<(), RequestError> {
    if range.contains(&value) {
        return Ok(());
    }
    let accepted = format!("{}..={}", range.start(), range.end());
    Err(RequestError::BuildOption { option, value, accepted })
}
