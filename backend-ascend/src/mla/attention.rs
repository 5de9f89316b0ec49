//! Second half: attention over the latents, then W_UV.
//!
//! Fused where the operator takes the widths, the cache's blocks and the step: one operator for all sequences. Otherwise
//! sequence by sequence out of products, sums and a softmax in f32: right for any size, and slow.

use std::ops::Range;

use engine_core::backend::{LayerStep, StepError, StepLayout};

use super::tables::MASK_ROWS;
use super::{AscendLatentCache, AscendMla, AscendQueries, FUSED_BLOCK_UNIT, MAX_FUSED_BLOCK, MAX_FUSED_QUERY};
use crate::device::{AscendBuffer, Device};
use crate::driver::{Attention, DataType, View};
use crate::scratch::{AscendStream, Slot};

/// Scores of a sequence that are held at once, in elements: 64 MiB.
const MAX_SCORES: usize = 16 << 20;

/// A sequence's part of a step, its latents gathered.
#[derive(Debug, Clone, Copy)]
struct Sequence {
    /// `[query_len, N, Lkv]` and `[query_len, N, R]`.
    queries: [View; 2],
    /// `[seq_len, Lkv]` and `[seq_len, R]`.
    latents: [View; 2],
    context_len: usize,
    /// `[query_len, N, Lkv]`.
    out: View,
}

impl AscendMla {
    /// `out [T, N V]`; rows of padding tokens are left as they are.
    pub(crate) fn attention(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        step: LayerStep<'_, AscendBuffer>,
        (queries, cache): (&AscendQueries, &AscendLatentCache),
        out: View,
    ) -> Result<(), StepError> {
        let layout = step.meta.host();
        let num_live = layout.query_start_loc.last().map_or(0, |end| *end as usize);
        if num_live == 0 {
            return Ok(());
        }
        let (heads, rank) = (self.dims.num_attention_heads, self.dims.kv_lora_rank);
        let queries = queries.views(&self.dims, num_live);
        let attended = stream.scratch(device, Slot::Attended, DataType::Bf16, [num_live, heads, rank])?;
        if self.fuses(layout) {
            self.attend_fused(device, stream, step, (queries, cache), attended)?;
        } else {
            self.attend_unfused(device, stream, step, (queries, cache), attended)?;
        }
        self.project_values(device, stream, attended, out.narrowed(0, 0, num_live))
    }

    /// True where fused attention takes the step.
    fn fuses(&self, layout: &StepLayout) -> bool {
        let block = layout.block_size;
        let takes_blocks = block.is_multiple_of(FUSED_BLOCK_UNIT) && block <= MAX_FUSED_BLOCK;
        self.has_fused_attention && takes_blocks && layout.max_query_len <= MAX_FUSED_QUERY
    }

    fn attend_fused(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        step: LayerStep<'_, AscendBuffer>,
        (queries, cache): ([View; 2], &AscendLatentCache),
        out: View,
    ) -> Result<(), StepError> {
        self.angles(device, stream, step)?;
        let layout = step.meta.host();
        let table = step.meta.block_table.buffer().0.address();
        let block_table = View::new(table, DataType::I32, [layout.num_seqs(), layout.max_blocks_per_seq]);
        let AscendStream { queue, step: prepared, .. } = stream;
        let is_causal = layout.max_query_len > 1;
        let mask = self.masks.fused.as_ref().filter(|_| is_causal);
        let alone = |view: View| if is_causal { view } else { view.with_axis(1) };
        device.check(queue.attend(Attention {
            queries: queries.map(alone),
            cache: cache.layer(step.layer),
            block_table,
            causal: mask.map(|mask| (prepared.ends.as_slice(), mask.view)),
            lengths: &prepared.lengths,
            softmax_scale: f64::from(self.softmax_scale),
            out: alone(out),
        }))
    }

    fn attend_unfused(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        step: LayerStep<'_, AscendBuffer>,
        (queries, cache): ([View; 2], &AscendLatentCache),
        out: View,
    ) -> Result<(), StepError> {
        let layout = step.meta.host();
        self.angles(device, stream, step)?;
        let slots = self.slots(device, stream, layout)?;
        let mut first_slot = 0;
        for seq in 0..layout.num_seqs() {
            let Range { start, end } = layout.query_range(seq);
            let (query_len, seq_len) = (end - start, layout.seq_lens[seq] as usize);
            let tokens = |view: View| view.narrowed(0, start, query_len);
            let sequence = Sequence {
                queries: queries.map(tokens),
                latents: self.gather(
                    device,
                    stream,
                    cache.layer(step.layer),
                    slots.narrowed(0, first_slot, seq_len),
                )?,
                context_len: seq_len - query_len,
                out: tokens(out),
            };
            first_slot += seq_len;
            self.attend_sequence(device, stream, sequence)?;
        }
        Ok(())
    }

    /// A sequence's latents and rotated keys, in the order of its positions.
    fn gather(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        [latents, keys]: [View; 2],
        slots: View,
    ) -> Result<[View; 2], StepError> {
        let mut rows = |slot: Slot, part: View| -> Result<View, StepError> {
            let width = part.dim(2);
            let found = stream.scratch(device, slot, DataType::Bf16, [slots.dim(0), width])?;
            let part = part.reshaped([part.dim(0) * part.dim(1), width]);
            device.check(stream.queue.select_rows(part, slots, found))?;
            Ok(found)
        };
        Ok([rows(Slot::Latents, latents)?, rows(Slot::Keys, keys)?])
    }

    /// Some queries at a time. None sees positions after its own, so what lies behind the last one is left out, and the mask
    /// covers the queries' own positions only.
    fn attend_sequence(&self, device: &Device, stream: &mut AscendStream, sequence: Sequence) -> Result<(), StepError> {
        let (query_len, seq_len) = (sequence.out.dim(0), sequence.latents[0].dim(0));
        let heads = self.dims.num_attention_heads;
        let at_once = (MAX_SCORES / (heads * seq_len)).clamp(1, MASK_ROWS);
        for first in (0..query_len).step_by(at_once) {
            let count = at_once.min(query_len - first);
            let num_visible = sequence.context_len + first + count;
            let rows = |view: View| view.narrowed(0, first, count);
            let visible = |view: View| view.narrowed(0, 0, num_visible);
            self.attend_rows(
                device,
                stream,
                sequence.queries.map(rows),
                sequence.latents.map(visible),
                rows(sequence.out),
            )?;
        }
        Ok(())
    }

    /// `out = softmax(σ (q · kv_c + q_pe · k_pe) + mask) kv_c`, the queries being the last of the positions.
    fn attend_rows(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        [query, query_rope]: [View; 2],
        [latents, keys]: [View; 2],
        out: View,
    ) -> Result<(), StepError> {
        let (count, heads, num_visible) = (out.dim(0), out.dim(1), latents.dim(0));
        let dims = [count * heads, num_visible];
        let scores = stream.scratch(device, Slot::Scores, DataType::F32, dims)?;
        let rope_scores = stream.scratch(device, Slot::RotaryScores, DataType::F32, dims)?;
        let probabilities = stream.scratch(device, Slot::Probabilities, DataType::F32, dims)?;
        let rounded = stream.scratch(device, Slot::RoundedProbabilities, DataType::Bf16, dims)?;
        let flat = |view: View| view.reshaped([count * heads, view.dim(2)]);
        let queue = &mut stream.queue;
        device.check(queue.product(flat(query), latents.swapped(0, 1), scores))?;
        device.check(queue.product(flat(query_rope), keys.swapped(0, 1), rope_scores))?;
        device.check(queue.add(scores, rope_scores))?;
        device.check(queue.scale(scores, self.softmax_scale))?;
        if count > 1 {
            let own = scores.reshaped([count, heads, num_visible]).narrowed(2, num_visible - count, count);
            let mask = self.masks.added.view.narrowed(0, 0, count).narrowed(2, 0, count);
            device.check(queue.add(own, mask))?;
        }
        device.check(queue.softmax(scores, probabilities))?;
        device.check(queue.copy(rounded, probabilities))?;
        device.check(queue.product(rounded, latents, flat(out)))
    }

    /// W_UV: `attended [T, N, Lkv]` to `out [T, N V]`.
    fn project_values(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        attended: View,
        out: View,
    ) -> Result<(), StepError> {
        let (num_tokens, heads, v) = (attended.dim(0), attended.dim(1), self.dims.v_head_dim);
        let dims = [heads, num_tokens, attended.dim(2)];
        let by_head = stream.scratch(device, Slot::AttendedByHead, DataType::Bf16, dims)?;
        let values = stream.scratch(device, Slot::Values, DataType::Bf16, [heads, num_tokens, v])?;
        let queue = &mut stream.queue;
        device.check(queue.copy(by_head, attended.swapped(0, 1)))?;
        device.check(queue.batched_product(by_head, self.w_uv.view.swapped(1, 2), values))?;
        device.check(queue.copy(out.reshaped([num_tokens, heads, v]), values.swapped(0, 1)))
    }
}
