//! Activation quantisation (spec section 4), scalar: the specification every device is held against.

use super::FP8_BLOCK;
use super::fp8::{E4M3_MAX, E4M3_TABLE, e4m3_from_f32};

/// Smallest amax of an FP8 group: keeps an all-zero group from dividing by zero.
pub const FP8_AMAX_FLOOR: f32 = 1e-4;

/// Scale of an FP8 activation group with largest magnitude `amax`.
pub fn fp8_scale(amax: f32, ue8m0: bool) -> f32 {
    let scale = amax.max(FP8_AMAX_FLOOR) / E4M3_MAX;
    if ue8m0 { ceil_to_power_of_two(scale) } else { scale }
}

/// Smallest power of two that is not below `x` (positive, normal), by bits so that exact powers stay.
fn ceil_to_power_of_two(x: f32) -> f32 {
    let bits = x.to_bits();
    if bits & 0x7F_FFFF == 0 { x } else { f32::from_bits((bits & 0xFF80_0000) + 0x80_0000) }
}

/// Replaces `x` by what survives quantisation to e4m3 per group of 128 and back. A short last group is its own group.
pub fn fp8_round_trip(x: &mut [f32], ue8m0: bool) {
    for group in x.chunks_mut(FP8_BLOCK) {
        let amax = group.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let scale = fp8_scale(amax, ue8m0);
        for v in group {
            *v = E4M3_TABLE[e4m3_from_f32(*v / scale) as usize] * scale;
        }
    }
}

/// Quantises one token's activations to i8: `q = round(x / scale)`, ties to even, `scale = amax / 127`.
/// Returns the scale; an all-zero row has scale 0 and zeros.
pub fn int8_token(x: &[f32], q: &mut [i8]) -> f32 {
    let amax = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let scale = amax / 127.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    for (q, v) in q.iter_mut().zip(x) {
        *q = (v * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
    }
    scale
}

/// Replaces one token's `x` by what survives [`int8_token`] and back.
pub fn int8_round_trip(x: &mut [f32]) {
    let mut q = vec![0i8; x.len()];
    let scale = int8_token(x, &mut q);
    for (v, q) in x.iter_mut().zip(q) {
        *v = f32::from(q) * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ue8m0_rounds_up_and_keeps_powers_of_two() {
        assert_eq!(fp8_scale(448.0, true), 1.0);
        assert_eq!(fp8_scale(448.1, true), 2.0);
        assert_eq!(fp8_scale(0.5 * 448.0, true), 0.5);
    }

    #[test]
    fn a_zero_group_stays_zero() {
        let mut x = [0.0; 200];
        fp8_round_trip(&mut x, false);
        assert!(x.iter().all(|v| *v == 0.0));
        let mut q = [1i8; 4];
        assert_eq!(int8_token(&[0.0; 4], &mut q), 0.0);
        assert_eq!(q, [0; 4]);
    }
}
