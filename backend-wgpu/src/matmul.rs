//! Matrix products: choice of kernel by the number of rows, and one dispatch per slab.

use std::sync::Arc;

use engine_core::backend::{PrepareError, StepError};
use engine_core::quant::HostWeight;

use crate::gpu::{Gpu, WgpuBuffer};
use crate::kernels::{Cut, Kernel, MatmulKernel, RowSource};
use crate::matrix::Matrix;
use crate::options::MatmulStyle;
use crate::params::MatmulParams;
use crate::pipelines::{Pipeline, Pipelines};
use crate::stream::{Dispatch, WgpuStream};

/// A stack of matrices with the kernels that multiply by it.
#[derive(Debug)]
pub struct Matmul {
    pub(crate) matrix: Matrix,
    /// By rows per workgroup, fewest first.
    variants: Vec<Variant>,
    gated: bool,
}

#[derive(Debug)]
struct Variant {
    rows: u32,
    columns: u32,
    pipeline: Arc<Pipeline>,
}

/// Where rows and heads lie, in elements. A dense product of contiguous tensors has no heads and no offsets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placement {
    pub(crate) x_row: usize,
    pub(crate) y_row: usize,
    /// Workgroups along z: a product per head.
    pub(crate) heads: usize,
    pub(crate) x_head: usize,
    pub(crate) y_head: usize,
    /// Weight rows between heads, before the first, and per head.
    pub(crate) w_head: usize,
    pub(crate) w_first: usize,
    pub(crate) num_outputs: usize,
}

/// Rows grouped by expert.
pub(crate) struct Grouped<'a> {
    pub(crate) tiles: &'a WgpuBuffer,
    pub(crate) pairs: &'a WgpuBuffer,
    /// Tiles there may be at most.
    pub(crate) max_tiles: usize,
    pub(crate) tile_rows: u32,
    pub(crate) top_k: usize,
}

/// What to multiply.
pub(crate) struct Product<'a> {
    pub(crate) x: &'a WgpuBuffer,
    pub(crate) y: &'a WgpuBuffer,
    pub(crate) num_rows: usize,
}

impl Matmul {
    /// Uploads a stack and makes its kernels. `unit` matrices belong together; two are gate and up.
    pub(crate) fn new(
        gpu: &Arc<Gpu>,
        pipelines: &Pipelines,
        source: RowSource,
        unit: usize,
        weights: &[HostWeight],
    ) -> Result<Self, PrepareError> {
        let matrix = Matrix::new(gpu, unit, weights)?;
        let gated = unit == 2;
        let mut variants = Vec::new();
        for (cut, rows) in cuts(gpu.tuning.matmul) {
            let kernel = MatmulKernel {
                cut,
                rows,
                format: matrix.format,
                scaling: matrix.scaling,
                vectorised: matrix.cols.is_multiple_of(4),
                source,
                gated,
            };
            let pipeline = pipelines.get(gpu, Kernel::Matmul(kernel))?;
            variants.push(Variant { rows, columns: kernel.columns(gpu.tuning), pipeline });
        }
        Ok(Self { matrix, variants, gated })
    }

    /// A single matrix for contiguous tensors.
    pub(crate) fn dense(gpu: &Arc<Gpu>, pipelines: &Pipelines, weight: HostWeight) -> Result<Self, PrepareError> {
        Self::new(gpu, pipelines, RowSource::Dense, 1, &[weight])
    }

    /// Outputs of a row.
    pub(crate) fn num_outputs(&self) -> usize {
        self.matrix.rows
    }

    /// Rows per tile of a grouped product whose groups have `mean_rows` rows on average.
    pub(crate) fn tile_rows(&self, mean_rows: usize) -> u32 {
        self.variant(mean_rows).rows
    }

    /// The kernel for `num_rows` rows: the smallest that takes them at once, else the largest.
    fn variant(&self, num_rows: usize) -> &Variant {
        let fits = self.variants.iter().find(|variant| variant.rows as usize >= num_rows);
        fits.unwrap_or(&self.variants[self.variants.len() - 1])
    }

    /// `y = x Wᵀ`, row after row.
    pub(crate) fn run(&self, stream: &mut WgpuStream, product: Product<'_>) -> Result<(), StepError> {
        let placement = Placement {
            x_row: self.matrix.cols,
            y_row: self.matrix.rows,
            heads: 1,
            x_head: 0,
            y_head: 0,
            w_head: 0,
            w_first: 0,
            num_outputs: self.matrix.rows,
        };
        self.run_placed(stream, product, placement)
    }

    /// `y = x Wᵀ` with rows and heads where `placement` says. With heads the matrix must be one slab.
    pub(crate) fn run_placed(
        &self,
        stream: &mut WgpuStream,
        product: Product<'_>,
        placement: Placement,
    ) -> Result<(), StepError> {
        if product.num_rows == 0 {
            return Ok(());
        }
        let variant = self.variant(product.num_rows);
        for slab in &self.matrix.slabs {
            let num_outputs = placement.num_outputs.min(slab.rows.len());
            let params = MatmulParams {
                m: product.num_rows as u32,
                x_row: placement.x_row as u32,
                x_head: placement.x_head as u32,
                y_row: placement.y_row as u32,
                y_head: placement.y_head as u32,
                y_first: slab.rows.start as u32,
                w_head: placement.w_head as u32,
                w_first: placement.w_first as u32,
                ..self.params(slab.rows.len(), num_outputs)
            };
            stream.dispatch(Dispatch {
                pipeline: &variant.pipeline,
                buffers: &[product.x, &slab.values, &slab.scales, product.y],
                params: bytemuck::bytes_of(&params),
                groups: [
                    num_outputs.div_ceil(variant.columns as usize) as u32,
                    product.num_rows.div_ceil(variant.rows as usize) as u32,
                    placement.heads as u32,
                ],
            })?;
        }
        Ok(())
    }

    /// The product of grouped rows with their experts' matrices.
    pub(crate) fn run_grouped(
        &self,
        stream: &mut WgpuStream,
        product: Product<'_>,
        grouped: &Grouped<'_>,
    ) -> Result<(), StepError> {
        let variant = self.variant(grouped.tile_rows as usize);
        let unit = if self.gated { 2 } else { 1 };
        for slab in &self.matrix.slabs {
            let params = MatmulParams {
                x_row: self.matrix.cols as u32,
                y_row: self.matrix.rows as u32,
                y_first: slab.rows.start as u32,
                first_expert: (slab.matrices.start / unit) as u32,
                num_experts: (slab.matrices.len() / unit) as u32,
                top_k: grouped.top_k as u32,
                ..self.params(slab.rows.len(), slab.rows.len())
            };
            stream.dispatch(Dispatch {
                pipeline: &variant.pipeline,
                buffers: &[product.x, &slab.values, &slab.scales, grouped.tiles, grouped.pairs, product.y],
                params: bytemuck::bytes_of(&params),
                groups: [slab.rows.len().div_ceil(variant.columns as usize) as u32, grouped.max_tiles as u32, 1],
            })?;
        }
        Ok(())
    }

    /// The parameters that follow from the matrix.
    fn params(&self, slab_rows: usize, num_outputs: usize) -> MatmulParams {
        let matrix = &self.matrix;
        MatmulParams {
            n: num_outputs as u32,
            k: matrix.cols as u32,
            w_row: matrix.row_words() as u32,
            matrix_rows: slab_rows as u32,
            matrix_scales: matrix.num_scales(slab_rows) as u32,
            scale_row: matrix.scale_row() as u32,
            scale_group: matrix.scale_group as u32,
            ..MatmulParams::default()
        }
    }
}

/// Kernels by rows, fewest first.
pub(crate) fn cuts(style: MatmulStyle) -> Vec<(Cut, u32)> {
    match style {
        MatmulStyle::Tiles => vec![(Cut::Gemv, 1), (Cut::Gemv, 2), (Cut::Gemv, 4), (Cut::Tile, 16), (Cut::Tile, 64)],
        MatmulStyle::Lanes => [1, 2, 4, 8, 16].map(|rows| (Cut::Lanes, rows)).into(),
    }
}
