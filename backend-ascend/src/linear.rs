//! Linears and the embedding.

use engine_core::backend::{PrepareError, StepError};
use engine_core::quant::{HostWeight, WeightFormat};
use half::bf16;

use crate::device::{Device, Matrix};
use crate::driver::{DataType, View};
use crate::nz;
use crate::scratch::{AscendStream, Slot};

/// Longest axis of a weight in NZ that the INT8 product takes, and the shortest.
const MAX_PACKED_WIDTH: usize = 65_535;
const MIN_PACKED_WIDTH: usize = 2;

/// A prepared linear weight.
#[derive(Debug)]
pub struct AscendLinear {
    /// `[N, K]`, or `[K, N]` in NZ: i8 values where an operator takes them so.
    values: Matrix,
    /// `[N]` f32, of i8 values.
    scales: Option<Matrix>,
}

/// The input of one or more linears, quantised at most once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input {
    /// `[T, K]` bf16.
    plain: View,
    /// Where codes and their scales go.
    slots: [Slot; 2],
    /// i8 and one scale per row, once somebody has asked for them.
    quantised: Option<[View; 2]>,
}

impl Input {
    /// An op's input.
    pub(crate) fn outer(x: View) -> Self {
        Self { plain: x, slots: [Slot::Codes, Slot::CodeScales], quantised: None }
    }

    /// What an op computes on the way, while others of its products may still read its input.
    pub(crate) fn inner(x: View) -> Self {
        Self { plain: x, slots: [Slot::InnerCodes, Slot::InnerCodeScales], quantised: None }
    }

    /// Codes `[T, K]` and a scale per row.
    pub(crate) fn quantised(&mut self, device: &Device, stream: &mut AscendStream) -> Result<[View; 2], StepError> {
        if let Some(quantised) = self.quantised {
            return Ok(quantised);
        }
        let (x, [codes, scales]) = (self.plain, self.slots);
        let codes = stream.scratch(device, codes, DataType::I8, [x.dim(0), x.dim(1)])?;
        let scales = stream.scratch(device, scales, DataType::F32, [x.dim(0)])?;
        device.check(stream.queue.quantise(x, codes, scales))?;
        Ok(*self.quantised.insert([codes, scales]))
    }
}

impl AscendLinear {
    /// bf16 and INT8 weights; f32 ones, which heads of some checkpoints have, multiply f32 inputs.
    pub(crate) fn new(device: &Device, weight: &HostWeight) -> Result<Self, PrepareError> {
        let dims = [weight.shape().out_features, weight.shape().in_features];
        Self::with(device, weight.format(), dims, (weight.value_bytes(), weight.scales()))
    }

    /// As [`AscendLinear::new`], in NZ, for operators that take weights so; formats as [`packs`] says.
    pub(crate) fn packed(device: &Device, weight: &HostWeight) -> Result<Self, PrepareError> {
        if weight.format() != WeightFormat::Bf16 {
            return Self::new(device, weight);
        }
        let [n, k] = [weight.shape().out_features, weight.shape().in_features];
        let mut packed = Vec::new();
        nz::pack_transposed(weight.value_bytes(), [n, k], DataType::Bf16.num_bytes(), &mut packed);
        Ok(Self { values: device.packed(DataType::Bf16, [k, n], &packed, "a weight")?, scales: None })
    }

    /// `[N, K]`, or `[K, N]` in NZ.
    pub(crate) fn values(&self) -> View {
        self.values.view
    }

    /// `[N]` f32, of i8 values.
    pub(crate) fn scales(&self) -> Option<View> {
        self.scales.as_ref().map(|scales| scales.view)
    }

    /// The same of several weights of one format and width, one below the other.
    pub(crate) fn stacked(device: &Device, weights: &[&HostWeight]) -> Result<Self, PrepareError> {
        let first = weights[0];
        let rows = weights.iter().map(|weight| weight.shape().out_features).sum();
        let bytes = weights.iter().flat_map(|weight| weight.value_bytes()).copied().collect::<Vec<u8>>();
        let scales = weights.iter().flat_map(|weight| weight.scales()).copied().collect::<Vec<f32>>();
        Self::with(device, first.format(), [rows, first.shape().in_features], (&bytes, &scales))
    }

    fn with(
        device: &Device,
        format: WeightFormat,
        dims: [usize; 2],
        (bytes, scales): (&[u8], &[f32]),
    ) -> Result<Self, PrepareError> {
        let data_type = data_type(device, format)?;
        if data_type != DataType::I8 {
            return Ok(Self { values: device.tensor(data_type, dims, bytes, "a weight")?, scales: None });
        }
        let values = if device.fused.int8_in_nz && is_packable(dims) {
            let mut packed = Vec::new();
            nz::pack_transposed(bytes, dims, data_type.num_bytes(), &mut packed);
            device.packed(data_type, [dims[1], dims[0]], &packed, "a weight")?
        } else {
            device.tensor(data_type, dims, bytes, "a weight")?
        };
        let scales = device.tensor(DataType::F32, [dims[0]], scales, "a weight's scales")?;
        Ok(Self { values, scales: Some(scales) })
    }

    /// N.
    pub(crate) fn width(&self) -> usize {
        self.values.view.dim(usize::from(self.values.view.is_nz()))
    }

    /// `x Wᵀ` to `out [T, N]` in bf16.
    pub(crate) fn forward(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        x: &mut Input,
        out: View,
    ) -> Result<(), StepError> {
        let weight = self.values.view;
        if let Some(scales) = &self.scales {
            let x = x.quantised(device, stream)?;
            return device.check(stream.queue.quantised_product(x, [weight, scales.view], out));
        }
        if weight.data_type() == DataType::F32 {
            let wide = stream.scratch(device, Slot::WideOut, DataType::F32, [out.dim(0), out.dim(1)])?;
            self.forward_wide(device, stream, x.plain, wide)?;
            return device.check(stream.queue.copy(out, wide));
        }
        if weight.is_nz() {
            return device.check(stream.queue.nz_product(x.plain, weight, out));
        }
        device.check(stream.queue.product(x.plain, weight.swapped(0, 1), out))
    }

    /// `x Wᵀ` of bf16 inputs to `out [T, N]` in f32.
    pub(crate) fn forward_wide(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        x: View,
        out: View,
    ) -> Result<(), StepError> {
        if self.scales.is_some() {
            // Its operator knows no f32 result.
            let narrow = stream.scratch(device, Slot::Narrow, DataType::Bf16, [out.dim(0), out.dim(1)])?;
            self.forward(device, stream, &mut Input::outer(x), narrow)?;
            return device.check(stream.queue.copy(out, narrow));
        }
        let weight = self.values.view;
        let x = if weight.data_type() == DataType::F32 { widened(device, stream, x)? } else { x };
        device.check(stream.queue.product(x, weight.swapped(0, 1), out))
    }
}

/// True for the sizes of INT8 weights that are multiplied in NZ.
fn is_packable(dims: [usize; 2]) -> bool {
    dims.iter().all(|dim| (MIN_PACKED_WIDTH..=MAX_PACKED_WIDTH).contains(dim))
}

/// `x [T, K]` in f32.
pub(crate) fn widened(device: &Device, stream: &mut AscendStream, x: View) -> Result<View, StepError> {
    let wide = stream.scratch(device, Slot::Wide, DataType::F32, [x.dim(0), x.dim(1)])?;
    device.check(stream.queue.copy(wide, x))?;
    Ok(wide)
}

/// How a weight's values lie on the device.
pub(crate) fn data_type(device: &Device, format: WeightFormat) -> Result<DataType, PrepareError> {
    match format {
        WeightFormat::F32 => Ok(DataType::F32),
        WeightFormat::Bf16 => Ok(DataType::Bf16),
        WeightFormat::Int8Channel if device.has_int8 => Ok(DataType::I8),
        WeightFormat::Int8Channel | WeightFormat::Fp8Block | WeightFormat::Int4Group => Err(refused(device, format)),
    }
}

/// True for the formats that [`AscendLinear::packed`] packs.
pub(crate) fn packs(device: &Device, format: WeightFormat) -> bool {
    match format {
        WeightFormat::Bf16 => device.fused.bf16_in_nz,
        WeightFormat::Int8Channel => device.fused.int8_in_nz,
        WeightFormat::F32 | WeightFormat::Fp8Block | WeightFormat::Int4Group => false,
    }
}

/// True for the formats that models are computed in; f32 is for heads that come in it.
pub(crate) fn computes(device: &Device, format: WeightFormat) -> bool {
    match format {
        WeightFormat::Bf16 => true,
        WeightFormat::Int8Channel => device.has_int8,
        WeightFormat::F32 | WeightFormat::Fp8Block | WeightFormat::Int4Group => false,
    }
}

/// Why a weight is not taken.
pub(crate) fn refused(device: &Device, format: WeightFormat) -> PrepareError {
    let (reason, action) = match format {
        WeightFormat::Int8Channel => ("this CANN lacks its operators", "install CANN 9.0 or later, or use bf16"),
        _ => ("its operators multiply bf16 and INT8", "choose precision bf16 or int8"),
    };
    device.unsupported(format!("{format} weights"), reason, action)
}

/// A prepared token embedding `[vocab, H]`, in bf16.
#[derive(Debug)]
pub struct AscendEmbedding(Matrix);

impl AscendEmbedding {
    pub(crate) fn new(device: &Device, table: &HostWeight) -> Result<Self, PrepareError> {
        let table = table.convert(WeightFormat::Bf16)?;
        let dims = [table.shape().out_features, table.shape().in_features];
        Ok(Self(device.tensor(DataType::Bf16, dims, table.value_bytes(), "the embedding")?))
    }

    /// `out[t] = table[tokens[t]]`.
    pub(crate) fn forward(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        tokens: View,
        out: View,
    ) -> Result<(), StepError> {
        device.check(stream.queue.embed(self.0.view, tokens, out))
    }
}

/// Matrices computed on the host, in bf16.
pub(crate) fn computed<const N: usize>(
    device: &Device,
    dims: [usize; N],
    values: &[f32],
    what: &str,
) -> Result<Matrix, StepError> {
    let values: Vec<bf16> = values.iter().copied().map(bf16::from_f32).collect();
    device.tensor(DataType::Bf16, dims, &values, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_packed_as_far_as_the_product_takes_them() {
        for (dims, fits) in [
            // q_a, kv_a and o of DeepSeek-V3; sizes that fill no tile are filled up.
            ([1536, 7168], true),
            ([576, 7168], true),
            ([7168, 16_384], true),
            ([40, 33], true),
            ([65_535, 2], true),
            ([65_536, 64], false),
            ([64, 65_536], false),
            ([1, 64], false),
            ([64, 1], false),
        ] {
            assert_eq!(is_packable(dims), fits, "{dims:?}");
        }
    }
}
