//! Gated FFNs: one product for gate and up, SwiGlu, one product for down.

use engine_core::backend::{FfnWeights, PrepareError, StepError};

use crate::device::Device;
use crate::driver::{DataType, View};
use crate::linear::{AscendLinear, Input, computes, refused};
use crate::scratch::{AscendStream, Slot};

/// A prepared gated FFN.
#[derive(Debug)]
pub struct AscendFfn {
    /// `[2 I, H]`: gate, then up.
    gate_up: AscendLinear,
    down: AscendLinear,
}

impl AscendFfn {
    pub(crate) fn new(device: &Device, weights: &FfnWeights) -> Result<Self, PrepareError> {
        let format = common_format(device, weights)?;
        if !computes(device, format) {
            return Err(refused(device, format));
        }
        Ok(Self {
            gate_up: AscendLinear::stacked(device, &[&weights.gate, &weights.up])?,
            down: AscendLinear::new(device, &weights.down)?,
        })
    }

    /// `x` and `out` `[T, H]`.
    pub(crate) fn forward(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        x: &mut Input,
        out: View,
    ) -> Result<(), StepError> {
        let (num_rows, width) = (out.dim(0), self.gate_up.width());
        let gate_up = stream.scratch(device, Slot::GateUp, DataType::Bf16, [num_rows, width])?;
        let hidden = stream.scratch(device, Slot::Hidden, DataType::Bf16, [num_rows, width / 2])?;
        self.gate_up.forward(device, stream, x, gate_up)?;
        device.check(stream.queue.swi_glu(gate_up, hidden))?;
        self.down.forward(device, stream, &mut Input::inner(hidden), out)
    }
}

/// The one format of an FFN's three weights.
pub(crate) fn common_format(
    device: &Device,
    weights: &FfnWeights,
) -> Result<engine_core::quant::WeightFormat, PrepareError> {
    let [gate, up, down] = [&weights.gate, &weights.up, &weights.down].map(|weight| weight.format());
    if gate == up && up == down {
        return Ok(gate);
    }
    Err(device.unsupported(
        format!("gate, up and down projections in {gate}, {up} and {down}"),
        "gate and up are one product, and its result is the input of down",
        "convert all three to one format",
    ))
}
