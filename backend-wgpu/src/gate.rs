//! The router.

use std::sync::Arc;

use engine_core::backend::{GateSpec, GateWeights, PrepareError, StepError};
use engine_core::config::Router;

use crate::ffn::check_num_experts;
use crate::gpu::{Gpu, WgpuBuffer};
use crate::kernels::Kernel;
use crate::matmul::{Matmul, Product};
use crate::params::RouteParams;
use crate::pipelines::{Pipeline, Pipelines};
use crate::stream::{Dispatch, WgpuStream};

/// A layer's router.
#[derive(Debug)]
pub struct Gate {
    weight: Matmul,
    bias: WgpuBuffer,
    params: RouteParams,
    route: Arc<Pipeline>,
}

impl Gate {
    pub(crate) fn new(
        gpu: &Arc<Gpu>,
        pipelines: &Pipelines,
        spec: &GateSpec,
        weights: GateWeights,
    ) -> Result<Self, PrepareError> {
        check_num_experts(gpu, spec.n_routed_experts)?;
        let (softmax, num_groups, top_groups) = match spec.router {
            Router::SigmoidNoAuxTc { n_group, topk_group } => (false, n_group, topk_group),
            Router::SoftmaxGreedy => (true, 1, 1),
            Router::SoftmaxGroupLimited { n_group, topk_group } => (true, n_group, topk_group),
        };
        let bias = weights.correction_bias.unwrap_or_else(|| vec![0.0; spec.n_routed_experts]);
        let route = Kernel::Route {
            experts: spec.n_routed_experts as u32,
            groups: num_groups as u32,
            top_k: spec.num_experts_per_tok as u32,
            softmax,
        };
        Ok(Self {
            weight: Matmul::dense(gpu, pipelines, weights.weight)?,
            bias: gpu.constant(bytemuck::cast_slice(&bias), "a router's bias")?,
            params: RouteParams {
                num_groups: num_groups as u32,
                top_groups: top_groups as u32,
                norm_topk_prob: u32::from(spec.norm_topk_prob),
                scaling_factor: spec.routed_scaling_factor,
            },
            route: pipelines.get(gpu, route)?,
        })
    }

    /// `x [T, H]` to `ids` and `weights [T, K]`; `capacity` is the largest T there will be.
    pub(crate) fn run(
        &self,
        stream: &mut WgpuStream,
        (x, num_rows, capacity): (&WgpuBuffer, usize, usize),
        ids: &WgpuBuffer,
        weights: &WgpuBuffer,
    ) -> Result<(), StepError> {
        if num_rows == 0 {
            return Ok(());
        }
        let gpu = stream.gpu().clone();
        let logits = stream.scratch.router.get(&gpu, capacity * self.weight.num_outputs())?;
        self.weight.run(stream, Product { x, y: &logits, num_rows })?;
        stream.dispatch(Dispatch {
            pipeline: &self.route,
            buffers: &[&logits, &self.bias, ids, weights],
            params: bytemuck::bytes_of(&self.params),
            groups: [num_rows as u32, 1, 1],
        })
    }
}
