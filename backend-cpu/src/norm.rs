//! RMS norm (spec section 3).

use crate::gemm::Machine;
use crate::grid::for_each_row;

/// Weight and epsilon.
#[derive(Debug, Clone)]
pub struct Norm {
    weight: Vec<f32>,
    eps: f32,
}

impl Norm {
    pub(crate) fn new(weight: &[f32], eps: f32) -> Self {
        Self { weight: weight.to_vec(), eps }
    }

    /// `x · (mean(x²) + eps)^(−1/2) · weight` of one row.
    pub(crate) fn row(&self, x: &[f32], out: &mut [f32]) {
        let factor = self.factor(x);
        for ((out, x), weight) in out.iter_mut().zip(x).zip(&self.weight) {
            *out = x * factor * weight;
        }
    }

    /// As [`Norm::row`], in place.
    pub(crate) fn row_in_place(&self, x: &mut [f32]) {
        let factor = self.factor(x);
        for (x, weight) in x.iter_mut().zip(&self.weight) {
            *x = *x * factor * weight;
        }
    }

    fn factor(&self, x: &[f32]) -> f32 {
        let mean = sum_of_squares(x) / x.len() as f64;
        (mean + f64::from(self.eps)).sqrt().recip() as f32
    }

    /// Every row of `x [T, D]`.
    pub(crate) fn rows(&self, machine: Machine<'_>, x: &[f32], out: &mut [f32]) {
        let cols = self.weight.len();
        for_each_row(machine.threads, out, cols, |row, out| self.row(&x[row * cols..][..cols], out));
    }

    /// Every row of `x [T, D]`, in place.
    pub(crate) fn rows_in_place(&self, machine: Machine<'_>, x: &mut [f32]) {
        for_each_row(machine.threads, x, self.weight.len(), |_, x| self.row_in_place(x));
    }
}

/// Σ x² in f64: value `i` goes to lane `i % 8`, the lanes are added in order.
fn sum_of_squares(x: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 8];
    let (chunks, rest) = x.as_chunks::<8>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(*x) * f64::from(*x);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(*x) * f64::from(*x);
    }
    lanes.iter().sum()
}
