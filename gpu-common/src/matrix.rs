//! Prepared weights: the checkpoint's packed values in device memory, rows aligned for vector loads.

use std::borrow::Cow;

use engine_core::backend::{PrepareError, StepError};
use engine_core::quant::{ActivationScheme, HostWeight, Int4GroupWeight, WeightFormat};
use half::bf16;

use crate::device::{Device, Memory, Write};
use crate::fnuz;
use crate::runtime::{Arg, Fp8, GpuRuntime};
use crate::wide::WideWeights;

/// Kernels load this many bytes at once; rows are padded to it.
const VEC_BYTES: usize = 16;
/// Rows of activations are padded with zeros to a multiple of this (`ROW_MULTIPLE` in formats.h).
pub(crate) const ROW_MULTIPLE: usize = 32;
/// Most bytes that are put together on the host before they are sent.
const STAGING_BYTES: usize = 8 << 20;

/// `count` matrices of equal shape and format: a linear has one, experts and heads have many.
#[derive(Debug)]
pub(crate) struct Matrices<R: GpuRuntime> {
    pub(crate) format: WeightFormat,
    /// What is done to the inputs.
    pub(crate) scheme: ActivationScheme,
    pub(crate) n: u32,
    pub(crate) k: u32,
    row_bytes: u32,
    group: u32,
    count: u32,
    /// From matrix to matrix.
    matrix_bytes: u32,
    matrix_scales: u32,
    values: Memory<R>,
    scales: Option<Memory<R>>,
}

/// Name of a format in names of kernels.
pub(crate) fn format_name(format: WeightFormat) -> &'static str {
    match format {
        WeightFormat::F32 => "f32",
        WeightFormat::Bf16 => "bf16",
        WeightFormat::Fp8Block => "fp8",
        WeightFormat::Int8Channel => "int8",
        WeightFormat::Int4Group => "int4",
    }
}

fn stored_row_bytes(format: WeightFormat, k: usize) -> usize {
    match format {
        WeightFormat::F32 => 4 * k,
        WeightFormat::Bf16 => 2 * k,
        WeightFormat::Fp8Block | WeightFormat::Int8Channel => k,
        WeightFormat::Int4Group => Int4GroupWeight::row_bytes(k),
    }
}

/// Matrices as kernels of products take them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MatrixArgs {
    pub(crate) values: u64,
    /// 0 for formats that have none.
    pub(crate) scales: u64,
    pub(crate) n: u32,
    pub(crate) k: u32,
    pub(crate) row_bytes: u32,
    pub(crate) group: u32,
    /// From matrix to matrix.
    pub(crate) matrix_bytes: u32,
    pub(crate) matrix_scales: u32,
}

impl MatrixArgs {
    /// bf16 matrices `[n, k]`, all rows side by side; `k` is a multiple of 8.
    pub(crate) fn of_bf16(values: u64, n: u32, k: u32) -> Self {
        let row_bytes = 2 * k;
        Self { values, scales: 0, n, k, row_bytes, group: 1, matrix_bytes: n * row_bytes, matrix_scales: 0 }
    }

    /// Those from matrix `first` on.
    pub(crate) fn from(self, first: u32) -> Self {
        let values = self.values + u64::from(first) * u64::from(self.matrix_bytes);
        Self { values, scales: self.scales + 4 * u64::from(first) * u64::from(self.matrix_scales), ..self }
    }
}

impl<R: GpuRuntime> Matrices<R> {
    /// Uploads one matrix.
    pub(crate) fn new(device: &Device<R>, weight: &HostWeight) -> Result<Self, PrepareError> {
        Self::of_many(device, std::slice::from_ref(weight))
    }

    /// Uploads matrices one after the other.
    pub(crate) fn of_many(device: &Device<R>, weights: &[HostWeight]) -> Result<Self, PrepareError> {
        let Some(first) = weights.first() else {
            return Err(device.unsupported(
                "a layer without experts",
                "there is nothing to run",
                "check the checkpoint",
            ));
        };
        let (format, shape, group) = (first.format(), first.shape(), check_group(device, first)?);
        for weight in weights {
            if (weight.format(), weight.shape(), check_group(device, weight)?) != (format, shape, group) {
                return Err(device.unsupported(
                    format!("{} experts of shape {}", weight.format(), weight.shape()),
                    format!("the first expert of the layer is {format} of shape {shape}"),
                    "convert all experts of a layer to one format",
                ));
            }
        }
        let encoding = Encoding::of(device, weights)?;
        let stored = stored_row_bytes(format, shape.in_features);
        let row_bytes = stored.next_multiple_of(VEC_BYTES);
        let matrix_bytes = row_bytes * shape.out_features;
        let matrix_scales = first.scales().len();
        let values = device.memory(matrix_bytes * weights.len(), "weights")?;
        device.fill(&values, |write| {
            let mut all = weights.iter().enumerate();
            all.try_for_each(|(i, weight)| {
                let rows = StoredRows { data: weight.value_bytes(), stored, row_bytes, encoding };
                rows.write(write, i * matrix_bytes)
            })
        })?;
        let scales = match matrix_scales {
            0 => None,
            _ => {
                let scales = device.memory(4 * matrix_scales * weights.len(), "scales of weights")?;
                device.fill(&scales, |write| {
                    let mut all = weights.iter().enumerate();
                    all.try_for_each(|(i, w)| {
                        write(4 * i * matrix_scales, bytemuck::cast_slice(&encoding.scales(w.scales())))
                    })
                })?;
                Some(scales)
            }
        };
        // A single matrix has no next one to count to.
        let step = |size: usize| if weights.len() == 1 { Ok(0) } else { device.kernel_size(size, "an expert") };
        Ok(Self {
            format,
            scheme: device.quantised_inputs().applied(first.activation_scheme()),
            n: device.kernel_size(shape.out_features, "rows of a weight")?,
            k: device.kernel_size(shape.in_features, "columns of a weight")?,
            row_bytes: device.kernel_size(row_bytes, "a row of a weight")?,
            group: device.kernel_size(group, "an INT4 group")?,
            count: device.kernel_size(weights.len(), "matrices")?,
            matrix_bytes: step(matrix_bytes)?,
            matrix_scales: step(matrix_scales)?,
            values,
            scales,
        })
    }

    /// `count` bf16 matrices `[n, k]`, each written by `fill` into zeroed rows.
    pub(crate) fn computed(
        device: &Device<R>,
        (count, n, k): (usize, usize, usize),
        mut fill: impl FnMut(usize, &mut [bf16], usize),
    ) -> Result<Self, PrepareError> {
        let row_bytes = stored_row_bytes(WeightFormat::Bf16, k).next_multiple_of(VEC_BYTES);
        let matrix_bytes = row_bytes * n;
        let values = device.memory(matrix_bytes * count, "weights")?;
        device.fill(&values, |write| {
            let mut matrix = vec![bf16::ZERO; matrix_bytes / 2];
            for i in 0..count {
                fill(i, &mut matrix, row_bytes / 2);
                write(i * matrix_bytes, bytemuck::cast_slice(&matrix))?;
            }
            Ok(())
        })?;
        Ok(Self {
            format: WeightFormat::Bf16,
            scheme: ActivationScheme::Float,
            n: device.kernel_size(n, "rows of a weight")?,
            k: device.kernel_size(k, "columns of a weight")?,
            row_bytes: device.kernel_size(row_bytes, "a row of a weight")?,
            group: 1,
            count: device.kernel_size(count, "matrices")?,
            matrix_bytes: device.kernel_size(matrix_bytes, "a head")?,
            matrix_scales: 0,
            values,
            scales: None,
        })
    }

    /// Values and scales.
    pub(crate) fn pointers(&self) -> [Arg; 2] {
        [self.values.arg(), self.scales.as_ref().map_or(Arg::Ptr(0), Memory::arg)]
    }

    /// As a device's own kernels for many quantised rows take them; `None` where the format is none of theirs.
    pub(crate) fn wide(&self) -> Option<WideWeights> {
        match (self.format, self.scheme, &self.scales) {
            (WeightFormat::Fp8Block, ActivationScheme::Fp8Group { .. }, Some(scales)) => Some(WideWeights {
                values: self.values.address(),
                scales: scales.address(),
                count: self.count,
                n: self.n,
                k: self.k,
                row_bytes: self.row_bytes,
            }),
            _ => None,
        }
    }

    /// n, k, bytes of a row, INT4 group.
    pub(crate) fn shape_args(&self) -> [Arg; 4] {
        [Arg::U32(self.n), Arg::U32(self.k), Arg::U32(self.row_bytes), Arg::U32(self.group)]
    }

    /// All of them.
    pub(crate) fn args(&self) -> MatrixArgs {
        MatrixArgs {
            values: self.values.address(),
            scales: self.scales.as_ref().map_or(0, Memory::address),
            n: self.n,
            k: self.k,
            row_bytes: self.row_bytes,
            group: self.group,
            matrix_bytes: self.matrix_bytes,
            matrix_scales: self.matrix_scales,
        }
    }
}

/// INT4 inputs per scale; 1 for other formats. A vector of 32 values must not straddle groups.
fn check_group<R: GpuRuntime>(device: &Device<R>, weight: &HostWeight) -> Result<usize, PrepareError> {
    match weight {
        HostWeight::F32(_) | HostWeight::Bf16(_) | HostWeight::Fp8Block(_) | HostWeight::Int8Channel(_) => Ok(1),
        HostWeight::Int4Group(w) => {
            let group = w.group_size();
            if group.is_multiple_of(ROW_MULTIPLE) || group >= weight.shape().in_features {
                return Ok(group);
            }
            Err(device.unsupported(
                format!("an int4 weight of shape {}", weight.shape()),
                format!("its groups hold {group} values, not a multiple of {ROW_MULTIPLE}"),
                "convert the checkpoint with groups of 32, 64 or 128",
            ))
        }
    }
}

/// How a device holds the stored values of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    /// As the checkpoint has them.
    AsStored,
    /// FP8 in another variant of e4m3.
    Fnuz,
}

impl Encoding {
    /// That of `weights`, all of one format.
    fn of<R: GpuRuntime>(device: &Device<R>, weights: &[HostWeight]) -> Result<Self, PrepareError> {
        let mut encoding = Self::AsStored;
        for weight in weights {
            if let (Fp8::Fnuz, HostWeight::Fp8Block(weight)) = (device.info().fp8, weight) {
                fnuz::check(weight)?;
                encoding = Self::Fnuz;
            }
        }
        Ok(encoding)
    }

    fn scales(self, scales: &[f32]) -> Cow<'_, [f32]> {
        match self {
            Self::AsStored => Cow::Borrowed(scales),
            Self::Fnuz => scales.iter().map(|scale| scale * fnuz::SCALE).collect(),
        }
    }
}

/// Rows of `stored` bytes that become rows of `row_bytes`, the rest zeros.
struct StoredRows<'a> {
    data: &'a [u8],
    stored: usize,
    row_bytes: usize,
    encoding: Encoding,
}

impl StoredRows<'_> {
    /// Rows that need no change are sent from where the checkpoint has them.
    fn write(&self, write: &mut Write<'_>, offset: usize) -> Result<(), StepError> {
        let Self { data, stored, row_bytes, encoding } = *self;
        if stored == row_bytes && encoding == Encoding::AsStored {
            return write(offset, data);
        }
        let rows_at_once = (STAGING_BYTES / row_bytes).max(1);
        let mut staging = Vec::new();
        for (i, rows) in data.chunks(rows_at_once * stored).enumerate() {
            staging.clear();
            for row in rows.chunks(stored) {
                staging.extend_from_slice(row);
                staging.resize(staging.len().next_multiple_of(row_bytes), 0);
            }
            match encoding {
                Encoding::AsStored => {}
                Encoding::Fnuz => fnuz::encode(&mut staging),
            }
            write(offset + i * rows_at_once * row_bytes, &staging)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn written(data: &[u8], stored: usize, row_bytes: usize, encoding: Encoding) -> Vec<u8> {
        let mut memory = vec![0xEE; data.len() / stored * row_bytes + 4];
        let mut write = |offset: usize, bytes: &[u8]| {
            memory[offset..offset + bytes.len()].copy_from_slice(bytes);
            Ok(())
        };
        StoredRows { data, stored, row_bytes, encoding }.write(&mut write, 2).unwrap();
        memory
    }

    #[test]
    fn rows_are_filled_up_with_zeros() {
        let rows = written(&[1, 2, 3, 4, 5, 6], 3, 4, Encoding::AsStored);
        assert_eq!(rows, [0xEE, 0xEE, 1, 2, 3, 0, 4, 5, 6, 0, 0xEE, 0xEE]);
        assert_eq!(written(&[1, 2, 3, 4], 2, 2, Encoding::AsStored), [0xEE, 0xEE, 1, 2, 3, 4, 0xEE, 0xEE]);
    }

    #[test]
    fn rows_are_encoded_anew_with_and_without_padding() {
        assert_eq!(written(&[1, 0x80, 3, 0x80], 2, 2, Encoding::Fnuz), [0xEE, 0xEE, 1, 0, 3, 0, 0xEE, 0xEE]);
        assert_eq!(written(&[0x80, 2, 0x81], 3, 4, Encoding::Fnuz), [0xEE, 0xEE, 0, 2, 0x81, 0, 0xEE, 0xEE]);
    }
}
