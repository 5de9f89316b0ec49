// RMS norm of a row held by one block.
#pragma once

#include "gk.h"

namespace gk {

// (mean(x^2) + eps)^(-1/2) of `cols` values, in every thread. `partials` as for block_sum.
GK_DEVICE float rms_factor(const bf16* x, u32 cols, float eps, float* partials) {
  float squares = 0.0f;
  for (u32 i = thread(); i < cols; i += num_threads()) {
    const float value = to_float(x[i]);
    squares += value * value;
  }
  return 1.0f / sqrt(block_sum(squares, partials) / float(cols) + eps);
}

// Rounded before and after the product with the weight, as the family's reference implementation does.
GK_DEVICE bf16 normalised(bf16 x, float factor, float weight) {
  return to_bf16(to_float(to_bf16(to_float(x) * factor)) * weight);
}

}  // namespace gk
