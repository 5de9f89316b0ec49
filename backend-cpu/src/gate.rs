//! The routers (spec 3.1).

use engine_core::backend::{GateSpec, GateWeights, PrepareError, StepError, Unsupported};
use engine_core::config::Router;

use crate::gemm::{Machine, chunked, linear};
use crate::matrix::Matrix;
use crate::scratch::CpuStream;

/// A router.
#[derive(Debug, Clone)]
pub struct Gate {
    spec: GateSpec,
    weight: Matrix,
    correction_bias: Vec<f32>,
}

impl Gate {
    /// Takes a router.
    ///
    /// # Errors
    /// [`PrepareError::Unsupported`] when the kept groups hold fewer experts than a token takes.
    pub(crate) fn new(spec: &GateSpec, weights: GateWeights) -> Result<Self, PrepareError> {
        let (experts, top_k) = (spec.n_routed_experts, spec.num_experts_per_tok);
        let eligible = match spec.router {
            Router::SoftmaxGreedy => experts,
            Router::SigmoidNoAuxTc { n_group, topk_group } | Router::SoftmaxGroupLimited { n_group, topk_group } => {
                (experts / n_group.max(1)).saturating_mul(topk_group)
            }
        };
        if top_k == 0 || top_k > eligible {
            return Err(PrepareError::Unsupported(Unsupported {
                backend: "cpu".into(),
                what: format!("a router that takes {top_k} of {experts} experts per token"),
                reason: format!("the groups it keeps hold {eligible} experts"),
                action: "check num_experts_per_tok, n_group and topk_group in config.json".into(),
            }));
        }
        let correction_bias = weights.correction_bias.unwrap_or_else(|| vec![0.0; experts]);
        Ok(Self { spec: *spec, weight: Matrix::new(weights.weight)?, correction_bias })
    }

    /// `x [T, H]` to `ids [T, K]` and `weights [T, K]`, best choice first.
    pub(crate) fn forward(
        &self,
        machine: Machine<'_>,
        stream: &mut CpuStream,
        x: &[f32],
        (ids, weights): (&mut [u32], &mut [f32]),
    ) -> Result<(), StepError> {
        let CpuStream { padded, first, second, .. } = stream;
        let (experts, top_k) = (self.spec.n_routed_experts, self.spec.num_experts_per_tok);
        let x = chunked(x, self.spec.hidden_size, padded)?;
        let scores = first.take(x.len() * experts)?;
        linear(machine, &self.weight, x, scores);
        let choice = second.take(2 * experts)?;
        let (choice, group_scores) = choice.split_at_mut(experts);
        let rows = ids.chunks_mut(top_k).zip(weights.chunks_mut(top_k));
        for (scores, (ids, weights)) in scores.chunks_mut(experts).zip(rows) {
            self.score(scores, choice, group_scores);
            self.take_best(scores, choice, ids, weights);
        }
        Ok(())
    }

    /// Turns router logits into scores in place; `choice` receives what the selection compares: scores, biased where
    /// the router has a bias, −∞ in rejected groups.
    fn score(&self, scores: &mut [f32], choice: &mut [f32], group_scores: &mut [f32]) {
        match self.spec.router {
            Router::SigmoidNoAuxTc { n_group, topk_group } => {
                for ((score, choice), bias) in scores.iter_mut().zip(&mut *choice).zip(&self.correction_bias) {
                    *score = 1.0 / (1.0 + (-*score).exp());
                    *choice = *score + bias;
                }
                mask_groups(choice, &mut group_scores[..n_group], topk_group, sum_of_two_largest);
            }
            Router::SoftmaxGreedy => {
                softmax(scores);
                choice.copy_from_slice(scores);
            }
            Router::SoftmaxGroupLimited { n_group, topk_group } => {
                softmax(scores);
                choice.copy_from_slice(scores);
                mask_groups(choice, &mut group_scores[..n_group], topk_group, |group| group[argmax(group)]);
            }
        }
    }

    fn take_best(&self, scores: &[f32], choice: &mut [f32], ids: &mut [u32], weights: &mut [f32]) {
        for (id, weight) in ids.iter_mut().zip(&mut *weights) {
            let best = argmax(choice);
            choice[best] = TAKEN;
            *id = best as u32;
            *weight = scores[best];
        }
        if self.spec.norm_topk_prob {
            let sum = weights.iter().sum::<f32>() + 1e-20;
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        weights.iter_mut().for_each(|weight| *weight *= self.spec.routed_scaling_factor);
    }
}

/// Marks an entry that was chosen. [`argmax`] never returns it while another entry is left.
const TAKEN: f32 = f32::NAN;

/// Keeps the `topk_group` groups with the largest `score` and sets all other entries to −∞.
fn mask_groups(choice: &mut [f32], group_scores: &mut [f32], topk_group: usize, score: impl Fn(&[f32]) -> f32) {
    if group_scores.len() == 1 {
        return;
    }
    let size = choice.len() / group_scores.len();
    for (to, group) in group_scores.iter_mut().zip(choice.chunks(size)) {
        *to = score(group);
    }
    for _ in 0..topk_group {
        let best = argmax(group_scores);
        group_scores[best] = TAKEN;
    }
    for (group, score) in choice.chunks_mut(size).zip(group_scores) {
        if !score.is_nan() {
            group.fill(f32::NEG_INFINITY);
        }
    }
}

fn sum_of_two_largest(group: &[f32]) -> f32 {
    let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for &value in group {
        if value > first {
            (first, second) = (value, first);
        } else if value > second {
            second = value;
        }
    }
    if second == f32::NEG_INFINITY { first } else { first + second }
}

/// Index of the largest value, the lowest index on ties; NaN counts as less than everything.
fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if *value > values[best] || (values[best].is_nan() && !value.is_nan()) {
            best = i;
        }
    }
    best
}

fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0f64;
    for v in x.iter_mut() {
        *v = (*v - max).exp();
        sum += f64::from(*v);
    }
    for v in x {
        *v = (f64::from(*v) / sum) as f32;
    }
}
