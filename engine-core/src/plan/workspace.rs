//! An upper estimate of what one step needs beside weights and latent cache.

use super::PlanRequest;
use crate::backend::StepLimits;
use crate::config::ModelConfig;
use crate::weights::shares::Share;

/// Activations of the widest layer with every buffer alive at once (FFNs as if they were not divided among ranks), logits in f32, rope and block tables.
pub(super) fn bytes(config: &ModelConfig, request: &PlanRequest) -> u64 {
    let tokens = request.max_num_batched_tokens as u64;
    let activations = tokens
        .saturating_mul(values_per_token(config, request.tensor_parallel_size) as u64)
        .saturating_mul(request.act_element_bytes as u64);
    let limits = StepLimits {
        max_num_batched_tokens: request.max_num_batched_tokens,
        max_num_seqs: request.max_num_seqs,
        max_model_len: request.max_model_len,
        block_size: request.block_size.max(1),
    };
    // On the device and on the host.
    let logits = (limits.max_logit_rows() as u64).saturating_mul((2 * size_of::<f32>() * config.vocab_size) as u64);
    // R/2 cosines and R/2 sines in f32 per position.
    let rope = (request.max_model_len as u64).saturating_mul(4 * config.attention.qk_rope_head_dim as u64);
    // On the device and on the host.
    let blocks = limits.max_blocks_per_seq().saturating_mul(2 * size_of::<u32>()) as u64;
    let block_tables = (limits.max_step_seqs() as u64).saturating_mul(blocks);
    activations.saturating_add(logits).saturating_add(rope).saturating_add(block_tables)
}

fn values_per_token(config: &ModelConfig, world_size: usize) -> usize {
    let a = &config.attention;
    let num_heads = Share::largest(world_size).num_heads(a.num_attention_heads);
    let residual_norm_output = 3 * config.hidden_size;
    let queries = a.q_lora_rank.unwrap_or(0) + num_heads * a.qk_head_dim();
    let absorbed = num_heads * (a.latent_width() + a.kv_lora_rank);
    let attention = queries + a.latent_width() + absorbed + num_heads * a.v_head_dim;
    let experts = config.moe.as_ref().map_or(0, |moe| {
        let width = (moe.num_experts_per_tok + moe.n_shared_experts) * moe.moe_intermediate_size;
        // Gate and up halves, and each chosen expert's input and output rows.
        2 * width + 2 * moe.num_experts_per_tok * config.hidden_size
    });
    residual_norm_output + attention.max(experts).max(2 * config.intermediate_size)
}
