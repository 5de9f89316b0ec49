//! AVX2 with FMA and F16C: two registers per logical vector.

use std::arch::x86_64::*;

use super::{Chunk, Kernel, LANES, Simd};

/// Proof that the processor has AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

/// Lanes 0..8 and 8..16.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair(__m256, __m256);

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        let present =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        present.then_some(Self(()))
    }

    #[inline]
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn compiled_for_avx2<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: `self` exists only where `detect` found these features.
        unsafe { compiled_for_avx2(self, kernel) }
    }

    /// Widens sixteen integers.
    #[inline(always)]
    fn widen(self, bytes: __m128i) -> Pair {
        // SAFETY: `self` proves AVX2; register operations only.
        unsafe {
            let low = _mm256_cvtepi8_epi32(bytes);
            let high = _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes));
            Pair(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }
}

impl Simd for Avx2 {
    type Vector = Pair;

    const WIDE: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> Pair {
        // SAFETY: `self` proves AVX.
        let half = unsafe { _mm256_set1_ps(value) };
        Pair(half, half)
    }

    #[inline(always)]
    fn load(self, from: &Chunk) -> Pair {
        // SAFETY: `self` proves AVX; a chunk is 64 readable bytes and the loads are unaligned.
        unsafe { Pair(_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))) }
    }

    #[inline(always)]
    fn prefetch<T>(self, address: *const T) {
        // SAFETY: a hint: no address faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    fn store(self, vector: Pair, to: &mut Chunk) {
        // SAFETY: `self` proves AVX; a chunk is 64 writable bytes and the stores are unaligned.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), vector.0);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), vector.1);
        }
    }

    #[inline(always)]
    fn mul(self, a: Pair, b: Pair) -> Pair {
        // SAFETY: `self` proves AVX.
        unsafe { Pair(_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn fma(self, a: Pair, b: Pair, c: Pair) -> Pair {
        // SAFETY: `self` proves FMA.
        unsafe { Pair(_mm256_fmadd_ps(a.0, b.0, c.0), _mm256_fmadd_ps(a.1, b.1, c.1)) }
    }

    #[inline(always)]
    fn sum(self, vector: Pair) -> f32 {
        // SAFETY: `self` proves AVX; register operations only.
        unsafe {
            let eight = _mm256_add_ps(vector.0, vector.1);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    /// Lanes of 128 bits: of `a` and `b`, then of `c` and `d`, then four by four values.
    #[inline(always)]
    fn sum4(self, [a, b, c, d]: [Pair; 4]) -> [f32; 4] {
        // SAFETY: `self` proves AVX; register operations and a store to sixteen writable bytes.
        unsafe {
            let eights = [a, b, c, d].map(|v| _mm256_add_ps(v.0, v.1));
            let [a, b, c, d] = eights.map(|v| _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v)));
            let ab = _mm_add_ps(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a));
            let cd = _mm_add_ps(_mm_movelh_ps(c, d), _mm_movehl_ps(d, c));
            let sums = _mm_add_ps(_mm_shuffle_ps::<0b10_00_10_00>(ab, cd), _mm_shuffle_ps::<0b11_01_11_01>(ab, cd));
            let mut out = [0.0; 4];
            _mm_storeu_ps(out.as_mut_ptr(), sums);
            out
        }
    }

    #[inline(always)]
    fn bf16(self, from: &[u16; LANES]) -> Pair {
        // SAFETY: `self` proves AVX2; the loads read the 32 bytes of `from`.
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().add(8).cast()));
            Pair(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)), _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)))
        }
    }

    /// The same shift to half precision as on AVX-512.
    #[inline(always)]
    fn e4m3_div_256(self, from: &[u8; LANES]) -> Pair {
        // SAFETY: `self` proves AVX2 and F16C; the load reads the 16 bytes of `from`.
        unsafe {
            let shifted = _mm256_slli_epi16::<7>(_mm256_cvtepi8_epi16(_mm_loadu_si128(from.as_ptr().cast())));
            let half = _mm256_and_si256(shifted, _mm256_set1_epi16(0xBFFF_u16 as i16));
            Pair(_mm256_cvtph_ps(_mm256_castsi256_si128(half)), _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(half)))
        }
    }

    #[inline(always)]
    fn has_e4m3_nan(self, chunks: &[[u8; LANES]]) -> bool {
        let (pairs, rest) = chunks.as_chunks::<2>();
        // SAFETY: `self` proves AVX2; the loads read the 32 bytes of a pair and the 16 of a chunk.
        unsafe {
            let sign = _mm256_set1_epi8(i8::MIN);
            let mut largest = _mm256_setzero_si256();
            for pair in pairs {
                largest = _mm256_max_epu8(largest, _mm256_or_si256(_mm256_loadu_si256(pair.as_ptr().cast()), sign));
            }
            for chunk in rest {
                let chunk = _mm256_zextsi128_si256(_mm_loadu_si128(chunk.as_ptr().cast()));
                largest = _mm256_max_epu8(largest, _mm256_or_si256(chunk, sign));
            }
            _mm256_movemask_epi8(_mm256_cmpeq_epi8(largest, _mm256_set1_epi8(-1))) != 0
        }
    }

    #[inline(always)]
    fn i8(self, from: &[i8; LANES]) -> Pair {
        // SAFETY: `self` proves AVX2; the load reads the 16 bytes of `from`.
        let bytes = unsafe { _mm_loadu_si128(from.as_ptr().cast()) };
        self.widen(bytes)
    }

    #[inline(always)]
    fn int4(self, from: &[u8; LANES / 2]) -> Pair {
        // SAFETY: `self` proves AVX2; the load reads the 8 bytes of `from`.
        let bytes = unsafe {
            let pairs = _mm_cvtepu8_epi16(_mm_loadl_epi64(from.as_ptr().cast()));
            let spread = _mm_or_si128(pairs, _mm_slli_epi16::<4>(pairs));
            _mm_sub_epi8(_mm_and_si128(spread, _mm_set1_epi8(0x0F)), _mm_set1_epi8(8))
        };
        self.widen(bytes)
    }
}
