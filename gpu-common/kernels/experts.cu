// What surrounds the experts' products: who computes what, and the weighted sum.
#include "sums.h"

namespace gk {

// Pairs of token and choice that one block looks at; those of a decode step, mostly.
constexpr u32 SEGMENT = 1024;

// A block's part of the ids, in shared memory.
struct Segment {
  u32* ids;
  u32 first, len;
};

GK_DEVICE Segment load_segment(Shared& shared, const u32* ids, u32 num_pairs) {
  const u32 first = block_x() * SEGMENT;
  const Segment segment{shared.take<u32>(SEGMENT), first, min(SEGMENT, num_pairs - first)};
  // Words of no expert up to the end of the last vector.
  for (u32 i = thread(); i < div_up(segment.len, 4) * 4; i += num_threads()) {
    segment.ids[i] = i < segment.len ? ids[first + i] : 0xffffffffu;
  }
  sync();
  return segment;
}

GK_DEVICE u32 count_pairs(const Segment& segment, u32 expert) {
  u32 count = 0;
  for (u32 i = 0; i < segment.len; i += 4) {
    const Vec16 ids = load_vec<Vec16>(segment.ids + i);
    for (u32 j = 0; j < 4; ++j) count += ids.words[j] == expert;
  }
  return count;
}

// Pairs of each expert in each segment, [segment][expert]. A block a segment; a thread takes experts. Shared memory:
// SEGMENT words.
GK_KERNEL count_experts(const u32* ids, u32* counts, u32 num_pairs, u32 num_experts) {
  Shared shared;
  const Segment segment = load_segment(shared, ids, num_pairs);
  for (u32 expert = thread(); expert < num_experts; expert += num_threads()) {
    counts[u64(block_x()) * num_experts + expert] = count_pairs(segment, expert);
  }
}
GK_EXPORT(count_experts)

// Sorts the (token, choice) pairs of a step by expert, in ascending order within one, and cuts each expert's pairs into
// tiles of at most `tile_rows`: (expert, first row, number of rows, 0), followed by tiles of no rows up to `max_tiles`.
// A block a segment, with `counts` from count_experts, which is null where there is one segment; a thread takes experts.
// Shared memory: SEGMENT words and two per expert.
GK_KERNEL plan_experts(const u32* ids, const u32* counts, u32* pairs, u32* tiles, u32 num_pairs, u32 num_experts,
                       u32 tile_rows, u32 max_tiles) {
  Shared shared;
  const Segment segment = load_segment(shared, ids, num_pairs);
  u32* num_rows = shared.take<u32>(num_experts);
  u32* num_tiles = shared.take<u32>(num_experts);
  for (u32 expert = thread(); expert < num_experts; expert += num_threads()) {
    u32 count = 0;
    if (counts == nullptr) {
      count = count_pairs(segment, expert);
    } else {
      for (u32 i = 0; i < div_up(num_pairs, SEGMENT); ++i) count += counts[u64(i) * num_experts + expert];
    }
    num_rows[expert] = count;
    num_tiles[expert] = div_up(count, tile_rows);
  }
  sync();
  for (u32 expert = thread(); expert < num_experts; expert += num_threads()) {
    const u32 first = sum(num_rows, expert), count = num_rows[expert];
    u32 at = first;
    for (u32 i = 0; i < block_x(); ++i) at += counts[u64(i) * num_experts + expert];
    for (u32 i = 0; i < segment.len && count > 0; ++i) {
      if (segment.ids[i] == expert) pairs[at++] = segment.first + i;
    }
    if (block_x() > 0) continue;
    u32* tile = tiles + 4 * sum(num_tiles, expert);
    for (u32 row = 0; row < count; row += tile_rows, tile += 4) {
      tile[0] = expert;
      tile[1] = first + row;
      tile[2] = min(tile_rows, count - row);
      tile[3] = 0;
    }
  }
  if (block_x() > 0) return;
  for (u32 i = sum(num_tiles, num_experts) + thread(); i < max_tiles; i += num_threads()) {
    for (u32 word = 0; word < 4; ++word) tiles[4 * i + word] = 0;
  }
}
GK_EXPORT(plan_experts)

// out[t] = sum over k of weights[t][k] * routed[t][k], in the order of k, then + shared[t] where there is one. One
// block per token.
GK_KERNEL combine_experts(const bf16* routed, const float* weights, const bf16* shared_out, bf16* out, u32 top_k,
                          u32 cols) {
  const u64 row = block_x();
  for (u32 i = thread(); i < cols; i += num_threads()) {
    float sum = 0.0f;
    for (u32 k = 0; k < top_k; ++k) sum += weights[row * top_k + k] * to_float(routed[(row * top_k + k) * cols + i]);
    if (shared_out != nullptr) sum += to_float(shared_out[row * cols + i]);
    out[row * cols + i] = to_bf16(sum);
  }
}
GK_EXPORT(combine_experts)

}  // namespace gk
