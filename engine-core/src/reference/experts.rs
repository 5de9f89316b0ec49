//! Routed and shared experts.

use super::dense::ReferenceFfn;
use super::math::axpy;
use super::numerics::Numerics;
use crate::backend::{ExpertsWeights, HostBuffer, Routing, Tensor};

/// A layer's experts.
#[derive(Debug, Clone)]
pub struct ReferenceExperts {
    routed: Vec<ReferenceFfn>,
    shared: Option<ReferenceFfn>,
}

impl ReferenceExperts {
    pub(super) fn new(weights: ExpertsWeights) -> Self {
        Self {
            routed: weights.routed.into_iter().map(ReferenceFfn::new).collect(),
            shared: weights.shared.map(ReferenceFfn::new),
        }
    }

    /// `x [T, H]` to `out [T, H]`: per token, the weighted sum over its experts, then the shared expert.
    pub(super) fn forward(
        &self,
        numerics: Numerics,
        x: &Tensor<HostBuffer, f32>,
        routing: &Routing<HostBuffer>,
        out: &mut [f32],
    ) {
        let hidden = x.cols();
        let mut expert_out = vec![0.0; hidden];
        for (t, out) in out.chunks_mut(hidden).enumerate() {
            let mut sum = vec![0.0f64; hidden];
            for (id, weight) in routing.ids.row(t).iter().zip(routing.weights.row(t)) {
                self.routed[*id as usize].forward(numerics, x.row(t), &mut expert_out);
                axpy(*weight, &expert_out, &mut sum);
            }
            if let Some(shared) = &self.shared {
                shared.forward(numerics, x.row(t), &mut expert_out);
                axpy(1.0, &expert_out, &mut sum);
            }
            for (o, s) in out.iter_mut().zip(sum) {
                *o = s as f32;
            }
            numerics.round(out);
        }
    }
}
