// Causal attention on the paged latent cache, absorbed form: one key of Lkv + R values per position for all heads, and
// its first Lkv values are the value.
//
// A query row is one token's head; a sequence's rows follow each other, token by token. A block takes 16 rows of one
// sequence and a part of its positions, `tile_positions` at a time: scores of 16 x 16 tiles by the waves, an online
// softmax by rows, then each wave adds to its own columns of the result. If a sequence is split over several blocks,
// each leaves its unnormalised sum, largest score and sum of exponentials, and `merge_splits` puts them together.
#include "tile.h"

namespace gk {

namespace {

struct Attention {
  const bf16* queries;
  const bf16* cache;
  const u32* block_table;
  const u32* seq_lens;
  const u32* query_start_loc;
  // [row][padded_rank], or null if sequences are split.
  bf16* out;
  // [row][split][padded_rank] and [row][split][2].
  float* partial_sums;
  float* partial_stats;
  u32 num_seqs, num_heads, padded_rank, width, block_size, max_blocks_per_seq, tile_positions, num_splits,
      split_positions;
  float scale;
};

// Blocks of rows before sequence `seq`. As many blocks as this leaves a sequence are at least as many as it needs.
GK_DEVICE u32 first_row_block(const Attention& p, u32 seq) {
  return u32(u64(p.query_start_loc[seq]) * p.num_heads / TILE) + seq;
}

GK_DEVICE u32 sequence_of(const Attention& p, u32 row_block) {
  u32 low = 0, high = p.num_seqs;
  while (high - low > 1) {
    const u32 middle = (low + high) / 2;
    if (first_row_block(p, middle) <= row_block) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

constexpr u32 PAD = 8;

// Keys of positions first..end of a sequence, zeros up to `tile_positions` and never what an unwritten slot holds.
GK_DEVICE void stage_keys(const Attention& p, u32 seq, u32 first, u32 end, bf16* keys) {
  const u32 vecs = p.width / 8;
  for (u32 v = thread(); v < p.tile_positions * vecs; v += num_threads()) {
    const u32 position = first + v / vecs, col = v % vecs * 8;
    Vec16 vec{};
    if (position < end) {
      const u32 block = p.block_table[u64(seq) * p.max_blocks_per_seq + position / p.block_size];
      const u64 slot = u64(block) * p.block_size + position % p.block_size;
      vec = load_vec<Vec16>(p.cache + slot * p.width + col);
    }
    store_vec(keys + v / vecs * (p.width + PAD) + col, vec);
  }
}

// COLUMN_TILES: 16-wide tiles of the result that a wave holds at most.
template <u32 COLUMN_TILES>
GK_DEVICE void attend(const Attention& p) {
  const u32 seq = sequence_of(p, block_x());
  const u32 first_token = p.query_start_loc[seq], num_tokens = p.query_start_loc[seq + 1] - first_token;
  const u32 first_row = (block_x() - first_row_block(p, seq)) * TILE, num_rows = num_tokens * p.num_heads;
  if (first_row >= num_rows) return;
  const u32 rows = min(TILE, num_rows - first_row);
  const u32 context_len = p.seq_lens[seq] - num_tokens;
  // Positions that the last row sees, and of those the ones of this block.
  const u32 visible = context_len + (first_row + rows - 1) / p.num_heads + 1;
  const u32 start = block_y() * p.split_positions, end = min(visible, start + p.split_positions);
  const u64 global_row = u64(first_token) * p.num_heads + first_row;

  const u32 stride = p.width + PAD, score_stride = p.tile_positions + PAD;
  Shared shared;
  bf16* queries = shared.take<bf16>(TILE * stride);
  bf16* keys = shared.take<bf16>(p.tile_positions * stride);
  float* scores = shared.take<float>(TILE * score_stride);
  bf16* weights = shared.take<bf16>(TILE * score_stride);
  // Of each row: largest score, sum of exponentials, factor for what was summed before the last tile.
  float* largest = shared.take<float>(TILE);
  float* sum = shared.take<float>(TILE);
  float* shrink = shared.take<float>(TILE);

  for (u32 v = thread(); v < TILE * p.width / 8; v += num_threads()) {
    const u32 row = v / (p.width / 8), col = v % (p.width / 8) * 8;
    Vec16 vec{};
    if (row < rows) vec = load_vec<Vec16>(p.queries + (global_row + row) * p.width + col);
    store_vec(queries + row * stride + col, vec);
  }
  if (thread() < TILE) {
    largest[thread()] = neg_infinity();
    sum[thread()] = 0.0f;
  }
  TileResult results[COLUMN_TILES];
#pragma unroll
  for (u32 c = 0; c < COLUMN_TILES; ++c) clear(results[c]);

  for (u32 first = start; first < end; first += p.tile_positions) {
    stage_keys(p, seq, first, end, keys);
    sync();
    for (u32 tile = wave(); tile < p.tile_positions / TILE; tile += num_waves()) {
      TileResult products;
      clear(products);
      for (u32 k = 0; k < p.width; k += TILE) {
        mma(products, load_left(queries + k, stride), load_right(keys + tile * TILE * stride + k, stride));
      }
#pragma unroll
      for (u32 i = 0; i < RESULT_VALUES; ++i) {
        const u32 row = result_row(i), col = tile * TILE + result_col(i);
        const bool is_visible =
            row < rows && first + col < end && first + col <= context_len + (first_row + row) / p.num_heads;
        scores[row * score_stride + col] = is_visible ? products.values[i] * p.scale : neg_infinity();
      }
    }
    sync();
    for (u32 row = wave(); row < TILE; row += num_waves()) {
      float tile_largest = neg_infinity();
      for (u32 col = lane(); col < p.tile_positions; col += WAVE) {
        tile_largest = max(tile_largest, scores[row * score_stride + col]);
      }
      const float before = largest[row], now = max(before, wave_max(tile_largest));
      float tile_sum = 0.0f;
      for (u32 col = lane(); col < p.tile_positions; col += WAVE) {
        // A row that has seen no position yet has no largest score to subtract.
        const float score = scores[row * score_stride + col];
        const float weight = score == neg_infinity() ? 0.0f : exp(score - now);
        weights[row * score_stride + col] = to_bf16(weight);
        tile_sum += weight;
      }
      tile_sum = wave_sum(tile_sum);
      if (lane() == 0) {
        shrink[row] = before == neg_infinity() ? 0.0f : exp(before - now);
        sum[row] = sum[row] * shrink[row] + tile_sum;
        largest[row] = now;
      }
    }
    sync();
#pragma unroll
    for (u32 c = 0; c < COLUMN_TILES; ++c) {
      const u32 col = (c * num_waves() + wave()) * TILE;
      if (col >= p.padded_rank) break;
#pragma unroll
      for (u32 i = 0; i < RESULT_VALUES; ++i) results[c].values[i] *= shrink[result_row(i)];
      for (u32 k = 0; k < p.tile_positions; k += TILE) {
        mma(results[c], load_left(weights + k, score_stride), load_right_by_k(keys + k * stride + col, stride));
      }
    }
    sync();
  }
#pragma unroll
  for (u32 c = 0; c < COLUMN_TILES; ++c) {
    const u32 col = (c * num_waves() + wave()) * TILE;
    if (col >= p.padded_rank) break;
#pragma unroll
    for (u32 i = 0; i < RESULT_VALUES; ++i) {
      const u32 row = result_row(i);
      if (row >= rows) continue;
      if (p.num_splits == 1) {
        p.out[(global_row + row) * p.padded_rank + col + result_col(i)] = to_bf16(results[c].values[i] / sum[row]);
      } else {
        const u64 part = (global_row + row) * p.num_splits + block_y();
        p.partial_sums[part * p.padded_rank + col + result_col(i)] = results[c].values[i];
      }
    }
  }
  if (p.num_splits > 1 && thread() < rows) {
    float* stats = p.partial_stats + ((global_row + thread()) * p.num_splits + block_y()) * 2;
    stats[0] = largest[thread()];
    stats[1] = sum[thread()];
  }
}

}  // namespace

#define GK_ATTENTION(name, column_tiles)                                                                         \
  GK_KERNEL name(const bf16* queries, const bf16* cache, const u32* block_table, const u32* seq_lens,            \
                 const u32* query_start_loc, bf16* out, float* partial_sums, float* partial_stats, u32 num_seqs, \
                 u32 num_heads, u32 padded_rank, u32 width, u32 block_size, u32 max_blocks_per_seq,              \
                 u32 tile_positions, u32 num_splits, u32 split_positions, float scale) {                         \
    attend<column_tiles>(Attention{queries, cache, block_table, seq_lens, query_start_loc, out, partial_sums,    \
                                   partial_stats, num_seqs, num_heads, padded_rank, width, block_size,           \
                                   max_blocks_per_seq, tile_positions, num_splits, split_positions, scale});     \
  }                                                                                                              \
  GK_EXPORT(name)

GK_ATTENTION(attend_c1, 1)
GK_ATTENTION(attend_c4, 4)
GK_ATTENTION(attend_c8, 8)
GK_ATTENTION(attend_c16, 16)

// One block per query row: puts the splits of a row together.
GK_KERNEL merge_splits(const float* partial_sums, const float* partial_stats, bf16* out, u32 padded_rank,
                       u32 num_splits) {
  const u64 row = block_x();
  const float* stats = partial_stats + row * num_splits * 2;
  float largest = neg_infinity();
  for (u32 split = 0; split < num_splits; ++split) largest = max(largest, stats[2 * split]);
  float sum = 0.0f;
  for (u32 split = 0; split < num_splits; ++split) {
    if (stats[2 * split] != neg_infinity()) sum += stats[2 * split + 1] * exp(stats[2 * split] - largest);
  }
  for (u32 i = thread(); i < padded_rank; i += num_threads()) {
    float value = 0.0f;
    for (u32 split = 0; split < num_splits; ++split) {
      if (stats[2 * split] == neg_infinity()) continue;
      value += partial_sums[(row * num_splits + split) * padded_rank + i] * exp(stats[2 * split] - largest);
    }
    out[row * padded_rank + i] = to_bf16(value / sum);
  }
}
GK_EXPORT(merge_splits)

}  // namespace gk
