//! Unquantised weights.

use half::bf16;

use super::{MatrixShape, SharedSlice, WeightError, check_len};

/// A bf16 matrix.
#[derive(Debug, Clone)]
pub struct Bf16Weight {
    shape: MatrixShape,
    values: SharedSlice<bf16>,
}

impl Bf16Weight {
    /// `values` row-major `[out, in]`.
    ///
    /// # Errors
    /// [`WeightError::Length`].
    pub fn new(shape: MatrixShape, values: SharedSlice<bf16>) -> Result<Self, WeightError> {
        check_len("values", shape, values.len(), shape.num_elements())?;
        Ok(Self { shape, values })
    }

    /// `[out, in]`.
    pub fn shape(&self) -> MatrixShape {
        self.shape
    }

    /// Row-major values.
    pub fn values(&self) -> &SharedSlice<bf16> {
        &self.values
    }

    /// Bytes stored.
    pub fn num_bytes(&self) -> usize {
        self.values.len() * 2
    }

    pub(super) fn row_f32(&self, row: usize, out: &mut [f32]) {
        let k = self.shape.in_features;
        for (o, v) in out.iter_mut().zip(&self.values[row * k..][..k]) {
            *o = v.to_f32();
        }
    }
}

/// An f32 matrix.
#[derive(Debug, Clone)]
pub struct F32Weight {
    shape: MatrixShape,
    values: SharedSlice<f32>,
}

impl F32Weight {
    /// `values` row-major `[out, in]`.
    ///
    /// # Errors
    /// [`WeightError::Length`].
    pub fn new(shape: MatrixShape, values: SharedSlice<f32>) -> Result<Self, WeightError> {
        check_len("values", shape, values.len(), shape.num_elements())?;
        Ok(Self { shape, values })
    }

    /// `[out, in]`.
    pub fn shape(&self) -> MatrixShape {
        self.shape
    }

    /// Row-major values.
    pub fn values(&self) -> &SharedSlice<f32> {
        &self.values
    }

    /// Bytes stored.
    pub fn num_bytes(&self) -> usize {
        self.values.len() * 4
    }

    pub(super) fn row_f32(&self, row: usize, out: &mut [f32]) {
        let k = self.shape.in_features;
        out.copy_from_slice(&self.values[row * k..][..k]);
    }
}
