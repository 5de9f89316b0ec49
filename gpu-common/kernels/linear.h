// Products with weights: out = x Wt, for one matrix, for a batch of matrices, or for the experts' tokens.
//
// Two bodies. `multiply_rows` reads each weight once for up to M rows of x, straight into registers: for few rows,
// where memory is the limit. `multiply_tiles` works through 16 x 16 tiles in shared memory: for many rows. With
// NUM_WEIGHTS = 2 both compute silu(x W0t) * (x W1t), the inner half of a gated FFN.
//
// FP8 sums are scaled every 128 columns and added up in f32. INT8 x INT8 adds up in i32: 128 products stay below 2^24,
// so that the f32 sums of a tile are exact.
#pragma once

#include "formats.h"
#include "tile.h"

namespace gk {

// What x holds.
enum Input {
  // bf16 values.
  VALUES,
  // Codes in the format of the weight, with scales: FP8 [row][ceil(k/128)], INT8 [row].
  CODES,
};

// Everything a product needs. Rows of x are padded with zeros to a multiple of 32 elements.
struct Product {
  const u8* x;
  const float* x_scales;
  Weights weights[2];
  void* out;
  // Experts: four words per tile of rows (expert, first row, number of rows, unused), and the (token, choice) pair of
  // each row. Null otherwise: all rows meet one matrix per batch.
  const u32* tiles;
  const u32* pairs;
  // Rows of x; elements from row to row and from batch to batch of x.
  u32 num_rows, x_stride, x_batch;
  // Columns of out that are stored: n, or more, which are zero; elements from row to row and from batch to batch.
  u32 stored_n, out_stride, out_batch;
  // Bytes and scales from matrix to matrix.
  u32 weight_batch, scale_batch;
  // If not 0, row i of x is that of pair i divided by this: the token.
  u32 gather;
  // If not 0, row i of out is that of its pair.
  u32 scatter;
  // If not 0, out is f32, else bf16.
  u32 out_is_f32;
};

// The parameters of every product kernel, in the order of the arguments in gpu-common/src/product.rs.
#define GK_PRODUCT_PARAMS                                                                                         \
  const u8 *x, const float *x_scales, const u8 *w0, const float *w0_scales, const u8 *w1, const float *w1_scales, \
      void *out, const u32 *tiles, const u32 *pairs, u32 n, u32 k, u32 row_bytes, u32 group, u32 num_rows,        \
      u32 x_stride, u32 x_batch, u32 stored_n, u32 out_stride, u32 out_batch, u32 weight_batch, u32 scale_batch,  \
      u32 gather, u32 scatter, u32 out_is_f32
#define GK_PRODUCT                                                                                               \
  Product {                                                                                                      \
    x, x_scales, {{w0, w0_scales, n, k, row_bytes, group}, {w1, w1_scales, n, k, row_bytes, group}}, out, tiles, \
        pairs, num_rows, x_stride, x_batch, stored_n, out_stride, out_batch, weight_batch, scale_batch, gather,  \
        scatter, out_is_f32                                                                                      \
  }

// The rows of one block.
struct RowSpan {
  u32 first, count, matrix, batch;
};

GK_DEVICE RowSpan row_span(const Product& p, u32 max_rows) {
  if (p.tiles != nullptr) {
    const u32* tile = p.tiles + 4 * block_y();
    return {tile[1], tile[2], tile[0], 0};
  }
  const u32 first = block_y() * max_rows;
  return {first, min(max_rows, p.num_rows - first), block_z(), block_z()};
}

GK_DEVICE u32 input_row(const Product& p, u32 row) { return p.gather != 0 ? p.pairs[row] / p.gather : row; }
GK_DEVICE u32 output_row(const Product& p, u32 row) { return p.scatter != 0 ? p.pairs[row] : row; }

template <class T>
GK_DEVICE const T* x_row(const Product& p, u32 row, u32 batch) {
  return reinterpret_cast<const T*>(p.x) + u64(row) * p.x_stride + u64(batch) * p.x_batch;
}

GK_DEVICE Weights weights_of(const Product& p, u32 which, u32 matrix) {
  Weights w = p.weights[which];
  w.values += u64(matrix) * p.weight_batch;
  w.scales += u64(matrix) * p.scale_batch;
  return w;
}

GK_DEVICE void store(const Product& p, u32 row, u32 col, u32 batch, float value) {
  const u64 at = u64(row) * p.out_stride + u64(batch) * p.out_batch + col;
  if (p.out_is_f32 != 0) {
    static_cast<float*>(p.out)[at] = value;
  } else {
    static_cast<bf16*>(p.out)[at] = to_bf16(value);
  }
}

// The results of two linears are activations, rounded like all of them, before they meet.
GK_DEVICE float gated(float gate, float up) { return silu(to_float(to_bf16(gate))) * to_float(to_bf16(up)); }

// Columns of x, with their pad.
GK_DEVICE u32 padded_k(const Product& p) { return div_up(p.weights[0].k, ROW_MULTIPLE) * ROW_MULTIPLE; }

// N values of x as floats, N a multiple of 4.
template <u32 N>
GK_DEVICE void load_values(const bf16* from, float (&values)[N]) {
  if constexpr (N == 4) {
    const Vec8 vec = load_vec<Vec8>(from);
    for (u32 i = 0; i < 2; ++i) values[2 * i] = low_half(vec.words[i]), values[2 * i + 1] = high_half(vec.words[i]);
  } else {
#pragma unroll
    for (u32 v = 0; v < N / 8; ++v) {
      const Vec16 vec = load_vec<Vec16>(from + 8 * v);
#pragma unroll
      for (u32 i = 0; i < 4; ++i) {
        values[8 * v + 2 * i] = low_half(vec.words[i]);
        values[8 * v + 2 * i + 1] = high_half(vec.words[i]);
      }
    }
  }
}

// Up to M rows of x: a wave takes OUTPUTS columns of out, its lanes share the columns of x.
template <Format F, Input I, u32 M, u32 NUM_WEIGHTS>
GK_DEVICE void multiply_rows(const Product& p) {
  constexpr u32 N = PER_VEC<F>;
  constexpr u32 OUTPUTS = NUM_WEIGHTS == 2 ? 1 : 2;
  constexpr bool IN_INTEGERS = F == INT8 && I == CODES;
  const RowSpan span = row_span(p, M);
  if (span.count == 0) return;
  const u32 col = (block_x() * num_waves() + wave()) * OUTPUTS;
  if (col >= p.stored_n) return;

  Weights w[NUM_WEIGHTS];
#pragma unroll
  for (u32 j = 0; j < NUM_WEIGHTS; ++j) w[j] = weights_of(p, j, span.matrix);
  const u32 n = w[0].n, k = w[0].k;
  u32 rows[M];
#pragma unroll
  for (u32 m = 0; m < M; ++m) rows[m] = input_row(p, span.first + min(m, span.count - 1));

  float sums[NUM_WEIGHTS * OUTPUTS * M] = {};
  i32 integer_sums[IN_INTEGERS ? NUM_WEIGHTS * OUTPUTS * M : 1] = {};
  // More would not fit the registers.
  [[maybe_unused]] constexpr u32 UNROLL = M == 1 ? 2 : 1;
#pragma unroll UNROLL
  for (u32 at = lane() * N; at < k; at += WAVE * N) {
    Vec16 stored[NUM_WEIGHTS * OUTPUTS];
    float values[NUM_WEIGHTS * OUTPUTS][N];
    float scales[NUM_WEIGHTS * OUTPUTS];
#pragma unroll
    for (u32 j = 0; j < NUM_WEIGHTS * OUTPUTS; ++j) {
      // Columns past the last one are computed from the last one and stored as zeros.
      const Weights& weight = w[j / OUTPUTS];
      const u32 row = min(col + j % OUTPUTS, n - 1);
      stored[j] = load_vec<Vec16>(weight.values + u64(row) * weight.row_bytes + u64(at) * 16 / N);
      scales[j] = scale_at<F>(weight, row, at);
      if constexpr (!IN_INTEGERS) decode<F>(stored[j], values[j]);
    }
#pragma unroll
    for (u32 m = 0; m < M; ++m) {
      if constexpr (IN_INTEGERS) {
        const Vec16 codes = load_vec<Vec16>(x_row<u8>(p, rows[m], span.batch) + at);
#pragma unroll
        for (u32 j = 0; j < NUM_WEIGHTS * OUTPUTS; ++j) {
#pragma unroll
          for (u32 i = 0; i < 4; ++i) {
            integer_sums[j * M + m] = dot4(codes.words[i], stored[j].words[i], integer_sums[j * M + m]);
          }
        }
      } else {
        float x[N];
        float x_scale = 1.0f;
        if constexpr (I == CODES) {
          decode<F>(load_vec<Vec16>(x_row<u8>(p, rows[m], span.batch) + at), x);
          x_scale = p.x_scales[u64(rows[m]) * div_up(k, FP8_BLOCK) + at / FP8_BLOCK];
        } else {
          load_values(x_row<bf16>(p, rows[m], span.batch) + at, x);
        }
#pragma unroll
        for (u32 j = 0; j < NUM_WEIGHTS * OUTPUTS; ++j) {
          float sum = 0.0f;
#pragma unroll
          for (u32 i = 0; i < N; ++i) sum += values[j][i] * x[i];
          sums[j * M + m] += sum * (scales[j] * x_scale);
        }
      }
    }
  }
  if constexpr (IN_INTEGERS) {
    wave_sums(integer_sums);
#pragma unroll
    for (u32 i = 0; i < NUM_WEIGHTS * OUTPUTS * M; ++i) {
      sums[i] = float(integer_sums[i]) * p.x_scales[rows[i % M]];
    }
  } else {
    wave_sums(sums);
  }
  if (lane() != 0) return;
#pragma unroll
  for (u32 j = 0; j < OUTPUTS; ++j) {
    if (col + j >= p.stored_n) break;
#pragma unroll
    for (u32 m = 0; m < M; ++m) {
      if (m >= span.count) break;
      float value = 0.0f;
      if (col + j < n) {
        value = sums[j * M + m] * row_scale<F>(w[0], col + j);
        if constexpr (NUM_WEIGHTS == 2) value = gated(value, sums[M + m] * row_scale<F>(w[1], col + j));
      }
      store(p, output_row(p, span.first + m), col + j, span.batch, value);
    }
  }
}

// Columns of x that are in shared memory at a time, and elements between rows there: 16 bytes more, so that the rows of
// a tile lie in different banks.
constexpr u32 CHUNK = 64;
constexpr u32 CHUNK_STRIDE = CHUNK + 8;

GK_DEVICE void store_bf16s(bf16* to, const float* values, u32 count) {
  for (u32 v = 0; v < count / 8; ++v) {
    Vec16 vec;
#pragma unroll
    for (u32 i = 0; i < 4; ++i) vec.words[i] = pack(to_bf16(values[8 * v + 2 * i]), to_bf16(values[8 * v + 2 * i + 1]));
    store_vec(to + 8 * v, vec);
  }
}

// Columns at..at+CHUNK of one row, as bf16, by the threads of the block; zeros from `end` on and for absent rows.
template <Format F>
GK_DEVICE void stage_vec(const u8* row, u32 at, u32 end, float scale, bf16* to) {
  float values[PER_VEC<F>] = {};
  if (row != nullptr && at < end) {
    decode<F>(load_vec<Vec16>(row + u64(at) * 16 / PER_VEC<F>), values);
    if constexpr (F == INT4) {
      for (u32 i = 0; i < PER_VEC<F>; ++i) values[i] *= scale;
    }
  }
  store_bf16s(to, values, PER_VEC<F>);
}

template <>
GK_DEVICE void stage_vec<BF16>(const u8* row, u32 at, u32 end, float, bf16* to) {
  store_vec(to, row != nullptr && at < end ? load_vec<Vec16>(row + u64(at) * 2) : Vec16{});
}

template <Format F, Input I, u32 ROW_TILES>
GK_DEVICE void stage_x(const Product& p, const RowSpan& span, u32 at, bf16* left) {
  constexpr Format STORED = I == CODES ? F : BF16;
  constexpr u32 VECS = CHUNK / PER_VEC<STORED>;
  const u32 end = padded_k(p);
  for (u32 v = thread(); v < ROW_TILES * TILE * VECS; v += num_threads()) {
    const u32 row = v / VECS, col = v % VECS * PER_VEC<STORED>;
    const u8* from = nullptr;
    if (row < span.count) {
      const u32 x = input_row(p, span.first + row);
      from = I == CODES ? x_row<u8>(p, x, span.batch) : reinterpret_cast<const u8*>(x_row<bf16>(p, x, span.batch));
    }
    stage_vec<STORED>(from, at + col, end, 1.0f, left + row * CHUNK_STRIDE + col);
  }
}

template <Format F>
GK_DEVICE void stage_weights(const Weights& w, u32 first_n, u32 at, bf16* right) {
  constexpr u32 VECS = CHUNK / PER_VEC<F>;
  for (u32 v = thread(); v < num_waves() * TILE * VECS; v += num_threads()) {
    const u32 row = v / VECS, col = v % VECS * PER_VEC<F>, n = first_n + row;
    const u8* from = n < w.n ? w.values + u64(n) * w.row_bytes : nullptr;
    float scale = 1.0f;
    if constexpr (F == INT4) scale = n < w.n ? scale_at<INT4>(w, n, at + col) : 0.0f;
    stage_vec<F>(from, at + col, w.k, scale, right + row * CHUNK_STRIDE + col);
  }
}

// 16 * ROW_TILES rows of x and 16 columns of out per wave.
template <Format F, Input I, u32 ROW_TILES, u32 NUM_WEIGHTS>
GK_DEVICE void multiply_tiles(const Product& p) {
  constexpr bool IN_INTEGERS = F == INT8 && I == CODES;
  constexpr bool IN_BLOCKS = F == FP8 || IN_INTEGERS;
  const RowSpan span = row_span(p, ROW_TILES * TILE);
  if (span.count == 0) return;
  const u32 first_n = block_x() * num_waves() * TILE, col = first_n + wave() * TILE;
  Weights w[NUM_WEIGHTS];
#pragma unroll
  for (u32 j = 0; j < NUM_WEIGHTS; ++j) w[j] = weights_of(p, j, span.matrix);
  const u32 n = w[0].n, k = w[0].k;

  Shared shared;
  bf16* left = shared.take<bf16>(ROW_TILES * TILE * CHUNK_STRIDE);
  bf16* right[NUM_WEIGHTS];
#pragma unroll
  for (u32 j = 0; j < NUM_WEIGHTS; ++j) right[j] = shared.take<bf16>(num_waves() * TILE * CHUNK_STRIDE);

  // Products since the last scaling, and scaled sums; formats without block scales use the first alone.
  TileResult products[NUM_WEIGHTS][ROW_TILES];
  float sums[IN_BLOCKS && !IN_INTEGERS ? NUM_WEIGHTS : 1][ROW_TILES][RESULT_VALUES] = {};
  i32 integer_sums[IN_INTEGERS ? NUM_WEIGHTS : 1][ROW_TILES][RESULT_VALUES] = {};
#pragma unroll
  for (u32 j = 0; j < NUM_WEIGHTS; ++j) {
    for (u32 t = 0; t < ROW_TILES; ++t) clear(products[j][t]);
  }
#pragma unroll 1
  for (u32 at = 0; at < k; at += CHUNK) {
    stage_x<F, I, ROW_TILES>(p, span, at, left);
#pragma unroll
    for (u32 j = 0; j < NUM_WEIGHTS; ++j) stage_weights<F>(w[j], first_n, at, right[j]);
    sync();
#pragma unroll
    for (u32 step = 0; step < CHUNK; step += TILE) {
      TileOperand b[NUM_WEIGHTS];
#pragma unroll
      for (u32 j = 0; j < NUM_WEIGHTS; ++j) {
        b[j] = load_right(right[j] + wave() * TILE * CHUNK_STRIDE + step, CHUNK_STRIDE);
      }
#pragma unroll
      for (u32 t = 0; t < ROW_TILES; ++t) {
        const TileOperand a = load_left(left + t * TILE * CHUNK_STRIDE + step, CHUNK_STRIDE);
#pragma unroll
        for (u32 j = 0; j < NUM_WEIGHTS; ++j) mma(products[j][t], a, b[j]);
      }
    }
    sync();
    if constexpr (IN_BLOCKS) {
      // The end of a block of columns; FP8_BLOCK is a multiple of CHUNK.
      if (at / FP8_BLOCK == (at + CHUNK) / FP8_BLOCK && at + CHUNK < k) continue;
#pragma unroll
      for (u32 j = 0; j < NUM_WEIGHTS; ++j) {
        const float scale = scale_at<F>(w[j], min(col, n - 1), at);
#pragma unroll
        for (u32 t = 0; t < ROW_TILES; ++t) {
#pragma unroll
          for (u32 i = 0; i < RESULT_VALUES; ++i) {
            if constexpr (IN_INTEGERS) {
              integer_sums[j][t][i] += i32(products[j][t].values[i]);
            } else {
              float x_scale = 1.0f;
              if constexpr (I == CODES) {
                const u32 row = input_row(p, span.first + min(t * TILE + result_row(i), span.count - 1));
                x_scale = p.x_scales[u64(row) * div_up(k, FP8_BLOCK) + at / FP8_BLOCK];
              }
              sums[j][t][i] += products[j][t].values[i] * (scale * x_scale);
            }
          }
          clear(products[j][t]);
        }
      }
    }
  }
#pragma unroll
  for (u32 t = 0; t < ROW_TILES; ++t) {
#pragma unroll
    for (u32 i = 0; i < RESULT_VALUES; ++i) {
      const u32 row = t * TILE + result_row(i), out_col = col + result_col(i);
      if (row >= span.count || out_col >= p.stored_n) continue;
      float results[NUM_WEIGHTS];
#pragma unroll
      for (u32 j = 0; j < NUM_WEIGHTS; ++j) {
        float result;
        if constexpr (IN_INTEGERS) {
          result = float(integer_sums[j][t][i]) * p.x_scales[input_row(p, span.first + row)];
        } else if constexpr (IN_BLOCKS) {
          result = sums[j][t][i];
        } else {
          result = products[j][t].values[i];
        }
        results[j] = out_col < n ? result * row_scale<F>(w[j], out_col) : 0.0f;
      }
      float value = results[0];
      if constexpr (NUM_WEIGHTS == 2) value = gated(results[0], results[1]);
      store(p, output_row(p, span.first + row), out_col, span.batch, value);
    }
  }
}

// Names of a family's kernels: FAMILY_FORMAT_INPUT_BODY. a16: bf16 inputs, a8: quantised ones; m1, m4: one to four rows
// read once; t16, t64: tiles of 16 and 64 rows. F32 weights are not rounded to bf16, so they have no tiles.
#define GK_PRODUCT_KERNEL(name, body)                     \
  GK_KERNEL name(GK_PRODUCT_PARAMS) { body(GK_PRODUCT); } \
  GK_EXPORT(name)
#define GK_ROW_KERNELS(prefix, format, input, num)                       \
  GK_PRODUCT_KERNEL(prefix##_m1, (multiply_rows<format, input, 1, num>)) \
  GK_PRODUCT_KERNEL(prefix##_m4, (multiply_rows<format, input, 4, num>))
#define GK_TILE_KERNELS(prefix, format, input, num)                        \
  GK_PRODUCT_KERNEL(prefix##_t16, (multiply_tiles<format, input, 1, num>)) \
  GK_PRODUCT_KERNEL(prefix##_t64, (multiply_tiles<format, input, 4, num>))
#define GK_PRODUCT_FAMILY(prefix, num)                  \
  GK_ROW_KERNELS(prefix##_f32_a16, F32, VALUES, num)    \
  GK_ROW_KERNELS(prefix##_bf16_a16, BF16, VALUES, num)  \
  GK_TILE_KERNELS(prefix##_bf16_a16, BF16, VALUES, num) \
  GK_ROW_KERNELS(prefix##_fp8_a16, FP8, VALUES, num)    \
  GK_TILE_KERNELS(prefix##_fp8_a16, FP8, VALUES, num)   \
  GK_ROW_KERNELS(prefix##_fp8_a8, FP8, CODES, num)      \
  GK_TILE_KERNELS(prefix##_fp8_a8, FP8, CODES, num)     \
  GK_ROW_KERNELS(prefix##_int8_a16, INT8, VALUES, num)  \
  GK_TILE_KERNELS(prefix##_int8_a16, INT8, VALUES, num) \
  GK_ROW_KERNELS(prefix##_int8_a8, INT8, CODES, num)    \
  GK_TILE_KERNELS(prefix##_int8_a8, INT8, CODES, num)   \
  GK_ROW_KERNELS(prefix##_int4_a16, INT4, VALUES, num)  \
  GK_TILE_KERNELS(prefix##_int4_a16, INT4, VALUES, num)

}  // namespace gk
