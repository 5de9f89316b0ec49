//! Linear, RMS norm, gated FFN, the highest logit.

use super::{InputQuantisation, Matrix, Oracle};

/// A weight as real values.
#[derive(Debug, Clone)]
pub struct Linear {
    /// O.
    pub out: usize,
    /// I.
    pub inp: usize,
    real: Vec<f64>,
    input: InputQuantisation,
}

impl Linear {
    /// `real` is row-major `[out, inp]`.
    pub fn new(out: usize, inp: usize, real: Vec<f64>, input: InputQuantisation) -> Self {
        Self { out, inp, real, input }
    }

    /// One row of the weight.
    pub fn row(&self, row: usize) -> &[f64] {
        &self.real[row * self.inp..][..self.inp]
    }

    /// `x Wᵀ`, with quantisation and rounding as the numerics say.
    pub fn apply(&self, oracle: Oracle, x: &Matrix) -> Matrix {
        let mut x = x.clone();
        for row in 0..x.rows() {
            oracle.quantise(self.input, x.row_mut(row));
        }
        let mut y = self.apply_exact(&x);
        oracle.round(&mut y.data);
        y
    }

    /// `x Wᵀ` and nothing else.
    pub fn apply_exact(&self, x: &Matrix) -> Matrix {
        let mut y = Matrix::zeros(x.rows(), self.out);
        for t in 0..x.rows() {
            for (o, y) in y.row_mut(t).iter_mut().enumerate() {
                *y = dot(self.row(o), x.row(t));
            }
        }
        y
    }
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    // Four sums, so that the compiler may keep four additions under way.
    let mut sums = [0.0; 4];
    for (a, b) in a.chunks(4).zip(b.chunks(4)) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

/// `x / sqrt(mean(x²) + eps) · w`, row by row; rounded before and after the product, like the Hugging Face code.
pub fn rms_norm(oracle: Oracle, x: &Matrix, weight: &[f32], eps: f32) -> Matrix {
    let mut y = x.clone();
    for row in 0..x.rows() {
        let row = y.row_mut(row);
        let mean = row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64;
        row.iter_mut().for_each(|v| *v /= (mean + f64::from(eps)).sqrt());
        oracle.round(row);
        row.iter_mut().zip(weight).for_each(|(v, w)| *v *= f64::from(*w));
        oracle.round(row);
    }
    y
}

/// `W_down (silu(W_gate x) ⊙ W_up x)`.
pub fn ffn(oracle: Oracle, [gate, up, down]: [&Linear; 3], x: &Matrix) -> Matrix {
    let mut inner = gate.apply(oracle, x);
    let up = up.apply(oracle, x);
    inner.data.iter_mut().zip(&up.data).for_each(|(g, u)| *g = *g / (1.0 + (-*g).exp()) * u);
    oracle.round(&mut inner.data);
    down.apply(oracle, &inner)
}

/// The first id when all are sorted by falling value; NaN and −∞ are none.
pub fn argmax(logits: &[f32]) -> Option<usize> {
    highest(logits).first().copied()
}

/// Ids sorted by falling value, without those of NaN and −∞.
pub fn highest(logits: &[f32]) -> Vec<usize> {
    let mut ids: Vec<usize> = (0..logits.len()).filter(|id| logits[*id] >= f32::MIN).collect();
    // Stable: equals stay in the order of their ids.
    ids.sort_by(|a, b| f64::from(logits[*b]).partial_cmp(&f64::from(logits[*a])).expect("no NaN is left"));
    ids
}

/// Σ exp((value − highest) · inverse temperature), NaN passed over, smallest first.
pub fn weight(logits: &[f32], inverse_temperature: f64) -> f64 {
    let ids = highest(logits);
    let value = |id: &usize| f64::from(logits[*id]) * inverse_temperature;
    ids.iter().rev().map(|id| (value(id) - value(&ids[0])).exp()).sum()
}
