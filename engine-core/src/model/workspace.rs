//! All memory a step touches, allocated once.

use crate::backend::{
    ActTensor, Backend, CacheSpec, MAX_TOP_LOGITS, MlaSpec, PrepareError, Routing, StepLimits, Tensor, TopLogits,
};
use crate::config::ModelConfig;
use crate::weights::shares::Share;

/// Activations, latent cache and logits of one runner.
pub struct Workspace<B: Backend> {
    /// Token ids of the step, `[T, 1]`.
    pub tokens: Tensor<B::Buffer, u32>,
    /// The residual stream, `[T, H]`.
    pub residual: ActTensor<B>,
    /// Normalised input of the next op; after a step, the hidden states after the final norm. `[T, H]`.
    pub x: ActTensor<B>,
    /// Output of a branch before it joins the residual, `[T, H]`.
    pub delta: ActTensor<B>,
    /// Attention output, `[T, N V]`.
    pub heads: ActTensor<B>,
    /// Two hidden states side by side, `[T, 2 H]`; of capacity 0 without an MTP module.
    pub pair: ActTensor<B>,
    /// The router's choice.
    pub routing: Routing<B::Buffer>,
    /// Queries of the step.
    pub queries: B::Queries,
    /// Latent KV of all layers.
    pub cache: B::LatentCache,
    /// Rows of which logits or the best token are wanted, `[M, 1]`.
    pub logit_rows: Tensor<B::Buffer, u32>,
    /// Their hidden states, `[M, H]`.
    pub selected: ActTensor<B>,
    /// Their logits of the ids that this rank computes, `[M, vocab]` alone.
    pub logits: Tensor<B::Buffer, f32>,
    /// Their highest logits' ids, `[M, 1]`.
    pub best_tokens: Tensor<B::Buffer, u32>,
    /// What their logits are multiplied by before a draw, `[M, 1]`; as `top_logits`, of capacity 0 where the device does not
    /// find them.
    pub inverse_temperatures: Tensor<B::Buffer, f32>,
    /// Their highest logits, rows of [`TopLogits`]: `[M, 2 K + 1]`.
    pub top_logits: Tensor<B::Buffer, u32>,
}

/// Highest logits of a row of `num_logits` that a device is asked for: in nearly all draws from a language model more than
/// enough.
pub(crate) fn num_top_logits(num_logits: usize) -> usize {
    MAX_TOP_LOGITS.min(num_logits)
}

impl<B: Backend> std::fmt::Debug for Workspace<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workspace").field("capacity", &self.residual.capacity()).finish_non_exhaustive()
    }
}

impl<B: Backend> Workspace<B> {
    /// Allocates for steps up to `limits` over a cache of `cache`'s size.
    ///
    /// # Errors
    /// [`PrepareError`] when the device is too small.
    pub fn alloc(
        backend: &B,
        config: &ModelConfig,
        mla: &MlaSpec,
        limits: &StepLimits,
        cache: &CacheSpec,
    ) -> Result<Self, PrepareError> {
        let (tokens, hidden) = (limits.max_num_batched_tokens, config.hidden_size);
        let heads = mla.dims.num_attention_heads * mla.dims.v_head_dim;
        let top_k = config.moe.as_ref().map_or(1, |moe| moe.num_experts_per_tok);
        let mtp_tokens = if cache.num_layers > config.num_hidden_layers { tokens } else { 0 };
        let num_logits = Share::of(backend.rank()).token_ids(config.vocab_size).len();
        let logit_rows = limits.max_logit_rows();
        let top_rows = if backend.finds_top_logits() { logit_rows } else { 0 };
        Ok(Self {
            tokens: Tensor::alloc(backend, tokens, 1)?,
            residual: Tensor::alloc(backend, tokens, hidden)?,
            x: Tensor::alloc(backend, tokens, hidden)?,
            delta: Tensor::alloc(backend, tokens, hidden)?,
            heads: Tensor::alloc(backend, tokens, heads)?,
            pair: Tensor::alloc(backend, mtp_tokens, 2 * hidden)?,
            routing: Routing::alloc(backend, tokens, top_k)?,
            queries: backend.queries(mla, tokens)?,
            cache: backend.latent_cache(cache)?,
            logit_rows: Tensor::alloc(backend, logit_rows, 1)?,
            selected: Tensor::alloc(backend, logit_rows, hidden)?,
            logits: Tensor::alloc(backend, logit_rows, num_logits)?,
            best_tokens: Tensor::alloc(backend, logit_rows, 1)?,
            inverse_temperatures: Tensor::alloc(backend, top_rows, 1)?,
            top_logits: Tensor::alloc(backend, top_rows, TopLogits::num_words(num_top_logits(num_logits)))?,
        })
    }

    /// Sets the live rows of everything that has one per token.
    pub(crate) fn set_rows(&mut self, rows: usize) {
        self.residual.set_rows(rows);
        self.x.set_rows(rows);
        self.delta.set_rows(rows);
        self.heads.set_rows(rows);
        self.routing.set_rows(rows);
    }

    /// Sets the live rows of everything that has one per row of `logit_rows`.
    pub(crate) fn set_logit_rows(&mut self, rows: usize) {
        self.selected.set_rows(rows);
        self.logits.set_rows(rows);
        self.best_tokens.set_rows(rows);
    }
}
