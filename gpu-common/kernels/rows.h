// Rows of x against F32 weights, which matrix tiles would round. Memory is the limit: each weight is read once for up to M
// rows of x.
#pragma once

#include "product.h"

namespace gk {

// A wave takes OUTPUTS columns of out, its lanes share the columns of x.
template <u32 M, u32 NUM_WEIGHTS>
GK_DEVICE void multiply_rows(const Product& p) {
  constexpr u32 N = PER_VEC<F32>;
  constexpr u32 OUTPUTS = NUM_WEIGHTS == 2 ? 1 : 2;
  const RowSpan span = row_span(p, M);
  if (span.count == 0) return;
  const u32 col = (block_x() * num_waves() + wave()) * OUTPUTS;
  if (col >= p.stored_n) return;
  const Weights* w = p.weights;
  u32 rows[M];
#pragma unroll
  for (u32 m = 0; m < M; ++m) rows[m] = input_row(p, span.first + min(m, span.count - 1));

  float sums[M * NUM_WEIGHTS * OUTPUTS] = {};
#pragma unroll 2
  for (u32 at = lane() * N; at < w[0].k; at += WAVE * N) {
    Vec16 stored[NUM_WEIGHTS * OUTPUTS];
#pragma unroll
    for (u32 j = 0; j < NUM_WEIGHTS * OUTPUTS; ++j) {
      // Columns past the last one are computed from the last one and stored as zeros.
      const u32 n = min(col + j % OUTPUTS, w[0].n - 1);
      const u8* values = weights_of(p, j / OUTPUTS, span.matrix).values;
      stored[j] = load_vec<Vec16>(values + u64(n) * w[0].row_bytes + u64(at) * 4);
    }
#pragma unroll
    for (u32 m = 0; m < M; ++m) {
      const Vec8 x = load_vec<Vec8>(x_row<bf16>(p, rows[m], span.batch) + at);
#pragma unroll
      for (u32 j = 0; j < NUM_WEIGHTS * OUTPUTS; ++j) {
#pragma unroll
        for (u32 i = 0; i < N; ++i) {
          const float value = i % 2 == 0 ? low_half(x.words[i / 2]) : high_half(x.words[i / 2]);
          sums[m * NUM_WEIGHTS * OUTPUTS + j] += bits_to_float(stored[j].words[i]) * value;
        }
      }
    }
  }
  wave_sums(sums);
  if (lane() != 0) return;
#pragma unroll
  for (u32 m = 0; m < M; ++m) {
    if (m >= span.count) break;
#pragma unroll
    for (u32 output = 0; output < OUTPUTS; ++output) {
      float values[NUM_WEIGHTS];
#pragma unroll
      for (u32 j = 0; j < NUM_WEIGHTS; ++j) {
        const float sum = sums[(m * NUM_WEIGHTS + j) * OUTPUTS + output];
        values[j] = finished<F32, VALUES>(p, w[j], rows[m], col + output, sum);
      }
      store_finished(p, span, m, col + output, values);
    }
  }
}

#define GK_ROW_KERNELS(prefix, num_weights)                                     \
  GK_PRODUCT_KERNEL(prefix##_f32_a16_m1, (multiply_rows<1, num_weights>)) \
  GK_PRODUCT_KERNEL(prefix##_f32_a16_m4, (multiply_rows<4, num_weights>))

}  // namespace gk
