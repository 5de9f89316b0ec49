//! Routers (spec 3.1) and experts.

use engine_core::backend::GateSpec;
use engine_core::config::Router;

use super::{Linear, Matrix, Oracle, ffn};

/// A router.
#[derive(Debug, Clone)]
pub struct GateOracle {
    /// Its rules.
    pub spec: GateSpec,
    /// `[E, H]`.
    pub weight: Linear,
    /// `[E]`, zeros where the router has no bias.
    pub bias: Vec<f32>,
}

/// What one token is given.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// K expert ids, ascending.
    pub ids: Vec<usize>,
    /// Their combine weights.
    pub weights: Vec<f64>,
    /// How far the nearest decision was from a tie: of experts and of groups.
    pub margin: f64,
}

impl GateOracle {
    /// Routes one token.
    pub fn route(&self, x: &[f32]) -> Choice {
        let x = Matrix::from_f32(x.len(), x);
        let logits = self.weight.apply_exact(&x);
        let logits = logits.row(0);
        let scores = match self.spec.router {
            Router::SigmoidNoAuxTc { .. } => logits.iter().map(|z| 1.0 / (1.0 + (-z).exp())).collect(),
            Router::SoftmaxGreedy | Router::SoftmaxGroupLimited { .. } => softmax(logits),
        };
        let biased: Vec<f64> = scores.iter().zip(&self.bias).map(|(s, b)| s + f64::from(*b)).collect();
        let (allowed, group_margin) = self.allowed(&biased);
        let (mut ids, margin) = best(&allowed, self.spec.num_experts_per_tok, |id| biased[*id]);
        ids.sort_unstable();
        let mut weights: Vec<f64> = ids.iter().map(|id| scores[*id]).collect();
        if self.spec.norm_topk_prob {
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|w| *w /= sum + 1e-20);
        }
        weights.iter_mut().for_each(|w| *w *= f64::from(self.spec.routed_scaling_factor));
        Choice { ids, weights, margin: margin.min(group_margin) }
    }

    /// Experts of the kept groups, and the margin of keeping these groups.
    fn allowed(&self, biased: &[f64]) -> (Vec<usize>, f64) {
        type GroupScore = fn(&[f64]) -> f64;
        let (n_group, topk_group, score): (_, _, GroupScore) = match self.spec.router {
            Router::SigmoidNoAuxTc { n_group, topk_group } => (n_group, topk_group, |sorted| sorted[0] + sorted[1]),
            Router::SoftmaxGreedy => (1, 1, |sorted| sorted[0]),
            Router::SoftmaxGroupLimited { n_group, topk_group } => (n_group, topk_group, |sorted| sorted[0]),
        };
        if n_group == 1 {
            return ((0..biased.len()).collect(), f64::INFINITY);
        }
        let size = biased.len() / n_group;
        let group_scores: Vec<f64> = biased
            .chunks(size)
            .map(|group| {
                let mut sorted = group.to_vec();
                sorted.sort_by(|a, b| b.total_cmp(a));
                score(&sorted)
            })
            .collect();
        let groups: Vec<usize> = (0..n_group).collect();
        let (kept, margin) = best(&groups, topk_group, |group| group_scores[*group]);
        (kept.iter().flat_map(|group| group * size..(group + 1) * size).collect(), margin)
    }
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let sum: f64 = logits.iter().map(|z| z.exp()).sum();
    logits.iter().map(|z| z.exp() / sum).collect()
}

/// The `k` candidates with the highest score, and how much the last of them is ahead of the next.
fn best(candidates: &[usize], k: usize, score: impl Fn(&usize) -> f64) -> (Vec<usize>, f64) {
    let mut order = candidates.to_vec();
    order.sort_by(|a, b| score(b).total_cmp(&score(a)));
    let margin = order.get(k).map_or(f64::INFINITY, |next| score(&order[k - 1]) - score(next));
    order.truncate(k);
    (order, margin)
}

/// `Σ_k weight_k · FFN_{id_k}(x) + FFN_shared(x)`; `routing` holds (id, weight) pairs per token.
pub fn experts(
    oracle: Oracle,
    routed: &[[&Linear; 3]],
    shared: Option<[&Linear; 3]>,
    x: &Matrix,
    routing: &[Vec<(usize, f32)>],
) -> Matrix {
    let mut out = Matrix::zeros(x.rows(), x.cols);
    for (t, choices) in routing.iter().enumerate() {
        let token = Matrix { cols: x.cols, data: x.row(t).to_vec() };
        let mut add = |weight: f64, result: Matrix| {
            out.row_mut(t).iter_mut().zip(result.data).for_each(|(o, r)| *o += weight * r);
        };
        for (id, weight) in choices {
            add(f64::from(*weight), ffn(oracle, routed[*id], &token));
        }
        if let Some(shared) = shared {
            add(1.0, ffn(oracle, shared, &token));
        }
    }
    oracle.round(&mut out.data);
    out
}
