//! To INT8 per output channel.

use rayon::prelude::*;

use super::{amax, for_each_row, round_small, scale_for};
use crate::quant::{HostWeight, Int8ChannelWeight, WeightError};

const LARGEST: f32 = 127.0;

/// `scale = amax / 127` per row, `q = round(w / scale)` with ties to even, in −127…127.
pub(super) fn quantise(weight: &HostWeight) -> Result<Int8ChannelWeight, WeightError> {
    let shape = weight.shape();
    let mut values = vec![0i8; shape.num_elements()];
    let mut scales = vec![1.0f32; shape.out_features];
    let rows = values.par_chunks_mut(shape.in_features.max(1)).zip(&mut scales);
    for_each_row(weight, f32::MAX, rows, |real, (row, scale): (&mut [i8], &mut f32)| {
        *scale = scale_for(amax(real), LARGEST);
        for (q, x) in row.iter_mut().zip(real) {
            *q = round_small(*x / *scale).clamp(-LARGEST, LARGEST) as i8;
        }
    })?;
    Int8ChannelWeight::new(shape, values.into(), scales.into())
}
