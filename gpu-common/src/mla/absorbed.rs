//! Second half, absorbed: attention over the paged latent cache, then W_UV.

use engine_core::backend::{CacheFormat, LayerStep, PrepareError, StepError, StepLayout};

use super::runs::query_len;
use super::{GpuLatentCache, GpuMla, Run, Widths, sequence_args, slot_bytes};
use crate::device::Device;
use crate::product::{Input, Output, Rows, TILE};
use crate::runtime::{Arg, GpuRuntime, LaunchShape};
use crate::scratch::{GpuStream, Slot};

/// Tiles of 16 columns of the result that a wave holds (`COLUMN_TILES` in mla_attention.cu).
const COLUMN_TILES: u32 = 4;
/// Waves of a block at most: kernels are compiled for 256 threads on devices with waves of 32.
const MAX_WAVES: u32 = 8;
/// Query rows of a block in tiles of 16; there is a kernel for each.
const ROW_TILES: [u32; 3] = [1, 2, 4];
/// Elements between rows of shared memory, beyond their width (`PAD` in mla_attention.h).
const PAD: u32 = 8;
/// Positions that are computed with at a time, in tiles of 16, at most. As many again are on their way.
const MAX_POSITION_TILES: u32 = 4;
/// Tiles of positions that are worth a block of their own, and a part in the merge.
const MIN_SPLIT_TILES: u32 = 2;
/// Blocks of a multiprocessor at most: the registers of a second one are there, those of a third are not.
const MAX_BLOCKS_PER_MULTIPROCESSOR: u32 = 2;

#[derive(Debug)]
pub(super) struct AttentionKernels<K> {
    /// By rows, ascending; larger ones are there if shared memory is.
    tilings: Vec<Tiling<K>>,
    merge: K,
    num_waves: u32,
}

/// How the blocks of one kernel are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tiling<K> {
    kernel: K,
    num_rows: u32,
    tile_positions: u32,
    shared_bytes: u32,
    /// That run at once.
    blocks_per_multiprocessor: u32,
}

impl<K: Clone + Send + Sync> AttentionKernels<K> {
    pub(super) fn new<R: GpuRuntime<Kernel = K>>(
        device: &Device<R>,
        widths: &Widths,
        format: CacheFormat,
    ) -> Result<Self, PrepareError> {
        let num_waves = (widths.padded_rank / TILE).div_ceil(COLUMN_TILES).max(device.waves()).max(2);
        if num_waves > MAX_WAVES {
            return Err(device.unsupported(
                format!("attention on latents of {} values", widths.rank),
                format!("the waves of a block hold {} of them", MAX_WAVES * COLUMN_TILES * TILE),
                "run this model on another device",
            ));
        }
        let available = device.info().max_shared_bytes;
        let name = match format {
            CacheFormat::Native => "attend",
            CacheFormat::Fp8 => "attend_fp8",
        };
        let mut tilings = Vec::new();
        for row_tiles in ROW_TILES {
            let num_rows = row_tiles * TILE;
            let fitting = (1..=MAX_POSITION_TILES.min(num_waves / 2)).rev().map(|tiles| tiles * TILE);
            let mut fitting = fitting.map(|positions| (positions, shared_bytes(widths, format, num_rows, positions)));
            let Some((tile_positions, shared_bytes)) = fitting.find(|(_, bytes)| *bytes <= available) else { break };
            tilings.push(Tiling {
                kernel: device.runtime().kernel("mla_attention", &format!("{name}_r{row_tiles}"))?,
                num_rows,
                tile_positions,
                shared_bytes,
                blocks_per_multiprocessor: (available / shared_bytes).min(MAX_BLOCKS_PER_MULTIPROCESSOR),
            });
        }
        if tilings.is_empty() {
            let needed = shared_bytes(widths, format, TILE, TILE);
            return Err(device.unsupported(
                format!("attention on latents of {} values", widths.rank),
                format!("it needs {needed} bytes of shared memory, a block has {available}"),
                "run this model on another device",
            ));
        }
        Ok(Self { tilings, merge: device.runtime().kernel("mla_attention", "merge_splits")?, num_waves })
    }

    /// The fewest rows that hold a sequence's, so that keys are read once; else as many as there are.
    fn tiling(&self, max_query_rows: usize) -> &Tiling<K> {
        let enough = self.tilings.iter().find(|tiling| tiling.num_rows as usize >= max_query_rows);
        enough.unwrap_or(&self.tilings[self.tilings.len() - 1])
    }
}

/// Queries, a tile of keys in bf16 and one on its way as the cache has it, weights, a float per row and 16 positions, an
/// integer per row.
fn shared_bytes(widths: &Widths, format: CacheFormat, num_rows: u32, tile_positions: u32) -> u32 {
    let row_bytes = 2 * (widths.latent + PAD);
    let coming_bytes = match format {
        CacheFormat::Native => row_bytes,
        CacheFormat::Fp8 => slot_bytes(format, widths.padded_rank, widths.latent - widths.padded_rank),
    };
    let staged = num_rows * row_bytes + tile_positions * (row_bytes + coming_bytes);
    staged + 2 * num_rows * (tile_positions + PAD) + 4 * num_rows * (tile_positions / TILE + 1)
}

/// How a run's attention is cut into blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Partition {
    /// Blocks of query rows, of all sequences.
    num_row_blocks: u32,
    /// Parts of every sequence. Short ones leave some of them empty: a split is no shorter than `min_split_positions`.
    num_splits: u32,
    min_split_positions: u32,
    /// Splits of a run like this one with sequences as long as any: what scratch memory is sized for, so that it does not
    /// grow with the sequences.
    max_splits: u32,
}

impl Partition {
    /// Splits sequences until the device is full, and not further: a second round of blocks would begin late and end alone.
    fn new<K>(
        (layout, run): (&StepLayout, &Run),
        num_heads: u32,
        tiling: &Tiling<K>,
        num_multiprocessors: u32,
    ) -> Self {
        // A sequence's blocks begin at a whole number of blocks: see first_row_block in attention.h.
        let num_row_blocks = run.num_tokens() * num_heads / tiling.num_rows + run.num_seqs();
        let query_lens = run.seqs.clone().map(|seq| query_len(layout, seq));
        let num_used: u32 = query_lens.map(|len| (len * num_heads).div_ceil(tiling.num_rows)).sum();
        let max_splits = (num_multiprocessors * tiling.blocks_per_multiprocessor / num_used.max(1)).max(1);
        let min_split_positions = MIN_SPLIT_TILES * tiling.tile_positions;
        let num_splits = max_splits.min((run.max_seq_len as u32).div_ceil(min_split_positions)).max(1);
        Self { num_row_blocks, num_splits, min_split_positions, max_splits }
    }
}

impl<R: GpuRuntime> GpuMla<R> {
    /// Attention of a run, `out [tokens, N · V]`.
    pub(super) fn attend_absorbed(
        &self,
        device: &Device<R>,
        stream: &mut GpuStream<R>,
        (step, run): (LayerStep<'_, R::Buffer>, &Run),
        cache: &GpuLatentCache<R>,
        [queries, out]: [u64; 2],
    ) -> Result<(), StepError> {
        let widths = self.widths;
        let (num_rows, stride) = (run.num_tokens(), widths.num_heads * widths.padded_rank);
        let attended = stream.scratch(device, Slot::Attended, num_rows as usize * stride as usize * 2)?;
        let kernels = &self.cache_kernels(cache).attention;
        let addresses = [queries, cache.layer(step.layer), attended];
        self.attend((device, kernels), stream, (step, run), addresses)?;
        let input = Input { address: attended, scales: 0, num_rows, stride };
        let (input_step, output_step) = (widths.padded_rank, widths.v);
        let heads = Rows::Batch { count: widths.num_heads, input_step, output_step };
        let output = Output { address: out, cols: widths.v, stride: widths.num_heads * widths.v, is_f32: false };
        self.w_uv.forward(device, stream, input, output, heads)
    }

    /// Weighted sums of latents, `[tokens, N, padded rank]`.
    fn attend(
        &self,
        (device, kernels): (&Device<R>, &AttentionKernels<R::Kernel>),
        stream: &mut GpuStream<R>,
        (step, run): (LayerStep<'_, R::Buffer>, &Run),
        [queries, cache, attended]: [u64; 3],
    ) -> Result<(), StepError> {
        let (widths, layout) = (self.widths, step.meta.host());
        let tiling = kernels.tiling(run.max_query_len.saturating_mul(widths.num_heads as usize));
        let partition = Partition::new((layout, run), widths.num_heads, tiling, device.info().num_multiprocessors);
        let num_rows = run.num_tokens() * widths.num_heads;
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
        let [block_table, seq_lens, query_start_loc] = sequence_args(device, step, run.seqs.start);
        let args = [
            Arg::Ptr(queries),
            Arg::Ptr(cache),
            block_table,
            seq_lens,
            query_start_loc,
            Arg::Ptr(attended),
            Arg::Ptr(sums),
            Arg::Ptr(stats),
            Arg::U32(run.num_seqs()),
            Arg::U32(widths.num_heads),
            Arg::U32(widths.padded_rank),
            Arg::U32(widths.latent),
            Arg::U32(layout.block_size as u32),
            Arg::U32(layout.max_blocks_per_seq as u32),
            Arg::U32(tiling.tile_positions),
            Arg::U32(partition.num_splits),
            Arg::U32(partition.min_split_positions),
            self.scale_arg(),
        ];
        let shape = LaunchShape {
            grid: [partition.num_row_blocks, partition.num_splits, 1],
            block: [kernels.num_waves * device.info().wave_size, 1, 1],
            shared_bytes: tiling.shared_bytes,
        };
        device.launch(&mut stream.queue, &tiling.kernel, shape, &args)?;
        if partition.num_splits == 1 {
            return Ok(());
        }
        let [sums, stats, attended] = [sums, stats, attended].map(Arg::Ptr);
        let args = [sums, stats, attended, Arg::U32(widths.padded_rank), Arg::U32(partition.num_splits)];
        // A float per split and two per wave.
        let shared_bytes = (4 * partition.num_splits).next_multiple_of(16) + 2 * device.wave_floats(1);
        let shape = LaunchShape::linear(num_rows, device.threads()).with_shared(shared_bytes);
        device.launch(&mut stream.queue, &kernels.merge, shape, &args)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::runs::runs;
    use super::*;
    use crate::mla::Form;
    use crate::mla::tests::{WIDTHS, layout};

    /// The partition of a step that is one run.
    fn partition(sequences: &[(u32, u32)], num_heads: u32, tiling: &Tiling<()>) -> Partition {
        let layout = layout(sequences);
        let run = runs(&layout, |_, _| Form::Absorbed).next().unwrap();
        Partition::new((&layout, &run), num_heads, tiling, 132)
    }

    fn tiling(num_rows: u32, tile_positions: u32, blocks_per_multiprocessor: u32) -> Tiling<()> {
        let shared_bytes = shared_bytes(&WIDTHS, CacheFormat::Native, num_rows, tile_positions);
        Tiling { kernel: (), num_rows, tile_positions, shared_bytes, blocks_per_multiprocessor }
    }

    #[test]
    fn shared_memory_of_devices_is_used() {
        let largest = |format: CacheFormat, kib: u32| {
            [16, 32, 64].map(|num_rows| {
                let mut tiles = (1..=MAX_POSITION_TILES).rev().map(|tiles| tiles * TILE);
                tiles.find(|positions| shared_bytes(&WIDTHS, format, num_rows, *positions) <= kib << 10)
            })
        };
        // Hopper and B200, A100, AMD's gfx950, the other NVIDIA devices, AMD's.
        let devices = [227, 163, 160, 99, 64];
        assert_eq!(
            devices.map(|kib| largest(CacheFormat::Native, kib)),
            [
                [Some(64), Some(64), Some(48)],
                [Some(48), Some(48), Some(32)],
                [Some(48), Some(48), Some(32)],
                [Some(32), Some(16), None],
                [Some(16), None, None],
            ]
        );
        assert_eq!(
            devices.map(|kib| largest(CacheFormat::Fp8, kib)),
            [
                [Some(64), Some(64), Some(64)],
                [Some(64), Some(64), Some(32)],
                [Some(64), Some(64), Some(32)],
                [Some(32), Some(32), None],
                [Some(16), None, None],
            ]
        );
    }

    /// A tile of slots as they are beside one of bf16 values takes no more than two of bf16 values.
    #[test]
    fn an_fp8_cache_takes_no_more_shared_memory() {
        assert_eq!(slot_bytes(CacheFormat::Fp8, 512, 64), 656);
        assert_eq!(slot_bytes(CacheFormat::Native, 512, 64), 1152);
        for (padded_rank, rope) in [(32, 16), (96, 16), (160, 16), (512, 64)] {
            let widths = Widths { padded_rank, latent: padded_rank + rope, ..WIDTHS };
            let bytes = |format| shared_bytes(&widths, format, 16, 64);
            assert!(bytes(CacheFormat::Fp8) <= bytes(CacheFormat::Native), "{padded_rank}");
        }
    }

    #[test]
    fn one_long_sequence_is_split_over_the_whole_device() {
        let found = partition(&[(1, 32_768)], 16, &tiling(16, 64, 1));
        let min_split_positions = 128;
        assert_eq!(found, Partition { num_row_blocks: 2, num_splits: 132, min_split_positions, max_splits: 132 });
    }

    #[test]
    fn short_sequences_are_not_cut_into_crumbs() {
        let found = partition(&[(1, 300)], 16, &tiling(16, 64, 1));
        assert_eq!((found.num_splits, found.max_splits), (3, 132));
    }

    #[test]
    fn many_sequences_fill_the_device_once() {
        let batch = [(1, 4096); 32];
        let found = partition(&batch, 128, &tiling(64, 48, 1));
        assert_eq!((found.num_row_blocks, found.num_splits), (96, 2));
        let found = partition(&batch, 16, &tiling(16, 64, 1));
        assert_eq!((found.num_row_blocks, found.num_splits), (64, 4));
    }

    #[test]
    fn prefill_is_not_split() {
        let found = partition(&[(2048, 2048)], 16, &tiling(64, 48, 1));
        assert_eq!(found.num_splits, 1);
    }
}
