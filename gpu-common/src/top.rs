//! The highest logits of rows: a choice in each segment, then choices among choices.

use engine_core::backend::{StepError, TopLogits};

use crate::device::Device;
use crate::product::Kernels;
use crate::runtime::{Arg, GpuRuntime, LaunchShape};
use crate::scratch::{GpuStream, Slot};

/// Values of a thread (`ITEMS` in sample.cu).
const ITEMS: usize = 16;

/// Logits to choose from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Logits {
    pub(crate) address: u64,
    /// A float per row.
    pub(crate) inverse_temperatures: u64,
    pub(crate) num_rows: usize,
    pub(crate) cols: usize,
    /// Columns that take part.
    pub(crate) num_ids: usize,
}

/// Writes rows of `num_words` words, as [`TopLogits`] says, to `out`.
pub(crate) fn top_logits<R: GpuRuntime>(
    (device, kernels): (&Device<R>, &Kernels<R::Kernel>),
    stream: &mut GpuStream<R>,
    logits: Logits,
    (out, num_words): (u64, usize),
) -> Result<(), StepError> {
    let k = TopLogits::num_top(num_words);
    let segment = ITEMS * device.threads() as usize;
    let num_stats = logits.num_ids.div_ceil(segment).max(1);
    let choice_bytes = logits.num_rows * 2 * k * size_of::<f32>();
    let shape = |num_segments: usize| LaunchShape {
        grid: [logits.num_rows as u32, num_segments as u32, 1],
        block: [device.threads(), 1, 1],
        shared_bytes: (4 * (device.threads() + 1)).next_multiple_of(16) + device.wave_floats(3),
    };
    let (mut from, mut stats) = (0, 0);
    if num_stats > 1 {
        from = stream.scratch(device, Slot::Choices, num_stats * choice_bytes)?;
        stats = stream.scratch(device, Slot::ChoiceStats, num_stats * logits.num_rows * 2 * size_of::<f32>())?;
    }
    let scales = Arg::Ptr(logits.inverse_temperatures);
    let sizes = |sizes: [usize; 4]| sizes.map(|size| Arg::U32(size as u32));
    let [num_ids, cols, num_segments, num_top] = sizes([logits.num_ids, logits.cols, num_stats, k]);
    let [values, to_choices, to_stats, result] = [logits.address, from, stats, out].map(Arg::Ptr);
    let args = [values, scales, to_choices, to_stats, result, num_ids, cols, num_segments, num_top];
    device.launch(&mut stream.queue, &kernels.top_of_logits, shape(num_stats), &args)?;

    let mut num_segments = num_stats;
    let mut slots = [Slot::MoreChoices, Slot::Choices];
    while num_segments > 1 {
        let num_left = (num_segments * k).div_ceil(segment);
        let to = match num_left {
            1 => 0,
            _ => stream.scratch(device, slots[0], num_left * choice_bytes)?,
        };
        let [num_from, num_weights, num_to, num_top] = sizes([num_segments, num_stats, num_left, k]);
        let args = [from, to].map(Arg::Ptr);
        let args = [args[0], scales, args[1], to_stats, result, num_from, num_weights, num_to, num_top];
        device.launch(&mut stream.queue, &kernels.top_of_choices, shape(num_left), &args)?;
        (from, num_segments) = (to, num_left);
        slots.reverse();
    }
    Ok(())
}
