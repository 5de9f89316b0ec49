// Many rows of x against packed weights: each weight is used for 64 rows, out of shared memory.
//
// A block of 256 threads computes 64 rows and as many columns of out as half its waves have 32 rows of W, of two W half as
// many of each. A wave has two tiles of rows and two of columns. While the waves multiply one chunk of 128 bytes of every
// row, their threads hold the next one in registers; two buffers in shared memory take turns, so that one barrier a chunk
// is enough.
#pragma once

#include "product.h"

namespace gk {

constexpr u32 TILED_THREADS = 256;
constexpr u32 TILED_ROWS = 64;
// Rows of W of a block, of all W together.
constexpr u32 TILED_WEIGHT_ROWS = TILED_THREADS / WAVE / 2 * 32;
// Bytes of a staged row, and from row to row: 16 more, so that the rows of a tile lie in different banks.
constexpr u32 STAGED_BYTES = 128;
constexpr u32 STAGED_STRIDE = STAGED_BYTES + 16;
// Rows of x, then of W.
constexpr u32 STAGED_ROWS = TILED_ROWS + TILED_WEIGHT_ROWS;

// Columns of x in a chunk.
template <Input I>
constexpr u32 STAGED_COLS = I == CODES ? STAGED_BYTES : STAGED_BYTES / 2;

// Vectors of `PER_VEC` columns in a chunk of `num_rows` rows, and how many of them a thread holds.
template <Input I, u32 PER_VECTOR>
constexpr u32 ROW_VECS = STAGED_COLS<I> / PER_VECTOR;
template <u32 NUM_VECS>
constexpr u32 VECS_PER_THREAD = (NUM_VECS + TILED_THREADS - 1) / TILED_THREADS;

// A row of W in the block: which W, and which row of it.
struct WeightRow {
  u32 which, n;
};

template <u32 NUM_WEIGHTS>
GK_DEVICE WeightRow weight_row(u32 row) {
  constexpr u32 PER_WEIGHT = TILED_WEIGHT_ROWS / NUM_WEIGHTS;
  if (NUM_WEIGHTS == 1) return {0, block_x() * PER_WEIGHT + row};
  return {row / PER_WEIGHT, block_x() * PER_WEIGHT + row % PER_WEIGHT};
}

// What the threads hold of one chunk of x and W.
template <Format F, Input I, u32 NUM_WEIGHTS>
class Chunk {
 public:
  // Rows past the last one repeat it: their sums are not stored. Columns past the last one are zeros.
  GK_DEVICE void load(const Product& p, const RowSpan& span, u32 at) {
#pragma unroll
    for (u32 i = 0; i < VECS_PER_THREAD<TILED_ROWS * X_VECS>; ++i) {
      const u32 v = i * TILED_THREADS + thread(), col = at + v % X_VECS * X_PER_VEC;
      const u32 row = input_row(p, span.first + min(v / X_VECS, span.count - 1));
      const u8* from = x_bytes<I>(p, row, span.batch);
      x_[i] = load_vec_or_zero<Vec16>(from + u64(col) * (16 / X_PER_VEC), col < p.weights[0].k, from);
    }
#pragma unroll
    for (u32 i = 0; i < VECS_PER_THREAD<TILED_WEIGHT_ROWS * W_VECS>; ++i) {
      const u32 v = min(i * TILED_THREADS + thread(), TILED_WEIGHT_ROWS * W_VECS - 1), col = at + v % W_VECS * PER_VEC<F>;
      const WeightRow row = weight_row<NUM_WEIGHTS>(v / W_VECS);
      const Weights w = weights_of(p, row.which, span.matrix);
      const u32 n = min(row.n, w.n - 1);
      const u8* from = w.values + u64(n) * w.row_bytes;
      w_[i] = load_vec_or_zero<Vec16>(from + u64(col) * 16 / PER_VEC<F>, col < w.k, from);
      if constexpr (F == INT4) scales_[i] = scale_at<F>(w, n, col);
    }
  }

  // Into shared memory, as the matrix units take it.
  GK_DEVICE void store(u8* staged) const {
#pragma unroll
    for (u32 i = 0; i < VECS_PER_THREAD<TILED_ROWS * X_VECS>; ++i) {
      const u32 v = i * TILED_THREADS + thread();
      store_vec(staged + v / X_VECS * STAGED_STRIDE + v % X_VECS * 16, x_[i]);
    }
#pragma unroll
    for (u32 i = 0; i < VECS_PER_THREAD<TILED_WEIGHT_ROWS * W_VECS>; ++i) {
      const u32 v = i * TILED_THREADS + thread();
      if (v >= TILED_WEIGHT_ROWS * W_VECS) break;
      u8* to = staged + (TILED_ROWS + v / W_VECS) * STAGED_STRIDE + v % W_VECS * (STAGED_BYTES / W_VECS);
      if constexpr (I == CODES || F == BF16) {
        store_vec(to, w_[i]);
      } else {
        u32 words[PER_VEC<F> / 2];
        to_bf16_words<F>(w_[i], F == INT4 ? scales_[i] : 1.0f, words);
#pragma unroll
        for (u32 j = 0; j < PER_VEC<F> / 8; ++j) {
          store_vec(to + 16 * j, Vec16{{words[4 * j], words[4 * j + 1], words[4 * j + 2], words[4 * j + 3]}});
        }
      }
    }
  }

 private:
  static constexpr u32 X_PER_VEC = I == CODES ? 16 : 8;
  static constexpr u32 X_VECS = ROW_VECS<I, X_PER_VEC>;
  static constexpr u32 W_VECS = ROW_VECS<I, PER_VEC<F>>;

  Vec16 x_[VECS_PER_THREAD<TILED_ROWS * X_VECS>];
  Vec16 w_[VECS_PER_THREAD<TILED_WEIGHT_ROWS * W_VECS>];
  float scales_[F == INT4 ? VECS_PER_THREAD<TILED_WEIGHT_ROWS * W_VECS> : 1];
};

template <Format F, Input I, u32 NUM_WEIGHTS>
GK_DEVICE void multiply_tiles(const Product& p) {
  const RowSpan span = row_span(p, TILED_ROWS);
  if (span.count == 0) return;
  // The wave's two tiles of rows, and its two of W: neighbours, or the same columns of both W.
  const u32 first_row = wave() % 2 * 2 * TILE;
  const u32 first_weight_row = wave() / 2 * (NUM_WEIGHTS == 2 ? TILE : 2 * TILE);
  constexpr u32 NEXT_WEIGHT_ROW = NUM_WEIGHTS == 2 ? TILED_WEIGHT_ROWS / 2 : TILE;

  Shared shared;
  u8* buffers = shared.take<u8>(2 * STAGED_ROWS * STAGED_STRIDE);
  Sums<F, I> sums[2][2];
#pragma unroll
  for (u32 i = 0; i < 4; ++i) sums[i / 2][i % 2].clear();
  Chunk<F, I, NUM_WEIGHTS> chunk;
  chunk.load(p, span, 0);
  const u32 k = p.weights[0].k;
  constexpr u32 LENGTH = LENGTH_OF<F, I>;
  // Where FP8 codes are widened for the matrix units, more would not fit the registers.
  [[maybe_unused]] constexpr u32 UNROLL = F == FP8 && I == CODES ? 1 : 4;
#pragma unroll 1
  for (u32 at = 0, turn = 0; at < k; at += STAGED_COLS<I>, turn ^= 1) {
    u8* staged = buffers + turn * STAGED_ROWS * STAGED_STRIDE;
    chunk.store(staged);
    sync();
    chunk.load(p, span, at + STAGED_COLS<I>);
#pragma unroll UNROLL
    for (u32 step = 0; step < STAGED_BYTES; step += LENGTH * OPERAND_BYTES) {
      LongOperand<LENGTH> x[2], w[2];
#pragma unroll
      for (u32 i = 0; i < 2; ++i) {
        x[i] = load_left<LENGTH>(staged + (first_row + i * TILE) * STAGED_STRIDE + step, STAGED_STRIDE);
        const u32 weight_row = TILED_ROWS + first_weight_row + i * NEXT_WEIGHT_ROW;
        w[i] = load_right<LENGTH>(staged + weight_row * STAGED_STRIDE + step, STAGED_STRIDE);
      }
#pragma unroll
      for (u32 i = 0; i < 4; ++i) sums[i / 2][i % 2].multiply(x[i / 2], w[i % 2]);
    }
    if constexpr (F == FP8) {
      // The end of a block; FP8_BLOCK is a multiple of the columns of a chunk.
      const u32 next = at + STAGED_COLS<I>;
      if (at / FP8_BLOCK == next / FP8_BLOCK && next < k) continue;
#pragma unroll
      for (u32 i = 0; i < 4; ++i) {
        const WeightRow tile = weight_row<NUM_WEIGHTS>(first_weight_row + i % 2 * NEXT_WEIGHT_ROW);
        const Weights w = weights_of(p, tile.which, span.matrix);
        const float scale = scale_at<F>(w, min(tile.n, w.n - 1), at);
        sums[i / 2][i % 2].scale([&](u32 value) {
          const u32 row = min(first_row + i / 2 * TILE + result_row(value), span.count - 1);
          return scale * x_scale<I>(p, input_row(p, span.first + row), at);
        });
      }
    }
  }
#pragma unroll
  for (u32 i = 0; i < RESULT_VALUES; ++i) {
#pragma unroll
    for (u32 t = 0; t < 2; ++t) {
      const u32 row = first_row + t * TILE + result_row(i);
      if (row >= span.count) continue;
      const u32 x_row = input_row(p, span.first + row);
      float results[2];
      u32 cols[2];
#pragma unroll
      for (u32 j = 0; j < 2; ++j) {
        const WeightRow tile = weight_row<NUM_WEIGHTS>(first_weight_row + j * NEXT_WEIGHT_ROW);
        cols[j] = tile.n + result_col(i);
        results[j] = finished<F, I>(p, weights_of(p, tile.which, span.matrix), x_row, cols[j], sums[t][j].value(i));
      }
      if constexpr (NUM_WEIGHTS == 2) {
        store_finished(p, span, row, cols[0], results);
      } else {
#pragma unroll
        for (u32 j = 0; j < 2; ++j) store_finished(p, span, row, cols[j], {results[j]});
      }
    }
  }
}

}  // namespace gk
