// Tile products of NVIDIA devices, by mma.sync of two halves. Included by tile.h only.
#pragma once

namespace gk {

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

template <u32 LENGTH, class T>
GK_DEVICE TileOperand load_left(const T* from, u32 stride) {
  return load_matrices(from + lane() % 16 * stride + lane() / 16 * (16 / sizeof(T)));
}

template <u32 LENGTH, class T>
GK_DEVICE TileOperand load_right(const T* from, u32 stride) {
  return load_matrices(from + (lane() % 8 + lane() / 16 * 8) * stride + lane() / 8 % 2 * (16 / sizeof(T)));
}

template <u32 LENGTH>
GK_DEVICE TileOperand load_right_by_k(const bf16* from, u32 stride) {
  TileOperand operand;
  u32* words = operand.words;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(shared_address(from + lane() % 16 * stride + lane() / 16 * 8))
               : "memory");
  return operand;
}

#define GK_MMA_N8(shape, types, c, constraint, a, b)                                                         \
  asm volatile("mma.sync.aligned." shape ".row.col." types " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" \
               : constraint(c[0]), constraint(c[1]), constraint(c[2]), constraint(c[3])                      \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

GK_DEVICE void mma(TileResult& result, const TileOperand& left, const TileOperand& right) {
#pragma unroll
  for (u32 half = 0; half < 2; ++half) {
    float* c = result.values + 4 * half;
    const u32 *a = left.words, *b = right.words + 2 * half;
    GK_MMA_N8("m16n8k16", "f32.bf16.bf16.f32", c, "+f", a, b);
  }
}

GK_DEVICE void mma_int8(TileSums<i32>& result, const TileOperand& left, const TileOperand& right) {
#pragma unroll
  for (u32 half = 0; half < 2; ++half) {
    i32* c = result.values + 4 * half;
    const u32 *a = left.words, *b = right.words + 2 * half;
    GK_MMA_N8("m16n8k32", "s32.s8.s8.s32", c, "+r", a, b);
  }
}

#if __CUDA_ARCH__ >= 890

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

}  // namespace gk
