//! The numbers an engine is built with, and how they become sizes on a device.

use std::ops::RangeInclusive;

use super::RequestError;
use crate::Error;
use crate::backend::{CacheFormat, Capabilities, PrepareError, Requirement, StepLimits, Unsupported};
use crate::cache::DEFAULT_BLOCK_SIZE;
use crate::config::ModelConfig;
use crate::plan::{CacheLayer, MemoryPlan, PlanError, PlanRequest, stored_format};
use crate::quant::PrecisionPolicy;
use crate::runner::RunnerOptions;
use crate::weights::shares::indivisible;

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
    pub(super) kv_cache_dtype: CacheFormat,
    pub(super) tensor_parallel_size: usize,
    /// Not chosen, but there: of [`OpenDevice::num_devices`](super::OpenDevice::num_devices).
    pub(super) num_devices: usize,
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
            kv_cache_dtype: CacheFormat::default(),
            tensor_parallel_size: 1,
            num_devices: 1,
            seed: None,
        }
    }
}

/// Tokens of cache per sequence that are reserved unless asked otherwise.
const DEFAULT_CACHE_TOKENS_PER_SEQUENCE: usize = 8192;

/// Devices of one machine; more than there ever are.
const MAX_WORLD_SIZE: usize = 64;

/// One token of prompt and one generated.
const SHORTEST_WINDOW: usize = 2;

/// Slots are numbered in 32 bits, the last of which is padding; half of them leaves room for rounding up to blocks.
const MAX_CACHE_TOKENS: usize = 1 << 31;

impl BuildOptions {
    /// What is to be planned for: these options on this device, with the model's window unless there is a shorter one.
    ///
    /// # Errors
    /// The device's refusal of the cache's format.
    pub(super) fn plan_request(
        &self,
        config: &ModelConfig,
        capabilities: &Capabilities,
    ) -> Result<PlanRequest, Unsupported> {
        capabilities.check(Requirement::CacheFormat(self.kv_cache_dtype))?;
        Ok(PlanRequest {
            policy: self.precision.clone(),
            stored: stored_format(config),
            with_mtp: self.load_mtp,
            cache_element_bytes: capabilities.cache_element_bytes,
            cache_format: self.kv_cache_dtype,
            act_element_bytes: capabilities.activation.num_bytes(),
            max_model_len: self.max_model_len.unwrap_or(config.max_position_embeddings),
            max_num_seqs: self.max_num_seqs,
            max_num_batched_tokens: self.max_num_batched_tokens,
            block_size: self.block_size,
            available_bytes: capabilities.memory_bytes,
            max_cache_layer_bytes: capabilities.max_cache_layer_bytes,
            tensor_parallel_size: self.tensor_parallel_size,
            num_devices: self.num_devices,
        })
    }

    /// Whether the model can be divided among as many devices as were asked for: known before any is opened.
    pub(super) fn check_group(&self, config: &ModelConfig) -> Result<(), RequestError> {
        let (option, value) = ("tensor_parallel_size", self.tensor_parallel_size);
        check_option(option, value, 1..=MAX_WORLD_SIZE)?;
        match indivisible(config, value) {
            None => Ok(()),
            Some((name, size)) => {
                let accepted = format!("the divisors of {name} = {size}");
                Err(RequestError::BuildOption { option, value, accepted })
            }
        }
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
        let mut request = self.plan_request(config, capabilities).map_err(PrepareError::from)?;
        let mut plan = MemoryPlan::new(config, &request);
        let room = CacheRoom::of(&plan);
        let shortest = self.block_size.max(SHORTEST_WINDOW);
        let fits_partly = (shortest..config.max_position_embeddings).contains(&room.most());
        if self.max_model_len.is_none() && fits_partly {
            let unasked = room.unasked();
            request.max_model_len = (unasked - unasked % self.block_size).max(shortest);
            tracing::info!(request.max_model_len, "the window is limited by the device's {}", room.limit());
            plan = MemoryPlan::new(config, &request);
        }
        plan.check()?;
        let max_model_len = request.max_model_len;
        let cache_tokens = match self.num_cache_tokens {
            Some(tokens) => {
                CacheLayer::new(config, &request).check("num_cache_tokens", tokens as u64).map_err(PlanError::from)?;
                check_option("num_cache_tokens", tokens, max_model_len..=room.most().max(max_model_len))?;
                tokens
            }
            None => {
                let wanted = self.max_num_seqs * max_model_len.min(DEFAULT_CACHE_TOKENS_PER_SEQUENCE);
                let tokens = wanted.min(room.unasked()).max(max_model_len);
                if tokens < wanted {
                    tracing::info!(
                        num_cache_tokens = tokens,
                        "the latent cache is limited by the device's {}",
                        room.limit()
                    );
                }
                tokens
            }
        };
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
            cache_format: self.kv_cache_dtype,
            num_token_ids: None,
        })
    }
}

/// Tokens of latent cache that a device has room for.
#[derive(Debug, Clone, Copy)]
struct CacheRoom {
    memory: usize,
    layer: usize,
}

impl CacheRoom {
    fn of(plan: &MemoryPlan) -> Self {
        let tokens = |limit: Option<u64>| limit.map_or(MAX_CACHE_TOKENS, |most| MAX_CACHE_TOKENS.min(most as usize));
        Self { memory: tokens(plan.max_cache_tokens), layer: tokens(plan.max_cache_layer_tokens) }
    }

    /// All that fit.
    fn most(self) -> usize {
        self.memory.min(self.layer)
    }

    /// What is taken without being asked for. A tenth of the memory stays free: how much there is was reported before
    /// anything was loaded, allocators round up, and others live on the device too.
    fn unasked(self) -> usize {
        self.layer.min(self.memory - self.memory / 10)
    }

    /// What [`CacheRoom::unasked`] is limited by.
    fn limit(self) -> &'static str {
        if self.unasked() == self.layer { "largest cache of a layer" } else { "memory" }
    }
}

fn check_option(option: &'static str, value: usize, range: RangeInclusive<usize>) -> Result<(), RequestError> {
    if range.contains(&value) {
        return Ok(());
    }
    let accepted = format!("{}..={}", range.start(), range.end());
    Err(RequestError::BuildOption { option, value, accepted })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::backend::Backend;
    use crate::noop::NoopBackend;

    fn v3() -> ModelConfig {
        ModelConfig::from_json(crate::config::fixtures::DEEPSEEK_V3).unwrap()
    }

    fn resolve(options: &BuildOptions, capabilities: &Capabilities) -> Result<(usize, usize), String> {
        let resolved = options.resolve(&v3(), capabilities, true).map_err(|error| error.to_string())?;
        Ok((resolved.limits.max_model_len, resolved.num_blocks))
    }

    /// 128 MiB of 512 + 64 values of 4 bytes are 58 254 tokens, or 910 blocks of 64.
    fn small_layers() -> Capabilities {
        Capabilities { max_cache_layer_bytes: Some(128 << 20), ..NoopBackend::new().capabilities().clone() }
    }

    #[test]
    fn without_limits_every_sequence_has_its_share() {
        let options = BuildOptions::default();
        let unlimited = NoopBackend::new().capabilities().clone();
        assert_eq!(resolve(&options, &unlimited), Ok((163_840, 163_840 / 64)), "one window is more than 16 shares");
        let short = BuildOptions { max_model_len: Some(1000), ..options };
        assert_eq!(resolve(&short, &unlimited), Ok((1000, 16 * 1000 / 64)));
    }

    #[test]
    fn defaults_keep_to_the_largest_cache_of_a_layer() {
        let options = BuildOptions::default();
        assert_eq!(resolve(&options, &small_layers()), Ok((910 * 64, 910)));
        let short = BuildOptions { max_model_len: Some(10_000), ..options.clone() };
        assert_eq!(resolve(&short, &small_layers()), Ok((10_000, 910)), "16 x 8192 tokens are more");
        let few = BuildOptions { max_num_seqs: 2, ..short };
        assert_eq!(resolve(&few, &small_layers()), Ok((10_000, 2 * 8192 / 64)), "and 2 x 8192 are not");
        let odd = BuildOptions { block_size: 1000, ..options };
        assert_eq!(resolve(&odd, &small_layers()), Ok((58_000, 58)), "whole blocks");
    }

    /// What a device cannot do is said before anything is loaded.
    #[test]
    fn a_format_of_the_cache_that_the_device_lacks_is_refused() {
        let options = BuildOptions { kv_cache_dtype: CacheFormat::Fp8, ..BuildOptions::default() };
        assert_eq!(
            resolve(&options, &small_layers()).unwrap_err(),
            "noop (records op calls) cannot run a latent cache in fp8: its latent cache can be auto; choose one of these \
             with kv_cache_dtype"
        );
        let both = Capabilities { cache_formats: CacheFormat::ALL.into(), ..small_layers() };
        // 128 MiB of 656 bytes a token.
        assert_eq!(resolve(&options, &both), Ok((163_840, 163_840 / 64)));
        let longest = options.resolve(&v3(), &both, true).unwrap();
        assert_eq!(longest.cache_format, CacheFormat::Fp8);
    }

    #[test]
    fn requests_above_the_largest_cache_of_a_layer_name_limit_need_and_way_out() {
        let options = BuildOptions::default();
        let exact = BuildOptions { max_model_len: Some(58_240), num_cache_tokens: Some(58_240), ..options.clone() };
        assert_eq!(resolve(&exact, &small_layers()), Ok((58_240, 910)));
        let long = BuildOptions { max_model_len: Some(58_241), ..options.clone() };
        assert_eq!(
            resolve(&long, &small_layers()).unwrap_err(),
            "a latent cache of 58 241 tokens needs 128.1 MiB a layer, the device holds at most 128.0 MiB: \
             lower max_model_len to 58 240"
        );
        let large = BuildOptions { max_model_len: Some(4096), num_cache_tokens: Some(1 << 20), ..options.clone() };
        assert_eq!(
            resolve(&large, &small_layers()).unwrap_err(),
            "a latent cache of 1 048 576 tokens needs 2.2 GiB a layer, the device holds at most 128.0 MiB: \
             lower num_cache_tokens to 58 240"
        );
        let coarse = BuildOptions { block_size: 65_536, ..options };
        let error = resolve(&coarse, &small_layers()).unwrap_err();
        assert!(error.ends_with("lower block_size to 58 254"), "{error}");
    }

    #[test]
    fn defaults_leave_a_tenth_of_the_memory_and_requests_may_take_it() {
        let options = BuildOptions { max_model_len: Some(4096), max_num_seqs: 1000, ..BuildOptions::default() };
        let unlimited = NoopBackend::new().capabilities().clone();
        let plan = MemoryPlan::new(&v3(), &options.plan_request(&v3(), &unlimited).unwrap());
        let memory_bytes = plan.weight_bytes + plan.workspace_bytes + plan.cache_bytes(640_000);
        let device = Capabilities { memory_bytes: Some(memory_bytes), ..unlimited };
        assert_eq!(resolve(&options, &device), Ok((4096, 576_000 / 64)));
        let all = BuildOptions { num_cache_tokens: Some(640_000), ..options.clone() };
        assert_eq!(resolve(&all, &device), Ok((4096, 640_000 / 64)));
        let more = BuildOptions { num_cache_tokens: Some(640_001), ..options };
        assert_eq!(resolve(&more, &device).unwrap_err(), "num_cache_tokens = 640001 is outside 4096..=640000");
    }

    /// A window that nobody asked for leaves a tenth as well; one that was asked for, or just fits, does not.
    #[test]
    fn a_window_that_does_not_fit_is_cut() {
        let options = BuildOptions::default();
        let unlimited = NoopBackend::new().capabilities().clone();
        let plan = MemoryPlan::new(&v3(), &options.plan_request(&v3(), &unlimited).unwrap());
        let with_room_for = |tokens| {
            let memory_bytes = plan.weight_bytes + plan.workspace_bytes + plan.cache_bytes(tokens);
            Capabilities { memory_bytes: Some(memory_bytes), ..unlimited.clone() }
        };
        assert_eq!(resolve(&options, &with_room_for(163_840)), Ok((163_840, 163_840 / 64)));
        assert_eq!(resolve(&options, &with_room_for(64_000)), Ok((57_600, 57_600 / 64)));
        let asked = BuildOptions { max_model_len: Some(64_000), ..options.clone() };
        assert_eq!(resolve(&asked, &with_room_for(64_000)), Ok((64_000, 64_000 / 64)));
        assert_eq!(resolve(&options, &with_room_for(70)), Ok((64, 1)), "a block at least");
        let error = resolve(&options, &with_room_for(60)).unwrap_err();
        assert!(error.contains("lower max_model_len to 60"), "{error}");
    }
}
