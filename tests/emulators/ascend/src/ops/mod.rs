//! Operators: what each accepts on Atlas A2 and A3 by its reference, and its arithmetic: sums in f32, results rounded once
//! to the output's type, ties to even.

pub(crate) mod attention;
pub(crate) mod elementwise;
pub(crate) mod fused_attention;
pub(crate) mod fused_experts;
pub(crate) mod moe;
pub(crate) mod products;
pub(crate) mod prolog;

use crate::machine::Outcome;
use crate::operator::require;
use crate::tensor::View;

/// Refuses unless two shapes are equal.
fn same_shape(what: &str, found: &[usize], expected: &[usize]) -> Outcome<()> {
    require(found == expected, || format!("{what} {found:?}, expected {expected:?}"))
}

/// Refuses unless a tensor is dense.
fn dense(what: &str, view: &View) -> Outcome<()> {
    require(view.is_dense(), || format!("{what} {:?} with strides {:?} is not dense", view.dims, view.strides))
}

/// A view with the dimensions of another: axes of one element, and missing ones in front, repeat.
fn broadcast(view: &View, dims: &[usize]) -> Outcome<View> {
    let missing = dims.len().checked_sub(view.dims.len());
    let fits = missing.is_some_and(|missing| {
        view.dims.iter().zip(&dims[missing..]).all(|(found, wanted)| *found == 1 || found == wanted)
    });
    require(fits, || format!("{:?} cannot be broadcast to {dims:?}", view.dims))?;
    let missing = missing.unwrap_or(0);
    let stride = |axis: usize| match axis.checked_sub(missing) {
        Some(own) if view.dims[own] > 1 => view.strides[own],
        _ => 0,
    };
    Ok(View { dims: dims.to_vec(), strides: (0..dims.len()).map(stride).collect(), ..view.clone() })
}

/// Σ a·b in f32, sixteen sums side by side.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 16];
    let (a_chunks, b_chunks) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// i8 codes of a row and their scale: `max |x| / 127`, ties to even; zeros and 0 for a row of zeros.
fn quantise_row(x: &[f32], codes: &mut Vec<f32>) -> f32 {
    let scale = x.iter().fold(0.0_f32, |max, value| max.max(value.abs())) / 127.0;
    let code = |value: &f32| if scale > 0.0 { (value / scale).round_ties_even() } else { 0.0 };
    codes.extend(x.iter().map(code));
    scale
}

/// silu(first half) · second half of each row.
fn swi_glu(x: &[f32], width: usize) -> Vec<f32> {
    let row = |row: &[f32]| -> Vec<f32> {
        let (gate, up) = row.split_at(width / 2);
        gate.iter().zip(up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect()
    };
    x.chunks(width).flat_map(row).collect()
}
