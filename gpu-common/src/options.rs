//! What a user or a test may choose.

/// Choices that do not change what a backend computes, except for the quantisation of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuOptions {
    /// Quantise the inputs of FP8 and INT8 linears by the weight's scheme (W8A8) instead of keeping them in bf16 (W8A16).
    pub quantises_activations: bool,
    /// Waves in the blocks of most kernels: 8 suit a GPU of waves of 32.
    pub waves_per_block: u32,
    /// Record decode steps once and replay them, where the runtime can.
    pub captures_steps: bool,
}

impl Default for GpuOptions {
    fn default() -> Self {
        Self { quantises_activations: true, waves_per_block: 8, captures_steps: true }
    }
}
