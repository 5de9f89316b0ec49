// From logits to tokens.
#include "gk.h"

namespace gk {

// ids[row] = index of the largest of the first `num_ids` of `cols` values, the lowest of equals; 2^32 - 1 where none is
// above -inf. NaN is never largest. One block per row; shared memory: a float and a word per wave.
GK_KERNEL argmax(const float* logits, u32* ids, u32 num_ids, u32 cols) {
  Shared shared;
  float* values = shared.take<float>(num_waves());
  u32* indices = shared.take<u32>(num_waves());
  const float* row = logits + u64(block_x()) * cols;
  float best = neg_infinity();
  u32 index = 0xffffffffu;
  for (u32 i = thread(); i < num_ids; i += num_threads()) {
    if (row[i] > best) {
      best = row[i];
      index = i;
    }
  }
  wave_best(best, index);
  if (lane() == 0) {
    values[wave()] = best;
    indices[wave()] = index;
  }
  sync();
  if (thread() != 0) return;
  for (u32 i = 1; i < num_waves(); ++i) {
    if (values[i] > best || (values[i] == best && indices[i] < index)) {
      best = values[i];
      index = indices[i];
    }
  }
  ids[block_x()] = index;
}
GK_EXPORT(argmax)

}  // namespace gk
