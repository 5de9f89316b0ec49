// What surrounds the experts' products: who computes what, and the weighted sum.
#include "gk.h"

namespace gk {

// Sorts the (token, choice) pairs of a step by expert, in ascending order within one, and cuts each expert's pairs into
// tiles of at most `tile_rows`: (expert, first row, number of rows, 0), followed by tiles of no rows up to `max_tiles`.
// One block; a thread takes experts. Shared memory: two words per expert.
GK_KERNEL plan_experts(const u32* ids, u32* pairs, u32* tiles, u32 num_pairs, u32 num_experts, u32 tile_rows,
                       u32 max_tiles) {
  Shared shared;
  u32* first_rows = shared.take<u32>(num_experts + 1);
  u32* first_tiles = shared.take<u32>(num_experts + 1);
  for (u32 expert = thread(); expert < num_experts; expert += num_threads()) {
    u32 count = 0;
    for (u32 pair = 0; pair < num_pairs; ++pair) count += ids[pair] == expert;
    first_rows[expert + 1] = count;
    first_tiles[expert + 1] = div_up(count, tile_rows);
  }
  sync();
  if (thread() == 0) {
    first_rows[0] = 0;
    first_tiles[0] = 0;
    for (u32 expert = 0; expert < num_experts; ++expert) {
      first_rows[expert + 1] += first_rows[expert];
      first_tiles[expert + 1] += first_tiles[expert];
    }
  }
  sync();
  for (u32 expert = thread(); expert < num_experts; expert += num_threads()) {
    const u32 first = first_rows[expert], count = first_rows[expert + 1] - first;
    u32 at = first;
    if (count > 0) {
      for (u32 pair = 0; pair < num_pairs; ++pair) {
        if (ids[pair] == expert) pairs[at++] = pair;
      }
    }
    u32* tile = tiles + 4 * first_tiles[expert];
    for (u32 row = 0; row < count; row += tile_rows, tile += 4) {
      tile[0] = expert;
      tile[1] = first + row;
      tile[2] = min(tile_rows, count - row);
      tile[3] = 0;
    }
  }
  for (u32 i = first_tiles[num_experts] + thread(); i < max_tiles; i += num_threads()) {
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
