//! What a user or a test may choose.

use engine_core::quant::QuantisedInputs;

/// Most bytes of keys and values of prompts, unless chosen otherwise.
const EXPANDED_BYTES: u64 = 256 << 20;

/// Choices that do not change what a backend computes, except for the quantisation of activations and for rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuOptions {
    /// Which linears quantise their inputs by the weight's scheme (W8A8) instead of keeping them in bf16 (W8A16). Those of
    /// FP8 weights do on devices with FP8 units only: elsewhere the codes would be widened to bf16 for every product, which
    /// takes longer and is less exact.
    pub quantised_inputs: QuantisedInputs,
    /// Waves in the blocks of most kernels: 8 suit a GPU of waves of 32.
    pub waves_per_block: u32,
    /// Record decode steps once and replay them, where the runtime can.
    pub captures_steps: bool,
    /// From how many tokens of a sequence in one step on keys and values of every head are computed, in place of attention on
    /// latents. If `None`, from as many as take fewer FLOPs so, however long the context is: 171 with DeepSeek-V3's widths. 2
    /// at least: steps of one token per sequence are recorded for sequences of many lengths.
    pub min_expanded_queries: Option<u32>,
    /// Most bytes of device memory for these keys and values at a time. If those of all heads are more, heads are computed in
    /// groups; a sequence of which not even one head fits stays with latents. The memory is not counted as free.
    pub expanded_bytes: u64,
}

impl Default for GpuOptions {
    fn default() -> Self {
        Self {
            quantised_inputs: QuantisedInputs::ALL,
            waves_per_block: 8,
            captures_steps: true,
            min_expanded_queries: None,
            expanded_bytes: EXPANDED_BYTES,
        }
    }
}
