//! Products of many quantised rows with FP8 weights, where a device has kernels of its own for them.

use engine_core::backend::{PrepareError, StepError};

use crate::device::Device;
use crate::matrix::Matrices;
use crate::product::{Input, Output, Rows};
use crate::runtime::GpuRuntime;
use crate::scratch::{GpuStream, Slot};

/// Fewest rows of a step that these kernels are for: below them a product is bound by the reading of its weights.
const MIN_ROWS: u32 = 64;

/// FP8 weights in device memory: e4m3 values `[count · n, k]` and f32 scales `[count][⌈n / 128⌉][⌈k / 128⌉]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WideWeights {
    /// Address of the values.
    pub values: u64,
    /// Address of the scales.
    pub scales: u64,
    /// Matrices: one, or those of a layer's experts.
    pub count: u32,
    /// Rows of a matrix: columns of the result.
    pub n: u32,
    /// Columns.
    pub k: u32,
    /// From row to row, a multiple of 16.
    pub row_bytes: u32,
}

/// Rows to multiply, and where the results go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WideRows {
    /// Address of the e4m3 codes `[num_rows, k]`.
    pub codes: u64,
    /// Address of their scales `[num_rows][⌈k / 128⌉]`.
    pub scales: u64,
    /// Rows of codes.
    pub num_rows: u32,
    /// Bytes from row to row of codes, a multiple of 16.
    pub stride: u32,
    /// Address of the results.
    pub out: u64,
    /// Columns of the results that are stored: n, or more, which are zero. A multiple of 8.
    pub out_cols: u32,
    /// Elements from row to row of the results, a multiple of 8.
    pub out_stride: u32,
    /// f32 results in place of bf16.
    pub out_is_f32: bool,
    /// Which rows meet which matrix; all of them the only one if `None`.
    pub experts: Option<WideExperts>,
    /// Address of the memory that [`GpuRuntime::wide_scratch_bytes`](crate::GpuRuntime::wide_scratch_bytes) asked for, or 0.
    pub scratch: u64,
}

/// Rows of several matrices, those of one matrix side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WideExperts {
    /// Address of four words per tile: matrix, first row, number of rows, unused. A tile may have no rows.
    pub tiles: u64,
    /// Tiles in the table.
    pub num_tiles: u32,
    /// Most rows of a tile, as [`GpuRuntime::wide_tile_rows`](crate::GpuRuntime::wide_tile_rows) gave it.
    pub tile_rows: u32,
    /// Address of the row of the results that each row goes to, or 0 for its own.
    pub scatter: u64,
}

/// A runtime's own product for many rows, where it has one.
#[derive(Debug)]
pub(crate) struct Wide<R: GpuRuntime>(Option<R::Wide>);

impl<R: GpuRuntime> Wide<R> {
    /// For weights whose inputs are codes; others have none.
    pub(crate) fn new(device: &Device<R>, takes_codes: bool, weights: &[&Matrices<R>]) -> Result<Self, PrepareError> {
        let weights: Option<Vec<WideWeights>> = weights.iter().map(|weight| weight.wide()).collect();
        match weights.filter(|_| takes_codes) {
            Some(weights) => Ok(Self(device.runtime().prepare_wide(&weights)?)),
            None => Ok(Self(None)),
        }
    }

    /// The product where it is the one for these rows.
    pub(crate) fn for_rows(&self, input: Input, rows: Rows) -> Option<&R::Wide> {
        let is_for_these = match rows {
            Rows::All => input.scales != 0 && input.num_rows >= MIN_ROWS,
            Rows::Batch { .. } => false,
            Rows::Experts(experts) => experts.is_wide,
        };
        self.0.as_ref().filter(|_| is_for_these)
    }

    /// Rows of an expert's tiles in a step of `num_rows` tokens, where the product is the one for it.
    pub(crate) fn tile_rows(&self, device: &Device<R>, num_rows: u32, rows_per_expert: u32) -> Option<u32> {
        let wide = self.0.as_ref().filter(|_| num_rows >= MIN_ROWS)?;
        Some(device.runtime().wide_tile_rows(wide, rows_per_expert))
    }
}

impl<R: GpuRuntime> Device<R> {
    /// Queues a product that [`Wide::for_rows`] gave.
    pub(crate) fn wide_product(
        &self,
        stream: &mut GpuStream<R>,
        wide: &R::Wide,
        (input, output): (Input, Output),
        rows: Rows,
    ) -> Result<(), StepError> {
        let experts = match rows {
            Rows::All | Rows::Batch { .. } => None,
            Rows::Experts(experts) => Some(WideExperts {
                tiles: experts.tiles,
                num_tiles: experts.num_tiles,
                tile_rows: experts.tile_rows,
                scatter: if experts.scatter { experts.pairs } else { 0 },
            }),
        };
        let scratch = match self.runtime().wide_scratch_bytes(wide, input.num_rows) {
            0 => 0,
            num_bytes => stream.scratch(self, Slot::Wide, num_bytes)?,
        };
        let rows = WideRows {
            codes: input.address,
            scales: input.scales,
            num_rows: input.num_rows,
            stride: input.stride,
            out: output.address,
            out_cols: output.cols,
            out_stride: output.stride,
            out_is_f32: output.is_f32,
            experts,
            scratch,
        };
        self.runtime().launch_wide(&mut stream.queue, wide, &rows)
    }
}
