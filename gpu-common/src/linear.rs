//! Linears and the embedding.

use engine_core::backend::{PrepareError, StepError};
use engine_core::quant::HostWeight;

use crate::device::Device;
use crate::matrix::{Matrices, MatrixArgs, format_name};
use crate::product::{Family, Input, Kernels, Output, ProductKernels, Rows};
use crate::runtime::{Arg, GpuRuntime, LaunchShape};
use crate::scratch::{GpuStream, Slot};
use crate::wide::Wide;

/// A prepared linear weight.
#[derive(Debug)]
pub struct GpuLinear<R: GpuRuntime> {
    pub(crate) weight: Matrices<R>,
    kernels: ProductKernels<R::Kernel>,
    wide: Wide<R>,
}

impl<R: GpuRuntime> GpuLinear<R> {
    pub(crate) fn new(device: &Device<R>, weight: &HostWeight) -> Result<Self, PrepareError> {
        Self::of_matrices(device, Matrices::new(device, weight)?)
    }

    pub(crate) fn of_matrices(device: &Device<R>, weight: Matrices<R>) -> Result<Self, PrepareError> {
        let kernels = ProductKernels::new(device, Family::Linear, &weight)?;
        let wide = Wide::new(device, kernels.takes_codes(), &[&weight])?;
        Ok(Self { weight, kernels, wide })
    }

    /// The device's own kernels for many rows, if it has them for this weight.
    pub(crate) fn wide(&self) -> &Wide<R> {
        &self.wide
    }

    /// The input of an op as this weight takes it: quantised by its scheme where the backend does that.
    pub(crate) fn quantised(
        &self,
        (device, kernels): (&Device<R>, &Kernels<R::Kernel>),
        stream: &mut GpuStream<R>,
        input: Input,
        slots: [Slot; 2],
    ) -> Result<Input, StepError> {
        match self.kernels.takes_codes() {
            true => device.quantised(kernels, stream, (input, &self.weight), slots),
            false => Ok(input),
        }
    }

    /// True where both weights take the same quantised input.
    pub(crate) fn shares_input_with(&self, other: &Self) -> bool {
        (self.kernels.takes_codes(), self.weight.scheme, self.weight.k)
            == (other.kernels.takes_codes(), other.weight.scheme, other.weight.k)
    }

    /// `x Wᵀ` of the input as it is: values, or codes from [`GpuLinear::quantised`].
    pub(crate) fn forward(
        &self,
        device: &Device<R>,
        stream: &mut GpuStream<R>,
        input: Input,
        output: Output,
        rows: Rows,
    ) -> Result<(), StepError> {
        match self.wide.for_rows(input, rows) {
            Some(wide) => device.wide_product(stream, wide, (input, output), rows),
            None => self.product(device, stream, self.weight.args(), (input, output), rows),
        }
    }

    /// The same of some of the weight's matrices, or of others of its format, as [`MatrixArgs`] says.
    pub(crate) fn product(
        &self,
        device: &Device<R>,
        stream: &mut GpuStream<R>,
        matrices: MatrixArgs,
        (input, output): (Input, Output),
        rows: Rows,
    ) -> Result<(), StepError> {
        device.product(stream, &self.kernels, &[matrices], (input, output), rows)
    }

    /// As many columns as the weight has rows, side by side.
    pub(crate) fn output(&self, address: u64) -> Output {
        Output { address, cols: self.weight.n, stride: self.weight.n, is_f32: false }
    }
}

/// A prepared token embedding.
#[derive(Debug)]
pub struct GpuEmbedding<R: GpuRuntime> {
    table: Matrices<R>,
    kernel: R::Kernel,
}

impl<R: GpuRuntime> GpuEmbedding<R> {
    pub(crate) fn new(device: &Device<R>, table: &HostWeight) -> Result<Self, PrepareError> {
        let kernel = device.runtime().kernel("elementwise", &format!("embed_{}", format_name(table.format())))?;
        Ok(Self { table: Matrices::new(device, table)?, kernel })
    }

    /// `out[t] = table[tokens[t]]`.
    pub(crate) fn forward(
        &self,
        device: &Device<R>,
        stream: &mut GpuStream<R>,
        (tokens, num_tokens): (u64, u32),
        out: u64,
    ) -> Result<(), StepError> {
        let [values, scales] = self.table.pointers();
        let [n, k, row_bytes, group] = self.table.shape_args();
        let args = [Arg::Ptr(tokens), values, scales, Arg::Ptr(out), n, k, row_bytes, group];
        device.launch(&mut stream.queue, &self.kernel, LaunchShape::linear(num_tokens, device.threads()), &args)
    }
}
