//! Any processor: plain loops over sixteen values, written so that the compiler vectorises them.

use super::{Chunk, LANES, Simd};

/// No instructions beyond the architecture's baseline.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

/// True where the baseline has a fused multiply-add; elsewhere `mul_add` is a slow library call.
const FUSED: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

impl Simd for Portable {
    type Vector = Chunk;

    const WIDE: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> Chunk {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, from: &Chunk) -> Chunk {
        *from
    }

    #[inline(always)]
    fn prefetch<T>(self, _: *const T) {}

    #[inline(always)]
    fn store(self, vector: Chunk, to: &mut Chunk) {
        *to = vector;
    }

    #[inline(always)]
    fn mul(self, a: Chunk, b: Chunk) -> Chunk {
        let mut out = a;
        for i in 0..LANES {
            out[i] *= b[i];
        }
        out
    }

    #[inline(always)]
    fn fma(self, a: Chunk, b: Chunk, c: Chunk) -> Chunk {
        let mut out = c;
        for i in 0..LANES {
            out[i] = if FUSED { a[i].mul_add(b[i], c[i]) } else { a[i] * b[i] + c[i] };
        }
        out
    }

    #[inline(always)]
    fn sum(self, mut vector: Chunk) -> f32 {
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                vector[i] += vector[i + half];
            }
            half /= 2;
        }
        vector[0]
    }

    #[inline(always)]
    fn sum4(self, [a, b, c, d]: [Chunk; 4]) -> [f32; 4] {
        [self.sum(a), self.sum(b), self.sum(c), self.sum(d)]
    }

    #[inline(always)]
    fn bf16(self, from: &[u16; LANES]) -> Chunk {
        let mut out = [0.0; LANES];
        for i in 0..LANES {
            out[i] = f32::from_bits(u32::from(from[i]) << 16);
        }
        out
    }

    #[inline(always)]
    fn e4m3_div_256(self, from: &[u8; LANES]) -> Chunk {
        let mut out = [0.0; LANES];
        for i in 0..LANES {
            let magnitude = u32::from(from[i] & 0x7F);
            // Exponent bias 7 becomes 127 - 8; a subnormal is its mantissa times 2^-9 · 2^-8.
            let normal = (magnitude << 20) + ((127 - 7 - 8) << 23);
            let subnormal = (magnitude as f32 * (1.0 / 131_072.0)).to_bits();
            let bits = if magnitude < 8 { subnormal } else { normal };
            out[i] = f32::from_bits(bits | (u32::from(from[i] & 0x80) << 24));
        }
        out
    }

    #[inline(always)]
    fn has_e4m3_nan(self, chunks: &[[u8; LANES]]) -> bool {
        let mut largest = [0; LANES];
        for chunk in chunks {
            for i in 0..LANES {
                largest[i] = largest[i].max(chunk[i] & 0x7F);
            }
        }
        largest.contains(&0x7F)
    }

    #[inline(always)]
    fn i8(self, from: &[i8; LANES]) -> Chunk {
        let mut out = [0.0; LANES];
        for i in 0..LANES {
            out[i] = f32::from(from[i]);
        }
        out
    }

    #[inline(always)]
    fn int4(self, from: &[u8; LANES / 2]) -> Chunk {
        let mut out = [0.0; LANES];
        for i in 0..LANES / 2 {
            out[2 * i] = f32::from(from[i] & 0xF) - 8.0;
            out[2 * i + 1] = f32::from(from[i] >> 4) - 8.0;
        }
        out
    }
}
