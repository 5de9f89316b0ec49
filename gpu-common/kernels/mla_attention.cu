// Causal attention on the paged latent cache, absorbed form: one key of Lkv + R values per position for all heads, and
// its first Lkv values are the value.
//
// A query row is one token's head; a sequence's rows follow each other, token by token. A block takes 16, 32 or 64 rows
// of one sequence and a part of its positions, `tile_positions` at a time; the next tile is copied to shared memory while
// this one is computed with (mla_keys.h, by format of the cache). Each wave has 16 positions of a tile and some of its rows:
// scores stay in its registers, only the largest of each row goes through shared memory. Then each wave adds to its own
// columns of the result. If a sequence is split over several blocks, each leaves its unnormalised sum, largest score and
// sum of weights, and `merge_splits` puts them together.
#include "mla_keys.h"

namespace gk {

namespace {

// 16-wide tiles of the result that a wave holds: a block has as many waves as the rank takes.
constexpr u32 COLUMN_TILES = 4;
// 16-wide tiles of keys that are multiplied without a look at the width.
constexpr u32 SCORE_COLUMNS = 4;

// The block's shared memory beside that of keys.
struct Tiles {
  bf16* queries;
  bf16* weights;
  // Of each 16 positions of a tile and each row: the largest score; at the end, sums of weights.
  float* by_row;
  // Where the positions that a row sees end.
  u32* visible;
};

// A wave's part of a tile of scores: 16 positions, and up to SCORE_TILES row tiles. Position tiles are at most half as many
// as waves.
template <u32 ROW_TILES>
struct Share {
  static constexpr u32 SCORE_TILES = (ROW_TILES + 1) / 2;

  GK_DEVICE explicit Share(const Attention& p) {
    const u32 num_position_tiles = p.tile_positions / TILE;
    position_tile = wave() % num_position_tiles;
    first_row_tile = wave() / num_position_tiles * SCORE_TILES;
    is_empty = first_row_tile >= ROW_TILES;
  }

  // Row of the block of row `tile_row` of row tile `i`.
  GK_DEVICE u32 row(u32 i, u32 tile_row) const { return (first_row_tile + i) * TILE + tile_row; }

  u32 position_tile, first_row_tile;
  bool is_empty;
};

template <u32 ROW_TILES, class Keys>
class Attend {
 public:
  static constexpr u32 ROWS = ROW_TILES * TILE, SCORE_TILES = Share<ROW_TILES>::SCORE_TILES;

  GK_DEVICE Attend(const Attention& p, const Part& part)
      : p_(p), part_(part), share_(p), stride_(p.width + PAD), weight_stride_(p.tile_positions + PAD), keys_(p, shared_) {
    tiles_.queries = shared_.take<bf16>(ROWS * stride_);
    tiles_.weights = shared_.take<bf16>(ROWS * weight_stride_);
    tiles_.by_row = shared_.take<float>(p.tile_positions / TILE * ROWS);
    tiles_.visible = shared_.take<u32>(ROWS);
  }

  GK_DEVICE void run() {
    clear_all();
    stage_queries(p_, part_, ROWS, tiles_.queries);
    keys_.start(p_, part_, part_.start);
    if (thread() < ROWS) {
      const u32 seen = part_.context_len + (part_.first_row + thread()) / p_.num_heads + 1;
      tiles_.visible[thread()] = thread() < part_.num_rows ? min(part_.end, seen) : 0;
    }
    for (u32 first = part_.start; first < part_.end; first += p_.tile_positions) {
      const bf16* keys = keys_.next(p_, part_, first + p_.tile_positions);
      TileResult scores[SCORE_TILES];
      if (!share_.is_empty) score(first, keys, scores);
      sync();
      rescale();
      if (!share_.is_empty) weigh(scores);
      sync();
      add_values(keys);
    }
    write();
  }

 private:
  GK_DEVICE void clear_all() {
#pragma unroll
    for (u32 r = 0; r < ROW_TILES; ++r) {
#pragma unroll
      for (u32 j = 0; j < LANE_ROWS; ++j) largest_[r][j] = neg_infinity();
#pragma unroll
      for (u32 c = 0; c < COLUMN_TILES; ++c) clear(results_[r][c]);
    }
#pragma unroll
    for (u32 i = 0; i < SCORE_TILES; ++i) {
#pragma unroll
      for (u32 j = 0; j < LANE_ROWS; ++j) own_largest_[i][j] = neg_infinity(), own_sums_[i][j] = 0.0f;
    }
  }

  // Adds the products of some columns to scores.
  template <u32 LENGTH>
  GK_DEVICE void multiply(const bf16* queries, const bf16* keys, TileResult (&scores)[SCORE_TILES]) const {
    const auto right = load_right<LENGTH>(keys, stride_);
#pragma unroll
    for (u32 i = 0; i < SCORE_TILES; ++i) mma(scores[i], load_left<LENGTH>(queries + i * TILE * stride_, stride_), right);
  }

  // Scores of the wave's rows and positions, and the largest of each row.
  GK_DEVICE void score(u32 first, const bf16* keys, TileResult (&scores)[SCORE_TILES]) {
#pragma unroll
    for (u32 i = 0; i < SCORE_TILES; ++i) clear(scores[i]);
    const bf16* own_keys = keys + share_.position_tile * TILE * stride_;
    const bf16* own_queries = tiles_.queries + share_.row(0, 0) * stride_;
    u32 k = 0;
    for (; k + SCORE_COLUMNS * TILE <= p_.width; k += SCORE_COLUMNS * TILE) {
#pragma unroll
      for (u32 i = 0; i < SCORE_COLUMNS; i += BF16_LENGTH) {
        multiply<BF16_LENGTH>(own_queries + k + i * TILE, own_keys + k + i * TILE, scores);
      }
    }
    for (; k < p_.width; k += TILE) multiply<1>(own_queries + k, own_keys + k, scores);
#pragma unroll
    for (u32 i = 0; i < SCORE_TILES; ++i) {
      float largest[LANE_ROWS];
#pragma unroll
      for (u32 j = 0; j < LANE_ROWS; ++j) largest[j] = neg_infinity();
#pragma unroll
      for (u32 v = 0; v < RESULT_VALUES; ++v) {
        float& value = scores[i].values[v];
        const u32 position = first + share_.position_tile * TILE + result_col(v);
        if (position >= tiles_.visible[share_.row(i, result_row(v))]) value = neg_infinity();
        largest[lane_row(v)] = max(largest[lane_row(v)], value);
      }
#pragma unroll
      for (u32 j = 0; j < LANE_ROWS; ++j) largest[j] = row_max(largest[j]);
      write_by_row(i, largest);
    }
  }

  // A value of each of the wave's rows, for the others.
  GK_DEVICE void write_by_row(u32 i, const float (&values)[LANE_ROWS]) {
    if (lane() % LANES_PER_ROW != 0) return;
#pragma unroll
    for (u32 j = 0; j < LANE_ROWS; ++j) tiles_.by_row[share_.position_tile * ROWS + share_.row(i, tile_row(j))] = values[j];
  }

  // Raises the largest score of `row`. What was summed before is to be multiplied by the result; `base` is to be
  // subtracted from the row's scaled scores.
  GK_DEVICE float raise(u32 row, float& largest, float& base) const {
    const float before = largest * p_.scale;
    for (u32 t = 0; t < p_.tile_positions / TILE; ++t) largest = max(largest, tiles_.by_row[t * ROWS + row]);
    // A row that has seen no position yet has no largest score to subtract.
    base = largest == neg_infinity() ? 0.0f : largest * p_.scale;
    return exp2(before - base);
  }

  GK_DEVICE void rescale() {
#pragma unroll
    for (u32 r = 0; r < ROW_TILES; ++r) {
      float shrink[LANE_ROWS];
#pragma unroll
      for (u32 j = 0; j < LANE_ROWS; ++j) {
        float base;
        shrink[j] = raise(r * TILE + tile_row(j), largest_[r][j], base);
      }
#pragma unroll
      for (u32 c = 0; c < COLUMN_TILES; ++c) {
#pragma unroll
        for (u32 v = 0; v < RESULT_VALUES; ++v) results_[r][c].values[v] *= shrink[lane_row(v)];
      }
    }
  }

  // Turns the wave's scores into weights.
  GK_DEVICE void weigh(const TileResult (&scores)[SCORE_TILES]) {
#pragma unroll
    for (u32 i = 0; i < SCORE_TILES; ++i) {
      float base[LANE_ROWS];
#pragma unroll
      for (u32 j = 0; j < LANE_ROWS; ++j) {
        own_sums_[i][j] *= raise(share_.row(i, tile_row(j)), own_largest_[i][j], base[j]);
      }
#pragma unroll
      for (u32 v = 0; v < RESULT_VALUES; ++v) {
        const float weight = exp2(scores[i].values[v] * p_.scale - base[lane_row(v)]);
        const u32 row = share_.row(i, result_row(v)), col = share_.position_tile * TILE + result_col(v);
        tiles_.weights[row * weight_stride_ + col] = to_bf16(weight);
        own_sums_[i][lane_row(v)] += weight;
      }
    }
  }

  // Adds the tile's weighted values to the wave's columns.
  GK_DEVICE void add_values(const bf16* keys) {
    u32 k = 0;
    for (; k + BF16_LENGTH * TILE <= p_.tile_positions; k += BF16_LENGTH * TILE) add_positions<BF16_LENGTH>(keys, k);
    if constexpr (BF16_LENGTH > 1) {
      for (; k < p_.tile_positions; k += TILE) add_positions<1>(keys, k);
    }
  }

  // The same for some positions, from `k` of the tile on.
  template <u32 LENGTH>
  GK_DEVICE void add_positions(const bf16* keys, u32 k) {
    LongOperand<LENGTH> left[ROW_TILES];
#pragma unroll
    for (u32 r = 0; r < ROW_TILES; ++r) {
      left[r] = load_left<LENGTH>(tiles_.weights + r * TILE * weight_stride_ + k, weight_stride_);
    }
#pragma unroll
    for (u32 c = 0; c < COLUMN_TILES; ++c) {
      if (first_col(c) >= p_.padded_rank) break;
      const auto right = load_right_by_k<LENGTH>(keys + k * stride_ + first_col(c), stride_);
#pragma unroll
      for (u32 r = 0; r < ROW_TILES; ++r) mma(results_[r][c], left[r], right);
    }
  }

  GK_DEVICE void write() {
    if (!share_.is_empty) {
#pragma unroll
      for (u32 i = 0; i < SCORE_TILES; ++i) {
#pragma unroll
        for (u32 j = 0; j < LANE_ROWS; ++j) own_sums_[i][j] = row_sum(own_sums_[i][j]);
        write_by_row(i, own_sums_[i]);
      }
    }
    sync();
#pragma unroll
    for (u32 r = 0; r < ROW_TILES; ++r) {
      float sums[LANE_ROWS];
#pragma unroll
      for (u32 j = 0; j < LANE_ROWS; ++j) {
        const u32 row = r * TILE + tile_row(j);
        sums[j] = 0.0f;
        for (u32 t = 0; t < p_.tile_positions / TILE; ++t) sums[j] += tiles_.by_row[t * ROWS + row];
        const bool is_first = wave() == 0 && lane() % LANES_PER_ROW == 0;
        if (p_.num_splits > 1 && is_first && row < part_.num_rows) {
          write_stats(p_, part_, row, largest_[r][j] * p_.scale, sums[j]);
        }
      }
#pragma unroll
      for (u32 c = 0; c < COLUMN_TILES; ++c) {
        if (first_col(c) >= p_.padded_rank) break;
#pragma unroll
        for (u32 v = 0; v < RESULT_VALUES; ++v) {
          const u32 row = r * TILE + result_row(v), col = first_col(c) + result_col(v);
          if (row < part_.num_rows) write_value(row, col, results_[r][c].values[v], sums[lane_row(v)]);
        }
      }
    }
  }

  GK_DEVICE void write_value(u32 row, u32 col, float value, float sum) {
    const u64 global_row = part_.global_row + row;
    if (p_.num_splits == 1) {
      p_.out[global_row * p_.padded_rank + col] = to_bf16(value / sum);
    } else {
      p_.partial_sums[(global_row * p_.num_splits + block_y()) * p_.padded_rank + col] = value;
    }
  }

 public:
  GK_DEVICE static void write_stats(const Attention& p, const Part& part, u32 row, float largest, float sum) {
    float* stats = p.partial_stats + ((part.global_row + row) * p.num_splits + block_y()) * 2;
    stats[0] = largest;
    stats[1] = sum;
  }

 private:
  GK_DEVICE static u32 first_col(u32 c) { return (c * num_waves() + wave()) * TILE; }

  const Attention& p_;
  const Part& part_;
  const Share<ROW_TILES> share_;
  const u32 stride_, weight_stride_;
  Shared shared_;
  Keys keys_;
  Tiles tiles_;
  // Of the lane's rows: the largest score so far.
  float largest_[ROW_TILES][LANE_ROWS];
  // The same of the wave's own share, and the sum of this lane's weights.
  float own_largest_[SCORE_TILES][LANE_ROWS], own_sums_[SCORE_TILES][LANE_ROWS];
  TileResult results_[ROW_TILES][COLUMN_TILES];
};

template <u32 ROW_TILES, class Keys>
GK_DEVICE void attend(const Attention& p) {
  const Part part = part_of<ROW_TILES * TILE>(p);
  if (part.num_rows == 0) return;
  if (part.start < part.end) {
    Attend<ROW_TILES, Keys>(p, part).run();
  } else if (thread() < part.num_rows) {
    Attend<ROW_TILES, Keys>::write_stats(p, part, thread(), neg_infinity(), 0.0f);
  }
}

}  // namespace

#define GK_ATTENTION(name, row_tiles, Keys)                                                                        \
  GK_KERNEL name(const bf16* queries, const u8* cache, const u32* block_table, const u32* seq_lens,                \
                 const u32* query_start_loc, bf16* out, float* partial_sums, float* partial_stats, u32 num_seqs,   \
                 u32 num_heads, u32 padded_rank, u32 width, u32 block_size, u32 max_blocks_per_seq,                \
                 u32 tile_positions, u32 num_splits, u32 min_split_positions, float scale) {                       \
    attend<row_tiles, Keys>(Attention{queries, cache, block_table, seq_lens, query_start_loc, out, partial_sums,   \
                                      partial_stats, num_seqs, num_heads, padded_rank, width, block_size,          \
                                      max_blocks_per_seq, tile_positions, num_splits, min_split_positions, scale});\
  }                                                                                                                \
  GK_EXPORT(name)

GK_ATTENTION(attend_r1, 1, NativeKeys)
GK_ATTENTION(attend_r2, 2, NativeKeys)
GK_ATTENTION(attend_r4, 4, NativeKeys)
GK_ATTENTION(attend_fp8_r1, 1, Fp8Keys)
GK_ATTENTION(attend_fp8_r2, 2, Fp8Keys)
GK_ATTENTION(attend_fp8_r4, 4, Fp8Keys)

// One block per query row: puts the splits of a row together. Of a sequence that is shorter than others the last splits
// are empty: they have a factor of 0, and hold nothing. Shared memory: a float per split and two per wave.
GK_KERNEL merge_splits(const float* partial_sums, const float* partial_stats, bf16* out, u32 padded_rank,
                       u32 num_splits) {
  Shared shared;
  float* factors = shared.take<float>(num_splits);
  float* maxima = shared.take<float>(num_waves());
  float* sums = shared.take<float>(num_waves());
  const u64 row = block_x();
  const float* stats = partial_stats + row * num_splits * 2;
  float largest = neg_infinity();
  for (u32 split = thread(); split < num_splits; split += num_threads()) largest = max(largest, stats[2 * split]);
  largest = block_max(largest, maxima);
  float sum = 0.0f;
  for (u32 split = thread(); split < num_splits; split += num_threads()) {
    factors[split] = exp2(stats[2 * split] - largest);
    sum += stats[2 * split + 1] * factors[split];
  }
  sum = block_sum(sum, sums);
  for (u32 i = thread(); i < padded_rank; i += num_threads()) {
    const float* column = partial_sums + row * num_splits * padded_rank + i;
    float value = 0.0f;
#pragma unroll 8
    for (u32 split = 0; split < num_splits; ++split) {
      if (factors[split] > 0.0f) value += column[u64(split) * padded_rank] * factors[split];
    }
    out[row * padded_rank + i] = to_bf16(value / sum);
  }
}
GK_EXPORT(merge_splits)

}  // namespace gk
