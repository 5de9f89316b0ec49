// Attention of prompts, not absorbed: latents of a sequence become keys and values of every head, and a head attends to
// those as any other attention does.
//
// W_UK is held turned, for the absorbed form; `turn_w_uk` turns it back. `gather_latents` puts latents of a sequence into
// rows, which two ordinary products make keys and values of. Then a block of `attend_expanded` takes one head of one
// sequence and as many of its queries as its waves have rows. Positions come a tile at a time, keys and values; the next
// tile is copied to shared memory while this one is computed with. A wave has whole rows: their scores, their largest one
// and their sums stay in its registers. These hold 128 columns of values: for wider ones as many blocks compute the scores.
#include "attention.h"
#include "fp8_slot.h"

namespace gk {

namespace {

// Side of the squares that matrices are turned by.
constexpr u32 SQUARE = 32;
// 16-wide tiles of values that a block sums.
constexpr u32 VALUE_TILES = 8;

// Which sequence, and which position of it.
struct Place {
  u32 seq, position;
};

// The place of position `index` of all sequences, one after the other.
GK_DEVICE Place place_of(const u32* seq_lens, u32 index) {
  u32 seq = 0;
  while (index >= seq_lens[seq]) index -= seq_lens[seq], ++seq;
  return {seq, index};
}

}  // namespace

// W_UK of heads [Lkv, P], rows `row_bytes` apart, to [padded_nope][padded_rank], filled up with zeros. A block turns a square.
GK_KERNEL turn_w_uk(const u8* w_uk, bf16* turned, u32 rank, u32 nope, u32 row_bytes, u32 matrix_bytes) {
  Shared shared;
  // One more, so that the values of a column lie in different banks.
  bf16* square = shared.take<bf16>(SQUARE * (SQUARE + 2));
  const u8* from = w_uk + u64(block_z()) * matrix_bytes;
  const u32 first_row = block_x() * SQUARE, first_col = block_y() * SQUARE;
  for (u32 i = thread(); i < SQUARE * SQUARE; i += num_threads()) {
    const u32 row = first_row + i / SQUARE, col = first_col + i % SQUARE;
    const bool is_there = row < rank && col < nope;
    square[i / SQUARE * (SQUARE + 2) + i % SQUARE] =
        is_there ? reinterpret_cast<const bf16*>(from + u64(row) * row_bytes)[col] : bf16{0};
  }
  sync();
  const u32 padded_rank = div_up(rank, SQUARE) * SQUARE, padded_nope = div_up(nope, SQUARE) * SQUARE;
  bf16* to = turned + u64(block_z()) * padded_nope * padded_rank;
  for (u32 i = thread(); i < SQUARE * SQUARE; i += num_threads()) {
    const u32 row = first_col + i / SQUARE, col = first_row + i % SQUARE;
    to[u64(row) * padded_rank + col] = square[i % SQUARE * (SQUARE + 2) + i / SQUARE];
  }
}
GK_EXPORT(turn_w_uk)

// Positions `first`.. of all sequences, one after the other: `count` latents to [count][padded_rank], and their rotated values to
// [first..][width - padded_rank]. A wave a position.
GK_KERNEL gather_latents(const u8* cache, const u32* block_table, const u32* seq_lens, bf16* latents, bf16* rope, u32 first,
                         u32 count, u32 padded_rank, u32 width, u32 block_size, u32 max_blocks_per_seq) {
  const u32 i = block_x() * num_waves() + wave();
  if (i >= count) return;
  const Place place = place_of(seq_lens, first + i);
  const u64 slot = slot_of(block_table, max_blocks_per_seq, block_size, place.seq, place.position);
  const u8* from = cache + slot * (2 * width);
  bf16* to_latent = latents + u64(i) * padded_rank;
  bf16* to_rope = rope + u64(first + i) * (width - padded_rank);
  for (u32 col = lane() * 8; col < width; col += WAVE * 8) {
    bf16* to = col < padded_rank ? to_latent + col : to_rope + (col - padded_rank);
    store_vec(to, load_vec<Vec16>(from + 2 * col));
  }
}
GK_EXPORT(gather_latents)

// The same of an FP8 cache.
GK_KERNEL gather_latents_fp8(const u8* cache, const u32* block_table, const u32* seq_lens, bf16* latents, bf16* rope,
                             u32 first, u32 count, u32 padded_rank, u32 width, u32 block_size, u32 max_blocks_per_seq) {
  const u32 i = block_x() * num_waves() + wave();
  if (i >= count) return;
  const Place place = place_of(seq_lens, first + i);
  const u64 slot = slot_of(block_table, max_blocks_per_seq, block_size, place.seq, place.position);
  widen_slot(cache + slot * fp8_slot_bytes(padded_rank, width), padded_rank, width, lane(), WAVE,
             latents + u64(i) * padded_rank, rope + u64(first + i) * (width - padded_rank));
}
GK_EXPORT(gather_latents_fp8)

namespace {

struct Expanded {
  // Of the first token and head: [token][all heads][nope + rope].
  const bf16* queries;
  // By positions of all sequences, one after the other: [position][rope], [position][heads][nope + padded_value].
  const bf16* rope_keys;
  const bf16* expanded;
  Sequences sequences;
  // Of the first token and head: [token][all heads][value].
  bf16* out;
  // Of the model, and those of this launch.
  u32 all_heads, heads;
  // Values of a head; all but `value` are whole tiles.
  u32 nope, rope, value, padded_value;
  // Of scores, times log2(e): weights are powers of two.
  float scale;
};

// A block's part: `num_rows` tokens of one sequence, from its token `first_row` on (`global_row` of all), against its
// positions before `end`, the first of which is `first_position` of all.
struct Rows {
  u32 first_row, num_rows, context_len, end;
  u64 global_row, first_position;
};

GK_DEVICE Rows rows_of(const Expanded& p, u32 rows) {
  Rows part;
  // The blocks that see most come first, so that none of them is left to the end.
  const u32 row_block = grid_x() - 1 - block_x();
  const u32 seq = p.sequences.sequence_of(row_block, 1, rows), num_tokens = p.sequences.num_tokens(seq);
  part.first_row = (row_block - p.sequences.first_row_block(seq, 1, rows)) * rows;
  part.num_rows = part.first_row < num_tokens ? min(rows, num_tokens - part.first_row) : 0;
  part.context_len = p.sequences.seq_lens[seq] - num_tokens;
  part.end = part.context_len + part.first_row + part.num_rows;
  part.global_row = u64(p.sequences.first_token(seq)) + part.first_row;
  part.first_position = 0;
  for (u32 i = 0; i < seq; ++i) part.first_position += p.sequences.seq_lens[i];
  return part;
}

// Keys and values of a tile of positions, in shared memory.
struct Tile {
  bf16* keys;
  bf16* values;
};

// Row tiles of a wave, position tiles of a tile of positions.
template <u32 ROW_TILES, u32 POSITION_TILES>
class AttendExpanded {
 public:
  static constexpr u32 ROWS = ROW_TILES * TILE, POSITIONS = POSITION_TILES * TILE;

  GK_DEVICE AttendExpanded(const Expanded& p, const Rows& part)
      : p_(p),
        part_(part),
        width_(p.nope + p.rope),
        stride_(width_ + PAD),
        first_value_(block_z() * VALUE_TILES * TILE),
        num_values_(min(p.padded_value - first_value_, VALUE_TILES * TILE)),
        value_stride_(min(p.padded_value, VALUE_TILES * TILE) + PAD) {
    queries_ = shared_.take<bf16>(num_waves() * ROWS * stride_);
    tiles_ = shared_.take<bf16>(2 * POSITIONS * (stride_ + value_stride_));
    if constexpr (!Layout::RESULT_IS_LEFT) {
      weights_ = shared_.take<bf16>(num_waves() * ROWS * (POSITIONS + PAD)) + wave() * ROWS * (POSITIONS + PAD);
    }
    const u32 own_row = wave() * ROWS;
    first_seen_ = part.context_len + part.first_row + own_row + 1;
    end_ = own_row < part.num_rows ? min(part.end, first_seen_ + ROWS - 1) : 0;
  }

  GK_DEVICE void run() {
    clear_all();
    stage_queries();
    stage(tile(0), 0);
    for (u32 first = 0, turn = 0; first < part_.end; first += POSITIONS, turn ^= 1) {
      // The tile is there, and nobody reads the one before it any more.
      copy_async_wait<0>();
      sync();
      if (first + POSITIONS < part_.end) stage(tile(turn ^ 1), first + POSITIONS);
      // The wave's last row may see nothing of it.
      if (first < end_) attend(tile(turn), first);
    }
    write();
  }

 private:
  GK_DEVICE void clear_all() {
#pragma unroll
    for (u32 r = 0; r < ROW_TILES; ++r) {
#pragma unroll
      for (u32 j = 0; j < LANE_ROWS; ++j) largest_[r][j] = neg_infinity(), sums_[r][j] = 0.0f;
#pragma unroll
      for (u32 c = 0; c < VALUE_TILES; ++c) clear(results_[r][c]);
    }
  }

  // One of the two that take turns: one is computed with while the other is copied.
  GK_DEVICE Tile tile(u32 turn) const {
    bf16* keys = tiles_ + turn * POSITIONS * (stride_ + value_stride_);
    return {keys, keys + POSITIONS * stride_};
  }

  // Starts copies of the block's queries, zeros after the last row.
  GK_DEVICE void stage_queries() {
    const u32 vecs = width_ / 8;
    for (u32 v = thread(); v < num_waves() * ROWS * vecs; v += num_threads()) {
      const u32 row = v / vecs, col = v % vecs * 8;
      const bool is_there = row < part_.num_rows;
      const u64 token = part_.global_row + (is_there ? row : 0);
      const bf16* from = p_.queries + (token * p_.all_heads + block_y()) * width_ + col;
      copy_async16_or_zero(queries_ + row * stride_ + col, from, is_there);
    }
  }

  // Starts copies of positions `first`.. to a tile, zeros from the last position that the block sees on. Some lanes beside
  // each other copy one position.
  GK_DEVICE void stage(const Tile& to, u32 first) const {
    constexpr u32 LANES = 8;
    const u32 value_vecs = num_values_ / 8, nope_vecs = p_.nope / 8, rope_vecs = p_.rope / 8;
    for (u32 i = thread() / LANES; i < POSITIONS; i += num_threads() / LANES) {
      const bool is_there = first + i < part_.end;
      const u64 position = part_.first_position + (is_there ? first + i : 0);
      const bf16* keys = p_.expanded + (position * p_.heads + block_y()) * (p_.nope + p_.padded_value);
      const bf16 *values = keys + p_.nope + first_value_, *rope = p_.rope_keys + position * p_.rope;
      bf16 *to_keys = to.keys + i * stride_, *to_values = to.values + i * value_stride_;
      for (u32 v = thread() % LANES; v < nope_vecs; v += LANES) copy_async16_or_zero(to_keys + v * 8, keys + v * 8, is_there);
      for (u32 v = thread() % LANES; v < rope_vecs; v += LANES) {
        copy_async16_or_zero(to_keys + p_.nope + v * 8, rope + v * 8, is_there);
      }
      for (u32 v = thread() % LANES; v < value_vecs; v += LANES) {
        copy_async16_or_zero(to_values + v * 8, values + v * 8, is_there);
      }
    }
    copy_async_commit();
  }

  // Takes a tile of positions into account.
  GK_DEVICE void attend(const Tile& tile, u32 first) {
    TileResult scores[ROW_TILES][POSITION_TILES];
    score(tile.keys, scores);
    if (first + POSITIONS > first_seen_) hide(first, scores);
    weigh(scores);
    add_values(tile.values, scores);
  }

  // Adds the products of some columns to scores.
  template <u32 LENGTH>
  GK_DEVICE void multiply(const bf16* queries, const bf16* keys, TileResult (&scores)[ROW_TILES][POSITION_TILES]) const {
    LongOperand<LENGTH> left[ROW_TILES];
#pragma unroll
    for (u32 r = 0; r < ROW_TILES; ++r) left[r] = load_left<LENGTH>(queries + r * TILE * stride_, stride_);
#pragma unroll
    for (u32 t = 0; t < POSITION_TILES; ++t) {
      const auto right = load_right<LENGTH>(keys + t * TILE * stride_, stride_);
#pragma unroll
      for (u32 r = 0; r < ROW_TILES; ++r) mma(scores[r][t], left[r], right);
    }
  }

  GK_DEVICE void score(const bf16* keys, TileResult (&scores)[ROW_TILES][POSITION_TILES]) const {
#pragma unroll
    for (u32 r = 0; r < ROW_TILES; ++r) {
#pragma unroll
      for (u32 t = 0; t < POSITION_TILES; ++t) clear(scores[r][t]);
    }
    const bf16* own_queries = queries_ + wave() * ROWS * stride_;
    u32 k = 0;
#pragma unroll 1
    for (; k + BF16_LENGTH * TILE <= width_; k += BF16_LENGTH * TILE) multiply<BF16_LENGTH>(own_queries + k, keys + k, scores);
    if constexpr (BF16_LENGTH > 1) {
      for (; k < width_; k += TILE) multiply<1>(own_queries + k, keys + k, scores);
    }
  }

  // Positions after a row's own.
  GK_DEVICE void hide(u32 first, TileResult (&scores)[ROW_TILES][POSITION_TILES]) const {
#pragma unroll
    for (u32 r = 0; r < ROW_TILES; ++r) {
#pragma unroll
      for (u32 t = 0; t < POSITION_TILES; ++t) {
#pragma unroll
        for (u32 v = 0; v < RESULT_VALUES; ++v) {
          const u32 position = first + t * TILE + result_col(v), seen = first_seen_ + r * TILE + result_row(v);
          if (position >= seen) scores[r][t].values[v] = neg_infinity();
        }
      }
    }
  }

  // Turns scores into weights, and makes what was summed before smaller by as much as the largest score has grown.
  GK_DEVICE void weigh(TileResult (&scores)[ROW_TILES][POSITION_TILES]) {
#pragma unroll
    for (u32 r = 0; r < ROW_TILES; ++r) {
      float base[LANE_ROWS], shrink[LANE_ROWS];
#pragma unroll
      for (u32 j = 0; j < LANE_ROWS; ++j) base[j] = largest_[r][j];
#pragma unroll
      for (u32 t = 0; t < POSITION_TILES; ++t) {
#pragma unroll
        for (u32 v = 0; v < RESULT_VALUES; ++v) base[lane_row(v)] = max(base[lane_row(v)], scores[r][t].values[v]);
      }
#pragma unroll
      for (u32 j = 0; j < LANE_ROWS; ++j) {
        const float before = largest_[r][j] * p_.scale;
        largest_[r][j] = row_max(base[j]);
        // Every row sees position 0, so that there is a largest score from the first tile on.
        base[j] = largest_[r][j] * p_.scale;
        shrink[j] = exp2(before - base[j]);
        sums_[r][j] *= shrink[j];
      }
#pragma unroll
      for (u32 t = 0; t < POSITION_TILES; ++t) {
#pragma unroll
        for (u32 v = 0; v < RESULT_VALUES; ++v) {
          float& value = scores[r][t].values[v];
          value = exp2(value * p_.scale - base[lane_row(v)]);
          sums_[r][lane_row(v)] += value;
        }
      }
#pragma unroll
      for (u32 c = 0; c < VALUE_TILES; ++c) {
#pragma unroll
        for (u32 v = 0; v < RESULT_VALUES; ++v) results_[r][c].values[v] *= shrink[lane_row(v)];
      }
    }
  }

  // Weights as left operands of LENGTH position tiles, from registers or, where other lanes need them, through shared memory.
  template <u32 LENGTH>
  GK_DEVICE LongOperand<LENGTH> weights_of(const TileResult (&scores)[ROW_TILES][POSITION_TILES], u32 r, u32 t) const {
    if constexpr (Layout::RESULT_IS_LEFT) {
      static_assert(LENGTH == 1, "operands of one tile");
      return as_left(scores[r][t]);
    } else {
      return load_left<LENGTH>(weights_ + r * TILE * (POSITIONS + PAD) + t * TILE, POSITIONS + PAD);
    }
  }

  // Adds weighted values of LENGTH position tiles from `t` on.
  template <u32 LENGTH>
  GK_DEVICE void add_positions(const bf16* values, const TileResult (&scores)[ROW_TILES][POSITION_TILES], u32 t) {
    LongOperand<LENGTH> left[ROW_TILES];
#pragma unroll
    for (u32 r = 0; r < ROW_TILES; ++r) left[r] = weights_of<LENGTH>(scores, r, t);
#pragma unroll
    for (u32 c = 0; c < VALUE_TILES; ++c) {
      if (c * TILE >= num_values_) break;
      const auto right = load_right_by_k<LENGTH>(values + t * TILE * value_stride_ + c * TILE, value_stride_);
#pragma unroll
      for (u32 r = 0; r < ROW_TILES; ++r) mma(results_[r][c], left[r], right);
    }
  }

  GK_DEVICE void add_values(const bf16* values, const TileResult (&scores)[ROW_TILES][POSITION_TILES]) {
    if constexpr (!Layout::RESULT_IS_LEFT) {
#pragma unroll
      for (u32 r = 0; r < ROW_TILES; ++r) {
#pragma unroll
        for (u32 t = 0; t < POSITION_TILES; ++t) {
#pragma unroll
          for (u32 v = 0; v < RESULT_VALUES; ++v) {
            const u32 at = (r * TILE + result_row(v)) * (POSITIONS + PAD) + t * TILE + result_col(v);
            weights_[at] = to_bf16(scores[r][t].values[v]);
          }
        }
      }
      // The wave's weights are there. Before the next ones are written, the block's waves meet.
      wave_sync();
    }
    constexpr u32 LENGTH = POSITION_TILES % BF16_LENGTH == 0 ? BF16_LENGTH : 1;
#pragma unroll
    for (u32 t = 0; t < POSITION_TILES; t += LENGTH) add_positions<LENGTH>(values, scores, t);
  }

  GK_DEVICE void write() {
#pragma unroll
    for (u32 r = 0; r < ROW_TILES; ++r) {
#pragma unroll
      for (u32 j = 0; j < LANE_ROWS; ++j) sums_[r][j] = row_sum(sums_[r][j]);
#pragma unroll
      for (u32 c = 0; c < VALUE_TILES; ++c) {
        if (c * TILE >= num_values_) break;
#pragma unroll
        for (u32 v = 0; v < RESULT_VALUES; ++v) {
          const u32 row = wave() * ROWS + r * TILE + result_row(v), col = first_value_ + c * TILE + result_col(v);
          if (row >= part_.num_rows || col >= p_.value) continue;
          bf16* to = p_.out + ((part_.global_row + row) * p_.all_heads + block_y()) * p_.value;
          to[col] = to_bf16(results_[r][c].values[v] / sums_[r][lane_row(v)]);
        }
      }
    }
  }

  const Expanded& p_;
  const Rows& part_;
  const u32 width_, stride_;
  // The columns of values that the block sums.
  const u32 first_value_, num_values_, value_stride_;
  Shared shared_;
  bf16* queries_;
  bf16* tiles_;
  bf16* weights_ = nullptr;
  // Where the positions end that the wave's first row sees, and those that any of its rows does.
  u32 first_seen_, end_;
  // Of the lane's rows: the largest score so far, and the sum of this lane's weights.
  float largest_[ROW_TILES][LANE_ROWS], sums_[ROW_TILES][LANE_ROWS];
  TileResult results_[ROW_TILES][VALUE_TILES];
};

template <u32 ROW_TILES, u32 POSITION_TILES>
GK_DEVICE void attend_expanded(const Expanded& p) {
  using Attend = AttendExpanded<ROW_TILES, POSITION_TILES>;
  const Rows part = rows_of(p, num_waves() * Attend::ROWS);
  if (part.num_rows > 0) Attend(p, part).run();
}

}  // namespace

#define GK_ATTEND_EXPANDED(name, row_tiles, position_tiles)                                                             \
  GK_KERNEL name(const bf16* queries, const bf16* rope_keys, const bf16* expanded, const u32* seq_lens,                 \
                 const u32* query_start_loc, bf16* out, u32 num_seqs, u32 all_heads, u32 heads, u32 nope, u32 rope,     \
                 u32 value, u32 padded_value, float scale) {                                                            \
    attend_expanded<row_tiles, position_tiles>(Expanded{queries, rope_keys, expanded,                                   \
                                                        Sequences{query_start_loc, seq_lens, num_seqs}, out, all_heads, \
                                                        heads, nope, rope, value, padded_value, scale});                \
  }                                                                                                                     \
  GK_EXPORT(name)

GK_ATTEND_EXPANDED(attend_expanded_r2_p64, 2, 4)
GK_ATTEND_EXPANDED(attend_expanded_r2_p32, 2, 2)
GK_ATTEND_EXPANDED(attend_expanded_r1_p16, 1, 1)

}  // namespace gk
