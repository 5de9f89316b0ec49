//! RMS norms.

use engine_core::backend::StepError;
use half::bf16;

use crate::device::{Device, Matrix};
use crate::driver::{DataType, View};
use crate::scratch::{AscendStream, Slot};

/// A prepared RMS norm. The operator takes the weight in the type of its input, and checkpoints hold it in bf16.
#[derive(Debug)]
pub struct AscendNorm {
    weight: Matrix,
    eps: f32,
}

impl AscendNorm {
    pub(crate) fn new(device: &Device, weight: &[f32], eps: f32) -> Result<Self, StepError> {
        let values: Vec<bf16> = weight.iter().copied().map(bf16::from_f32).collect();
        Ok(Self { weight: device.tensor(DataType::Bf16, [weight.len()], &values, "a norm")?, eps })
    }

    /// `x` and `out` `[T, D]`.
    pub(crate) fn forward(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        x: View,
        out: View,
    ) -> Result<(), StepError> {
        let rstd = stream.scratch(device, Slot::Rstd, DataType::F32, [x.dim(0), 1])?;
        device.check(stream.queue.rms_norm(x, self.weight.view, self.eps, out, rstd))
    }
    /// `sum += x`, and `out` is the norm of that: all `[T, D]`.
    pub(crate) fn forward_sum(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        (x, sum): (View, View),
        out: View,
    ) -> Result<(), StepError> {
        if !device.fused.add_rms_norm {
            device.check(stream.queue.add(sum, x))?;
            return self.forward(device, stream, sum, out);
        }
        let rstd = stream.scratch(device, Slot::Rstd, DataType::F32, [x.dim(0), 1])?;
        device.check(stream.queue.add_rms_norm((x, sum), self.weight.view, self.eps, out, rstd))
    }

    /// The weight `[D]` and ε, for operators that normalise on the way.
    pub(crate) fn parts(&self) -> (View, f32) {
        (self.weight.view, self.eps)
    }
}
