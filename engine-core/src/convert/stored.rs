//! How a linear weight is stored in a checkpoint: names, types and shapes of its tensors in every format.

use std::borrow::Cow;

use safetensors::Dtype;

use super::shards::OutputTensor;
use crate::quant::{FP8_BLOCK, HostWeight, INT4_GROUP, Int4GroupWeight, MatrixShape, WeightFormat};

/// Endings of every tensor that may belong to a linear weight, in any format.
pub(crate) const LINEAR_SUFFIXES: [&str; 6] =
    [".weight", ".weight_scale_inv", ".weight_scale", ".weight_offset", ".weight_packed", ".weight_shape"];

/// The tensors of `prefix` stored as `format`, INT4 in groups of [`INT4_GROUP`].
///
/// FP8 as in DeepSeek's checkpoints (spec section 2.1), INT8 and INT4 as in compressed-tensors' `int-quantized` and
/// `pack-quantized`.
pub(crate) fn linear_tensors(prefix: &str, shape: MatrixShape, format: WeightFormat) -> Vec<OutputTensor> {
    let (rows, columns) = (shape.out_features, shape.in_features);
    let tensor = |suffix, dtype, shape: &[usize]| OutputTensor::new(format!("{prefix}{suffix}"), dtype, shape);
    match format {
        WeightFormat::F32 => vec![tensor(".weight", Dtype::F32, &[rows, columns])],
        WeightFormat::Bf16 => vec![tensor(".weight", Dtype::BF16, &[rows, columns])],
        WeightFormat::Fp8Block => vec![
            tensor(".weight", Dtype::F8_E4M3, &[rows, columns]),
            tensor(".weight_scale_inv", Dtype::F32, &[rows.div_ceil(FP8_BLOCK), columns.div_ceil(FP8_BLOCK)]),
        ],
        WeightFormat::Int8Channel => {
            vec![tensor(".weight", Dtype::I8, &[rows, columns]), tensor(".weight_scale", Dtype::F32, &[rows, 1])]
        }
        WeightFormat::Int4Group => vec![
            tensor(".weight_packed", Dtype::I32, &[rows, Int4GroupWeight::row_bytes(columns) / 4]),
            tensor(".weight_scale", Dtype::F32, &[rows, columns.div_ceil(INT4_GROUP)]),
            tensor(".weight_shape", Dtype::I64, &[2]),
        ],
    }
}

/// The bytes of [`linear_tensors`], in the same order.
pub(crate) fn linear_bytes(weight: &HostWeight) -> Vec<Cow<'_, [u8]>> {
    let shape = weight.shape();
    match weight {
        HostWeight::F32(w) => vec![borrowed(w.values())],
        HostWeight::Bf16(w) => vec![borrowed(w.values())],
        HostWeight::Fp8Block(w) => vec![borrowed(w.values()), borrowed(w.scales())],
        HostWeight::Int8Channel(w) => vec![borrowed(w.values()), borrowed(w.scales())],
        HostWeight::Int4Group(w) => {
            let dimensions = [shape.out_features as i64, shape.in_features as i64];
            let dimensions = Cow::Owned(bytemuck::cast_slice(&dimensions).to_vec());
            vec![borrowed(w.packed()), borrowed(w.scales()), dimensions]
        }
    }
}

fn borrowed<T: bytemuck::Pod>(values: &[T]) -> Cow<'_, [u8]> {
    Cow::Borrowed(bytemuck::cast_slice(values))
}
