//! Prepared weights: the host's weight as it is, checked once.

use engine_core::backend::{PrepareError, Unsupported};
use engine_core::quant::{HostWeight, Int4GroupWeight};

use crate::kernels::{Bf16Rows, F32Rows, Fp8Rows, Int4Rows, Int8Rows};
use crate::simd::LANES;

/// A linear weight `[out, in]`. The values stay where the checkpoint has them, memory-mapped or not.
#[derive(Debug, Clone)]
pub struct Matrix {
    weight: HostWeight,
}

/// The formats the kernels are compiled for.
pub(crate) enum MatrixRows<'a> {
    F32(F32Rows<'a>),
    Bf16(Bf16Rows<'a>),
    Fp8(Fp8Rows<'a>),
    Int8(Int8Rows<'a>),
    Int4(Int4Rows<'a>),
}

impl Matrix {
    /// Takes a weight.
    ///
    /// # Errors
    /// [`PrepareError::Unsupported`] for INT4 groups that are not a power of two of chunks and for FP8 scales near the end
    /// of f32's range.
    pub(crate) fn new(weight: HostWeight) -> Result<Self, PrepareError> {
        let refuse = |reason: String, action: &str| {
            Err(PrepareError::Unsupported(Unsupported {
                backend: "cpu".into(),
                what: format!("a {} weight of shape {}", weight.format(), weight.shape()),
                reason,
                action: action.into(),
            }))
        };
        match &weight {
            HostWeight::F32(_) | HostWeight::Bf16(_) | HostWeight::Int8Channel(_) => {}
            HostWeight::Fp8Block(w) => {
                // The kernels multiply scales by 2^8.
                if let Some(scale) = w.scales().iter().find(|scale| **scale > f32::MAX / 256.0) {
                    let reason = format!("a scale is {scale:e}, the largest usable one is {:e}", f32::MAX / 256.0);
                    return refuse(reason, "the checkpoint is damaged, fetch it again");
                }
            }
            HostWeight::Int4Group(w) => {
                if int4_group_shift(w).is_none() {
                    let reason = format!("its groups hold {} values, not {LANES} times a power of two", w.group_size());
                    return refuse(reason, "convert the checkpoint with groups of 32, 64 or 128");
                }
            }
        }
        Ok(Self { weight })
    }

    /// Output features.
    pub(crate) fn num_rows(&self) -> usize {
        self.weight.shape().out_features
    }

    /// Input features.
    pub(crate) fn num_cols(&self) -> usize {
        self.weight.shape().in_features
    }

    /// The weight as it came.
    pub(crate) fn host(&self) -> &HostWeight {
        &self.weight
    }

    /// The rows in their format.
    pub(crate) fn rows(&self) -> MatrixRows<'_> {
        let cols = self.num_cols();
        match &self.weight {
            HostWeight::F32(w) => MatrixRows::F32(F32Rows { values: w.values(), stride: cols }),
            HostWeight::Bf16(w) => {
                MatrixRows::Bf16(Bf16Rows { values: bytemuck::cast_slice(w.values().as_slice()), cols })
            }
            HostWeight::Fp8Block(w) => MatrixRows::Fp8(Fp8Rows { values: w.values(), cols, scales: w.scales() }),
            HostWeight::Int8Channel(w) => MatrixRows::Int8(Int8Rows { values: w.values(), cols, scales: w.scales() }),
            HostWeight::Int4Group(w) => MatrixRows::Int4(Int4Rows {
                packed: w.packed(),
                row_bytes: Int4GroupWeight::row_bytes(cols),
                group_shift: int4_group_shift(w).unwrap_or_default(),
                scales: w.scales(),
                scales_per_row: cols.div_ceil(w.group_size()),
            }),
        }
    }
}

/// Binary logarithm of the chunks in a group, if it is a power of two or the group is the whole row.
fn int4_group_shift(weight: &Int4GroupWeight) -> Option<u32> {
    if weight.group_size() >= weight.shape().in_features {
        return Some(usize::BITS - 1);
    }
    let chunks = weight.group_size() / LANES;
    (weight.group_size().is_multiple_of(LANES) && chunks.is_power_of_two()).then(|| chunks.trailing_zeros())
}

/// Evaluates `$body` with `$rows` bound to the rows of a matrix in their own format.
macro_rules! with_rows {
    ($matrix:expr, $rows:ident => $body:expr) => {
        match $matrix.rows() {
            $crate::matrix::MatrixRows::F32($rows) => $body,
            $crate::matrix::MatrixRows::Bf16($rows) => $body,
            $crate::matrix::MatrixRows::Fp8($rows) => $body,
            $crate::matrix::MatrixRows::Int8($rows) => $body,
            $crate::matrix::MatrixRows::Int4($rows) => $body,
        }
    };
}
pub(crate) use with_rows;
