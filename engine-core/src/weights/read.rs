//! Typed weights out of a checkpoint.
//!
//! A linear is read in two steps: find its parts by the headers alone (what [`Checkpoint::check`] does for a whole
//! model), then view or widen their values.

use half::bf16;
use safetensors::Dtype;

use super::CheckpointError;
use super::checkpoint::{Checkpoint, StoredTensor};
use crate::config::QuantizationConfig;
use crate::quant::{
    Bf16Weight, F32Weight, FP8_BLOCK, Fp8BlockWeight, HostWeight, Int4GroupWeight, Int8ChannelWeight, MatrixShape,
    ScaleFormat, SharedSlice, WeightError,
};

/// Endings of tensors that go with inputs whose scale is fixed beforehand.
const STATIC_INPUTS: [&str; 4] = [".input_scale", ".input_offset", ".deq_scale", ".quant_bias"];

/// The tensors that make up a linear, found and checked by their headers.
pub(super) enum LinearParts<'a> {
    Float(StoredTensor<'a>),
    Fp8Block {
        values: StoredTensor<'a>,
        scales: StoredTensor<'a>,
        scale_format: ScaleFormat,
    },
    /// Offsets must be 0; some checkpoints store them all the same.
    Int8Channel {
        values: StoredTensor<'a>,
        scales: StoredTensor<'a>,
        offsets: Option<StoredTensor<'a>>,
    },
    Int4Group {
        packed: StoredTensor<'a>,
        scales: StoredTensor<'a>,
        shape: StoredTensor<'a>,
        group_size: usize,
    },
}

impl LinearParts<'_> {
    /// Names of the tensors read.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let parts = match *self {
            LinearParts::Float(values) => [Some(values), None, None],
            LinearParts::Fp8Block { values, scales, .. } => [Some(values), Some(scales), None],
            LinearParts::Int8Channel { values, scales, offsets } => [Some(values), Some(scales), offsets],
            LinearParts::Int4Group { packed, scales, shape, .. } => [Some(packed), Some(scales), Some(shape)],
        };
        parts.into_iter().flatten().map(|part| part.name)
    }
}

impl Checkpoint {
    /// The linear `{prefix}.weight` in the format it is stored in, whatever the rest of the checkpoint uses:
    ///
    /// | `{prefix}.weight` | with | gives |
    /// |---|---|---|
    /// | `BF16`, `F32` `[out, in]` | | bf16, f32 |
    /// | `F8_E4M3` `[out, in]` | `.weight_scale_inv` `[ceil(out/128), ceil(in/128)]`, `F32`, `BF16` or `F8_E8M0` | FP8 |
    /// | `I8` `[out, in]` | `.weight_scale` `[out]` or `[out, 1]`, `F32` or `BF16`; `.weight_offset` of zeros, if any | INT8 |
    /// | `.weight_packed` `I32` `[out, ceil(in/8)]` | `.weight_scale` `[out, ceil(in/group)]`, `.weight_shape` | INT4 |
    ///
    /// Scales may lie in another file. `quantization` gives what no header says: the FP8 scale format and the INT4
    /// group size. Values are views of the mapped file; only scales that are not f32 are copied.
    ///
    /// # Errors
    /// [`CheckpointError`] naming file and tensor: missing, of another shape or type, a scale that is missing, NaN,
    /// infinite or negative; an offset that is not 0, or a scale of the inputs, which are quantised as they come.
    pub fn linear(
        &self,
        prefix: &str,
        shape: MatrixShape,
        quantization: Option<&QuantizationConfig>,
    ) -> Result<HostWeight, CheckpointError> {
        match self.linear_parts(prefix, shape, quantization)? {
            LinearParts::Float(values) => values.float_matrix(shape),
            LinearParts::Fp8Block { values, scales, scale_format } => {
                let weight = Fp8BlockWeight::new(shape, values.view(), scales.widened(), scale_format);
                weight.map(HostWeight::Fp8Block).map_err(|cause| scales.invalid(cause))
            }
            LinearParts::Int8Channel { values, scales, offsets } => {
                offsets.map_or(Ok(()), StoredTensor::expect_zeros)?;
                let weight = Int8ChannelWeight::new(shape, values.view(), scales.widened());
                weight.map(HostWeight::Int8Channel).map_err(|cause| scales.invalid(cause))
            }
            LinearParts::Int4Group { packed, scales, shape: stored_shape, group_size } => {
                stored_shape.expect_content(shape)?;
                let weight = Int4GroupWeight::new(shape, group_size, packed.view(), scales.widened());
                weight.map(HostWeight::Int4Group).map_err(|cause| scales.invalid(cause))
            }
        }
    }

    /// The matrix `{prefix}.weight` of a kind that is never quantised (embedding, head, router, `eh_proj`): `BF16` or
    /// `F32` `[out, in]`, a view of the mapped file.
    ///
    /// # Errors
    /// [`CheckpointError`] naming file and tensor.
    pub fn plain(&self, prefix: &str, shape: MatrixShape) -> Result<HostWeight, CheckpointError> {
        let tensor = self.plain_part(&format!("{prefix}.weight"), &[shape.out_features, shape.in_features])?;
        tensor.float_matrix(shape)
    }

    /// The vector `name` (a norm weight, a router's bias), `BF16` or `F32` `[len]`, widened to f32.
    ///
    /// # Errors
    /// [`CheckpointError`] naming file and tensor.
    pub fn vector_f32(&self, name: &str, len: usize) -> Result<Vec<f32>, CheckpointError> {
        Ok(self.plain_part(name, &[len])?.widened().to_vec())
    }

    pub(super) fn plain_part(&self, name: &str, shape: &[usize]) -> Result<StoredTensor<'_>, CheckpointError> {
        let tensor = self.require(name)?;
        tensor.expect_dtype(&[Dtype::BF16, Dtype::F32], "BF16 and F32")?;
        tensor.expect_shape(shape)?;
        Ok(tensor)
    }

    pub(super) fn linear_parts(
        &self,
        prefix: &str,
        shape: MatrixShape,
        quantization: Option<&QuantizationConfig>,
    ) -> Result<LinearParts<'_>, CheckpointError> {
        let weight = format!("{prefix}.weight");
        let Some(values) = self.get(&weight) else {
            return match self.get(&format!("{prefix}.weight_packed")) {
                Some(packed) => self.int4_parts(prefix, packed, shape, quantization),
                None => self.require(&weight).map(LinearParts::Float),
            };
        };
        values.expect_shape(&[shape.out_features, shape.in_features])?;
        match values.extent.dtype {
            Dtype::BF16 | Dtype::F32 => Ok(LinearParts::Float(values)),
            Dtype::F8_E4M3 => {
                let scales = self.companion(values, &format!("{weight}_scale_inv"))?;
                scales.expect_dtype(&[Dtype::F32, Dtype::BF16, Dtype::F8_E8M0], "F32, BF16 and F8_E8M0")?;
                let blocks = [shape.out_features.div_ceil(FP8_BLOCK), shape.in_features.div_ceil(FP8_BLOCK)];
                scales.expect_shape(&blocks)?;
                Ok(LinearParts::Fp8Block { values, scales, scale_format: scale_format(scales, quantization) })
            }
            Dtype::I8 => self.int8_parts(prefix, values, shape),
            _ => Err(values.wrong_dtype("BF16, F32, F8_E4M3 and I8")),
        }
    }

    fn int8_parts<'a>(
        &'a self,
        prefix: &str,
        values: StoredTensor<'a>,
        shape: MatrixShape,
    ) -> Result<LinearParts<'a>, CheckpointError> {
        let of_inputs = STATIC_INPUTS.iter().find_map(|suffix| self.get(&format!("{prefix}{suffix}")));
        if let Some(found) = of_inputs {
            return Err(CheckpointError::StaticInputs {
                file: found.shard.file.clone(),
                tensor: found.name.to_owned(),
                weight: values.name.to_owned(),
            });
        }
        let per_row = |tensor: StoredTensor<'a>| {
            tensor.expect_dtype(&[Dtype::F32, Dtype::BF16], "F32 and BF16")?;
            match tensor.extent.shape == [shape.out_features] {
                true => Ok(tensor),
                false => tensor.expect_shape(&[shape.out_features, 1]).map(|()| tensor),
            }
        };
        let scales = per_row(self.companion(values, &format!("{prefix}.weight_scale"))?)?;
        let offsets = self.get(&format!("{prefix}.weight_offset")).map(per_row).transpose()?;
        Ok(LinearParts::Int8Channel { values, scales, offsets })
    }

    fn int4_parts<'a>(
        &'a self,
        prefix: &str,
        packed: StoredTensor<'a>,
        shape: MatrixShape,
        quantization: Option<&QuantizationConfig>,
    ) -> Result<LinearParts<'a>, CheckpointError> {
        let Some(&QuantizationConfig::Int4Group { group_size }) = quantization else {
            let (file, tensor) = (packed.shard.file.clone(), packed.name.to_owned());
            return Err(CheckpointError::UndeclaredGroups { file, tensor });
        };
        packed.expect_dtype(&[Dtype::I32], "I32 words of eight values")?;
        packed.expect_shape(&[shape.out_features, shape.in_features.div_ceil(8)])?;
        let scales = self.companion(packed, &format!("{prefix}.weight_scale"))?;
        scales.expect_dtype(&[Dtype::F32, Dtype::BF16], "F32 and BF16")?;
        scales.expect_shape(&[shape.out_features, shape.in_features.div_ceil(group_size)])?;
        let stored_shape = self.companion(packed, &format!("{prefix}.weight_shape"))?;
        stored_shape.expect_dtype(&[Dtype::I64, Dtype::I32], "I64 and I32")?;
        stored_shape.expect_shape(&[2])?;
        Ok(LinearParts::Int4Group { packed, scales, shape: stored_shape, group_size })
    }

    fn companion(&self, of: StoredTensor<'_>, name: &str) -> Result<StoredTensor<'_>, CheckpointError> {
        self.get(name).ok_or_else(|| CheckpointError::MissingCompanion {
            file: of.shard.file.clone(),
            tensor: of.name.to_owned(),
            dtype: of.extent.dtype,
            companion: name.to_owned(),
        })
    }
}

/// E8M0 bytes can hold nothing but powers of two; for other types the configuration says whether the scales are.
fn scale_format(scales: StoredTensor<'_>, quantization: Option<&QuantizationConfig>) -> ScaleFormat {
    match quantization {
        _ if scales.extent.dtype == Dtype::F8_E8M0 => ScaleFormat::Ue8m0,
        Some(QuantizationConfig::Fp8Block { ue8m0: true, .. }) => ScaleFormat::Ue8m0,
        Some(
            QuantizationConfig::Fp8Block { ue8m0: false, .. }
            | QuantizationConfig::Int8Channel
            | QuantizationConfig::Int4Group { .. },
        )
        | None => ScaleFormat::F32,
    }
}

impl StoredTensor<'_> {
    fn expect_dtype(self, accepted: &[Dtype], names: &'static str) -> Result<(), CheckpointError> {
        if accepted.contains(&self.extent.dtype) { Ok(()) } else { Err(self.wrong_dtype(names)) }
    }

    fn invalid(self, cause: WeightError) -> CheckpointError {
        CheckpointError::Weight { file: self.shard.file.clone(), cause: cause.named(self.name) }
    }

    fn float_matrix(self, shape: MatrixShape) -> Result<HostWeight, CheckpointError> {
        let weight = match self.extent.dtype {
            Dtype::F32 => F32Weight::new(shape, self.view()).map(HostWeight::F32),
            _ => Bf16Weight::new(shape, self.view()).map(HostWeight::Bf16),
        };
        weight.map_err(|cause| self.invalid(cause))
    }

    /// The values of an `F32`, `BF16` or `F8_E8M0` tensor as f32; a view where they already are.
    fn widened(self) -> SharedSlice<f32> {
        match self.extent.dtype {
            Dtype::F32 => self.view(),
            Dtype::BF16 => self.view::<bf16>().iter().map(|v| v.to_f32()).collect::<Vec<_>>().into(),
            _ => self.view::<u8>().iter().map(|byte| e8m0_to_f32(*byte)).collect::<Vec<_>>().into(),
        }
    }

    /// Checks that the offsets of an INT8 weight's rows are 0.
    fn expect_zeros(self) -> Result<(), CheckpointError> {
        let values = self.widened();
        // NaN is not 0 either.
        let Some(row) = values.iter().position(|value| *value != 0.0) else { return Ok(()) };
        Err(CheckpointError::Offset {
            file: self.shard.file.clone(),
            tensor: self.name.to_owned(),
            row,
            found: values[row],
        })
    }

    /// Checks that a `weight_shape` tensor holds `expected`.
    fn expect_content(self, expected: MatrixShape) -> Result<(), CheckpointError> {
        let found: Vec<i64> = match self.extent.dtype {
            Dtype::I64 => self.view::<i64>().to_vec(),
            _ => self.view::<i32>().iter().map(|n| i64::from(*n)).collect(),
        };
        if found == [expected.out_features as i64, expected.in_features as i64] {
            return Ok(());
        }
        Err(CheckpointError::Shape {
            file: self.shard.file.clone(),
            tensor: format!("the shape in {}", self.name),
            found: found.into_iter().map(|n| usize::try_from(n).unwrap_or(0)).collect(),
            expected: vec![expected.out_features, expected.in_features],
        })
    }
}

/// `2^(byte - 127)`; 0xFF is NaN (spec section 4).
fn e8m0_to_f32(byte: u8) -> f32 {
    match byte {
        0 => f32::from_bits(0x0040_0000), // 2^-127 is subnormal in f32.
        0xFF => f32::NAN,
        _ => f32::from_bits(u32::from(byte) << 23),
    }
}
