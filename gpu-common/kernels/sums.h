// Sums of words in shared memory.
#pragma once

#include "gk.h"

namespace gk {

// Of the first `len` values, four at a time as far as that goes.
GK_DEVICE u32 sum(const u32* values, u32 len) {
  u32 sum = 0;
  for (u32 i = 0; i < len / 4 * 4; i += 4) {
    const Vec16 four = load_vec<Vec16>(values + i);
    for (u32 j = 0; j < 4; ++j) sum += four.words[j];
  }
  for (u32 i = len / 4 * 4; i < len; ++i) sum += values[i];
  return sum;
}

}  // namespace gk
