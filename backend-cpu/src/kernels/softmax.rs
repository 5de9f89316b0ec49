//! Online softmax of a tile of scores, sixteen queries side by side.
//!
//! The exponential is our own, made of additions and multiplications in a fixed order: results do not depend on the
//! platform's mathematical library nor on the instruction set, and the compiler turns the loops into vectors.

use crate::simd::{Chunk, Kernel, LANES, Simd};

/// Brings the running softmax of some queries up to date with a tile of keys.
///
/// Each score is replaced by `exp(scale · score − new maximum)`; maximum, sum and weighted values follow.
pub(crate) struct OnlineSoftmax<'a> {
    /// `[keys, queries]`.
    pub(crate) scores: &'a mut [f32],
    /// σ.
    pub(crate) scale: f32,
    /// Maximum and sum of each query.
    pub(crate) max_and_sum: &'a mut [[f32; 2]],
    /// Weighted values of each query, `stride` apart.
    pub(crate) values: &'a mut [f32],
    pub(crate) stride: usize,
}

impl Kernel for OnlineSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        let num_queries = self.max_and_sum.len();
        let mut query = 0;
        while query + LANES <= num_queries {
            let decay = self.sixteen_queries(query);
            for (lane, decay) in decay.into_iter().enumerate() {
                self.scale_values(query + lane, decay);
            }
            query += LANES;
        }
        while query < num_queries {
            let decay = self.one_query(query);
            self.scale_values(query, decay);
            query += 1;
        }
    }
}

impl OnlineSoftmax<'_> {
    /// One query in each lane; returns the factors on what they had before.
    #[inline(always)]
    fn sixteen_queries(&mut self, first: usize) -> Chunk {
        let num_queries = self.max_and_sum.len();
        let (mut max, mut sum, mut decay) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        for lane in 0..LANES {
            max[lane] = self.max_and_sum[first + lane][0];
        }
        let old_max = max;
        for key in self.scores.chunks_mut(num_queries) {
            let scores = &mut key[first..][..LANES];
            for lane in 0..LANES {
                scores[lane] *= self.scale;
                max[lane] = max[lane].max(scores[lane]);
            }
        }
        for key in self.scores.chunks_mut(num_queries) {
            let scores = &mut key[first..][..LANES];
            for lane in 0..LANES {
                scores[lane] = exp_of_negative(scores[lane] - max[lane]);
                sum[lane] += scores[lane];
            }
        }
        for lane in 0..LANES {
            decay[lane] = exp_of_negative(old_max[lane] - max[lane]);
            let old_sum = self.max_and_sum[first + lane][1];
            self.max_and_sum[first + lane] = [max[lane], old_sum * decay[lane] + sum[lane]];
        }
        decay
    }

    /// One key in each lane, for the queries that do not fill a vector: the same values in the same order.
    #[inline(always)]
    fn one_query(&mut self, query: usize) -> f32 {
        let num_queries = self.max_and_sum.len();
        let [old_max, old_sum] = self.max_and_sum[query];
        let (mut max, mut sum) = (old_max, 0.0);
        for key in self.scores.chunks_mut(num_queries) {
            key[query] *= self.scale;
            max = max.max(key[query]);
        }
        for keys in self.scores.chunks_mut(LANES * num_queries) {
            let mut lanes = [0.0; LANES];
            for (lane, key) in lanes.iter_mut().zip(keys.chunks(num_queries)) {
                *lane = key[query] - max;
            }
            for lane in &mut lanes {
                *lane = exp_of_negative(*lane);
            }
            for (lane, key) in lanes.into_iter().zip(keys.chunks_mut(num_queries)) {
                key[query] = lane;
                sum += lane;
            }
        }
        let decay = exp_of_negative(old_max - max);
        self.max_and_sum[query] = [max, old_sum * decay + sum];
        decay
    }

    #[inline(always)]
    fn scale_values(&mut self, query: usize, decay: f32) {
        self.values[query * self.stride..][..self.stride].iter_mut().for_each(|value| *value *= decay);
    }
}

/// e^x for x ≤ 0, within two units in the last place; 0 below −87, where e^x nears the subnormal numbers. NaN stays.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2; e^r by its Taylor polynomial, 2^n by the exponent's bits.
#[inline(always)]
pub(super) fn exp_of_negative(x: f32) -> f32 {
    /// 1.5 · 2^23: adding it rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LOWEST: f32 = -87.0;
    /// ln 2 in two parts; the first has few enough bits that n times it is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x < LOWEST { LOWEST } else { x };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    let mut series = 1.0 / 5040.0;
    for factor in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        series = series * r + factor;
    }
    let power = f32::from_bits(shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
    if x < LOWEST { 0.0 } else { series * power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_within_two_units_in_the_last_place() {
        let mut x = 0.0f32;
        while x > -87.0 {
            let (found, exact) = (f64::from(exp_of_negative(x)), f64::from(x).exp());
            assert!((found / exact - 1.0).abs() < 2.0 * f64::from(f32::EPSILON), "e^{x} = {exact}, not {found}");
            x -= 0.000_37 + x.abs() * 1e-4;
        }
        assert_eq!(exp_of_negative(0.0), 1.0);
        assert_eq!(exp_of_negative(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_of_negative(-88.0), 0.0);
        assert!(exp_of_negative(f32::NAN).is_nan());
    }
}
