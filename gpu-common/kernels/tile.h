// Products of 16 x 16 matrix tiles by one wave.
//
// An operand is 16 rows of 32 bytes along k: 16 bf16 values or 32 codes. It is spread over the lanes of a wave; where each
// byte lives is the target's business and follows its matrix instruction, the same one for every kind of element:
//   wave of 32: the layout of mma.sync.m16n8k16 (m16n8k32 for codes), two of them side by side
//   wave of 64: the layout of v_mfma_*_16x16x16_bf16 (16x16x32 for codes)
// Kernels load operands from shared memory, or make them of what their lanes hold (slices), and find out by result_row and
// result_col which elements of a result a lane has. A target without matrix units can give the products a body of
// shuffles; the host gathers the wave's operands and multiplies.
#pragma once

#include "formats.h"
#include "gk.h"

namespace gk {

constexpr u32 TILE = 16;
// Bytes of k of one row of an operand.
constexpr u32 OPERAND_BYTES = 32;
// Words that a lane holds of one operand, and values it holds of a result.
constexpr u32 OPERAND_WORDS = TILE * OPERAND_BYTES / 4 / WAVE;
constexpr u32 RESULT_VALUES = TILE * TILE / WAVE;

struct TileOperand {
  u32 words[OPERAND_WORDS];
};

// Sums of a tile: f32, or i32 for INT8 codes.
template <class T>
struct TileSums {
  T values[RESULT_VALUES];
};
using TileResult = TileSums<float>;

template <class T>
GK_DEVICE void clear(TileSums<T>& result) {
#pragma unroll
  for (u32 i = 0; i < RESULT_VALUES; ++i) result.values[i] = T(0);
}

// Row and column of value `i` of a result in `lane`.
GK_DEVICE u32 result_row(u32 lane, u32 i) { return WAVE == 32 ? lane / 4 + i / 2 % 2 * 8 : lane / 16 * 4 + i; }
GK_DEVICE u32 result_col(u32 lane, u32 i) { return WAVE == 32 ? lane % 4 * 2 + i % 2 + i / 4 * 8 : lane % 16; }

GK_DEVICE u32 result_row(u32 i) { return result_row(lane(), i); }
GK_DEVICE u32 result_col(u32 i) { return result_col(lane(), i); }

// Row of the left operand, column of the right one, and first of the four bytes of k that word `i` of `lane` holds.
GK_DEVICE u32 left_row(u32 lane, u32 i) { return WAVE == 32 ? lane / 4 + i % 2 * 8 : lane % 16; }
GK_DEVICE u32 left_byte(u32 lane, u32 i) { return WAVE == 32 ? lane % 4 * 4 + i / 2 * 16 : lane / 16 * 8 + i * 4; }
GK_DEVICE u32 right_col(u32 lane, u32 i) { return WAVE == 32 ? lane / 4 + i / 2 * 8 : lane % 16; }
GK_DEVICE u32 right_byte(u32 lane, u32 i) { return WAVE == 32 ? lane % 4 * 4 + i % 2 * 16 : lane / 16 * 8 + i * 4; }

// Operands from shared memory. Rows are aligned to 16 bytes; `stride` is the number of elements from row to row.
#if defined(__CUDACC_RTC__)

// Four 8 x 8 matrices of 2-byte elements, whose rows the lanes point to: eight lanes a matrix.
GK_DEVICE TileOperand load_matrices(const void* row) {
  TileOperand operand;
  u32* words = operand.words;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(shared_address(row))
               : "memory");
  return operand;
}

// Left operand A[row][k].
template <class T>
GK_DEVICE TileOperand load_left(const T* from, u32 stride) {
  return load_matrices(from + lane() % 16 * stride + lane() / 16 * (16 / sizeof(T)));
}

// Right operand from memory that holds B[col][k]: weights as they are, keys by position.
template <class T>
GK_DEVICE TileOperand load_right(const T* from, u32 stride) {
  return load_matrices(from + (lane() % 8 + lane() / 16 * 8) * stride + lane() / 8 % 2 * (16 / sizeof(T)));
}

// Right operand from memory that holds B[k][col]: values by position.
GK_DEVICE TileOperand load_right_by_k(const bf16* from, u32 stride) {
  TileOperand operand;
  u32* words = operand.words;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(shared_address(from + lane() % 16 * stride + lane() / 16 * 8))
               : "memory");
  return operand;
}

#else

template <class T>
GK_DEVICE TileOperand load_left(const T* from, u32 stride) {
  TileOperand operand;
  for (u32 i = 0; i < OPERAND_WORDS; ++i)
    operand.words[i] = load_vec<u32>(from + left_row(lane(), i) * stride + left_byte(lane(), i) / sizeof(T));
  return operand;
}

template <class T>
GK_DEVICE TileOperand load_right(const T* from, u32 stride) {
  TileOperand operand;
  for (u32 i = 0; i < OPERAND_WORDS; ++i)
    operand.words[i] = load_vec<u32>(from + right_col(lane(), i) * stride + right_byte(lane(), i) / sizeof(T));
  return operand;
}

GK_DEVICE TileOperand load_right_by_k(const bf16* from, u32 stride) {
  TileOperand operand;
  for (u32 i = 0; i < OPERAND_WORDS; ++i) {
    const bf16* first = from + right_byte(lane(), i) / 2 * stride + right_col(lane(), i);
    operand.words[i] = pack(first[0], first[stride]);
  }
  return operand;
}

#endif

// Operands from registers. The four slices of a row are as many runs of k; a lane holds one slice of each of its
// SLICE_ROWS rows, and a product takes the next two words of every slice. Which k a product takes is then not the order
// of memory, which does not matter as long as both operands are sliced alike.
constexpr u32 NUM_SLICES = 4;
constexpr u32 SLICE_ROWS = TILE * NUM_SLICES / WAVE;

GK_DEVICE u32 slice() { return WAVE == 32 ? lane() % 4 : lane() / 16; }
GK_DEVICE u32 slice_row(u32 j) { return WAVE == 32 ? lane() / 4 + j * 8 : lane() % 16; }

template <u32 NUM_WORDS>
struct Slices {
  u32 words[SLICE_ROWS][NUM_WORDS];
};

// Products that slices of `NUM_WORDS` words are enough for.
template <u32 NUM_WORDS>
constexpr u32 NUM_STEPS = NUM_WORDS / 2;

template <u32 NUM_WORDS>
GK_DEVICE TileOperand left_operand(const Slices<NUM_WORDS>& slices, u32 step) {
  TileOperand operand;
#pragma unroll
  for (u32 i = 0; i < OPERAND_WORDS; ++i)
    operand.words[i] = slices.words[i % SLICE_ROWS][2 * step + i / SLICE_ROWS];
  return operand;
}

template <u32 NUM_WORDS>
GK_DEVICE TileOperand right_operand(const Slices<NUM_WORDS>& slices, u32 step) {
  TileOperand operand;
#pragma unroll
  for (u32 i = 0; i < OPERAND_WORDS; ++i) operand.words[i] = slices.words[i / 2][2 * step + i % 2];
  return operand;
}

#if defined(__CUDACC_RTC__)

#define GK_MMA_N8(shape, types, c, constraint, a, b)                                                         \
  asm volatile("mma.sync.aligned." shape ".row.col." types " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" \
               : constraint(c[0]), constraint(c[1]), constraint(c[2]), constraint(c[3])                      \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

// result += left right, of bf16 values.
GK_DEVICE void mma(TileResult& result, const TileOperand& left, const TileOperand& right) {
#pragma unroll
  for (u32 half = 0; half < 2; ++half) {
    float* c = result.values + 4 * half;
    const u32 *a = left.words, *b = right.words + 2 * half;
    GK_MMA_N8("m16n8k16", "f32.bf16.bf16.f32", c, "+f", a, b);
  }
}

// result += left right, of INT8 codes.
GK_DEVICE void mma_int8(TileSums<i32>& result, const TileOperand& left, const TileOperand& right) {
#pragma unroll
  for (u32 half = 0; half < 2; ++half) {
    i32* c = result.values + 4 * half;
    const u32 *a = left.words, *b = right.words + 2 * half;
    GK_MMA_N8("m16n8k32", "s32.s8.s8.s32", c, "+r", a, b);
  }
}

#if __CUDA_ARCH__ >= 890

// result += left right, of e4m3 codes.
GK_DEVICE void mma_e4m3(TileResult& result, const TileOperand& left, const TileOperand& right) {
#pragma unroll
  for (u32 half = 0; half < 2; ++half) {
    float* c = result.values + 4 * half;
    const u32 *a = left.words, *b = right.words + 2 * half;
    GK_MMA_N8("m16n8k32", "f32.e4m3.e4m3.f32", c, "+f", a, b);
  }
}

#else

// The same without units for it: codes are exact in bf16. Each half of an operand's words is an operand of half the k.
GK_DEVICE void mma_e4m3(TileResult& result, const TileOperand& left, const TileOperand& right) {
#pragma unroll
  for (u32 half = 0; half < 2; ++half) {
    TileOperand a, b;
#pragma unroll
    for (u32 i = 0; i < 2; ++i) {
      u32 words[2];
      exact_bf16<FP8>(left.words[2 * half + i], words);
      a.words[i] = words[0], a.words[2 + i] = words[1];
      exact_bf16<FP8>(right.words[2 * i + half], words);
      b.words[2 * i] = words[0], b.words[2 * i + 1] = words[1];
    }
    mma(result, a, b);
  }
}

#endif

#else

// What a lane gives to a tile product.
struct TileLane {
  TileOperand left, right;
};

// Multiplies the operands of a whole wave: the documented meaning of the matrix instructions. A word holds N values, which
// `decode` writes to the second argument; sums over k are of type T.
template <class T, u32 N, class Decode>
void multiply_lanes(const TileLane* lanes, T (&product)[TILE * TILE], Decode decode) {
  constexpr u32 K = OPERAND_BYTES / 4 * N;
  T left[TILE][K], right[K][TILE];
  for (u32 l = 0; l < WAVE; ++l) {
    for (u32 i = 0; i < OPERAND_WORDS; ++i) {
      decode(lanes[l].left.words[i], &left[left_row(l, i)][left_byte(l, i) / 4 * N]);
      T values[N];
      decode(lanes[l].right.words[i], values);
      for (u32 j = 0; j < N; ++j) right[right_byte(l, i) / 4 * N + j][right_col(l, i)] = values[j];
    }
  }
  for (u32 row = 0; row < TILE; ++row) {
    T sums[TILE] = {};
    for (u32 k = 0; k < K; ++k) {
      for (u32 col = 0; col < TILE; ++col) sums[col] += left[row][k] * right[k][col];
    }
    for (u32 col = 0; col < TILE; ++col) product[row * TILE + col] = sums[col];
  }
}

// The last lane to arrive multiplies.
template <u32 N, class T, class Decode>
void mma_by_lanes(TileSums<T>& result, const TileOperand& left, const TileOperand& right, Decode decode) {
  using Product = T[TILE * TILE];
  const TileLane mine{left, right};
  const auto multiply = [decode](const TileLane* lanes, Product& product) { multiply_lanes<T, N>(lanes, product, decode); };
  const Product& product = gk_host::exchange<Product>("tile product", mine, multiply);
  for (u32 i = 0; i < RESULT_VALUES; ++i) result.values[i] += product[result_row(i) * TILE + result_col(i)];
}

GK_DEVICE void mma(TileResult& result, const TileOperand& left, const TileOperand& right) {
  mma_by_lanes<2>(result, left, right, [](u32 word, float* to) { to[0] = low_half(word), to[1] = high_half(word); });
}

GK_DEVICE void mma_e4m3(TileResult& result, const TileOperand& left, const TileOperand& right) {
  mma_by_lanes<4>(result, left, right, [](u32 word, float* to) { e4m3_to_floats(word, to); });
}

GK_DEVICE void mma_int8(TileSums<i32>& result, const TileOperand& left, const TileOperand& right) {
  mma_by_lanes<4>(result, left, right, [](u32 word, i32* to) {
    for (u32 i = 0; i < 4; ++i) to[i] = i8(word >> 8 * i & 0xffu);
  });
}

#endif

}  // namespace gk
