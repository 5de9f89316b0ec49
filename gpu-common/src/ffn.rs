//! Gated FFNs: `down(silu(gate x) ⊙ up x)`, of one FFN or of all experts of a layer.

use engine_core::backend::{PrepareError, StepError};
use engine_core::quant::HostWeight;

use crate::device::Device;
use crate::linear::GpuLinear;
use crate::matrix::{Matrices, ROW_MULTIPLE};
use crate::product::{Family, Input, Kernels, Output, ProductKernels, Rows};
use crate::runtime::GpuRuntime;
use crate::scratch::{GpuStream, Slot};
use crate::wide::Wide;

/// Prepared gated FFNs of equal shape.
#[derive(Debug)]
pub struct GpuFfn<R: GpuRuntime> {
    gate: Matrices<R>,
    up: Matrices<R>,
    gate_up: ProductKernels<R::Kernel>,
    gate_up_wide: Wide<R>,
    down: GpuLinear<R>,
}

impl<R: GpuRuntime> GpuFfn<R> {
    pub(crate) fn new(
        device: &Device<R>,
        gate: &[HostWeight],
        up: &[HostWeight],
        down: &[HostWeight],
    ) -> Result<Self, PrepareError> {
        let (gate, up) = (Matrices::of_many(device, gate)?, Matrices::of_many(device, up)?);
        let same = (gate.format, gate.scheme, gate.shape_args()) == (up.format, up.scheme, up.shape_args());
        if !same {
            return Err(device.unsupported(
                format!("a gate projection in {} beside an up projection in {}", gate.format, up.format),
                "both are read by one kernel",
                "convert both to one format",
            ));
        }
        let gate_up = ProductKernels::new(device, Family::GateUp, &gate)?;
        let gate_up_wide = Wide::new(device, gate_up.takes_codes(), &[&gate, &up])?;
        let down = GpuLinear::of_matrices(device, Matrices::of_many(device, down)?)?;
        Ok(Self { gate, up, gate_up, gate_up_wide, down })
    }

    /// Rows of an expert's tiles where the device has its own kernels for `num_rows` tokens, of which each expert has
    /// about `rows_per_expert`.
    pub(crate) fn wide_tile_rows(&self, device: &Device<R>, num_rows: u32, rows_per_expert: u32) -> Option<u32> {
        self.down.wide().tile_rows(device, num_rows, rows_per_expert)?;
        self.gate_up_wide.tile_rows(device, num_rows, rows_per_expert)
    }

    /// Rows of an expert's tiles where each expert has about `rows_per_expert`.
    pub(crate) fn tile_rows(&self, rows_per_expert: u32) -> u32 {
        self.gate_up.tile_rows(rows_per_expert)
    }

    /// Width of the input and of the result.
    pub(crate) fn hidden_size(&self) -> u32 {
        self.gate.k
    }

    /// True where both FFNs take the same quantised input.
    pub(crate) fn shares_input_with(&self, other: &Self) -> bool {
        (self.gate_up.takes_codes(), self.gate.scheme, self.gate.k)
            == (other.gate_up.takes_codes(), other.gate.scheme, other.gate.k)
    }

    /// The input as the gate and up projections take it.
    pub(crate) fn quantised(
        &self,
        (device, kernels): (&Device<R>, &Kernels<R::Kernel>),
        stream: &mut GpuStream<R>,
        input: Input,
    ) -> Result<Input, StepError> {
        match self.gate_up.takes_codes() {
            true => device.quantised(kernels, stream, (input, &self.gate), [Slot::Codes, Slot::CodeScales]),
            false => Ok(input),
        }
    }

    /// From a quantised input to `out`; `num_rows` inner rows, one for each that is computed. `rows` says how rows meet the
    /// gate and up projections, and how inner rows meet the down projection.
    pub(crate) fn forward(
        &self,
        (device, kernels): (&Device<R>, &Kernels<R::Kernel>),
        stream: &mut GpuStream<R>,
        (input, num_rows): (Input, u32),
        out: u64,
        [inner_rows, outer_rows]: [Rows; 2],
    ) -> Result<(), StepError> {
        let stride = self.gate.n.next_multiple_of(ROW_MULTIPLE as u32);
        let hidden = stream.scratch(device, Slot::Hidden, num_rows as usize * stride as usize * 2)?;
        let to_hidden = Output { address: hidden, cols: stride, stride, is_f32: false };
        match self.gate_up_wide.for_rows(input, inner_rows) {
            Some(wide) => device.wide_product(stream, wide, (input, to_hidden), inner_rows)?,
            None => {
                let weights = [self.gate.args(), self.up.args()];
                device.product(stream, &self.gate_up, &weights, (input, to_hidden), inner_rows)?;
            }
        }
        let hidden = Input { address: hidden, scales: 0, num_rows, stride };
        let slots = [Slot::InnerCodes, Slot::InnerCodeScales];
        let hidden = self.down.quantised((device, kernels), stream, hidden, slots)?;
        self.down.forward(device, stream, hidden, self.down.output(out), outer_rows)
    }
}
