// What attention kernels share: which sequence a block of query rows is of, and what the lanes of a row find out together.
#pragma once

#include "tile.h"

namespace gk {

// Sequences that follow each other in a step. Their tokens are counted from the first one's first token on.
struct Sequences {
  const u32* query_start_loc;
  const u32* seq_lens;
  u32 count;

  GK_DEVICE u32 first_token(u32 seq) const { return query_start_loc[seq] - query_start_loc[0]; }
  GK_DEVICE u32 num_tokens(u32 seq) const { return query_start_loc[seq + 1] - query_start_loc[seq]; }

  // Blocks of `rows` query rows before sequence `seq`, each of one sequence, where a token has `token_rows` of them. As
  // many blocks as this leaves a sequence are at least as many as it needs.
  GK_DEVICE u32 first_row_block(u32 seq, u32 token_rows, u32 rows) const {
    return u32(u64(first_token(seq)) * token_rows / rows) + seq;
  }

  // The sequence of a block of rows.
  GK_DEVICE u32 sequence_of(u32 row_block, u32 token_rows, u32 rows) const {
    u32 low = 0, high = count;
    while (high - low > 1) {
      const u32 middle = (low + high) / 2;
      if (first_row_block(middle, token_rows, rows) <= row_block) {
        low = middle;
      } else {
        high = middle;
      }
    }
    return low;
  }
};

// Where position `position` of sequence `seq` lies in the cache.
GK_DEVICE u64 slot_of(const u32* block_table, u32 max_blocks_per_seq, u32 block_size, u32 seq, u32 position) {
  const u32* blocks = block_table + u64(seq) * max_blocks_per_seq;
  return u64(blocks[position / block_size]) * block_size + position % block_size;
}

// Elements between rows in shared memory, beyond their width: the rows of a tile lie in different banks.
constexpr u32 PAD = 8;

// Over the lanes of a row, in each of them.
GK_DEVICE float row_max(float value) {
#pragma unroll
  for (u32 mask = 1; mask < LANES_PER_ROW; mask *= 2) value = max(value, shuffle_xor(value, mask));
  return value;
}

GK_DEVICE float row_sum(float value) {
#pragma unroll
  for (u32 mask = 1; mask < LANES_PER_ROW; mask *= 2) value += shuffle_xor(value, mask);
  return value;
}

}  // namespace gk
