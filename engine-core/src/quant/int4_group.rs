//! INT4 in groups along the input, weight only.

use super::{MatrixShape, SharedSlice, WeightError, check_len, check_scales};

/// A 4-bit matrix, symmetric (−8…7), one f32 scale per `group_size` inputs of a row.
///
/// Two values a byte, the even column in the low nibble, stored as value + 8; a row takes `ceil(in/8) * 4` bytes, the
/// layout of compressed-tensors' `pack-quantized` i32 words in little-endian order.
#[derive(Debug, Clone)]
pub struct Int4GroupWeight {
    shape: MatrixShape,
    group_size: usize,
    packed: SharedSlice<u8>,
    scales: SharedSlice<f32>,
}

impl Int4GroupWeight {
    /// `packed` as described on the type; `scales` row-major `[out, ceil(in/group_size)]`.
    ///
    /// # Errors
    /// [`WeightError::Length`], [`WeightError::Scale`], [`WeightError::GroupSize`] (even, not zero).
    pub fn new(
        shape: MatrixShape,
        group_size: usize,
        packed: SharedSlice<u8>,
        scales: SharedSlice<f32>,
    ) -> Result<Self, WeightError> {
        if group_size == 0 || !group_size.is_multiple_of(2) {
            return Err(WeightError::GroupSize { tensor: "weight".into(), found: group_size });
        }
        check_len("values", shape, packed.len(), shape.out_features * Self::row_bytes(shape.in_features))?;
        check_len("scales", shape, scales.len(), shape.out_features * shape.in_features.div_ceil(group_size))?;
        check_scales(&scales)?;
        Ok(Self { shape, group_size, packed, scales })
    }

    /// Bytes of one packed row of `in_features` values.
    pub fn row_bytes(in_features: usize) -> usize {
        in_features.div_ceil(8) * 4
    }

    /// `[out, in]`.
    pub fn shape(&self) -> MatrixShape {
        self.shape
    }

    /// Inputs per scale.
    pub fn group_size(&self) -> usize {
        self.group_size
    }

    /// Packed values, see the type.
    pub fn packed(&self) -> &SharedSlice<u8> {
        &self.packed
    }

    /// Row-major `[out, ceil(in/group_size)]` multipliers.
    pub fn scales(&self) -> &SharedSlice<f32> {
        &self.scales
    }

    /// Bytes stored.
    pub fn num_bytes(&self) -> usize {
        self.packed.len() + self.scales.len() * 4
    }

    pub(super) fn row_f32(&self, row: usize, out: &mut [f32]) {
        let k = self.shape.in_features;
        let groups = k.div_ceil(self.group_size);
        let scales = &self.scales[row * groups..][..groups];
        let packed = &self.packed[row * Self::row_bytes(k)..];
        for (i, o) in out.iter_mut().enumerate() {
            let nibble = (packed[i / 2] >> (4 * (i % 2))) & 0xF;
            *o = (i32::from(nibble) - 8) as f32 * scales[i / self.group_size];
        }
    }
}
