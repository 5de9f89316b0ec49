// What kernels of absorbed attention on the paged latent cache share: which rows and positions a block has, how they come
// into shared memory.
#pragma once

#include "attention.h"

namespace gk {

struct Attention {
  const bf16* queries;
  const u8* cache;
  const u32* block_table;
  const u32* seq_lens;
  const u32* query_start_loc;
  // [row][padded_rank], or null if sequences are split.
  bf16* out;
  // [row][split][padded_rank] and [row][split][2].
  float* partial_sums;
  float* partial_stats;
  u32 num_seqs, num_heads, padded_rank, width, block_size, max_blocks_per_seq, tile_positions, num_splits,
      min_split_positions;
  // Of scores, times log2(e): weights are powers of two.
  float scale;
};

// A block's part of the launch: `num_rows` query rows of one sequence, from its row `first_row` on (`global_row` of all),
// against positions start..end. There may be none of either.
struct Part {
  u32 seq, first_row, num_rows, context_len, start, end;
  u64 global_row;
};

template <u32 ROWS>
GK_DEVICE Part part_of(const Attention& p) {
  Part part;
  const Sequences sequences{p.query_start_loc, p.seq_lens, p.num_seqs};
  part.seq = sequences.sequence_of(block_x(), p.num_heads, ROWS);
  const u32 num_tokens = sequences.num_tokens(part.seq), seq_len = p.seq_lens[part.seq];
  const u32 all_rows = num_tokens * p.num_heads;
  part.first_row = (block_x() - sequences.first_row_block(part.seq, p.num_heads, ROWS)) * ROWS;
  part.num_rows = part.first_row < all_rows ? min(ROWS, all_rows - part.first_row) : 0;
  part.global_row = u64(sequences.first_token(part.seq)) * p.num_heads + part.first_row;
  part.context_len = seq_len - num_tokens;
  // A sequence is cut by its own length, into whole tiles, so that the launch need not know it.
  const u32 wanted = max(div_up(seq_len, p.num_splits), p.min_split_positions);
  const u32 split_positions = div_up(wanted, p.tile_positions) * p.tile_positions;
  const u32 last_row = part.first_row + max(part.num_rows, 1u) - 1;
  part.start = block_y() * split_positions;
  part.end = min(part.context_len + last_row / p.num_heads + 1, part.start + split_positions);
  return part;
}

// Lanes beside each other that copy one position, 128 bytes at a time.
constexpr u32 LANES_PER_POSITION = 8;

// Starts copies of the queries, zeros after the last row.
GK_DEVICE void stage_queries(const Attention& p, const Part& part, u32 rows, bf16* to) {
  const u32 vecs = p.width / 8;
  for (u32 v = thread(); v < rows * vecs; v += num_threads()) {
    const u32 row = v / vecs, col = v % vecs * 8;
    const bool is_there = row < part.num_rows;
    const bf16* from = p.queries + (part.global_row + (is_there ? row : 0)) * p.width + col;
    copy_async16_or_zero(to + row * (p.width + PAD) + col, from, is_there);
  }
}

// Starts copies of a tile of slots to rows of shared memory, zeros from `part.end` on and never what an unwritten slot
// holds. Slots and `stride`, the bytes from row to row, are multiples of 16 bytes.
GK_DEVICE void stage_slots(const Attention& p, const Part& part, u32 first, u32 slot_bytes, u8* to, u32 stride) {
  for (u32 i = thread() / LANES_PER_POSITION; i < p.tile_positions; i += num_threads() / LANES_PER_POSITION) {
    const u32 position = first + i;
    const bool is_there = position < part.end;
    const u64 slot =
        is_there ? slot_of(p.block_table, p.max_blocks_per_seq, p.block_size, part.seq, position) : 0;
    const u8* from = p.cache + slot * slot_bytes;
    u8* to_position = to + i * stride;
#pragma unroll 3
    for (u32 at = thread() % LANES_PER_POSITION * 16; at < slot_bytes; at += LANES_PER_POSITION * 16) {
      copy_async16_or_zero(to_position + at, from + at, is_there);
    }
  }
}

}  // namespace gk
