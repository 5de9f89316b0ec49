//! Second half: attention over the paged latent cache, then W_UV.

use engine_core::backend::{LayerStep, PrepareError, StepError, StepLayout};

use super::{GpuLatentCache, GpuMla, GpuQueries, Widths};
use crate::device::Device;
use crate::product::{Input, Output, Rows, TILE};
use crate::runtime::{Arg, GpuRuntime, LaunchShape};
use crate::scratch::{GpuStream, Slot};

/// Tiles of 16 columns of the result that the waves of a kernel can hold (`GK_ATTENTION` in mla_attention.cu).
const COLUMN_TILES: [u32; 4] = [1, 4, 8, 16];
/// Elements between rows of shared memory, beyond their width (`PAD` in mla_attention.cu).
const PAD: u32 = 8;
/// Positions that are in shared memory at a time, at most.
const MAX_TILE_POSITIONS: u32 = 64;
/// Parts of a sequence at most: merging costs more the more there are.
const MAX_SPLITS: u32 = 32;

#[derive(Debug)]
pub(super) struct AttentionKernels<K> {
    attend: K,
    merge: K,
    tile_positions: u32,
    shared_bytes: u32,
}

impl<K: Clone + Send + Sync> AttentionKernels<K> {
    pub(super) fn new<R: GpuRuntime<Kernel = K>>(device: &Device<R>, widths: &Widths) -> Result<Self, PrepareError> {
        let needed = (widths.padded_rank / TILE).div_ceil(device.waves());
        let Some(column_tiles) = COLUMN_TILES.into_iter().find(|tiles| *tiles >= needed) else {
            return Err(device.unsupported(
                format!("attention on latents of {} values", widths.rank),
                format!("{} waves hold {} of them", device.waves(), device.waves() * COLUMN_TILES[3] * TILE),
                "run this model on another device",
            ));
        };
        let available = device.info().max_shared_bytes;
        let fitting = (1..=MAX_TILE_POSITIONS / TILE).rev().map(|tiles| tiles * TILE);
        let mut fitting = fitting.map(|positions| (positions, shared_bytes(widths, positions)));
        let Some((tile_positions, shared_bytes)) = fitting.find(|(_, bytes)| *bytes <= available) else {
            return Err(device.unsupported(
                format!("attention on latents of {} values", widths.rank),
                format!("it needs {} bytes of shared memory, a block has {available}", shared_bytes(widths, TILE)),
                "run this model on another device",
            ));
        };
        Ok(Self {
            attend: device.runtime().kernel("mla_attention", &format!("attend_c{column_tiles}"))?,
            merge: device.runtime().kernel("mla_attention", "merge_splits")?,
            tile_positions,
            shared_bytes,
        })
    }
}

/// Queries, keys, scores, weights, and three floats per row.
fn shared_bytes(widths: &Widths, tile_positions: u32) -> u32 {
    let stride = widths.latent + PAD;
    let score_stride = tile_positions + PAD;
    2 * TILE * stride + 2 * tile_positions * stride + (4 + 2) * TILE * score_stride + 3 * 4 * TILE
}

/// How a step's attention is cut into blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Partition {
    /// Blocks of 16 query rows, of all sequences.
    num_row_blocks: u32,
    num_splits: u32,
    split_positions: u32,
    /// Splits of a step like this one with sequences as long as any: what scratch memory is sized for, so that it does not
    /// grow with the sequences.
    max_splits: u32,
}

impl Partition {
    /// Splits sequences until every multiprocessor has two blocks, as far as there are positions.
    fn new(layout: &StepLayout, num_heads: u32, tile_positions: u32, num_multiprocessors: u32) -> Self {
        let (num_seqs, max_seq_len) = (layout.num_seqs() as u32, layout.max_seq_len as u32);
        let num_queries = layout.query_start_loc.last().map_or(0, |end| *end);
        // A sequence's blocks begin at a whole number of blocks: see first_row_block in mla_attention.cu.
        let num_row_blocks = num_queries * num_heads / TILE + num_seqs;
        let wanted = (2 * num_multiprocessors).div_ceil(num_row_blocks.max(1));
        let max_splits = wanted.clamp(1, MAX_SPLITS);
        let num_splits = max_splits.min(max_seq_len.div_ceil(tile_positions)).max(1);
        let split_positions = max_seq_len.div_ceil(num_splits).next_multiple_of(tile_positions).max(tile_positions);
        let num_splits = max_seq_len.div_ceil(split_positions).max(1);
        Self { num_row_blocks, num_splits, split_positions, max_splits }
    }
}

impl<R: GpuRuntime> GpuMla<R> {
    /// Causal attention over the cache, `out [T, N · V]`.
    pub(crate) fn attention(
        &self,
        device: &Device<R>,
        stream: &mut GpuStream<R>,
        step: LayerStep<'_, R::Buffer>,
        (queries, cache): (&GpuQueries<R>, &GpuLatentCache<R>),
        (out, num_rows): (u64, u32),
    ) -> Result<(), StepError> {
        let widths = self.widths;
        let stride = widths.num_heads * widths.padded_rank;
        let attended = stream.scratch(device, Slot::Attended, num_rows as usize * stride as usize * 2)?;
        self.attend(device, stream, step, [queries.memory.address(), cache.layer(step.layer), attended])?;
        let input = Input { address: attended, scales: 0, num_rows, stride };
        let (input_step, output_step) = (widths.padded_rank, widths.v);
        let heads = Rows::Batch { count: widths.num_heads, input_step, output_step };
        let output = Output { address: out, cols: widths.v, stride: widths.num_heads * widths.v, is_f32: false };
        self.w_uv.forward(device, stream, input, output, heads)
    }

    /// Weighted sums of latents, `[T, N, padded rank]`.
    fn attend(
        &self,
        device: &Device<R>,
        stream: &mut GpuStream<R>,
        step: LayerStep<'_, R::Buffer>,
        [queries, cache, attended]: [u64; 3],
    ) -> Result<(), StepError> {
        let (widths, kernels, layout) = (self.widths, &self.attention, step.meta.host());
        let sms = device.info().num_multiprocessors;
        let partition = Partition::new(layout, widths.num_heads, kernels.tile_positions, sms);
        let num_rows = layout.query_start_loc.last().map_or(0, |end| *end) * widths.num_heads;
        let (sums, stats) = match partition.max_splits {
            1 => (0, 0),
            splits => {
                let parts = num_rows as usize * splits as usize;
                (
                    stream.scratch(device, Slot::PartialSums, parts * widths.padded_rank as usize * 4)?,
                    stream.scratch(device, Slot::PartialStats, parts * 8)?,
                )
            }
        };
        let runtime = device.runtime();
        let args = [
            Arg::Ptr(queries),
            Arg::Ptr(cache),
            Arg::Ptr(runtime.address(step.meta.block_table.buffer())),
            Arg::Ptr(runtime.address(step.meta.seq_lens.buffer())),
            Arg::Ptr(runtime.address(step.meta.query_start_loc.buffer())),
            Arg::Ptr(attended),
            Arg::Ptr(sums),
            Arg::Ptr(stats),
            Arg::U32(layout.num_seqs() as u32),
            Arg::U32(widths.num_heads),
            Arg::U32(widths.padded_rank),
            Arg::U32(widths.latent),
            Arg::U32(layout.block_size as u32),
            Arg::U32(layout.max_blocks_per_seq as u32),
            Arg::U32(kernels.tile_positions),
            Arg::U32(partition.num_splits),
            Arg::U32(partition.split_positions),
            Arg::F32(self.softmax_scale),
        ];
        let shape = LaunchShape {
            grid: [partition.num_row_blocks, partition.num_splits, 1],
            block: [device.threads(), 1, 1],
            shared_bytes: kernels.shared_bytes,
        };
        device.launch(&mut stream.queue, &kernels.attend, shape, &args)?;
        if partition.num_splits == 1 {
            return Ok(());
        }
        let [sums, stats, attended] = [sums, stats, attended].map(Arg::Ptr);
        let args = [sums, stats, attended, Arg::U32(widths.padded_rank), Arg::U32(partition.num_splits)];
        device.launch(&mut stream.queue, &kernels.merge, LaunchShape::linear(num_rows, device.threads()), &args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(sequences: &[(u32, u32)]) -> StepLayout {
        let mut layout = StepLayout { query_start_loc: vec![0], ..StepLayout::default() };
        for (query_len, seq_len) in sequences {
            layout.query_start_loc.push(layout.query_start_loc.last().copied().unwrap_or(0) + query_len);
            layout.seq_lens.push(*seq_len);
            layout.max_seq_len = layout.max_seq_len.max(*seq_len as usize);
        }
        layout
    }

    #[test]
    fn one_long_sequence_is_split_over_the_whole_device() {
        let partition = Partition::new(&layout(&[(1, 4096)]), 16, 64, 132);
        assert_eq!(partition, Partition { num_row_blocks: 2, num_splits: 32, split_positions: 128, max_splits: 32 });
    }

    #[test]
    fn prefill_is_not_split() {
        let partition = Partition::new(&layout(&[(2048, 2048)]), 16, 64, 132);
        assert_eq!((partition.num_splits, partition.split_positions), (1, 2048));
    }

    #[test]
    fn splits_cover_every_position_and_none_is_empty() {
        for len in 1..700 {
            let Partition { num_splits, split_positions, .. } = Partition::new(&layout(&[(1, len)]), 4, 48, 8);
            assert!(num_splits * split_positions >= len && (num_splits - 1) * split_positions < len, "{len}");
            assert!(split_positions.is_multiple_of(48));
        }
    }
}
