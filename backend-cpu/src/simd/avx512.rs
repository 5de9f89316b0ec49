//! AVX-512: one register per logical vector.

use std::arch::x86_64::*;

use super::{Chunk, Kernel, LANES, Simd};

/// Proof that the processor has AVX-512 F, BW, VL and DQ (which imply AVX2, FMA and F16C).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        let present = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        present.then_some(Self(()))
    }

    #[inline]
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma,f16c")]
        fn compiled_for_avx512<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: `self` exists only where `detect` found these features.
        unsafe { compiled_for_avx512(self, kernel) }
    }
}

impl Simd for Avx512 {
    type Vector = __m512;

    const WIDE: bool = true;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    fn load(self, from: &Chunk) -> __m512 {
        // SAFETY: `self` proves AVX-512F; a chunk is 64 readable bytes and the load is unaligned.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn prefetch<T>(self, address: *const T) {
        // SAFETY: a hint: no address faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    fn store(self, vector: __m512, to: &mut Chunk) {
        // SAFETY: `self` proves AVX-512F; a chunk is 64 writable bytes and the store is unaligned.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), vector) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn sum(self, vector: __m512) -> f32 {
        // SAFETY: `self` proves AVX-512F and DQ; register operations only.
        unsafe {
            let eight = _mm256_add_ps(_mm512_castps512_ps256(vector), _mm512_extractf32x8_ps::<1>(vector));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    /// Halves of `a` and `b` beside each other, those of `c` and `d`, then quarters of all four.
    #[inline(always)]
    fn sum4(self, [a, b, c, d]: [__m512; 4]) -> [f32; 4] {
        // SAFETY: `self` proves AVX-512 F and DQ; register operations and a store to sixteen writable bytes.
        unsafe {
            let ab =
                _mm512_add_ps(_mm512_shuffle_f32x4::<0b01_00_01_00>(a, b), _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b));
            let cd =
                _mm512_add_ps(_mm512_shuffle_f32x4::<0b01_00_01_00>(c, d), _mm512_shuffle_f32x4::<0b11_10_11_10>(c, d));
            let fours = _mm512_add_ps(
                _mm512_shuffle_f32x4::<0b10_00_10_00>(ab, cd),
                _mm512_shuffle_f32x4::<0b11_01_11_01>(ab, cd),
            );
            let twos = _mm512_add_ps(fours, _mm512_permute_ps::<0b11_10_11_10>(fours));
            let ones = _mm512_add_ps(twos, _mm512_permute_ps::<0b01_01_01_01>(twos));
            let first_of_each = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
            let mut out = [0.0; 4];
            _mm_storeu_ps(out.as_mut_ptr(), _mm512_castps512_ps128(_mm512_permutexvar_ps(first_of_each, ones)));
            out
        }
    }

    #[inline(always)]
    fn bf16(self, from: &[u16; LANES]) -> __m512 {
        // SAFETY: `self` proves AVX-512F; the load reads the 32 bytes of `from`.
        unsafe {
            let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words))
        }
    }

    /// Shifted left by seven, the byte is a half-precision number with the exponent bias off by eight (15 − 7): the
    /// value times 2^-8, subnormals included.
    #[inline(always)]
    fn e4m3_div_256(self, from: &[u8; LANES]) -> __m512 {
        // SAFETY: `self` proves AVX-512 F, BW and VL; the load reads the 16 bytes of `from`.
        unsafe {
            let shifted = _mm256_slli_epi16::<7>(_mm256_cvtepi8_epi16(_mm_loadu_si128(from.as_ptr().cast())));
            // Bit 14 is the copy of the sign that sign extension left there.
            _mm512_cvtph_ps(_mm256_and_si256(shifted, _mm256_set1_epi16(0xBFFF_u16 as i16)))
        }
    }

    #[inline(always)]
    fn has_e4m3_nan(self, chunks: &[[u8; LANES]]) -> bool {
        let (quads, rest) = chunks.as_chunks::<4>();
        // SAFETY: `self` proves AVX-512 F and BW; the loads read the 64 bytes of a quad and the 16 of a chunk.
        unsafe {
            let sign = _mm512_set1_epi8(i8::MIN);
            let mut largest = _mm512_setzero_si512();
            for quad in quads {
                largest = _mm512_max_epu8(largest, _mm512_or_si512(_mm512_loadu_si512(quad.as_ptr().cast()), sign));
            }
            for chunk in rest {
                let chunk = _mm512_zextsi128_si512(_mm_loadu_si128(chunk.as_ptr().cast()));
                largest = _mm512_max_epu8(largest, _mm512_or_si512(chunk, sign));
            }
            _mm512_cmpeq_epi8_mask(largest, _mm512_set1_epi8(-1)) != 0
        }
    }

    #[inline(always)]
    fn i8(self, from: &[i8; LANES]) -> __m512 {
        // SAFETY: `self` proves AVX-512F; the load reads the 16 bytes of `from`.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn int4(self, from: &[u8; LANES / 2]) -> __m512 {
        // SAFETY: `self` proves AVX-512 F, BW and VL; the load reads the 8 bytes of `from`.
        unsafe {
            let pairs = _mm_cvtepu8_epi16(_mm_loadl_epi64(from.as_ptr().cast()));
            // The low nibble stays in the low byte, the high nibble moves to the high byte.
            let spread = _mm_or_si128(pairs, _mm_slli_epi16::<4>(pairs));
            let biased = _mm_and_si128(spread, _mm_set1_epi8(0x0F));
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_sub_epi8(biased, _mm_set1_epi8(8))))
        }
    }
}
