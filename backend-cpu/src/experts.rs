//! Routed and shared experts: tokens grouped by expert, one pass over each chosen expert's weights.

use engine_core::backend::{ExpertsWeights, PrepareError, StepError};

use crate::ffn::{Destination, Ffn, gate_up, sum_down};
use crate::gemm::{Machine, chunked};
use crate::kernels::Rows;
use crate::scratch::CpuStream;

/// A layer's experts.
#[derive(Debug, Clone)]
pub struct Experts {
    routed: Vec<Ffn>,
    shared: Option<Ffn>,
}

/// The router's choice of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice<'a> {
    /// `[T, K]`.
    pub(crate) ids: &'a [u32],
    /// `[T, K]`.
    pub(crate) weights: &'a [f32],
    /// K.
    pub(crate) top_k: usize,
}

/// Tokens by expert: the chosen experts ascending, within each the tokens ascending.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// Experts that were chosen.
    experts: Vec<u32>,
    /// First entry of each chosen expert and, last, the end.
    starts: Vec<usize>,
    tokens: Vec<u32>,
    weights: Vec<f32>,
    /// Scratch: next entry of each expert.
    next: Vec<usize>,
}

impl Groups {
    fn fill(&mut self, num_experts: usize, choice: Choice<'_>) {
        self.next.clear();
        self.next.resize(num_experts, 0);
        for id in choice.ids {
            self.next[*id as usize] += 1;
        }
        self.experts.clear();
        self.starts.clear();
        let mut start = 0;
        for (expert, next) in self.next.iter_mut().enumerate() {
            let count = std::mem::replace(next, start);
            if count > 0 {
                self.experts.push(expert as u32);
                self.starts.push(start);
                start += count;
            }
        }
        self.starts.push(start);
        self.tokens.resize(start, 0);
        self.weights.resize(start, 0.0);
        for (i, (id, weight)) in choice.ids.iter().zip(choice.weights).enumerate() {
            let entry = &mut self.next[*id as usize];
            self.tokens[*entry] = (i / choice.top_k) as u32;
            self.weights[*entry] = *weight;
            *entry += 1;
        }
    }
}

impl Experts {
    pub(crate) fn new(weights: ExpertsWeights) -> Result<Self, PrepareError> {
        let routed = weights.routed.into_iter().map(Ffn::new).collect::<Result<_, _>>()?;
        Ok(Self { routed, shared: weights.shared.map(Ffn::new).transpose()? })
    }

    /// `x [T, H]` to `out [T, H]`: per token the weighted sum over its experts in ascending order, then the shared
    /// expert.
    pub(crate) fn forward(
        &self,
        machine: Machine<'_>,
        stream: &mut CpuStream,
        (x, hidden): (&[f32], usize),
        choice: Choice<'_>,
        out: &mut [f32],
    ) -> Result<(), StepError> {
        let CpuStream { padded, first, second, groups, .. } = stream;
        groups.fill(self.routed.len(), choice);
        let groups = &*groups;
        let x = chunked(x, hidden, padded)?;

        let width = self.routed.first().map_or(0, Ffn::padded_width);
        let gated = first.take(groups.tokens.len() * width)?;
        let expert = |group: usize| &self.routed[groups.experts[group] as usize];
        gate_up(machine, &groups.starts, expert, x.pick(&groups.tokens), gated);
        let gated = &*gated;

        let shared_width = self.shared.as_ref().map_or(0, Ffn::padded_width);
        let shared_gated = second.take(x.len() * shared_width)?;
        if let Some(shared) = &self.shared {
            gate_up(machine, &[0, x.len()], |_| shared, x, shared_gated);
        }
        let shared_gated = &*shared_gated;

        sum_down(machine, x.len(), hidden, out, |tile, scratch| {
            for (group, range) in groups.starts.windows(2).enumerate() {
                let range = range[0]..range[1];
                let gated = Rows::new(&gated[range.start * width..range.end * width], width, width);
                let destination =
                    Destination::Chosen { tokens: &groups.tokens[range.clone()], weights: &groups.weights[range] };
                expert(group).add_down(machine, gated, destination, tile, scratch);
            }
            if let Some(shared) = &self.shared {
                let gated = Rows::new(shared_gated, shared_width, shared_width);
                shared.add_down(machine, gated, Destination::EachToken, tile, scratch);
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_ascending_experts_with_ascending_tokens() {
        let mut groups = Groups::default();
        for _ in 0..2 {
            let choice = Choice { ids: &[5, 1, 1, 7, 5, 1], weights: &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], top_k: 2 };
            groups.fill(9, choice);
            assert_eq!(groups.experts, [1, 5, 7]);
            assert_eq!(groups.starts, [0, 3, 5, 6]);
            assert_eq!(groups.tokens, [0, 1, 2, 0, 2, 1]);
            assert_eq!(groups.weights, [0.2, 0.3, 0.6, 0.1, 0.5, 0.4]);
        }
        groups.fill(9, Choice { ids: &[], weights: &[], top_k: 2 });
        assert_eq!((groups.experts.len(), groups.starts.as_slice()), (0, &[0][..]));
    }
}
