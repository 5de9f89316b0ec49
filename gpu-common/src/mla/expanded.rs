//! Second half, expanded: latents of a sequence are widened to keys and values of every head, some heads at a time, and each
//! head attends to its own.

use std::ops::Range;

use engine_core::backend::{LayerStep, PrepareError, StepError, StepLayout};

use super::runs::{break_even, query_len};
use super::{GpuLatentCache, GpuMla, Run, Widths, sequence_args};
use crate::device::Device;
use crate::matrix::MatrixArgs;
use crate::product::{Input, Output, Rows, TILE};
use crate::runtime::{Arg, GpuRuntime, LaunchShape};
use crate::scratch::{GpuStream, Slot};

/// Waves of a block at most.
const MAX_WAVES: u32 = 8;
/// Waves that hide each other's waits: with fewer, tiles of positions are made smaller.
const ENOUGH_WAVES: u32 = 4;
/// Columns of values that a block sums: for wider ones as many blocks compute the scores (`VALUE_TILES` in mla_expanded.cu).
const MAX_VALUES: u32 = 128;
/// Rows of a wave and positions of a tile; there is a kernel for each. Where shared memory is small, more waves are worth more
/// than operands that serve more rows.
const SHAPES: [(u32, u32); 3] = [(32, 64), (32, 32), (16, 16)];
/// Elements between rows of shared memory, beyond their width (`PAD` in attention.h).
const PAD: u32 = 8;
/// Side of the squares that W_UK is turned by (`SQUARE` in mla_expanded.cu), and bytes of one with its padding.
const SQUARE: u32 = 32;
const SQUARE_BYTES: u32 = 2 * SQUARE * (SQUARE + 2);
/// What part of the memory latents may take that are being widened.
const LATENTS_PART: u64 = 64;
/// Fewest queries of a sequence: see [`GpuOptions::min_expanded_queries`](crate::GpuOptions::min_expanded_queries).
const MIN_QUERIES: u32 = 2;

/// How often scores are computed.
fn num_passes(v: u32) -> u32 {
    v.div_ceil(MAX_VALUES)
}

/// What widens latents, and what attends to keys and values of heads.
#[derive(Debug)]
pub(super) struct Expansion<K> {
    turn_w_uk: K,
    attend: K,
    tiling: Tiling,
    min_queries: u32,
    memory: Budget,
}

/// How the blocks of a kernel are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tiling {
    wave_rows: u32,
    tile_positions: u32,
    /// Most waves that a block can have.
    num_waves: u32,
    /// Bytes of shared memory of a block, and of each of its waves.
    block_bytes: u32,
    wave_bytes: u32,
}

impl Tiling {
    /// The largest tiles of positions beside which enough waves fit; else the most rows. `None` where no wave fits.
    fn new(widths: &Widths, shared_bytes: u32, results_are_operands: bool) -> Option<Self> {
        let key_bytes = 2 * (widths.head() + PAD);
        let value_bytes = 2 * (widths.padded_v().min(MAX_VALUES) + PAD);
        let tilings = SHAPES.map(|(wave_rows, tile_positions)| {
            // A tile that is computed with and one that is on its way; queries, and weights where lanes exchange them.
            let block_bytes = 2 * tile_positions * (key_bytes + value_bytes);
            let weight_bytes = if results_are_operands { 0 } else { 2 * (tile_positions + PAD) };
            let wave_bytes = wave_rows * (key_bytes + weight_bytes);
            let num_waves = (shared_bytes.saturating_sub(block_bytes) / wave_bytes).min(MAX_WAVES);
            Self { wave_rows, tile_positions, num_waves, block_bytes, wave_bytes }
        });
        let enough = tilings.iter().find(|tiling| tiling.num_waves >= ENOUGH_WAVES);
        let best = enough.or_else(|| tilings.iter().max_by_key(|tiling| tiling.rows()))?;
        (best.num_waves > 0).then_some(*best)
    }

    /// With fewer waves, where as many would leave multiprocessors without a block.
    fn for_run(self, num_tokens: u32, num_heads: u32, num_multiprocessors: u32) -> Self {
        let mut tiling = self;
        while tiling.num_waves > 1 && num_tokens.div_ceil(tiling.rows()) * num_heads < num_multiprocessors {
            tiling.num_waves = tiling.num_waves.div_ceil(2);
        }
        tiling
    }

    /// Of a block.
    fn rows(&self) -> u32 {
        self.num_waves * self.wave_rows
    }

    fn kernel_name(&self) -> String {
        format!("attend_expanded_r{}_p{}", self.wave_rows / TILE, self.tile_positions)
    }

    fn shared_bytes(&self) -> u32 {
        self.block_bytes + self.num_waves * self.wave_bytes
    }
}

/// The memory of keys and values, and of what they are made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Budget {
    widths: Widths,
    max_bytes: u64,
}

impl Budget {
    /// Positions whose latents are gathered at a time, whole tiles.
    fn chunk_positions(&self) -> u32 {
        let fitting = self.max_bytes / LATENTS_PART / self.latent_bytes();
        let fitting = u32::try_from(fitting).unwrap_or(u32::MAX) / TILE * TILE;
        fitting.max(TILE)
    }

    fn latent_bytes(&self) -> u64 {
        2 * u64::from(self.widths.padded_rank)
    }

    /// Bytes of a head's turned W_UK.
    fn turned_bytes(&self) -> u64 {
        u64::from(self.widths.padded_nope) * self.latent_bytes()
    }

    /// Bytes of a position's rotated values.
    fn rope_bytes(&self) -> u64 {
        2 * u64::from(self.widths.padded_rope())
    }

    /// Bytes of a position's key, without its rotated values, and value of one head.
    fn head_bytes(&self) -> u64 {
        2 * u64::from(self.widths.padded_nope + self.widths.padded_v())
    }

    /// What `num_heads` heads of so many positions take.
    fn place(&self, num_positions: u64, num_heads: u32) -> Place {
        let num_heads = u64::from(num_heads);
        let latents = num_heads * self.turned_bytes();
        let chunk = u64::from(self.chunk_positions()).min(num_positions);
        let rope = latents + chunk * self.latent_bytes();
        let expanded = rope + num_positions * self.rope_bytes();
        Place { latents, rope, expanded, end: expanded + num_positions * num_heads * self.head_bytes() }
    }

    /// Heads that can be computed at a time for so many positions.
    fn num_heads(&self, num_positions: u64) -> u32 {
        let Place { expanded, .. } = self.place(num_positions, 0);
        let fitting =
            self.max_bytes.saturating_sub(expanded) / (self.turned_bytes() + num_positions * self.head_bytes());
        u32::try_from(fitting).unwrap_or(u32::MAX).min(self.widths.num_heads)
    }

    /// Bytes to ask for: in powers of two, so that prompts that grow move the memory a few times only.
    fn scratch_bytes(&self, place: Place) -> usize {
        place.end.next_power_of_two().min(self.max_bytes).max(place.end) as usize
    }

    /// Sequences of a run that are computed together: as many as have room with all heads, one at least.
    fn batches(&self, layout: &StepLayout, run: &Run) -> impl Iterator<Item = Range<usize>> {
        let mut next = run.seqs.start;
        std::iter::from_fn(move || {
            let (start, mut num_positions) = (next, 0);
            while next < run.seqs.end {
                num_positions += u64::from(layout.seq_lens[next]);
                if next > start && self.num_heads(num_positions) < self.widths.num_heads {
                    break;
                }
                next += 1;
            }
            (start < next).then_some(start..next)
        })
    }
}

/// Where in that memory things begin, behind the turned W_UK, and where they end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    latents: u64,
    rope: u64,
    expanded: u64,
    end: u64,
}

impl<K: Clone + Send + Sync> Expansion<K> {
    /// `None` where these widths never gain from it, or the device cannot do it: the absorbed form does all then.
    pub(super) fn new<R: GpuRuntime<Kernel = K>>(
        device: &Device<R>,
        widths: &Widths,
    ) -> Result<Option<Self>, PrepareError> {
        let (info, options) = (device.info(), device.options());
        let min_queries = options.min_expanded_queries.or_else(|| break_even(widths, num_passes(widths.v)));
        let tiling = Tiling::new(widths, info.max_shared_bytes, info.results_are_operands);
        let (Some(min_queries), Some(tiling)) = (min_queries, tiling) else { return Ok(None) };
        let kernel = |name: &str| device.runtime().kernel("mla_expanded", name);
        Ok(Some(Self {
            turn_w_uk: kernel("turn_w_uk")?,
            attend: kernel(&tiling.kernel_name())?,
            tiling,
            min_queries: min_queries.max(MIN_QUERIES),
            memory: Budget { widths: *widths, max_bytes: options.expanded_bytes },
        }))
    }

    /// True for sequences that attend so.
    pub(super) fn suits(&self, query_len: u32, seq_len: u32) -> bool {
        query_len >= self.min_queries && self.memory.num_heads(u64::from(seq_len)) > 0
    }
}

/// Some heads of some sequences of a step, and where their keys and values are made.
struct Part {
    seqs: Range<usize>,
    num_positions: u32,
    heads: Range<u32>,
    memory: u64,
    place: Place,
}

impl Part {
    fn num_heads(&self) -> u32 {
        self.heads.end - self.heads.start
    }
}

impl<R: GpuRuntime> GpuMla<R> {
    /// Attention of a run, `out [tokens, N · V]`.
    pub(super) fn attend_expanded(
        &self,
        (device, expansion): (&Device<R>, &Expansion<R::Kernel>),
        stream: &mut GpuStream<R>,
        (step, run): (LayerStep<'_, R::Buffer>, &Run),
        cache: &GpuLatentCache<R>,
        [queries, out]: [u64; 2],
    ) -> Result<(), StepError> {
        let (layout, memory, all_heads) = (step.meta.host(), expansion.memory, self.widths.num_heads);
        for seqs in memory.batches(layout, run) {
            let num_positions = layout.seq_lens[seqs.clone()].iter().sum();
            // Groups of one size, as few as there can be.
            let fitting = memory.num_heads(u64::from(num_positions)).max(1);
            let group = all_heads.div_ceil(all_heads.div_ceil(fitting));
            let place = memory.place(u64::from(num_positions), group);
            let address = stream.scratch(device, Slot::Expanded, memory.scratch_bytes(place))?;
            for first in (0..all_heads).step_by(group as usize) {
                let heads = first..all_heads.min(first + group);
                let part = Part { seqs: seqs.clone(), num_positions, heads, memory: address, place };
                self.expand((device, expansion), stream, step, &part, cache)?;
                let first_token = u64::from(layout.query_start_loc[seqs.start] - run.tokens.start);
                let head = first_token * u64::from(all_heads) + u64::from(first);
                let queries = queries + 2 * head * u64::from(self.widths.head());
                let out = out + 2 * head * u64::from(self.widths.v);
                self.attend_to_heads((device, expansion), stream, step, &part, [queries, out])?;
            }
        }
        Ok(())
    }

    /// Keys and values of a part, from the cache: `[position][head][padded P + padded V]`, and rotated values `[position]`.
    fn expand(
        &self,
        (device, expansion): (&Device<R>, &Expansion<R::Kernel>),
        stream: &mut GpuStream<R>,
        step: LayerStep<'_, R::Buffer>,
        part: &Part,
        cache: &GpuLatentCache<R>,
    ) -> Result<(), StepError> {
        self.turn_w_uk((device, expansion), stream, part)?;
        let Widths { padded_nope, padded_rank, .. } = self.widths;
        let turned = MatrixArgs::of_bf16(part.memory, padded_nope, padded_rank);
        let w_uv = self.w_uv.weight.args().from(part.heads.start);
        let chunk = expansion.memory.chunk_positions();
        for first in (0..part.num_positions).step_by(chunk as usize) {
            let count = chunk.min(part.num_positions - first);
            self.gather((device, cache), stream, step, part, (first, count))?;
            let latents =
                Input { address: part.memory + part.place.latents, scales: 0, num_rows: count, stride: padded_rank };
            let output_step = padded_nope + self.widths.padded_v();
            let stride = part.num_heads() * output_step;
            let keys = part.memory + part.place.expanded + 2 * u64::from(first) * u64::from(stride);
            let values = keys + 2 * u64::from(padded_nope);
            let heads = Rows::Batch { count: part.num_heads(), input_step: 0, output_step };
            for (matrices, address, cols) in [(turned, keys, padded_nope), (w_uv, values, self.widths.padded_v())] {
                let output = Output { address, cols, stride, is_f32: false };
                self.w_uv.product(device, stream, matrices, (latents, output), heads)?;
            }
        }
        Ok(())
    }

    /// W_UK of the part's heads, `[Lkv, P]` each, to `[padded P, padded Lkv]` at the start of its memory.
    fn turn_w_uk(
        &self,
        (device, expansion): (&Device<R>, &Expansion<R::Kernel>),
        stream: &mut GpuStream<R>,
        part: &Part,
    ) -> Result<(), StepError> {
        let w_uk = self.w_uk.weight.args().from(part.heads.start);
        let args = [
            Arg::Ptr(w_uk.values),
            Arg::Ptr(part.memory),
            Arg::U32(self.widths.rank),
            Arg::U32(self.widths.nope),
            Arg::U32(w_uk.row_bytes),
            Arg::U32(w_uk.matrix_bytes),
        ];
        let grid = [self.widths.padded_rank / SQUARE, self.widths.padded_nope / SQUARE, part.num_heads()];
        let shape = LaunchShape { grid, block: [device.threads(), 1, 1], shared_bytes: SQUARE_BYTES };
        device.launch(&mut stream.queue, &expansion.turn_w_uk, shape, &args)
    }

    /// Latents of `count` of the part's positions from `first` on into rows, and their rotated values to where they stay.
    fn gather(
        &self,
        (device, cache): (&Device<R>, &GpuLatentCache<R>),
        stream: &mut GpuStream<R>,
        step: LayerStep<'_, R::Buffer>,
        part: &Part,
        (first, count): (u32, u32),
    ) -> Result<(), StepError> {
        let layout = step.meta.host();
        let [block_table, seq_lens, _] = sequence_args(device, step, part.seqs.start);
        let args = [
            Arg::Ptr(cache.layer(step.layer)),
            block_table,
            seq_lens,
            Arg::Ptr(part.memory + part.place.latents),
            Arg::Ptr(part.memory + part.place.rope),
            Arg::U32(first),
            Arg::U32(count),
            Arg::U32(self.widths.padded_rank),
            Arg::U32(self.widths.latent),
            Arg::U32(layout.block_size as u32),
            Arg::U32(layout.max_blocks_per_seq as u32),
        ];
        let shape = LaunchShape::linear(count.div_ceil(device.waves()), device.threads());
        device.launch(&mut stream.queue, &self.cache_kernels(cache).gather_latents, shape, &args)
    }

    /// Attention of the part's heads to their keys and values.
    fn attend_to_heads(
        &self,
        (device, expansion): (&Device<R>, &Expansion<R::Kernel>),
        stream: &mut GpuStream<R>,
        step: LayerStep<'_, R::Buffer>,
        part: &Part,
        [queries, out]: [u64; 2],
    ) -> Result<(), StepError> {
        let (widths, layout, info) = (self.widths, step.meta.host(), device.info());
        let [_, seq_lens, query_start_loc] = sequence_args(device, step, part.seqs.start);
        let (num_seqs, num_heads) = (part.seqs.len() as u32, part.num_heads());
        let num_tokens = part.seqs.clone().map(|seq| query_len(layout, seq)).sum();
        let tiling = expansion.tiling.for_run(num_tokens, num_heads, info.num_multiprocessors);
        let args = [
            Arg::Ptr(queries),
            Arg::Ptr(part.memory + part.place.rope),
            Arg::Ptr(part.memory + part.place.expanded),
            seq_lens,
            query_start_loc,
            Arg::Ptr(out),
            Arg::U32(num_seqs),
            Arg::U32(widths.num_heads),
            Arg::U32(num_heads),
            Arg::U32(widths.padded_nope),
            Arg::U32(widths.padded_rope()),
            Arg::U32(widths.v),
            Arg::U32(widths.padded_v()),
            self.scale_arg(),
        ];
        let shape = LaunchShape {
            // A sequence's blocks begin at a whole number of blocks: see first_row_block in attention.h.
            grid: [num_tokens / tiling.rows() + num_seqs, num_heads, num_passes(widths.v)],
            block: [tiling.num_waves * info.wave_size, 1, 1],
            shared_bytes: tiling.shared_bytes(),
        };
        device.launch(&mut stream.queue, &expansion.attend, shape, &args)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::runs::runs;
    use super::*;
    use crate::mla::Form;
    use crate::mla::tests::{WIDTHS, layout};

    const V3: Budget = Budget { widths: WIDTHS, max_bytes: 256 << 20 };

    fn tiling(widths: &Widths, kib: u32, results_are_operands: bool) -> Option<(u32, u32, u32)> {
        let tiling = Tiling::new(widths, kib << 10, results_are_operands)?;
        assert!(tiling.shared_bytes() <= kib << 10);
        Some((tiling.rows(), tiling.num_waves, tiling.tile_positions))
    }

    /// As docs/gpu-kernels.md has it.
    #[test]
    fn shared_memory_of_devices_is_used() {
        let glm = Widths { nope: 192, padded_nope: 192, v: 256, ..WIDTHS };
        // Hopper and B200, A100, the other NVIDIA devices.
        let nvidia = |widths| [227, 163, 99].map(|kib| tiling(widths, kib, true).unwrap());
        assert_eq!(nvidia(&WIDTHS), [(256, 8, 64), (192, 6, 64), (128, 4, 32)]);
        assert_eq!(nvidia(&glm), [(224, 7, 64), (192, 6, 32), (128, 8, 16)]);
        // gfx950, AMD's others.
        let amd = |widths| [160, 64].map(|kib| tiling(widths, kib, false).unwrap());
        assert_eq!(amd(&WIDTHS), [(128, 4, 64), (96, 6, 16)]);
        assert_eq!(amd(&glm), [(160, 5, 32), (64, 4, 16)]);
        assert_eq!(tiling(&WIDTHS, 16, true), None);
    }

    #[test]
    fn few_queries_are_cut_into_smaller_blocks() {
        let tiling = Tiling::new(&WIDTHS, 227 << 10, true).unwrap();
        let rows = |num_tokens, num_heads| tiling.for_run(num_tokens, num_heads, 132).rows();
        assert_eq!(
            [rows(4096, 128), rows(4096, 16), rows(1024, 16), rows(171, 16), rows(171, 1)],
            [256, 256, 64, 32, 32]
        );
    }

    /// 3 700 positions of all 128 heads at a time, all 16 of a rank as far as 30 000, one head as far as 300 000.
    #[test]
    fn memory_is_bounded_whatever_the_length() {
        let rank = Budget { widths: Widths { num_heads: 16, ..WIDTHS }, ..V3 };
        assert_eq!([3_700, 30_000, 163_840, 300_000, 500_000].map(|len| V3.num_heads(len)), [128, 16, 2, 1, 0]);
        assert_eq!([3_700, 30_000, 163_840].map(|len| rank.num_heads(len)), [16, 16, 2]);
        for budget in [V3, rank] {
            for num_positions in [1, 171, 3_700, 30_000, 163_840, 300_000] {
                let place = budget.place(num_positions, budget.num_heads(num_positions));
                assert!(budget.scratch_bytes(place) as u64 <= budget.max_bytes, "{num_positions}");
                assert!(place.end <= budget.scratch_bytes(place) as u64);
            }
        }
        assert_eq!(V3.chunk_positions(), 4096);
    }

    #[test]
    fn sequences_are_computed_together_as_far_as_there_is_room_for_all_heads() {
        let layout = layout(&[(1, 8), (200, 200), (300, 3_000), (200, 1_000), (1_000, 9_000), (200, 200)]);
        let run =
            runs(&layout, |query_len, _| if query_len > 1 { Form::Expanded } else { Form::Absorbed }).nth(1).unwrap();
        let batches: Vec<Range<usize>> = V3.batches(&layout, &run).collect();
        assert_eq!(batches, [1..3, 3..4, 4..5, 5..6]);
    }
}
