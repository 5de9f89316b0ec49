//! Which sequences of a step attend in which form.

use std::ops::Range;

use engine_core::backend::StepLayout;

use super::Widths;

/// How attention is computed; see docs/gpu-kernels.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// On latents, with W_UK in the queries.
    Absorbed,
    /// On keys and values of every head.
    Expanded,
}

/// Sequences of a step that follow each other and attend in one form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) form: Form,
    pub(super) seqs: Range<usize>,
    /// Of the step.
    pub(super) tokens: Range<u32>,
    pub(super) max_query_len: usize,
    pub(super) max_seq_len: usize,
}

impl Run {
    fn new(layout: &StepLayout, form: Form, seqs: Range<usize>) -> Self {
        let tokens = layout.query_start_loc[seqs.start]..layout.query_start_loc[seqs.end];
        if seqs.len() == layout.num_seqs() {
            // Of a padded step the longest sequence is none that is there, but the one that it is recorded for.
            let (max_query_len, max_seq_len) = (layout.max_query_len, layout.max_seq_len);
            return Self { form, seqs, tokens, max_query_len, max_seq_len };
        }
        let max_query_len = seqs.clone().map(|seq| query_len(layout, seq)).max().unwrap_or(0) as usize;
        let max_seq_len = layout.seq_lens[seqs.clone()].iter().max().map_or(0, |len| *len as usize);
        Self { form, seqs, tokens, max_query_len, max_seq_len }
    }

    pub(super) fn num_tokens(&self) -> u32 {
        self.tokens.end - self.tokens.start
    }

    pub(super) fn num_seqs(&self) -> u32 {
        self.seqs.len() as u32
    }
}

/// Tokens of sequence `seq` in the step.
pub(super) fn query_len(layout: &StepLayout, seq: usize) -> u32 {
    layout.query_start_loc[seq + 1] - layout.query_start_loc[seq]
}

/// A step's sequences in order, in as few runs as there can be. `form` is that of a query length and a sequence length.
pub(super) fn runs<'a>(layout: &'a StepLayout, form: impl Fn(u32, u32) -> Form + 'a) -> impl Iterator<Item = Run> + 'a {
    let of_seq = move |seq: usize| form(query_len(layout, seq), layout.seq_lens[seq]);
    let mut next = 0;
    std::iter::from_fn(move || {
        let start = next;
        if start == layout.num_seqs() {
            return None;
        }
        let form = of_seq(start);
        let others = start + 1..layout.num_seqs();
        next = others.into_iter().find(|seq| of_seq(*seq) != form).unwrap_or(layout.num_seqs());
        Some(Run::new(layout, form, start..next))
    })
}

/// Fewest queries of a sequence for which keys and values of every head take fewer FLOPs than the absorbed form, however long
/// the context is; `None` where they never do.
///
/// Per head and position of the context, keys and values take 2 Lkv (P + V) once and 2 (n (P + R) + V) per query, where scores are
/// computed n times; the absorbed form takes 2 (2 Lkv + R) per query.
pub(super) fn break_even(widths: &Widths, num_passes: u32) -> Option<u32> {
    let Widths { rank, nope, rope, v, .. } = *widths;
    let [rank, nope, rope, v, passes] = [rank, nope, rope, v, num_passes].map(u64::from);
    let saved = (2 * rank + rope).checked_sub(passes * (nope + rope) + v).filter(|saved| *saved > 0)?;
    u32::try_from((rank * (nope + v)).div_ceil(saved)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mla::tests::{WIDTHS, layout};

    fn run(form: Form, seqs: Range<usize>, tokens: Range<u32>, [query, seq]: [usize; 2]) -> Run {
        Run { form, seqs, tokens, max_query_len: query, max_seq_len: seq }
    }

    fn by_queries(query_len: u32, _: u32) -> Form {
        if query_len >= 10 { Form::Expanded } else { Form::Absorbed }
    }

    #[test]
    fn sequences_of_one_form_stay_together() {
        let mixed = layout(&[(1, 40), (3, 9), (10, 10), (64, 100), (1, 7)]);
        let found: Vec<Run> = runs(&mixed, by_queries).collect();
        assert_eq!(
            found,
            [
                run(Form::Absorbed, 0..2, 0..4, [3, 40]),
                run(Form::Expanded, 2..4, 4..78, [64, 100]),
                run(Form::Absorbed, 4..5, 78..79, [1, 7]),
            ]
        );
        assert_eq!(runs(&layout(&[]), by_queries).count(), 0);
    }

    /// What a recorded step is launched with must not follow from the lengths of its sequences.
    #[test]
    fn a_padded_decode_step_is_one_run_of_the_length_it_is_padded_to() {
        let padded = StepLayout { max_seq_len: 256, ..layout(&[(1, 40), (1, 9)]) };
        let found: Vec<Run> = runs(&padded, by_queries).collect();
        assert_eq!(found, [run(Form::Absorbed, 0..2, 0..2, [1, 256])]);
    }

    /// Counted out for a context of 10^6 positions, before and at the break-even.
    #[test]
    fn from_the_break_even_on_fewer_flops_are_needed() {
        // DeepSeek and Moonlight, GLM-4.7-Flash with its scores computed twice, the tiny model.
        for ([rank, nope, rope, v, passes], expected) in
            [([512, 128, 64, 128, 1], 171), ([512, 192, 64, 256, 2], 717), ([128, 64, 32, 64, 1], 128)]
        {
            let found = break_even(&Widths { rank, nope, rope, v, ..WIDTHS }, passes);
            assert_eq!(found, Some(expected), "{rank} {nope} {v}");
            let flops = |queries: u32| {
                let absorbed = queries * 2 * (2 * rank + rope);
                (absorbed, 2 * rank * (nope + v) + queries * 2 * (passes * (nope + rope) + v))
            };
            let ((absorbed, expanded), (absorbed_before, expanded_before)) = (flops(expected), flops(expected - 1));
            assert!(expanded <= absorbed && expanded_before > absorbed_before, "{rank} {nope} {v}");
        }
        assert_eq!(break_even(&Widths { rank: 32, nope: 32, v: 32, ..WIDTHS }, 1), None);
    }
}
