//! Gated FFNs, dense and by expert.

use std::sync::Arc;

use engine_core::backend::{ExpertsWeights, FfnWeights, PrepareError, StepError};

use crate::gpu::{Gpu, WgpuBuffer};
use crate::kernels::{Kernel, RowSource};
use crate::matmul::{Grouped, Matmul, Product};
use crate::params::{CombineParams, SortParams};
use crate::pipelines::{Pipeline, Pipelines};
use crate::rows::groups_for;
use crate::stream::{Dispatch, WgpuStream};

/// Experts that the sorting kernel's workgroup memory holds.
pub(crate) const MAX_EXPERTS: usize = 1024;

/// A gated FFN. Gate and up are one stack and one kernel.
#[derive(Debug)]
pub struct Ffn {
    gate_up: Matmul,
    down: Matmul,
}

impl Ffn {
    pub(crate) fn new(gpu: &Arc<Gpu>, pipelines: &Pipelines, weights: FfnWeights) -> Result<Self, PrepareError> {
        Ok(Self {
            gate_up: Matmul::new(gpu, pipelines, RowSource::Dense, 2, &[weights.gate, weights.up])?,
            down: Matmul::dense(gpu, pipelines, weights.down)?,
        })
    }

    /// `x [T, H]` to `out [T, H]`; `capacity` is the largest T there will be.
    pub(crate) fn run(&self, stream: &mut WgpuStream, product: Product<'_>, capacity: usize) -> Result<(), StepError> {
        let Product { x, y, num_rows } = product;
        let gpu = stream.gpu().clone();
        let hidden = stream.scratch.hidden.get(&gpu, capacity * self.gate_up.num_outputs())?;
        self.gate_up.run(stream, Product { x, y: &hidden, num_rows })?;
        self.down.run(stream, Product { x: &hidden, y, num_rows })
    }
}

/// A layer's routed and shared experts.
#[derive(Debug)]
pub struct Experts {
    num_experts: usize,
    gate_up: Matmul,
    down: Matmul,
    shared: Option<Ffn>,
    sort: Arc<Pipeline>,
    combine: Arc<Pipeline>,
}

/// What [`Experts::run`] reads beside the input.
pub(crate) struct Routed<'a> {
    pub(crate) ids: &'a WgpuBuffer,
    pub(crate) weights: &'a WgpuBuffer,
    pub(crate) top_k: usize,
}

impl Experts {
    pub(crate) fn new(gpu: &Arc<Gpu>, pipelines: &Pipelines, weights: ExpertsWeights) -> Result<Self, PrepareError> {
        let ExpertsWeights { routed, shared } = weights;
        let num_experts = routed.len();
        check_num_experts(gpu, num_experts)?;
        let (mut gate_up, mut down) = (Vec::with_capacity(2 * num_experts), Vec::with_capacity(num_experts));
        for expert in routed {
            gate_up.extend([expert.gate, expert.up]);
            down.push(expert.down);
        }
        let gate_up = Matmul::new(gpu, pipelines, RowSource::Gather, 2, &gate_up)?;
        let down = Matmul::new(gpu, pipelines, RowSource::Sorted, 1, &down)?;
        let shared = shared.map(|shared| Ffn::new(gpu, pipelines, shared)).transpose()?;
        let sort = pipelines.get(gpu, Kernel::ExpertSort { experts: num_experts as u32 })?;
        let combine = pipelines.get(gpu, Kernel::Combine { shared: shared.is_some() })?;
        Ok(Self { num_experts, gate_up, down, shared, sort, combine })
    }

    /// `x [T, H]` to `out [T, H]`; `capacity` is the largest T there will be.
    pub(crate) fn run(
        &self,
        stream: &mut WgpuStream,
        product: Product<'_>,
        routed: &Routed<'_>,
        capacity: usize,
    ) -> Result<(), StepError> {
        let Product { x, y, num_rows } = product;
        if num_rows == 0 {
            return Ok(());
        }
        let gpu = stream.gpu().clone();
        let (pairs_capacity, num_pairs) = (capacity * routed.top_k, num_rows * routed.top_k);
        let cols = self.down.num_outputs();
        let tile_rows = self.gate_up.tile_rows(num_pairs.div_ceil(self.num_experts));
        let most_tiles = pairs_capacity + 1;
        let tiles = stream.scratch.tiles.get(&gpu, 4 * most_tiles)?;
        let pairs = stream.scratch.pairs.get(&gpu, pairs_capacity)?;
        let places = stream.scratch.places.get(&gpu, pairs_capacity)?;
        let hidden = stream.scratch.hidden.get(&gpu, pairs_capacity * self.gate_up.num_outputs())?;
        let expert_out = stream.scratch.expert_out.get(&gpu, pairs_capacity * cols)?;
        let params = SortParams { num_pairs: num_pairs as u32, tile_rows };
        stream.dispatch(Dispatch {
            pipeline: &self.sort,
            buffers: &[routed.ids, &tiles, &pairs, &places],
            params: bytemuck::bytes_of(&params),
            groups: [1, 1, 1],
        })?;
        // Each chosen expert may leave one tile half empty.
        let max_tiles = num_pairs / tile_rows as usize + self.num_experts.min(num_pairs);
        let max_tiles = max_tiles.min(num_pairs);
        let grouped = Grouped { tiles: &tiles, pairs: &pairs, max_tiles, tile_rows, top_k: routed.top_k };
        self.gate_up.run_grouped(stream, Product { x, y: &hidden, num_rows: num_pairs }, &grouped)?;
        self.down.run_grouped(stream, Product { x: &hidden, y: &expert_out, num_rows: num_pairs }, &grouped)?;
        let params = CombineParams { num_rows: num_rows as u32, cols: cols as u32, top_k: routed.top_k as u32 };
        let params = bytemuck::bytes_of(&params);
        let groups = groups_for(num_rows * cols);
        match &self.shared {
            None => {
                let buffers = &[&*expert_out, &places, routed.weights, y];
                stream.dispatch(Dispatch { pipeline: &self.combine, buffers, params, groups })
            }
            Some(shared) => {
                let shared_out = stream.scratch.shared_out.get(&gpu, capacity * cols)?;
                shared.run(stream, Product { x, y: &shared_out, num_rows }, capacity)?;
                let buffers = &[&*expert_out, &places, routed.weights, &shared_out, y];
                stream.dispatch(Dispatch { pipeline: &self.combine, buffers, params, groups })
            }
        }
    }
}

/// Refuses more experts than kernels keep in workgroup memory.
pub(crate) fn check_num_experts(gpu: &Gpu, num_experts: usize) -> Result<(), PrepareError> {
    if num_experts <= MAX_EXPERTS {
        return Ok(());
    }
    let reason = format!("its kernels hold at most {MAX_EXPERTS} in workgroup memory");
    Err(gpu.unsupported(format!("{num_experts} experts"), reason, "choose another device"))
}
