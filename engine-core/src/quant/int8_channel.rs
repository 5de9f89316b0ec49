//! INT8 with one scale per output channel (W8A8: activations are quantised per token).

use super::{MatrixShape, SharedSlice, WeightError, check_len, check_scales};

/// An i8 matrix, symmetric, one f32 scale per output row.
#[derive(Debug, Clone)]
pub struct Int8ChannelWeight {
    shape: MatrixShape,
    values: SharedSlice<i8>,
    scales: SharedSlice<f32>,
}

impl Int8ChannelWeight {
    /// `values` row-major `[out, in]`, `scales` one per output row.
    ///
    /// # Errors
    /// [`WeightError::Length`], [`WeightError::Scale`].
    pub fn new(shape: MatrixShape, values: SharedSlice<i8>, scales: SharedSlice<f32>) -> Result<Self, WeightError> {
        check_len("values", shape, values.len(), shape.num_elements())?;
        check_len("scales", shape, scales.len(), shape.out_features)?;
        check_scales(&scales)?;
        Ok(Self { shape, values, scales })
    }

    /// `[out, in]`.
    pub fn shape(&self) -> MatrixShape {
        self.shape
    }

    /// Row-major values.
    pub fn values(&self) -> &SharedSlice<i8> {
        &self.values
    }

    /// One multiplier per output row.
    pub fn scales(&self) -> &SharedSlice<f32> {
        &self.scales
    }

    /// Bytes stored.
    pub fn num_bytes(&self) -> usize {
        self.values.len() + self.scales.len() * 4
    }

    pub(super) fn row_f32(&self, row: usize, out: &mut [f32]) {
        let k = self.shape.in_features;
        let scale = self.scales[row];
        for (o, v) in out.iter_mut().zip(&self.values[row * k..][..k]) {
            *o = f32::from(*v) * scale;
        }
    }
}
