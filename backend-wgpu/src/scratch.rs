//! Memory between the kernels of one op. Grows to the largest step once and then stays.

use std::sync::Arc;

use engine_core::backend::StepError;

use crate::gpu::{Gpu, WgpuBuffer};

/// One buffer per role, so that no kernel reads and writes the same one.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Activated rows between the two halves of an FFN.
    pub(crate) hidden: Slot,
    /// Routed experts' outputs, grouped by expert.
    pub(crate) expert_out: Slot,
    /// The shared experts' output.
    pub(crate) shared_out: Slot,
    /// Tiles of grouped rows, pairs of rows, rows of pairs.
    pub(crate) tiles: Slot,
    pub(crate) pairs: Slot,
    pub(crate) places: Slot,
    /// Router logits.
    pub(crate) router: Slot,
    /// Query projections before and after their norm, and whole.
    pub(crate) q_a: Slot,
    pub(crate) q_a_normed: Slot,
    pub(crate) q: Slot,
    /// Latent projection before its norm.
    pub(crate) kv_a: Slot,
    /// Attended latents; parts and their statistics when the positions are split.
    pub(crate) attended: Slot,
    pub(crate) parts: Slot,
    pub(crate) stats: Slot,
}

/// Memory of one role.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    buffer: Option<Arc<WgpuBuffer>>,
}

impl Slot {
    /// At least `num_elements` of 4 bytes.
    pub(crate) fn get(&mut self, gpu: &Arc<Gpu>, num_elements: usize) -> Result<Arc<WgpuBuffer>, StepError> {
        let num_bytes = 4 * num_elements as u64;
        if let Some(buffer) = self.buffer.as_ref().filter(|buffer| buffer.size >= num_bytes) {
            return Ok(buffer.clone());
        }
        let buffer = Arc::new(gpu.storage(num_bytes, "intermediate values of a step")?);
        self.buffer = Some(buffer.clone());
        Ok(buffer)
    }
}
