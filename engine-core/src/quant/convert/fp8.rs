//! To FP8 with block scales.

use rayon::prelude::*;

use super::{amax, read_row, scale_for};
use crate::quant::fp8::{E4M3_MAX, e4m3_from_f32};
use crate::quant::{FP8_BLOCK, Fp8BlockWeight, HostWeight, ScaleFormat, WeightError};

/// `scale = amax / 448` of each 128 x 128 block (edge blocks: of what is there, which padding with zeros equals).
pub(super) fn quantise(weight: &HostWeight) -> Result<Fp8BlockWeight, WeightError> {
    let shape = weight.shape();
    let blocks = shape.in_features.div_ceil(FP8_BLOCK);
    let mut values = vec![0u8; shape.num_elements()];
    let mut scales = vec![1.0f32; shape.out_features.div_ceil(FP8_BLOCK) * blocks];
    let first_error = values
        .par_chunks_mut((FP8_BLOCK * shape.in_features).max(1))
        .zip(scales.par_chunks_mut(blocks.max(1)))
        .enumerate()
        .map(|(block_row, (values, scales))| quantise_block_row(weight, block_row * FP8_BLOCK, values, scales))
        .find_map_first(Result::err);
    if let Some(error) = first_error {
        return Err(error);
    }
    Fp8BlockWeight::new(shape, values.into(), scales.into(), ScaleFormat::F32)
}

/// Two passes over the 128 rows from `first_row`, so that one row of real values is all the scratch there is.
fn quantise_block_row(
    weight: &HostWeight,
    first_row: usize,
    values: &mut [u8],
    scales: &mut [f32],
) -> Result<(), WeightError> {
    let num_columns = weight.shape().in_features;
    let num_rows = values.len() / num_columns;
    let mut real = vec![0.0f32; num_columns];
    scales.fill(0.0);
    for row in first_row..first_row + num_rows {
        read_row(weight, row, f32::MAX, &mut real)?;
        for (largest, block) in scales.iter_mut().zip(real.chunks(FP8_BLOCK)) {
            *largest = largest.max(amax(block));
        }
    }
    for scale in scales.iter_mut() {
        *scale = scale_for(*scale, E4M3_MAX);
    }
    for (row, values) in (first_row..).zip(values.chunks_mut(num_columns)) {
        weight.row_f32(row, &mut real);
        let blocks = values.chunks_mut(FP8_BLOCK).zip(real.chunks(FP8_BLOCK));
        for ((values, real), scale) in blocks.zip(scales.iter()) {
            for (v, x) in values.iter_mut().zip(real) {
                *v = e4m3_from_f32(x / scale);
            }
        }
    }
    Ok(())
}
