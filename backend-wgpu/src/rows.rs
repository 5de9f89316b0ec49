//! Ops on whole rows: embedding, norms, sums, copies, argmax.

use std::sync::Arc;

use engine_core::backend::{PrepareError, StepError};
use engine_core::quant::HostWeight;

use crate::gpu::{Gpu, WgpuBuffer};
use crate::kernels::Kernel;
use crate::matrix::Matrix;
use crate::params::{ArgmaxParams, ElementwiseParams, EmbedParams, NormParams};
use crate::pipelines::{Pipeline, Pipelines};
use crate::stream::{Dispatch, WgpuStream};

/// Elements per workgroup of the kernels that walk over whole tensors.
const ELEMENTS_PER_GROUP: usize = 256;
/// Workgroups of such a kernel at most; it walks on from there.
const MAX_GROUPS: usize = 32_768;

/// Workgroups for `num_elements`.
pub(crate) fn groups_for(num_elements: usize) -> [u32; 3] {
    [num_elements.div_ceil(ELEMENTS_PER_GROUP).clamp(1, MAX_GROUPS) as u32, 1, 1]
}

/// Kernels that need no weights.
#[derive(Debug)]
pub(crate) struct RowKernels {
    add: Arc<Pipeline>,
    concat: Arc<Pipeline>,
    gather_rows: Arc<Pipeline>,
    argmax: Arc<Pipeline>,
}

impl RowKernels {
    pub(crate) fn new(gpu: &Gpu, pipelines: &Pipelines) -> Result<Self, PrepareError> {
        Ok(Self {
            add: pipelines.get(gpu, Kernel::Add)?,
            concat: pipelines.get(gpu, Kernel::Concat)?,
            gather_rows: pipelines.get(gpu, Kernel::GatherRows)?,
            argmax: pipelines.get(gpu, Kernel::Argmax)?,
        })
    }

    /// `out += x`, `[rows, cols]`.
    pub(crate) fn add(
        &self,
        stream: &mut WgpuStream,
        (rows, cols): (usize, usize),
        x: &WgpuBuffer,
        out: &WgpuBuffer,
    ) -> Result<(), StepError> {
        elementwise(stream, &self.add, &[x, out], (rows, cols, cols))
    }

    /// `out[t] = [a[t], b[t]]`, of which `a` has `left_cols`.
    pub(crate) fn concat(
        &self,
        stream: &mut WgpuStream,
        sizes: (usize, usize, usize),
        buffers: [&WgpuBuffer; 3],
    ) -> Result<(), StepError> {
        elementwise(stream, &self.concat, &buffers, sizes)
    }

    /// `out[i] = x[rows[i]]`.
    pub(crate) fn gather_rows(
        &self,
        stream: &mut WgpuStream,
        (rows, cols): (usize, usize),
        buffers: [&WgpuBuffer; 3],
    ) -> Result<(), StepError> {
        elementwise(stream, &self.gather_rows, &buffers, (rows, cols, cols))
    }

    /// Id of the highest of the first `num_ids` of each row.
    pub(crate) fn argmax(
        &self,
        stream: &mut WgpuStream,
        (rows, cols, num_ids): (usize, usize, usize),
        logits: &WgpuBuffer,
        out: &WgpuBuffer,
    ) -> Result<(), StepError> {
        let params = ArgmaxParams { cols: cols as u32, num_ids: num_ids as u32 };
        by_row(stream, &self.argmax, &[logits, out], bytemuck::bytes_of(&params), rows)
    }
}

fn elementwise(
    stream: &mut WgpuStream,
    pipeline: &Pipeline,
    buffers: &[&WgpuBuffer],
    (rows, cols, left_cols): (usize, usize, usize),
) -> Result<(), StepError> {
    if rows * cols == 0 {
        return Ok(());
    }
    let params = ElementwiseParams { num_rows: rows as u32, cols: cols as u32, left_cols: left_cols as u32 };
    let params = bytemuck::bytes_of(&params);
    stream.dispatch(Dispatch { pipeline, buffers, params, groups: groups_for(rows * cols) })
}

/// Launches one workgroup per row; rows beyond what one dimension of the grid holds are refused while loading.
fn by_row(
    stream: &mut WgpuStream,
    pipeline: &Pipeline,
    buffers: &[&WgpuBuffer],
    params: &[u8],
    rows: usize,
) -> Result<(), StepError> {
    if rows == 0 {
        return Ok(());
    }
    stream.dispatch(Dispatch { pipeline, buffers, params, groups: [rows as u32, 1, 1] })
}

/// The embedding table.
#[derive(Debug)]
pub struct Embedding {
    table: Matrix,
    pipeline: Arc<Pipeline>,
}

impl Embedding {
    pub(crate) fn new(gpu: &Arc<Gpu>, pipelines: &Pipelines, table: HostWeight) -> Result<Self, PrepareError> {
        let table = Matrix::new(gpu, 1, &[table])?;
        let pipeline = pipelines.get(gpu, Kernel::Embed { format: table.format })?;
        Ok(Self { table, pipeline })
    }

    /// Rows of `tokens [T]` to `out [T, H]`.
    pub(crate) fn run(
        &self,
        stream: &mut WgpuStream,
        num_tokens: usize,
        tokens: &WgpuBuffer,
        out: &WgpuBuffer,
    ) -> Result<(), StepError> {
        for slab in &self.table.slabs {
            let params = EmbedParams {
                num_tokens: num_tokens as u32,
                cols: self.table.cols as u32,
                first_row: slab.rows.start as u32,
                num_rows: slab.rows.len() as u32,
                w_row: self.table.row_words() as u32,
                scale_row: self.table.scale_row() as u32,
                scale_group: self.table.scale_group as u32,
            };
            let buffers = [tokens, &slab.values, &slab.scales, out];
            by_row(stream, &self.pipeline, &buffers, bytemuck::bytes_of(&params), num_tokens)?;
        }
        Ok(())
    }
}

/// An RMS norm.
#[derive(Debug)]
pub struct Norm {
    pub(crate) weight: WgpuBuffer,
    pub(crate) eps: f32,
    cols: usize,
    plain: Arc<Pipeline>,
    with_residual: Arc<Pipeline>,
}

impl Norm {
    pub(crate) fn new(gpu: &Arc<Gpu>, pipelines: &Pipelines, weight: &[f32], eps: f32) -> Result<Self, PrepareError> {
        Ok(Self {
            weight: gpu.constant(bytemuck::cast_slice(weight), "a norm")?,
            eps,
            cols: weight.len(),
            plain: pipelines.get(gpu, Kernel::Norm { residual: false })?,
            with_residual: pipelines.get(gpu, Kernel::Norm { residual: true })?,
        })
    }

    /// `out = norm(x)`, row by row.
    pub(crate) fn run(
        &self,
        stream: &mut WgpuStream,
        rows: usize,
        x: &WgpuBuffer,
        out: &WgpuBuffer,
    ) -> Result<(), StepError> {
        let params = NormParams { cols: self.cols as u32, eps: self.eps };
        by_row(stream, &self.plain, &[x, &self.weight, out], bytemuck::bytes_of(&params), rows)
    }

    /// `residual += delta; out = norm(residual)`, row by row.
    pub(crate) fn run_with_residual(
        &self,
        stream: &mut WgpuStream,
        rows: usize,
        [delta, residual, out]: [&WgpuBuffer; 3],
    ) -> Result<(), StepError> {
        let params = NormParams { cols: self.cols as u32, eps: self.eps };
        let buffers = [delta, &self.weight, residual, out];
        by_row(stream, &self.with_residual, &buffers, bytemuck::bytes_of(&params), rows)
    }
}
