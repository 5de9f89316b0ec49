//! Routers: logits by an f32 linear, then the choice.

use engine_core::backend::{GateSpec, GateWeights, PrepareError, StepError};
use engine_core::config::Router;

use crate::device::{Device, Memory};
use crate::linear::GpuLinear;
use crate::product::{Input, Output, Rows};
use crate::runtime::{Arg, GpuRuntime, LaunchShape};
use crate::scratch::{GpuStream, Slot};

/// A prepared router.
#[derive(Debug)]
pub struct GpuGate<R: GpuRuntime> {
    weight: GpuLinear<R>,
    bias: Option<Memory<R>>,
    rules: Rules,
    choose: R::Kernel,
}

#[derive(Debug, Clone, Copy)]
struct Rules {
    num_experts: u32,
    top_k: u32,
    num_groups: u32,
    top_k_groups: u32,
    is_sigmoid: bool,
    normalise: bool,
    scaling_factor: f32,
}

impl<R: GpuRuntime> GpuGate<R> {
    pub(crate) fn new(device: &Device<R>, spec: &GateSpec, weights: &GateWeights) -> Result<Self, PrepareError> {
        let (is_sigmoid, num_groups, top_k_groups) = match spec.router {
            Router::SigmoidNoAuxTc { n_group, topk_group } => (true, n_group, topk_group),
            Router::SoftmaxGreedy => (false, 1, 1),
            Router::SoftmaxGroupLimited { n_group, topk_group } => (false, n_group, topk_group),
        };
        let rules = Rules {
            num_experts: device.kernel_size(spec.n_routed_experts, "experts")?,
            top_k: device.kernel_size(spec.num_experts_per_tok, "experts per token")?,
            num_groups: device.kernel_size(num_groups, "groups of experts")?,
            top_k_groups: device.kernel_size(top_k_groups, "groups per token")?,
            is_sigmoid,
            normalise: spec.norm_topk_prob,
            scaling_factor: spec.routed_scaling_factor,
        };
        if rules.shared_bytes() > device.info().max_shared_bytes {
            return Err(device.unsupported(
                format!("a router of {} experts in {} groups", rules.num_experts, rules.num_groups),
                format!(
                    "it needs {} bytes of shared memory, a block has {}",
                    rules.shared_bytes(),
                    device.info().max_shared_bytes
                ),
                "run this model on another device",
            ));
        }
        let bias = match &weights.correction_bias {
            Some(bias) => Some(device.uploaded(bytemuck::cast_slice(bias), "a router's bias")?),
            None => None,
        };
        let choose = device.runtime().kernel("gate", "choose_experts")?;
        Ok(Self { weight: GpuLinear::new(device, &weights.weight)?, bias, rules, choose })
    }

    /// `x` as from [`Device::input`] to `ids` and `weights` `[T, K]`.
    pub(crate) fn forward(
        &self,
        device: &Device<R>,
        stream: &mut GpuStream<R>,
        x: Input,
        [ids, weights]: [u64; 2],
    ) -> Result<(), StepError> {
        let Rules { num_experts, top_k, num_groups, top_k_groups, is_sigmoid, normalise, scaling_factor } = self.rules;
        let num_tokens = x.num_rows;
        let logits = stream.scratch(device, Slot::RouterLogits, num_tokens as usize * num_experts as usize * 4)?;
        let output = Output { is_f32: true, ..self.weight.output(logits) };
        self.weight.forward(device, stream, x, output, Rows::All)?;
        // One wave a block: few tokens are spread over the device.
        let shape = LaunchShape::linear(num_tokens, device.info().wave_size).with_shared(self.rules.shared_bytes());
        let args = [
            Arg::Ptr(logits),
            self.bias.as_ref().map_or(Arg::Ptr(0), Memory::arg),
            Arg::Ptr(ids),
            Arg::Ptr(weights),
            Arg::U32(num_tokens),
            Arg::U32(num_experts),
            Arg::U32(top_k),
            Arg::U32(num_groups),
            Arg::U32(top_k_groups),
            Arg::U32(u32::from(is_sigmoid)),
            Arg::U32(u32::from(normalise)),
            Arg::F32(scaling_factor),
        ];
        device.launch(&mut stream.queue, &self.choose, shape, &args)
    }
}

impl Rules {
    /// Of the one wave of a block: scores, what is chosen from, and the same of the groups.
    fn shared_bytes(&self) -> u32 {
        (4 * 2 * (self.num_experts + self.num_groups)).next_multiple_of(16)
    }
}
