//! Maximum, softmax and their logarithms over one row of logits.

/// Lanes of maximum and sum, so that several values are taken at a time and yet in the same order everywhere.
const LANES: usize = 16;

/// The id of the highest logit, the lowest id of equals. NaN is never chosen; `None` if all are NaN or −∞.
pub fn argmax(logits: &[f32]) -> Option<u32> {
    let max = maximum(logits);
    if max == f32::NEG_INFINITY {
        return None;
    }
    logits.iter().position(|&l| l == max).map(|id| id as u32)
}

/// The highest logit, NaN passed over; −∞ if there is none.
pub(super) fn maximum(logits: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane = if logit > *lane { logit } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &l| if l > max { l } else { max })
}

/// The sum in f64: every 16th value together, then these sums in order.
pub(super) fn sum(weights: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; LANES];
    let (chunks, rest) = weights.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &weight) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(weight);
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|&weight| f64::from(weight)).sum::<f64>()
}

/// `ln Σ exp(logit)`, summed in f64. NaN if a logit is NaN or +∞; −∞ if all are −∞.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = f64::from(maximum(logits));
    if max == f64::NEG_INFINITY {
        return if logits.iter().any(|l| l.is_nan()) { f64::NAN } else { max };
    }
    max + logits.iter().map(|&l| (f64::from(l) - max).exp()).sum::<f64>().ln()
}

/// Log-probability of `id` under the softmax of `logits`, summed in f64.
///
/// # Panics
/// When `id` is not below `logits.len()`.
pub fn log_softmax_at(logits: &[f32], id: usize) -> f64 {
    f64::from(logits[id]) - log_sum_exp(logits)
}

/// `exp(x)` for `x <= 0`, within 2 units in the last place; 0 below −87 and for NaN.
///
/// Additions, multiplications and bit patterns alone, so that a draw is the same on every platform, which the standard
/// library's `exp` does not promise. Cephes' polynomial on the remainder by ln 2.
pub(super) fn exp_nonpositive(x: f32) -> f32 {
    const SMALLEST: f32 = -87.0;
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to an integer
    const LN2_HIGH: f32 = 0.693_359_4; // 355/512, exact in few bits
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x > SMALLEST { x } else { SMALLEST };
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4_f32;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.0e-1] {
        p = p * r + coefficient;
    }
    // The low bits of `rounded` are n; those of ROUND itself leave at the top.
    let power = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    let y = (p * r * r + r + 1.0) * power;
    if x >= SMALLEST { y } else { 0.0 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn exp_is_within_two_ulp() {
        let mut worst = 0.0_f64;
        for i in 0..=870_000 {
            let x = -(i as f32) * 1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp_nonpositive(x)) / exact - 1.0).abs());
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "{worst:e}");
        assert_eq!(exp_nonpositive(0.0), 1.0);
        assert_eq!(exp_nonpositive(-87.01), 0.0);
        assert_eq!(exp_nonpositive(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_nonpositive(f32::NAN), 0.0);
    }

    #[test]
    fn argmax_takes_the_lowest_of_equals_and_never_nan() {
        assert_eq!(argmax(&[1.0, f32::NAN, 3.0, 3.0]), Some(2));
        assert_eq!(argmax(&[f32::NAN, f32::NEG_INFINITY]), None);
        assert_eq!(argmax(&[]), None);
        assert_eq!(argmax(&[0.0, f32::INFINITY, f32::INFINITY]), Some(1));
        let mut logits = vec![-1.0; 1000];
        for id in [0, 15, 16, 500, 999] {
            logits[id] = 1.0;
            assert_eq!(argmax(&logits), Some(id as u32));
            logits[id] = -1.0;
        }
    }

    #[test]
    fn log_softmax_stands_large_and_tiny_logits() {
        let logits = [1000.0, 1001.0, f32::NEG_INFINITY];
        let expected = -(1.0 + 1.0_f64.exp()).ln();
        assert!((log_softmax_at(&logits, 0) - expected).abs() < 1e-12);
        assert_eq!(log_softmax_at(&logits, 2), f64::NEG_INFINITY);
        let flat = vec![-3.5; 129_280];
        assert!((log_softmax_at(&flat, 7) + 129_280_f64.ln()).abs() < 1e-9);
        assert!(log_softmax_at(&[0.0, f32::NAN], 0).is_nan());
    }
}
