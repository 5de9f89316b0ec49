// Tile products of AMD devices: MFMA in waves of 64, WMMA in waves of 32. Included by tile.h only.
#pragma once

namespace gk {

template <class T, u32 N>
using Vector = T __attribute__((ext_vector_type(N)));

// A lane has one row of an operand, or a run of one.
template <u32 LENGTH, class T>
GK_DEVICE LongOperand<LENGTH> load_left(const T* from, u32 stride) {
  constexpr u32 NUM_WORDS = LENGTH * OPERAND_WORDS;
  using Vec = typename Either<NUM_WORDS == 2, Vec8, Vec16>::Type;
  constexpr u32 VEC_WORDS = sizeof(Vec) / 4;
  const T* row = from + Layout::left_row(lane(), 0) * stride + Layout::left_byte<LENGTH>(lane(), 0) / sizeof(T);
  LongOperand<LENGTH> operand;
#pragma unroll
  for (u32 i = 0; i < NUM_WORDS; i += VEC_WORDS) {
    const Vec vec = load_vec<Vec>(row + i * 4 / sizeof(T));
#pragma unroll
    for (u32 j = 0; j < VEC_WORDS; ++j) operand.words[i + j] = vec.words[j];
  }
  return operand;
}

template <u32 LENGTH, class T>
GK_DEVICE LongOperand<LENGTH> load_right(const T* from, u32 stride) {
  return load_left<LENGTH>(from, stride);
}

template <u32 LENGTH>
GK_DEVICE LongOperand<LENGTH> load_right_by_k(const bf16* from, u32 stride) {
  const bf16* column = from + Layout::right_byte<LENGTH>(lane(), 0) / 2 * stride + Layout::right_col(lane(), 0);
  LongOperand<LENGTH> operand;
#pragma unroll
  for (u32 i = 0; i < LENGTH * OPERAND_WORDS; ++i) {
    operand.words[i] = pack(column[2 * i * stride], column[(2 * i + 1) * stride]);
  }
  return operand;
}

// Words FIRST to FIRST + N of an operand, as what an instruction takes.
template <class V, u32 FIRST = 0, u32 LENGTH>
GK_DEVICE V part(const LongOperand<LENGTH>& operand) {
  constexpr u32 N = sizeof(V) / 4;
  Vector<u32, N> words;
#pragma unroll
  for (u32 i = 0; i < N; ++i) words[i] = operand.words[FIRST + i];
  return __builtin_bit_cast(V, words);
}

template <class T>
using Accumulators = Vector<T, RESULT_VALUES>;

template <class T>
GK_DEVICE Accumulators<T> sums_of(const TileSums<T>& result) {
  return __builtin_bit_cast(Accumulators<T>, result);
}

// Operands of bf16 values as the builtins declare them.
using Bf16Words = Vector<short, OPERAND_WORDS * 2>;

GK_DEVICE void mma(TileResult& result, const TileOperand& left, const TileOperand& right) {
  const Bf16Words a = part<Bf16Words>(left), b = part<Bf16Words>(right);
#if defined(__GFX9__)
  const auto sums = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(a, b, sums_of(result), 0, 0, 0);
#elif defined(__GFX11__)
  // Registers are few: the next operands are not made before this product is under way.
  __builtin_amdgcn_sched_barrier(0);
  const auto sums = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(a, b, sums_of(result));
#else
  const auto sums = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(a, b, sums_of(result));
#endif
  result = __builtin_bit_cast(TileResult, sums);
}

// Instructions that take fewer codes are two.
GK_DEVICE void mma_int8(TileSums<i32>& result, const TileOperand& left, const TileOperand& right) {
  auto sums = sums_of(result);
#if defined(__gfx90a__)
  sums = __builtin_amdgcn_mfma_i32_16x16x16i8(left.words[0], right.words[0], sums, 0, 0, 0);
  sums = __builtin_amdgcn_mfma_i32_16x16x16i8(left.words[1], right.words[1], sums, 0, 0, 0);
#elif defined(__GFX9__)
  sums = __builtin_amdgcn_mfma_i32_16x16x32_i8(part<long>(left), part<long>(right), sums, 0, 0, 0);
#else
  using Codes = Vector<i32, OPERAND_WORDS / 2>;
  const Codes a[2] = {part<Codes>(left), part<Codes, OPERAND_WORDS / 2>(left)};
  const Codes b[2] = {part<Codes>(right), part<Codes, OPERAND_WORDS / 2>(right)};
#pragma unroll
  for (u32 i = 0; i < 2; ++i) {
#if defined(__GFX11__)
    sums = __builtin_amdgcn_wmma_i32_16x16x16_iu8_w32(true, a[i], true, b[i], sums, false);
#else
    sums = __builtin_amdgcn_wmma_i32_16x16x16_iu8_w32_gfx12(true, a[i], true, b[i], sums, false);
#endif
  }
#endif
  result = __builtin_bit_cast(TileSums<i32>, sums);
}

#if GK_HAS_FP8

GK_DEVICE void mma_e4m3(TileResult& result, const TileOperand& left, const TileOperand& right) {
  auto sums = sums_of(result);
#if defined(__GFX9__)
  sums = __builtin_amdgcn_mfma_f32_16x16x32_fp8_fp8(part<long>(left), part<long>(right), sums, 0, 0, 0);
#else
  using Codes = Vector<i32, 2>;
  sums = __builtin_amdgcn_wmma_f32_16x16x16_fp8_fp8_w32_gfx12(part<Codes>(left), part<Codes>(right), sums);
  sums = __builtin_amdgcn_wmma_f32_16x16x16_fp8_fp8_w32_gfx12(part<Codes, 2>(left), part<Codes, 2>(right), sums);
#endif
  result = __builtin_bit_cast(TileResult, sums);
}

#else

// The same without units for it: codes are exact in bf16. Each half of an operand's words is an operand of half the k.
GK_DEVICE void mma_e4m3(TileResult& result, const TileOperand& left, const TileOperand& right) {
  constexpr u32 HALF = OPERAND_WORDS / 2;
#pragma unroll
  for (u32 half = 0; half < 2; ++half) {
    TileOperand a, b;
#pragma unroll
    for (u32 i = 0; i < HALF; ++i) {
      u32 words[2];
      exact_bf16<FP8>(left.words[half * HALF + i], words);
      a.words[2 * i] = words[0], a.words[2 * i + 1] = words[1];
      exact_bf16<FP8>(right.words[half * HALF + i], words);
      b.words[2 * i] = words[0], b.words[2 * i + 1] = words[1];
    }
    mma(result, a, b);
  }
}

#endif

#if defined(__gfx950__)

GK_DEVICE void mma(TileResult& result, const LongOperand<2>& left, const LongOperand<2>& right) {
  using Elements = Vector<__bf16, 8>;
  const auto sums = __builtin_amdgcn_mfma_f32_16x16x32_bf16(part<Elements>(left), part<Elements>(right),
                                                            sums_of(result), 0, 0, 0);
  result = __builtin_bit_cast(TileResult, sums);
}

GK_DEVICE void mma_int8(TileSums<i32>& result, const LongOperand<2>& left, const LongOperand<2>& right) {
  using Codes = Vector<i32, 4>;
  const auto sums =
      __builtin_amdgcn_mfma_i32_16x16x64_i8(part<Codes>(left), part<Codes>(right), sums_of(result), 0, 0, 0);
  result = __builtin_bit_cast(TileSums<i32>, sums);
}

// With scales of 1 for every 32 values.
GK_DEVICE void mma_e4m3(TileResult& result, const LongOperand<4>& left, const LongOperand<4>& right) {
  using Codes = Vector<i32, 8>;
  constexpr int E4M3 = 0, UNIT_SCALES = 0x7f7f7f7f;
  const auto sums = __builtin_amdgcn_mfma_scale_f32_16x16x128_f8f6f4(
      part<Codes>(left), part<Codes>(right), sums_of(result), E4M3, E4M3, 0, UNIT_SCALES, 0, UNIT_SCALES);
  result = __builtin_bit_cast(TileResult, sums);
}

#endif

}  // namespace gk
