//! Second half: attention over the latents, then W_UV.
//!
//! Fused where the operator takes the widths and the cache's blocks ([`super::form`]): one operator for sequences next to one
//! another. Otherwise sequence by sequence out of products, sums and a softmax in f32: right for any size, and slow.

use std::ops::Range;

use engine_core::backend::{LayerStep, StepError};
use engine_core::config::AttentionConfig;

use super::form::{Form, MAX_QUERY, Run};
use super::tables::MASK_ROWS;
use super::{AscendLatentCache, AscendMla, AscendQueries};
use crate::device::{AscendBuffer, Device, Matrix};
use crate::driver::{Attention, DataType, Keys, View};
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
        let (heads, rank) = (self.dims.num_attention_heads, self.dims.kv_lora_rank);
        for run in self.forms.runs(layout) {
            let tokens = run.tokens(layout);
            let rows = |view: View| view.narrowed(0, tokens.start, tokens.len());
            let [absorbed, rotated] = queries.views(&self.dims, tokens.end).map(rows);
            if run.form == Form::Expanded {
                let plain = queries.plain(&self.dims, tokens.clone());
                self.attend_expanded(device, stream, step, &run, ([plain, rotated], cache), rows(out))?;
                continue;
            }
            let attended = stream.scratch(device, Slot::Attended, DataType::Bf16, [tokens.len(), heads, rank])?;
            let io = ([absorbed, rotated], cache);
            match run.form {
                Form::Paged => self.attend_paged(device, stream, step, &run, io, attended)?,
                Form::Pieces => self.attend_pieces(device, stream, step, &run, io, attended)?,
                Form::Unfused | Form::Expanded => self.attend_unfused(device, stream, step, &run, io, attended)?,
            }
            self.project_values(device, stream, attended, rows(out))?;
        }
        Ok(())
    }

    /// Sequences of few tokens each, over the paged cache.
    fn attend_paged(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        step: LayerStep<'_, AscendBuffer>,
        run: &Run,
        (queries, cache): ([View; 2], &AscendLatentCache),
        out: View,
    ) -> Result<(), StepError> {
        let layout = step.meta.host();
        let sequence = |seq: usize| (layout.query_range(seq).len(), layout.seq_lens[seq] as usize);
        let is_causal = run.seqs.clone().any(|seq| sequence(seq).0 > 1);
        stream.step.list_sequences(run.seqs.clone().map(sequence));
        let block_table = block_table(step).narrowed(0, run.seqs.start, run.seqs.len());
        let keys = Keys::Paged { cache: cache.layer(step.layer), block_table };
        self.attend(device, stream, (queries, keys), is_causal, out)
    }

    /// One sequence over the paged cache, its tokens in pieces that are sequences to the operator. Each sees what precedes it.
    fn attend_pieces(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        step: LayerStep<'_, AscendBuffer>,
        run: &Run,
        (queries, cache): ([View; 2], &AscendLatentCache),
        out: View,
    ) -> Result<(), StepError> {
        let layout = step.meta.host();
        let (query_len, seq_len) = (out.dim(0), layout.seq_lens[run.seqs.start] as usize);
        let firsts = (0..query_len).step_by(MAX_QUERY);
        let dims = [firsts.len(), layout.max_blocks_per_seq];
        let blocks = stream.scratch(device, Slot::PieceBlocks, DataType::I32, dims)?;
        device.check(stream.queue.copy(blocks, block_table(step).narrowed(0, run.seqs.start, 1)))?;
        stream.step.list_sequences(firsts.map(|first| {
            let count = MAX_QUERY.min(query_len - first);
            (count, seq_len - query_len + first + count)
        }));
        let keys = Keys::Paged { cache: cache.layer(step.layer), block_table: blocks };
        self.attend(device, stream, (queries, keys), true, out)
    }

    /// Keys and values of every head and position of the run, and plain queries over them: `out [T, N V]`.
    fn attend_expanded(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        step: LayerStep<'_, AscendBuffer>,
        run: &Run,
        (queries, cache): ([View; 2], &AscendLatentCache),
        out: View,
    ) -> Result<(), StepError> {
        let layout = step.meta.host();
        let AttentionConfig { num_attention_heads: heads, qk_nope_head_dim: p, v_head_dim: v, .. } = self.dims;
        let rope = self.dims.qk_rope_head_dim;
        let slots = self.slots(device, stream, step)?;
        let length = |seqs: Range<usize>| layout.seq_lens[seqs].iter().map(|len| *len as usize).sum::<usize>();
        let (first, count) = (length(0..run.seqs.start), length(run.seqs.clone()));
        let part = cache.layer(step.layer);
        let [latents, key] = self.gather(device, stream, part, slots.narrowed(0, first, count))?;
        let keys = stream.scratch(device, Slot::ExpandedKeys, DataType::Bf16, [count, heads * p])?;
        let rotated = stream.scratch(device, Slot::ExpandedRotary, DataType::Bf16, [count, heads, rope])?;
        let values = stream.scratch(device, Slot::ExpandedValues, DataType::Bf16, [count, heads * v])?;
        let rank = self.dims.kv_lora_rank;
        let weight = |weight: &Matrix, width: usize| weight.view.reshaped([heads * width, rank]).swapped(0, 1);
        device.check(stream.queue.product(latents, weight(&self.w_uk, p), keys))?;
        device.check(stream.queue.product(latents, weight(&self.w_uv, v), values))?;
        device.check(stream.queue.copy(rotated, key.with_axis(1)))?;
        let sequence = |seq: usize| (layout.query_range(seq).len(), layout.seq_lens[seq] as usize);
        stream.step.list_length_ends(run.seqs.clone().map(sequence));
        let (keys, values) = (keys.reshaped([count, heads, p]), values.reshaped([count, heads, v]));
        let out = out.reshaped([out.dim(0), heads, v]);
        self.attend(device, stream, (queries, Keys::Expanded { keys, rotated, values }), true, out)
    }

    /// Fused attention of the sequences that `stream.step` lists.
    fn attend(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        (queries, keys): ([View; 2], Keys),
        is_causal: bool,
        out: View,
    ) -> Result<(), StepError> {
        let AscendStream { queue, step: prepared, .. } = stream;
        let mask = self.masks.fused.as_ref().filter(|_| is_causal);
        let alone = |view: View| if is_causal { view } else { view.with_axis(1) };
        device.check(queue.attend(Attention {
            queries: queries.map(alone),
            keys,
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
        run: &Run,
        (queries, cache): ([View; 2], &AscendLatentCache),
        out: View,
    ) -> Result<(), StepError> {
        let layout = step.meta.host();
        let slots = self.slots(device, stream, step)?;
        let first_token = run.tokens(layout).start;
        let mut first_slot = layout.seq_lens[..run.seqs.start].iter().map(|len| *len as usize).sum();
        for seq in run.seqs.clone() {
            let Range { start, end } = layout.query_range(seq);
            let (query_len, seq_len) = (end - start, layout.seq_lens[seq] as usize);
            let tokens = |view: View| view.narrowed(0, start - first_token, query_len);
            let slots = slots.narrowed(0, first_slot, seq_len);
            let sequence = Sequence {
                queries: queries.map(tokens),
                latents: self.gather(device, stream, cache.layer(step.layer), slots)?,
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

/// `[S, blocks of a sequence]`.
fn block_table(step: LayerStep<'_, AscendBuffer>) -> View {
    let layout = step.meta.host();
    let address = step.meta.block_table.buffer().0.address();
    View::new(address, DataType::I32, [layout.num_seqs(), layout.max_blocks_per_seq])
}
