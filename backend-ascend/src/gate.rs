//! Routers: logits by an f32 product, then the choice.

use engine_core::backend::{GateSpec, GateWeights, PrepareError, StepError};
use engine_core::config::Router;
use engine_core::quant::WeightFormat;

use crate::device::{Device, Matrix};
use crate::driver::{DataType, GatingRules, View};
use crate::linear::widened;
use crate::scratch::{AscendStream, Slot};

/// Experts that the operator takes, each group filled up to a multiple of [`GROUP_UNIT`].
const MAX_EXPERTS: usize = 2048;
const GROUP_UNIT: usize = 32;

/// A prepared router.
#[derive(Debug)]
pub struct AscendGate {
    /// `[E, H]` f32.
    weight: Matrix,
    /// `[E]` f32.
    bias: Option<Matrix>,
    rules: GatingRules,
    /// True where the chosen scores are not to be divided by their sum, which the operator does for sigmoid.
    takes_raw_scores: bool,
}

impl AscendGate {
    pub(crate) fn new(device: &Device, spec: &GateSpec, weights: &GateWeights) -> Result<Self, PrepareError> {
        let (is_sigmoid, num_groups, top_k_groups) = match spec.router {
            Router::SigmoidNoAuxTc { n_group, topk_group } => (true, n_group, topk_group),
            Router::SoftmaxGreedy => (false, 1, 1),
            Router::SoftmaxGroupLimited { n_group, topk_group } => (false, n_group, topk_group),
        };
        let num_experts = spec.n_routed_experts;
        // A single group is not compared with others.
        let sums_two_best = is_sigmoid && num_groups > 1;
        check_sizes(device, (num_experts, num_groups), sums_two_best)?;
        let weight = weights.weight.convert(WeightFormat::F32)?;
        let dims = [num_experts, spec.hidden_size];
        let bias = weights.correction_bias.as_ref();
        let bias = bias.map(|bias| device.tensor(DataType::F32, [num_experts], bias, "a router's bias"));
        Ok(Self {
            weight: device.tensor(DataType::F32, dims, weight.value_bytes(), "a router")?,
            bias: bias.transpose()?,
            rules: GatingRules {
                top_k: spec.num_experts_per_tok as i64,
                num_groups: num_groups as i64,
                top_k_groups: top_k_groups as i64,
                sums_two_best,
                is_sigmoid,
                normalises: spec.norm_topk_prob && !is_sigmoid,
                scaling_factor: f64::from(spec.routed_scaling_factor),
            },
            takes_raw_scores: is_sigmoid && !spec.norm_topk_prob,
        })
    }

    /// `x [T, H]` to `ids` i32 and `weights` f32, both `[T, K]`.
    pub(crate) fn forward(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        x: View,
        (ids, weights): (View, View),
    ) -> Result<(), StepError> {
        let dims = [x.dim(0), self.weight.view.dim(0)];
        let x = widened(device, stream, x)?;
        let logits = stream.scratch(device, Slot::RouterLogits, DataType::F32, dims)?;
        device.check(stream.queue.product(x, self.weight.view.swapped(0, 1), logits))?;
        let scores = match self.takes_raw_scores {
            true => Some(stream.scratch(device, Slot::RouterScores, DataType::F32, dims)?),
            false => None,
        };
        let bias = self.bias.as_ref().map(|bias| bias.view);
        device.check(stream.queue.choose_experts(self.rules, (logits, bias), (weights, ids, scores)))?;
        if let Some(scores) = scores {
            device.check(stream.queue.select_columns(scores, ids, weights))?;
            device.check(stream.queue.scale(weights, self.rules.scaling_factor as f32))?;
        }
        Ok(())
    }
}

fn check_sizes(
    device: &Device,
    (num_experts, num_groups): (usize, usize),
    sums_two_best: bool,
) -> Result<(), PrepareError> {
    let group = num_experts / num_groups;
    let padded = group.next_multiple_of(GROUP_UNIT) * num_groups;
    if padded <= MAX_EXPERTS && group > usize::from(sums_two_best) {
        return Ok(());
    }
    Err(device.unsupported(
        format!("a router of {num_experts} experts in {num_groups} groups"),
        format!("its operator takes {MAX_EXPERTS} experts, groups filled up to {padded}, and two of a group at least"),
        "run this model on another device",
    ))
}
