// Stored numbers: weights and quantised activations as checkpoints and the quantisers write them.
#pragma once

#include "gk.h"

namespace gk {

enum Format { F32, BF16, FP8, INT8, INT4 };

// Side of an FP8 scale block, and the group of FP8 activation quantisation.
constexpr u32 FP8_BLOCK = 128;
// Rows of activations and of INT4 weights are padded to a multiple of this many elements; the pad of activations is
// zero.
constexpr u32 ROW_MULTIPLE = 32;

// Elements in 16 bytes.
template <Format F>
constexpr u32 PER_VEC = F == F32    ? 4
                        : F == BF16 ? 8
                        : F == INT4 ? 32
                                    : 16;

// e4m3: 1 sign, 4 exponent and 3 mantissa bits. A device has one of two kinds (FP8_IS_FNUZ), and weights come to it in that
// kind. e4m3fn: exponent bias 7, NaN is 0x7f. e4m3fnuz: bias 8, so that the same bits are half the value, and the only NaN
// is in the place of -0. Shifted into place the bits are the value times 2^-120 or 2^-119, subnormal or not.
GK_DEVICE float e4m3_to_float(u32 code) {
  const u32 magnitude = code & 0x7fu;
  // 1 or 0, and no condition: devices that need this have no time for branches.
  const u32 is_nan = FP8_IS_FNUZ ? u32(code == 0x80u) : (magnitude + 1) >> 7;
  const float value = bits_to_float(magnitude << 20) * bits_to_float(FP8_IS_FNUZ ? 0x7b000000u : 0x7b800000u);
  return bits_to_float(float_to_bits(value) | is_nan * 0x7fc00000u | (code & 0x80u) << 24);
}

// Four codes of a word, lowest byte first.
GK_DEVICE void e4m3_to_floats(u32 word, float* values) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  for (u32 half = 0; half < 2; ++half) {
    asm("{\n"
        ".reg .b32 pair;\n"
        ".reg .b16 first, second;\n"
        "cvt.rn.f16x2.e4m3x2 pair, %2;\n"
        "mov.b32 {first, second}, pair;\n"
        "cvt.f32.f16 %0, first;\n"
        "cvt.f32.f16 %1, second;\n"
        "}"
        : "=f"(values[2 * half]), "=f"(values[2 * half + 1])
        : "h"(u16(word >> 16 * half)));
  }
#elif defined(__HIP__) && GK_HAS_FP8
  for (u32 half = 0; half < 2; ++half) {
    const auto pair = half == 0 ? __builtin_amdgcn_cvt_pk_f32_fp8(word, false) : __builtin_amdgcn_cvt_pk_f32_fp8(word, true);
    values[2 * half] = pair[0], values[2 * half + 1] = pair[1];
  }
#else
  for (u32 i = 0; i < 4; ++i) values[i] = e4m3_to_float(word >> 8 * i & 0xffu);
#endif
}

// The largest value that activations are quantised to, with the same bits in both kinds.
constexpr float FP8_MAX = FP8_IS_FNUZ ? 224.0f : 448.0f;

// Nearest code of the device's kind, ties to even, saturating at FP8_MAX.
GK_DEVICE u32 float_to_e4m3(float value) {
  // In e4m3fnuz the code of half the value.
  const float scaled = FP8_IS_FNUZ ? value * 2.0f : value;
  const u32 bits = float_to_bits(scaled), magnitude = bits & 0x7fffffffu, sign = bits >> 24 & 0x80u;
  if (magnitude > 0x7f800000u) return FP8_IS_FNUZ ? 0x80u : 0x7fu;
  // 448.
  if (magnitude >= 0x43e00000u) return sign | 0x7eu;
  // Below 2^-6 codes are multiples of 2^-9; eight of them are the smallest normal, and its code.
  if (magnitude < 0x3c800000u) {
    const u32 code = u32(round_even(bits_to_float(magnitude) * 512.0f));
    return FP8_IS_FNUZ && code == 0 ? 0u : sign | code;
  }
  const u32 rounded = magnitude + 0x7ffffu + (magnitude >> 20 & 1u);
  return sign | min(((rounded >> 23) - 120u) << 3 | (rounded >> 20 & 7u), 0x7eu);
}

// The stored values of 16 bytes, not yet scaled.
template <Format F>
GK_DEVICE void decode(const Vec16& vec, float (&values)[PER_VEC<F>]) {
#pragma unroll
  for (u32 i = 0; i < 4; ++i) {
    const u32 word = vec.words[i];
    if constexpr (F == F32) values[i] = bits_to_float(word);
    if constexpr (F == BF16) values[2 * i] = low_half(word), values[2 * i + 1] = high_half(word);
    if constexpr (F == FP8) e4m3_to_floats(word, values + 4 * i);
    if constexpr (F == INT8) {
#pragma unroll
      for (u32 j = 0; j < 4; ++j) values[4 * i + j] = float(i8(word >> 8 * j & 0xffu));
    }
    if constexpr (F == INT4) {
#pragma unroll
      for (u32 j = 0; j < 8; ++j) values[8 * i + j] = float(i32(word >> 4 * j & 0xfu) - 8);
    }
  }
}

// Two floats that bf16 can hold, as a word of bf16 values.
GK_DEVICE u32 exact_pair(float low, float high) {
  return float_to_bits(low) >> 16 | (float_to_bits(high) & 0xffff0000u);
}

// Two floats rounded to bf16, as a word.
GK_DEVICE u32 rounded_pair(float low, float high) {
#if defined(__CUDA_ARCH__)
  u32 word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#else
  return pack(to_bf16(low), to_bf16(high));
#endif
}

// The four FP8 or INT8 codes of a word as bf16 values, which hold all of them exactly.
template <Format F>
GK_DEVICE void exact_bf16(u32 word, u32 (&words)[2]) {
  static_assert(F == FP8 || F == INT8, "formats of a byte per value");
  float values[4];
  if constexpr (F == FP8) {
    e4m3_to_floats(word, values);
  } else {
#pragma unroll
    for (u32 i = 0; i < 4; ++i) values[i] = float(i8(word >> 8 * i & 0xffu));
  }
  words[0] = exact_pair(values[0], values[1]), words[1] = exact_pair(values[2], values[3]);
}

// The stored values of 16 bytes as words of bf16; INT4 codes are multiplied by their scale first, and rounded.
template <Format F>
GK_DEVICE void to_bf16_words(const Vec16& vec, float scale, u32 (&words)[PER_VEC<F> / 2]) {
  static_assert(F != F32, "f32 weights are not rounded");
#pragma unroll
  for (u32 i = 0; i < 4; ++i) {
    if constexpr (F == BF16) words[i] = vec.words[i];
    if constexpr (F == FP8 || F == INT8) {
      u32 pairs[2];
      exact_bf16<F>(vec.words[i], pairs);
      words[2 * i] = pairs[0], words[2 * i + 1] = pairs[1];
    }
    if constexpr (F == INT4) {
#pragma unroll
      for (u32 j = 0; j < 4; ++j) {
        const u32 low = vec.words[i] >> 8 * j & 0xfu, high = vec.words[i] >> (8 * j + 4) & 0xfu;
        words[4 * i + j] = pack(to_bf16(float(i32(low) - 8) * scale), to_bf16(float(i32(high) - 8) * scale));
      }
    }
  }
}

// A matrix [n, k], rows padded to 16 bytes, and its scales: FP8 [ceil(n/128)][ceil(k/128)], INT8 [n], INT4
// [n][ceil(k/group)] with groups of a multiple of 32 (or one group).
struct Weights {
  const u8* values;
  const float* scales;
  u32 n, k, row_bytes, group;
};

// The factor of the stored values of row `n` around column `k`; INT8 has one per row, see row_scale.
template <Format F>
GK_DEVICE float scale_at(const Weights& w, u32 n, u32 k) {
  if constexpr (F == FP8) return w.scales[u64(n / FP8_BLOCK) * div_up(w.k, FP8_BLOCK) + k / FP8_BLOCK];
  if constexpr (F == INT4) return w.scales[u64(n) * div_up(w.k, w.group) + min(k, w.k - 1) / w.group];
  return 1.0f;
}

template <Format F>
GK_DEVICE float row_scale(const Weights& w, u32 n) {
  if constexpr (F == INT8) return w.scales[n];
  return 1.0f;
}

}  // namespace gk
