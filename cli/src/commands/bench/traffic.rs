//! How many bytes a decode step has to read.

use bathysphere::{MemoryPlan, ModelConfig, PlanClass};
use serde::Serialize;

/// Bytes read by one decode step of a batch.
///
/// Every weight is read once a step, but for the embedding (looked up, unless it is the head as well), the MTP module
/// (not run), and the routed experts, of which each token chooses K of E. How many different experts a batch of B
/// tokens chooses depends on the text: at least K, at most min(E, B · K). For B = 1 both bounds are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct StepTraffic {
    /// Weights, when all tokens choose the same experts.
    pub(crate) weight_bytes_min: u64,
    /// Weights, when they share as few experts as possible.
    pub(crate) weight_bytes_max: u64,
    /// Latent cache of all sequences at the mean length of the measurement.
    pub(crate) cache_bytes: u64,
}

impl StepTraffic {
    pub(crate) fn new(plan: &MemoryPlan, config: &ModelConfig, batch: usize, mean_seq_len: usize) -> Self {
        let class = |class| plan.class_bytes(class);
        let mut unread = class(PlanClass::Mtp);
        if !config.tie_word_embeddings {
            unread += class(PlanClass::Embedding);
        }
        let experts = class(PlanClass::Experts);
        let always = plan.weight_bytes - unread - experts;
        let chosen = |batch: usize| {
            config.moe.as_ref().map_or(0, |moe| {
                let most = moe.n_routed_experts.min(batch.saturating_mul(moe.num_experts_per_tok));
                experts / moe.n_routed_experts as u64 * most as u64
            })
        };
        Self {
            weight_bytes_min: always + chosen(1),
            weight_bytes_max: always + chosen(batch),
            cache_bytes: plan.cache_bytes((batch * mean_seq_len) as u64),
        }
    }

    pub(crate) fn min(&self) -> u64 {
        self.weight_bytes_min + self.cache_bytes
    }

    pub(crate) fn max(&self) -> u64 {
        self.weight_bytes_max + self.cache_bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bathysphere::PlanRequest;

    use super::*;

    #[test]
    fn a_batch_reads_up_to_all_experts() {
        let dir = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny-deepseek-v3-bf16"));
        let config = ModelConfig::from_dir(dir).unwrap();
        let plan = MemoryPlan::new(&config, &PlanRequest::new(&config));
        let traffic = |batch| StepTraffic::new(&plan, &config, batch, 100);
        // bf16 throughout but for the f32 router bias of 16 experts in 4 layers.
        let active_bytes = 2 * plan.active_parameters + 2 * 16 * 4;
        assert_eq!(traffic(1).weight_bytes_min, active_bytes);
        assert_eq!(traffic(1).weight_bytes_max, active_bytes);
        // 4 of 16 experts of 3 matrices 64 x 256 in 4 layers.
        let expert_bytes = 4 * 3 * 64 * 256 * 2;
        assert_eq!(traffic(3).weight_bytes_max, active_bytes + 8 * expert_bytes);
        assert_eq!(traffic(50).weight_bytes_max, active_bytes + 12 * expert_bytes);
        assert_eq!(traffic(50).weight_bytes_min, active_bytes);
        assert_eq!(traffic(3).cache_bytes, 3 * traffic(1).cache_bytes);
    }
}
