// Scales of FP8 blocks in the order that a vendor's library of products wants them in.
#include "gk.h"

namespace gk {

// to[r * row_step + g * group_step] = from[r * num_groups + g], or 0 where g is a group that `from` does not have. Threads
// of the whole grid share the elements. Activations are transposed, weights' rows are padded.
GK_KERNEL arrange_scales(const float* from, float* to, u32 num_rows, u32 num_groups, u32 num_to_groups, u32 row_step,
                         u32 group_step) {
  const u32 step = grid_x() * num_threads();
  for (u32 i = block_x() * num_threads() + thread(); i < num_rows * num_to_groups; i += step) {
    // Neighbouring threads write neighbouring rows: of what is transposed, one beside the other.
    const u32 group = i / num_rows, row = i % num_rows;
    const u64 at = u64(row) * row_step + u64(group) * group_step;
    to[at] = group < num_groups ? from[u64(row) * num_groups + group] : 0.0f;
  }
}
GK_EXPORT(arrange_scales)

}  // namespace gk
