// Products of 16 x 16 x 16 matrix tiles by one wave: bf16 operands, f32 sums.
//
// An operand is spread over the lanes of a wave; where each element lives is the target's business and follows its
// matrix instruction. Kernels load operands from shared memory by the functions below and find out by result_row and
// result_col which elements of a result a lane holds.
//   wave of 32: the layout of mma.sync.m16n8k16, two of them side by side
//   wave of 64: the layout of v_mfma_f32_16x16x16_bf16
// A target without matrix units can give mma() a body of shuffles; the host gathers the wave's operands and multiplies.
#pragma once

#include "gk.h"

namespace gk {

constexpr u32 TILE = 16;
// Words of two bf16 values that a lane holds of one operand, and values it holds of a result.
constexpr u32 OPERAND_WORDS = TILE * TILE / WAVE / 2;
constexpr u32 RESULT_VALUES = TILE * TILE / WAVE;

struct TileOperand {
  u32 words[OPERAND_WORDS];
};

struct TileResult {
  float values[RESULT_VALUES];
};

GK_DEVICE void clear(TileResult& result) {
  for (u32 i = 0; i < RESULT_VALUES; ++i) result.values[i] = 0.0f;
}

// Row and column of value `i` of a result in `lane`.
GK_DEVICE u32 result_row(u32 lane, u32 i) { return WAVE == 32 ? lane / 4 + i / 2 % 2 * 8 : lane / 16 * 4 + i; }

GK_DEVICE u32 result_col(u32 lane, u32 i) { return WAVE == 32 ? lane % 4 * 2 + i % 2 + i / 4 * 8 : lane % 16; }

GK_DEVICE u32 result_row(u32 i) { return result_row(lane(), i); }
GK_DEVICE u32 result_col(u32 i) { return result_col(lane(), i); }

// Row of the left operand, column of the right one, and first of the two k that word `i` of `lane` holds.
GK_DEVICE u32 left_row(u32 lane, u32 i) { return WAVE == 32 ? lane / 4 + i % 2 * 8 : lane % 16; }
GK_DEVICE u32 left_k(u32 lane, u32 i) { return WAVE == 32 ? lane % 4 * 2 + i / 2 * 8 : lane / 16 * 4 + i * 2; }
GK_DEVICE u32 right_col(u32 lane, u32 i) { return WAVE == 32 ? lane / 4 + i / 2 * 8 : lane % 16; }
GK_DEVICE u32 right_k(u32 lane, u32 i) { return WAVE == 32 ? lane % 4 * 2 + i % 2 * 8 : lane / 16 * 4 + i * 2; }

// Left operand A[row][k] from shared memory, `stride` (even) elements from row to row.
GK_DEVICE TileOperand load_left(const bf16* from, u32 stride) {
  TileOperand operand;
#pragma unroll
  for (u32 i = 0; i < OPERAND_WORDS; ++i)
    operand.words[i] = load_vec<u32>(from + left_row(lane(), i) * stride + left_k(lane(), i));
  return operand;
}

// Right operand from memory that holds B[col][k]: weights as they are, keys by position.
GK_DEVICE TileOperand load_right(const bf16* from, u32 stride) {
  TileOperand operand;
#pragma unroll
  for (u32 i = 0; i < OPERAND_WORDS; ++i)
    operand.words[i] = load_vec<u32>(from + right_col(lane(), i) * stride + right_k(lane(), i));
  return operand;
}

// Right operand from memory that holds B[k][col]: values by position.
GK_DEVICE TileOperand load_right_by_k(const bf16* from, u32 stride) {
  TileOperand operand;
#pragma unroll
  for (u32 i = 0; i < OPERAND_WORDS; ++i) {
    const bf16* first = from + right_k(lane(), i) * stride + right_col(lane(), i);
    operand.words[i] = pack(first[0], first[stride]);
  }
  return operand;
}

#if defined(__CUDACC_RTC__)

GK_DEVICE void mma_n8(float* c, const u32* a, const u32* b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// result += left right.
GK_DEVICE void mma(TileResult& result, const TileOperand& left, const TileOperand& right) {
  mma_n8(result.values, left.words, right.words);
  mma_n8(result.values + 4, left.words, right.words + 2);
}

#else

// What a lane gives to a tile product.
struct TileLane {
  TileOperand left, right;
};

// Multiplies the operands of a whole wave: the documented meaning of the matrix instructions, with f32 sums over k.
inline void multiply_tiles(const TileLane* lanes, float (&product)[TILE * TILE]) {
  float left[TILE][TILE], right[TILE][TILE];
  for (u32 l = 0; l < WAVE; ++l) {
    for (u32 i = 0; i < OPERAND_WORDS; ++i) {
      const u32 a = lanes[l].left.words[i], b = lanes[l].right.words[i];
      float* to_left = &left[left_row(l, i)][left_k(l, i)];
      to_left[0] = low_half(a), to_left[1] = high_half(a);
      const u32 k = right_k(l, i), col = right_col(l, i);
      right[k][col] = low_half(b), right[k + 1][col] = high_half(b);
    }
  }
  for (u32 row = 0; row < TILE; ++row) {
    float sums[TILE] = {};
    for (u32 k = 0; k < TILE; ++k) {
      for (u32 col = 0; col < TILE; ++col) sums[col] += left[row][k] * right[k][col];
    }
    for (u32 col = 0; col < TILE; ++col) product[row * TILE + col] = sums[col];
  }
}

// result += left right; the last lane to arrive multiplies.
GK_DEVICE void mma(TileResult& result, const TileOperand& left, const TileOperand& right) {
  const TileLane mine{left, right};
  const auto& product = gk_host::exchange<float[TILE * TILE]>("tile product", mine, multiply_tiles);
  for (u32 i = 0; i < RESULT_VALUES; ++i) result.values[i] += product[result_row(i) * TILE + result_col(i)];
}

#endif

}  // namespace gk
