//! Which form attention takes, sequence by sequence.
//!
//! Fused attention is one operator with two uses. Over the paged cache it takes absorbed queries, few tokens of a sequence at
//! a time: decoding, and verifying drafted tokens. Over keys and values of every head it takes plain queries, any number of
//! them: prompts, whose latents are expanded first.

use std::ops::Range;

use engine_core::backend::StepLayout;
use engine_core::config::AttentionConfig;

/// What fused attention takes over the cache: Lkv, R, most heads (a power of two), most tokens of a sequence, and slots of a
/// block in multiples.
const RANK: usize = 512;
const ROPE: usize = 64;
const MAX_HEADS: usize = 128;
pub(super) const MAX_QUERY: usize = 16;
const BLOCK_UNIT: usize = 16;
const MAX_BLOCK: usize = 1024;

/// What it takes over expanded keys and values, besides R: P and V, and most heads.
const HEAD: usize = 128;
const MAX_EXPANDED_HEADS: usize = 256;

/// Keys and values that are expanded at once.
const MAX_EXPANDED_BYTES: usize = 512 << 20;

/// How sequences are attended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Absorbed queries over the paged cache.
    Paged,
    /// The same of one sequence with more tokens than that takes, in pieces that are sequences to the operator.
    Pieces,
    /// Plain queries over expanded keys and values.
    Expanded,
    /// Absorbed queries, out of products and a softmax.
    Unfused,
}

/// Sequences next to one another that are attended together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) form: Form,
    pub(super) seqs: Range<usize>,
}

impl Run {
    /// Rows of its tokens.
    pub(super) fn tokens(&self, layout: &StepLayout) -> Range<usize> {
        let start = |seq: usize| layout.query_start_loc[seq] as usize;
        start(self.seqs.start)..start(self.seqs.end)
    }
}

/// The forms that a layer's widths and the device allow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Forms {
    dims: AttentionConfig,
    is_absorbed_fused: bool,
    is_expanded_fused: bool,
}

impl Forms {
    pub(super) fn new(dims: &AttentionConfig, has_fused_attention: bool) -> Self {
        let heads = dims.num_attention_heads;
        let has_rope = has_fused_attention && dims.qk_rope_head_dim == ROPE;
        let has_widths = dims.qk_nope_head_dim == HEAD && dims.v_head_dim == HEAD;
        let takes_heads = heads.is_power_of_two() && heads <= MAX_HEADS;
        Self {
            dims: *dims,
            is_absorbed_fused: has_rope && dims.kv_lora_rank == RANK && takes_heads,
            // Plain queries lie where absorbed ones would, which are as wide or wider.
            is_expanded_fused: has_rope && has_widths && heads <= MAX_EXPANDED_HEADS && dims.kv_lora_rank >= HEAD,
        }
    }

    /// All sequences of a step, in order.
    pub(super) fn runs(self, layout: &StepLayout) -> impl Iterator<Item = Run> {
        let mut start = 0;
        std::iter::from_fn(move || {
            let seqs = start..self.end_of_run(layout, start)?;
            start = seqs.end;
            Some(Run { form: self.form(layout, seqs.start), seqs })
        })
    }

    fn end_of_run(self, layout: &StepLayout, start: usize) -> Option<usize> {
        if start == layout.num_seqs() {
            return None;
        }
        let form = self.form(layout, start);
        let mut num_positions = 0;
        let joins = |seq: &usize| {
            num_positions += layout.seq_lens[*seq] as usize;
            match form {
                Form::Pieces => *seq == start,
                Form::Expanded => self.form(layout, *seq) == form && self.fits_expanded(num_positions),
                Form::Paged | Form::Unfused => self.form(layout, *seq) == form,
            }
        };
        Some(start + (start..layout.num_seqs()).take_while(joins).count())
    }

    fn form(self, layout: &StepLayout, seq: usize) -> Form {
        let (query_len, seq_len) = (layout.query_range(seq).len(), layout.seq_lens[seq] as usize);
        let is_absorbed_fused = self.is_absorbed_fused && takes_blocks(layout.block_size);
        let is_short = query_len <= MAX_QUERY;
        let is_expanded_fused = self.is_expanded_fused && !is_short && self.fits_expanded(seq_len);
        match (is_absorbed_fused, is_expanded_fused) {
            (true, _) if is_short => Form::Paged,
            (true, true) if self.expanding_pays(query_len, seq_len) => Form::Expanded,
            (true, _) => Form::Pieces,
            (false, true) => Form::Expanded,
            (false, false) => Form::Unfused,
        }
    }

    fn fits_expanded(self, num_positions: usize) -> bool {
        let AttentionConfig { qk_nope_head_dim: p, qk_rope_head_dim: r, v_head_dim: v, .. } = self.dims;
        num_positions * self.dims.num_attention_heads * (p + r + v) * 2 <= MAX_EXPANDED_BYTES
    }

    /// True where fewer products are summed by expanding every position once than by absorbing every query. Per head: widening
    /// a row by W_UK and W_UV, and what each pair of a query and a position costs.
    fn expanding_pays(self, query_len: usize, seq_len: usize) -> bool {
        let AttentionConfig { qk_nope_head_dim: p, qk_rope_head_dim: r, v_head_dim: v, kv_lora_rank: rank, .. } =
            self.dims;
        let pairs = query_len * (seq_len - query_len) + query_len * (query_len + 1) / 2;
        let widening = rank * (p + v);
        seq_len * widening + pairs * (p + r + v) < query_len * widening + pairs * (2 * rank + r)
    }
}

/// True for blocks that operators over the cache take.
pub(super) fn takes_blocks(block_size: usize) -> bool {
    block_size.is_multiple_of(BLOCK_UNIT) && block_size <= MAX_BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(heads: usize, rank: usize, rope: usize, head: usize) -> AttentionConfig {
        AttentionConfig {
            num_attention_heads: heads,
            q_lora_rank: None,
            kv_lora_rank: rank,
            qk_nope_head_dim: head,
            qk_rope_head_dim: rope,
            v_head_dim: head,
        }
    }

    /// Sequences by their tokens in this step and their length.
    fn layout(block_size: usize, sequences: &[(u32, u32)]) -> StepLayout {
        let mut layout = StepLayout { block_size, ..StepLayout::default() };
        layout.query_start_loc.push(0);
        for (query_len, seq_len) in sequences {
            let end = layout.query_start_loc[layout.query_start_loc.len() - 1] + query_len;
            layout.query_start_loc.push(end);
            layout.seq_lens.push(*seq_len);
        }
        layout
    }

    /// Forms of the runs, and how many sequences each has.
    fn runs(dims: AttentionConfig, layout: &StepLayout) -> Vec<(Form, usize)> {
        Forms::new(&dims, true).runs(layout).map(|run| (run.form, run.seqs.len())).collect()
    }

    #[test]
    fn decoding_and_drafts_run_over_the_cache_in_blocks_it_takes() {
        let decode = |block_size| layout(block_size, &[(1, 900), (16, 16), (4, 70)]);
        // DeepSeek-V3, Kimi-K2, Moonlight.
        for heads in [128, 64, 16] {
            assert_eq!(runs(dims(heads, 512, 64, 128), &decode(64)), [(Form::Paged, 3)], "{heads}");
        }
        for (heads, rank, rope) in [(20, 512, 64), (256, 512, 64), (16, 128, 64), (16, 512, 32)] {
            assert_eq!(runs(dims(heads, rank, rope, 128), &decode(64)), [(Form::Unfused, 3)], "{heads} {rank} {rope}");
        }
        for (block_size, form) in [(16, Form::Paged), (1024, Form::Paged), (8, Form::Unfused), (1040, Form::Unfused)] {
            assert_eq!(runs(dims(16, 512, 64, 128), &decode(block_size)), [(form, 3)], "{block_size}");
        }
        assert_eq!(Forms::new(&dims(16, 512, 64, 128), false).runs(&decode(64)).count(), 1);
        assert!(Forms::new(&dims(16, 512, 64, 128), false).runs(&decode(64)).all(|run| run.form == Form::Unfused));
    }

    #[test]
    fn prompts_are_expanded_where_widths_allow() {
        let prompts = layout(64, &[(17, 17), (300, 300), (250, 800)]);
        for heads in [1, 16, 20, 128, 256] {
            assert_eq!(runs(dims(heads, 512, 64, 128), &prompts), [(Form::Expanded, 3)], "{heads}");
        }
        assert_eq!(runs(dims(16, 512, 64, 192), &prompts), [(Form::Pieces, 1); 3]);
        for (heads, rank, rope) in [(257, 512, 64), (20, 64, 64), (20, 512, 32)] {
            assert_eq!(runs(dims(heads, rank, rope, 128), &prompts), [(Form::Unfused, 3)], "{heads} {rank} {rope}");
        }
        assert_eq!(
            runs(dims(16, 512, 64, 128), &layout(8, &[(17, 17)])),
            [(Form::Expanded, 1)],
            "blocks do not matter"
        );
    }

    #[test]
    fn few_tokens_of_a_long_context_are_cut_in_pieces() {
        let some = layout(64, &[(1, 500), (20, 5000), (40, 9000), (2000, 6000), (1, 80)]);
        let forms = [(Form::Paged, 1), (Form::Pieces, 1), (Form::Pieces, 1), (Form::Expanded, 1), (Form::Paged, 1)];
        assert_eq!(runs(dims(16, 512, 64, 128), &some), forms);
        // 512 MiB hold 6553 positions of 128 heads.
        let long = layout(64, &[(6553, 6553), (3000, 3000), (3554, 3554), (6554, 6554)]);
        let forms = [(Form::Expanded, 1), (Form::Expanded, 1), (Form::Expanded, 1), (Form::Pieces, 1)];
        assert_eq!(runs(dims(128, 512, 64, 128), &long), forms);
    }

    #[test]
    fn expanding_pays_from_so_many_tokens_on() {
        let forms = Forms::new(&dims(128, 512, 64, 128), true);
        // Per position 512 · 256 to widen it, and 1088 − 320 less per query.
        assert!(!forms.expanding_pays(170, 100_000));
        assert!(forms.expanding_pays(172, 100_000));
        assert!(forms.expanding_pays(17, 17));
    }
}
