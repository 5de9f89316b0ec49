//! Conversion of host weights between formats, while loading and when writing a converted checkpoint.
//!
//! Every conversion goes through the real values (`stored × scale`, rounded once to f32), row by row in parallel. Rows
//! and blocks are independent and each is evaluated in a fixed order, so the result does not depend on the number of
//! threads.
//!
//! An all-zero row, group or block gets scale 1: its stored values are zero, and nothing that divides by a scale
//! meets a zero. So does one whose scale would be below the smallest normal f32, since such a scale has lost its
//! digits.

mod fp8;
mod int4;
mod int8;

use rayon::prelude::*;

use super::{Bf16Weight, F32Weight, HostWeight, Precision, WeightError, WeightFormat};

/// Largest f32 that does not round to infinity in bf16: one bit below the middle of bf16's maximum and 2^128.
const LARGEST_TO_BF16: f32 = f32::from_bits(0x7F7F_7FFF);

/// The format a weight stored as `stored` gets when `precision` is asked for; `Auto` keeps it.
pub fn target_format(precision: Precision, stored: WeightFormat) -> WeightFormat {
    match precision {
        Precision::Auto => stored,
        Precision::Fp8 => WeightFormat::Fp8Block,
        Precision::Bf16 => WeightFormat::Bf16,
        Precision::Int8 => WeightFormat::Int8Channel,
        Precision::Int4 => WeightFormat::Int4Group,
    }
}

impl HostWeight {
    /// The same matrix in another format; the same format is a cheap clone and checks nothing.
    ///
    /// * f32: the real values.
    /// * bf16: real values rounded to nearest, ties to even.
    /// * fp8: `scale = amax / 448` of each 128 x 128 block, values to the nearest e4m3, ties to even (spec section 4).
    /// * int8: `scale = amax / 127` of each output row, values to the nearest integer, ties to even.
    /// * int4: groups of [`INT4_GROUP`](super::INT4_GROUP) inputs; the scale of a group is the one of `amax / 7`,
    ///   `/ 7.5`, `/ 8`, `/ 8.5` with the least squared error. Clipping the largest value a little costs less than it
    ///   gains on the others: a fifth of the squared error of `amax / 7` on normally distributed weights.
    ///
    /// # Errors
    /// [`WeightError::NotFinite`] with the first (row, column) whose real value is NaN, infinite or too large for the
    /// target format.
    pub fn convert(&self, target: WeightFormat) -> Result<HostWeight, WeightError> {
        if self.format() == target {
            return Ok(self.clone());
        }
        match target {
            WeightFormat::F32 => to_f32(self).map(HostWeight::F32),
            WeightFormat::Bf16 => to_bf16(self).map(HostWeight::Bf16),
            WeightFormat::Fp8Block => fp8::quantise(self).map(HostWeight::Fp8Block),
            WeightFormat::Int8Channel => int8::quantise(self).map(HostWeight::Int8Channel),
            WeightFormat::Int4Group => int4::quantise(self).map(HostWeight::Int4Group),
        }
    }
}

fn to_f32(weight: &HostWeight) -> Result<F32Weight, WeightError> {
    let shape = weight.shape();
    let mut values = vec![0.0f32; shape.num_elements()];
    let rows = values.par_chunks_mut(shape.in_features.max(1));
    for_each_row(weight, f32::MAX, rows, |real, row: &mut [f32]| row.copy_from_slice(real))?;
    F32Weight::new(shape, values.into())
}

fn to_bf16(weight: &HostWeight) -> Result<Bf16Weight, WeightError> {
    let shape = weight.shape();
    let mut values = vec![half::bf16::ZERO; shape.num_elements()];
    let rows = values.par_chunks_mut(shape.in_features.max(1));
    for_each_row(weight, LARGEST_TO_BF16, rows, |real, row: &mut [half::bf16]| {
        for (v, x) in row.iter_mut().zip(real) {
            *v = half::bf16::from_f32(*x);
        }
    })?;
    Bf16Weight::new(shape, values.into())
}

/// Calls `write` with the real values of every row and that row's destination, in parallel.
///
/// # Errors
/// [`WeightError::NotFinite`] for the first row with a value that is NaN or above `largest` in magnitude.
fn for_each_row<D: Send>(
    weight: &HostWeight,
    largest: f32,
    destinations: impl IndexedParallelIterator<Item = D>,
    write: impl Fn(&[f32], D) + Sync + Send,
) -> Result<(), WeightError> {
    let num_columns = weight.shape().in_features;
    let first_error = destinations
        .enumerate()
        .map_init(
            || vec![0.0f32; num_columns],
            |real, (row, destination)| {
                read_row(weight, row, largest, real)?;
                write(real, destination);
                Ok(())
            },
        )
        .find_map_first(Result::err);
    first_error.map_or(Ok(()), Err)
}

/// Reads the real values of `row` and refuses what the target cannot hold.
fn read_row(weight: &HostWeight, row: usize, largest: f32, real: &mut [f32]) -> Result<(), WeightError> {
    weight.row_f32(row, real);
    // Bits compare as magnitudes once the sign is gone, NaN above everything.
    let limit = largest.to_bits();
    if real.iter().fold(0, |m, v| v.abs().to_bits().max(m)) <= limit {
        return Ok(());
    }
    match real.iter().position(|v| v.abs().to_bits() > limit) {
        None => Ok(()),
        Some(column) => Err(WeightError::NotFinite { tensor: "weight".into(), row, column, value: real[column] }),
    }
}

/// Largest magnitude.
fn amax(values: &[f32]) -> f32 {
    // Through bits, which compare like magnitudes, because an integer maximum vectorises and f32::max does not.
    f32::from_bits(values.iter().fold(0, |m, v| v.abs().to_bits().max(m)))
}

/// `amax / levels`, or 1 where that would be zero or subnormal (see the module).
fn scale_for(amax: f32, levels: f32) -> f32 {
    let scale = amax / levels;
    if scale >= f32::MIN_POSITIVE { scale } else { 1.0 }
}

/// Nearest integer, ties to even, for |x| < 2^22: adding 1.5 · 2^23 leaves no fraction bits. Vectorises on every
/// target, where `round_ties_even` is a library call without SSE4.1.
fn round_small(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (x + SHIFT) - SHIFT
}

#[cfg(test)]
mod tests;
