//! Memory that ops need between their inputs and outputs: grown on demand, then stable.

use std::cell::RefCell;

use engine_core::backend::StepError;

/// A stream: ops run at once, so it carries nothing but the intermediate values of one op.
#[derive(Debug, Default)]
pub struct CpuStream {
    /// Inputs copied to whole chunks, where their width is not a multiple of a chunk.
    pub(crate) padded: Buffer,
    /// Results of a first projection.
    pub(crate) first: Buffer,
    /// Results of a second projection.
    pub(crate) second: Buffer,
    /// Tokens by expert.
    pub(crate) groups: crate::experts::Groups,
    /// First rows of the groups of a [`Grid`](crate::grid::Grid).
    pub(crate) offsets: Vec<usize>,
    /// Where each token stands.
    pub(crate) places: Vec<crate::mla::Place>,
}

/// A vector that only grows.
#[derive(Debug, Default)]
pub(crate) struct Buffer(Vec<f32>);

impl Buffer {
    /// `len` values, contents unspecified but finite where they were never written.
    pub(crate) fn take(&mut self, len: usize) -> Result<&mut [f32], StepError> {
        if self.0.len() < len {
            let missing = len - self.0.len();
            self.0.try_reserve_exact(missing).map_err(|_| out_of_memory(len, "the workspace of a step"))?;
            self.0.resize(len, 0.0);
        }
        Ok(&mut self.0[..len])
    }
}

/// The error of an allocation of `len` f32 values.
pub(crate) fn out_of_memory(len: usize, what: &str) -> StepError {
    StepError::OutOfMemory {
        device: "cpu".into(),
        what: what.into(),
        requested_bytes: (len as u64).saturating_mul(size_of::<f32>() as u64),
    }
}

/// Zeroed memory for `len` values, or an error where the allocator would abort.
pub(crate) fn zeroed(len: usize, what: &str) -> Result<Vec<f32>, StepError> {
    // Asking first keeps the allocation itself lazy: pages are touched when they are written.
    Vec::<f32>::new().try_reserve_exact(len).map_err(|_| out_of_memory(len, what))?;
    Ok(vec![0.0; len])
}

/// What one task of a parallel op needs for itself.
#[derive(Debug, Default)]
pub(crate) struct TaskScratch {
    /// Weight rows widened to f32.
    pub(crate) panel: Vec<f32>,
    /// Products of one tile.
    pub(crate) tile: Vec<f32>,
    /// Products of a second tile over the same tokens.
    pub(crate) other_tile: Vec<f32>,
    /// Keys, and values, of one tile of positions.
    pub(crate) keys: Vec<f32>,
    /// Attention scores.
    pub(crate) scores: Vec<f32>,
    /// Running maximum and sum of each query.
    pub(crate) softmax: Vec<f32>,
}

thread_local! {
    static TASK_SCRATCH: RefCell<TaskScratch> = RefCell::default();
}

/// Runs a task with this thread's scratch. Tasks do not nest.
pub(crate) fn with_task_scratch<T>(task: impl FnOnce(&mut TaskScratch) -> T) -> T {
    TASK_SCRATCH.with_borrow_mut(task)
}

/// The first `len` values of a scratch vector, grown if need be.
pub(crate) fn grown(values: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if values.len() < len {
        values.resize(len, 0.0);
    }
    &mut values[..len]
}
