//! RMS norms.

use engine_core::backend::{PrepareError, StepError};

use crate::device::{Device, Memory};
use crate::runtime::{Arg, GpuRuntime, LaunchShape};
use crate::scratch::GpuStream;

/// A prepared RMS norm.
#[derive(Debug)]
pub struct GpuNorm<R: GpuRuntime> {
    pub(crate) weight: Memory<R>,
    pub(crate) eps: f32,
    rms_norm: R::Kernel,
    add_rms_norm: R::Kernel,
}

impl<R: GpuRuntime> GpuNorm<R> {
    pub(crate) fn new(device: &Device<R>, weight: &[f32], eps: f32) -> Result<Self, PrepareError> {
        Ok(Self {
            weight: device.uploaded(bytemuck::cast_slice(weight), "a norm")?,
            eps,
            rms_norm: device.runtime().kernel("norm", "rms_norm")?,
            add_rms_norm: device.runtime().kernel("norm", "add_rms_norm")?,
        })
    }

    /// `out = norm(x)`; rows are `x_stride` and `out_stride` elements apart, the rest of a row of `out` becomes zero.
    pub(crate) fn forward(
        &self,
        device: &Device<R>,
        stream: &mut GpuStream<R>,
        (num_rows, cols): (u32, u32),
        (x, x_stride): (u64, u32),
        (out, out_stride): (u64, u32),
    ) -> Result<(), StepError> {
        let [cols, x_stride, out_stride] = [cols, x_stride, out_stride].map(Arg::U32);
        let args = [Arg::Ptr(x), self.weight.arg(), Arg::Ptr(out), cols, x_stride, out_stride, Arg::F32(self.eps)];
        device.launch(&mut stream.queue, &self.rms_norm, Self::shape(device, num_rows), &args)
    }

    /// `residual += delta`, `out = norm(residual)`, all `[num_rows, cols]`.
    pub(crate) fn forward_sum(
        &self,
        device: &Device<R>,
        stream: &mut GpuStream<R>,
        (num_rows, cols): (u32, u32),
        [delta, residual, out]: [u64; 3],
    ) -> Result<(), StepError> {
        let [delta, residual, out] = [delta, residual, out].map(Arg::Ptr);
        let args = [delta, self.weight.arg(), residual, out, Arg::U32(cols), Arg::F32(self.eps)];
        device.launch(&mut stream.queue, &self.add_rms_norm, Self::shape(device, num_rows), &args)
    }

    fn shape(device: &Device<R>, num_rows: u32) -> LaunchShape {
        LaunchShape::linear(num_rows, device.threads()).with_shared(device.wave_floats(1))
    }
}
