//! FP8 with one scale per 128 x 128 block: the format of DeepSeek-V3's published checkpoints.

use super::fp8::E4M3_TABLE;
use super::{FP8_BLOCK, MatrixShape, SharedSlice, WeightError, check_len, check_scales};

/// How the checkpoint's scales were chosen; decides how activation scales are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleFormat {
    /// Any f32.
    F32,
    /// Powers of two (`scale_fmt: ue8m0`, V3.1).
    Ue8m0,
}

/// An e4m3 matrix with a scale per 128 x 128 block; edge blocks may be ragged and own a scale.
#[derive(Debug, Clone)]
pub struct Fp8BlockWeight {
    shape: MatrixShape,
    values: SharedSlice<u8>,
    scales: SharedSlice<f32>,
    scale_format: ScaleFormat,
}

impl Fp8BlockWeight {
    /// `values` are e4m3 bytes row-major `[out, in]`; `scales` row-major `[ceil(out/128), ceil(in/128)]`, multipliers.
    ///
    /// # Errors
    /// [`WeightError::Length`], [`WeightError::Scale`].
    pub fn new(
        shape: MatrixShape,
        values: SharedSlice<u8>,
        scales: SharedSlice<f32>,
        scale_format: ScaleFormat,
    ) -> Result<Self, WeightError> {
        check_len("values", shape, values.len(), shape.num_elements())?;
        let blocks = shape.out_features.div_ceil(FP8_BLOCK) * shape.in_features.div_ceil(FP8_BLOCK);
        check_len("scales", shape, scales.len(), blocks)?;
        check_scales(&scales)?;
        Ok(Self { shape, values, scales, scale_format })
    }

    /// `[out, in]`.
    pub fn shape(&self) -> MatrixShape {
        self.shape
    }

    /// Row-major e4m3 bytes.
    pub fn values(&self) -> &SharedSlice<u8> {
        &self.values
    }

    /// Row-major `[ceil(out/128), ceil(in/128)]` multipliers.
    pub fn scales(&self) -> &SharedSlice<f32> {
        &self.scales
    }

    /// The scales of the row block that holds output row `row`, one per 128 inputs.
    pub fn row_scales(&self, row: usize) -> &[f32] {
        let per_row = self.shape.in_features.div_ceil(FP8_BLOCK);
        &self.scales[row / FP8_BLOCK * per_row..][..per_row]
    }

    /// How the scales were chosen.
    pub fn scale_format(&self) -> ScaleFormat {
        self.scale_format
    }

    /// Bytes stored.
    pub fn num_bytes(&self) -> usize {
        self.values.len() + self.scales.len() * 4
    }

    pub(super) fn row_f32(&self, row: usize, out: &mut [f32]) {
        let k = self.shape.in_features;
        let values = &self.values[row * k..][..k];
        let blocks = out.chunks_mut(FP8_BLOCK).zip(values.chunks(FP8_BLOCK));
        for ((out, values), scale) in blocks.zip(self.row_scales(row)) {
            for (o, v) in out.iter_mut().zip(values) {
                *o = E4M3_TABLE[*v as usize] * scale;
            }
        }
    }
}
