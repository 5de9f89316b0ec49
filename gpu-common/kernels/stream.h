// Few rows of x against packed weights: memory is the limit, so every weight is read once, from memory straight into the
// registers that the matrix units take it from. Weights are the left operand, rows of x the right one.
//
// A block computes 16 columns of out (16 rows of W, or of both W) for up to 16 ROW_TILES rows of x. Its waves share k:
// wave w takes blocks of 128 columns number w, w + W, w + 2 W ..., reading the next one while it multiplies. At the end
// the waves' sums are added up in their order.
#pragma once

#include "product.h"

namespace gk {

// Columns of x that a wave takes at a time.
constexpr u32 STREAM_BLOCK = FP8_BLOCK;
// Of those, columns in the vectors that the four slices of a row load at once, and how many times they load.
template <Format F>
constexpr u32 CHUNK = NUM_SLICES * PER_VEC<F>;
template <Format F>
constexpr u32 NUM_CHUNKS = STREAM_BLOCK / CHUNK<F>;

// What a lane has of 16 rows of W in one block of columns.
template <Format F>
struct WeightSlices {
  Vec16 vecs[NUM_CHUNKS<F>][SLICE_ROWS];
};

// First column of the lane's slice in chunk `c` of a block of columns.
template <Format F>
GK_DEVICE u32 slice_col(u32 block, u32 c) {
  return block * STREAM_BLOCK + c * CHUNK<F> + slice() * PER_VEC<F>;
}

// Rows past the last one repeat it: their sums are not stored.
template <Format F>
GK_DEVICE WeightSlices<F> load_weights(const Weights& w, u32 first_n, u32 block) {
  WeightSlices<F> slices;
#pragma unroll
  for (u32 c = 0; c < NUM_CHUNKS<F>; ++c) {
    const u32 col = slice_col<F>(block, c);
#pragma unroll
    for (u32 j = 0; j < SLICE_ROWS; ++j) {
      const u8* row = w.values + u64(min(first_n + slice_row(j), w.n - 1)) * w.row_bytes;
      slices.vecs[c][j] = load_vec_or_zero<Vec16>(row + u64(col) * 16 / PER_VEC<F>, col < w.k, row);
    }
  }
  return slices;
}

// Words of a lane's slice of an operand: codes as they are, else bf16.
template <Format F, Input I>
constexpr u32 SLICE_WORDS = I == CODES ? 4 : PER_VEC<F> / 2;

template <Format F, Input I>
GK_DEVICE Slices<SLICE_WORDS<F, I>> weight_operands(const Weights& w, const WeightSlices<F>& slices, u32 first_n,
                                                    u32 block, u32 c) {
  Slices<SLICE_WORDS<F, I>> operands;
#pragma unroll
  for (u32 j = 0; j < SLICE_ROWS; ++j) {
    const Vec16& vec = slices.vecs[c][j];
    if constexpr (I == CODES) {
#pragma unroll
      for (u32 i = 0; i < 4; ++i) operands.words[j][i] = vec.words[i];
    } else {
      float scale = 1.0f;
      if constexpr (F == INT4) scale = scale_at<F>(w, min(first_n + slice_row(j), w.n - 1), slice_col<F>(block, c));
      to_bf16_words<F>(vec, scale, operands.words[j]);
    }
  }
  return operands;
}

// The same columns of a tile of x, whose rows from `num_rows` on are not there: zeros.
template <Format F, Input I>
GK_DEVICE Slices<SLICE_WORDS<F, I>> x_operands(const Product& p, const u8* const (&rows)[SLICE_ROWS], u32 num_rows,
                                               u32 col) {
  constexpr u32 NUM_VECS = SLICE_WORDS<F, I> / 4;
  constexpr u32 ELEMENT_BYTES = I == CODES ? 1 : 2;
  Slices<SLICE_WORDS<F, I>> operands;
#pragma unroll
  for (u32 j = 0; j < SLICE_ROWS; ++j) {
#pragma unroll
    for (u32 v = 0; v < NUM_VECS; ++v) {
      const bool is_there = slice_row(j) < num_rows && col < p.weights[0].k;
      const Vec16 vec = load_vec_or_zero<Vec16>(rows[j] + u64(col) * ELEMENT_BYTES + 16 * v, is_there, rows[j]);
#pragma unroll
      for (u32 i = 0; i < 4; ++i) operands.words[j][4 * v + i] = vec.words[i];
    }
  }
  return operands;
}

// Adds up the waves' tiles and stores them: [wave][weight][row tile][row of x][16 columns of out] in shared memory.
template <Format F, Input I, u32 ROW_TILES, u32 NUM_WEIGHTS>
GK_DEVICE void add_waves(const Product& p, const RowSpan& span, const Sums<F, I> (&sums)[NUM_WEIGHTS][ROW_TILES]) {
  using Value = typename Sums<F, I>::Value;
  constexpr u32 TILE_VALUES = TILE * TILE, WAVE_VALUES = NUM_WEIGHTS * ROW_TILES * TILE_VALUES;
  Shared shared;
  Value* partials = shared.take<Value>(num_waves() * WAVE_VALUES);
#pragma unroll
  for (u32 j = 0; j < NUM_WEIGHTS; ++j) {
#pragma unroll
    for (u32 t = 0; t < ROW_TILES; ++t) {
      Value* tile = partials + wave() * WAVE_VALUES + (j * ROW_TILES + t) * TILE_VALUES;
#pragma unroll
      for (u32 i = 0; i < RESULT_VALUES; ++i) tile[result_col(i) * TILE + result_row(i)] = sums[j][t].value(i);
    }
  }
  sync();
  for (u32 at = thread(); at < min(ROW_TILES * TILE, span.count) * TILE; at += num_threads()) {
    const u32 row = at / TILE, col = block_x() * TILE + at % TILE;
    float results[NUM_WEIGHTS];
#pragma unroll
    for (u32 j = 0; j < NUM_WEIGHTS; ++j) {
      Value sum = Value(0);
      for (u32 w = 0; w < num_waves(); ++w) sum += partials[w * WAVE_VALUES + j * ROW_TILES * TILE_VALUES + at];
      results[j] = finished<F, I>(p, weights_of(p, j, span.matrix), input_row(p, span.first + row), col, sum);
    }
    store_finished(p, span, row, col, results);
  }
}

template <Format F, Input I, u32 ROW_TILES, u32 NUM_WEIGHTS>
GK_DEVICE void stream(const Product& p) {
  const RowSpan span = row_span(p, ROW_TILES * TILE);
  if (span.count == 0) return;
  const u32 first_n = block_x() * TILE, num_blocks = div_up(p.weights[0].k, STREAM_BLOCK);
  Weights w[NUM_WEIGHTS];
#pragma unroll
  for (u32 j = 0; j < NUM_WEIGHTS; ++j) w[j] = weights_of(p, j, span.matrix);
  const u8* rows[ROW_TILES][SLICE_ROWS];
#pragma unroll
  for (u32 t = 0; t < ROW_TILES; ++t) {
#pragma unroll
    for (u32 j = 0; j < SLICE_ROWS; ++j) {
      const u32 row = min(t * TILE + slice_row(j), span.count - 1);
      rows[t][j] = x_bytes<I>(p, input_row(p, span.first + row), span.batch);
    }
  }
  Sums<F, I> sums[NUM_WEIGHTS][ROW_TILES];
#pragma unroll
  for (u32 j = 0; j < NUM_WEIGHTS; ++j) {
#pragma unroll
    for (u32 t = 0; t < ROW_TILES; ++t) sums[j][t].clear();
  }

  constexpr u32 STEPS = NUM_STEPS<SLICE_WORDS<F, I>>;
  constexpr u32 LENGTH = STEPS % LENGTH_OF<F, I> == 0 ? LENGTH_OF<F, I> : 1;
  WeightSlices<F> stored[NUM_WEIGHTS], next[NUM_WEIGHTS];
#pragma unroll
  for (u32 j = 0; j < NUM_WEIGHTS; ++j) next[j] = load_weights<F>(w[j], first_n, wave());
#pragma unroll 1
  for (u32 block = wave(); block < num_blocks; block += num_waves()) {
#pragma unroll
    for (u32 j = 0; j < NUM_WEIGHTS; ++j) {
      stored[j] = next[j];
      next[j] = load_weights<F>(w[j], first_n, block + num_waves());
    }
#pragma unroll
    for (u32 c = 0; c < NUM_CHUNKS<F>; ++c) {
      Slices<SLICE_WORDS<F, I>> left[NUM_WEIGHTS];
#pragma unroll
      for (u32 j = 0; j < NUM_WEIGHTS; ++j) left[j] = weight_operands<F, I>(w[j], stored[j], first_n, block, c);
#pragma unroll
      for (u32 t = 0; t < ROW_TILES; ++t) {
        const auto right = x_operands<F, I>(p, rows[t], max(span.count, t * TILE) - t * TILE, slice_col<F>(block, c));
#pragma unroll
        for (u32 step = 0; step < STEPS; step += LENGTH) {
#pragma unroll
          for (u32 j = 0; j < NUM_WEIGHTS; ++j) {
            sums[j][t].multiply(left_operand<LENGTH>(left[j], step), right_operand<LENGTH>(right, step));
          }
        }
      }
    }
    if constexpr (F == FP8) {
      const u32 col = block * STREAM_BLOCK;
#pragma unroll
      for (u32 j = 0; j < NUM_WEIGHTS; ++j) {
        const float scale = scale_at<F>(w[j], min(first_n, w[j].n - 1), col);
#pragma unroll
        for (u32 t = 0; t < ROW_TILES; ++t) {
          sums[j][t].scale([&](u32 i) {
            const u32 row = min(t * TILE + result_col(i), span.count - 1);
            return scale * x_scale<I>(p, input_row(p, span.first + row), col);
          });
        }
      }
    }
  }
  add_waves(p, span, sums);
}

}  // namespace gk
