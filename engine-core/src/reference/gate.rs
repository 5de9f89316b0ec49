//! The routers (spec 3.1).

use super::dense::ReferenceLinear;
use super::math::{sigmoid, softmax};
use crate::backend::{GateSpec, GateWeights};
use crate::config::Router;

/// A router.
#[derive(Debug, Clone)]
pub struct ReferenceGate {
    spec: GateSpec,
    weight: ReferenceLinear,
    correction_bias: Vec<f32>,
}

impl ReferenceGate {
    pub(super) fn new(spec: &GateSpec, weights: GateWeights) -> Self {
        let correction_bias = weights.correction_bias.unwrap_or_else(|| vec![0.0; spec.n_routed_experts]);
        Self { spec: *spec, weight: ReferenceLinear::new(weights.weight), correction_bias }
    }

    /// `x [T, H]` to `ids [T, K]` and `weights [T, K]`, best choice first. Everything in f32.
    pub(super) fn forward(&self, x: &[f32], ids: &mut [u32], weights: &mut [f32]) {
        let spec = &self.spec;
        let mut scores = vec![0.0; spec.n_routed_experts];
        let rows = ids.chunks_mut(spec.num_experts_per_tok).zip(weights.chunks_mut(spec.num_experts_per_tok));
        for (x, (ids, weights)) in x.chunks(spec.hidden_size).zip(rows) {
            self.weight.forward_float(x, &mut scores);
            let mut choice = self.choice(&mut scores);
            for (id, weight) in ids.iter_mut().zip(weights.iter_mut()) {
                let best = argmax(&choice);
                choice[best] = f32::NEG_INFINITY;
                *id = best as u32;
                *weight = scores[best];
            }
            if spec.norm_topk_prob {
                let sum: f32 = weights.iter().sum::<f32>() + 1e-20;
                weights.iter_mut().for_each(|w| *w /= sum);
            }
            weights.iter_mut().for_each(|w| *w *= spec.routed_scaling_factor);
        }
    }

    /// Turns router logits into scores in place and returns what the selection compares: scores, biased where the
    /// router has a bias, −∞ in rejected groups.
    fn choice(&self, scores: &mut [f32]) -> Vec<f32> {
        match self.spec.router {
            Router::SigmoidNoAuxTc { n_group, topk_group } => {
                scores.iter_mut().for_each(|s| *s = sigmoid(*s));
                let mut choice: Vec<f32> = scores.iter().zip(&self.correction_bias).map(|(s, b)| s + b).collect();
                mask_groups(&mut choice, n_group, topk_group, sum_of_two_largest);
                choice
            }
            Router::SoftmaxGreedy => {
                softmax(scores);
                scores.to_vec()
            }
            Router::SoftmaxGroupLimited { n_group, topk_group } => {
                softmax(scores);
                let mut choice = scores.to_vec();
                mask_groups(&mut choice, n_group, topk_group, |group| group[argmax(group)]);
                choice
            }
        }
    }
}

/// Keeps the `topk_group` groups with the largest `score` and sets all other entries to −∞.
fn mask_groups(choice: &mut [f32], n_group: usize, topk_group: usize, score: impl Fn(&[f32]) -> f32) {
    if n_group == 1 {
        return;
    }
    let size = choice.len() / n_group;
    let mut group_scores: Vec<f32> = choice.chunks(size).map(score).collect();
    let mut kept = vec![false; n_group];
    for _ in 0..topk_group {
        let best = argmax(&group_scores);
        group_scores[best] = f32::NEG_INFINITY;
        kept[best] = true;
    }
    for (group, kept) in choice.chunks_mut(size).zip(kept) {
        if !kept {
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

/// Index of the largest value; the lowest index on ties.
fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = i;
        }
    }
    best
}
