//! What a user or a test may choose.

use engine_core::quant::QuantisedInputs;

/// Choices that do not change what a backend computes, except for the quantisation of activations.
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
}

impl Default for GpuOptions {
    fn default() -> Self {
        Self { quantised_inputs: QuantisedInputs::ALL, waves_per_block: 8, captures_steps: true }
    }
}
