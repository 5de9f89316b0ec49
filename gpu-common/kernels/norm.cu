// RMS norms. One block per row; shared memory: a float per wave.
#include "norm.h"

namespace gk {

// Rows of x and out are `x_stride` and `out_stride` elements apart; columns of out past the last one become zero.
GK_KERNEL rms_norm(const bf16* x, const float* weight, bf16* out, u32 cols, u32 x_stride, u32 out_stride, float eps) {
  Shared shared;
  float* partials = shared.take<float>(num_waves());
  const bf16* from = x + u64(block_x()) * x_stride;
  bf16* to = out + u64(block_x()) * out_stride;
  const float factor = rms_factor(from, cols, eps, partials);
  for (u32 i = thread(); i < out_stride; i += num_threads()) {
    to[i] = i < cols ? normalised(from[i], factor, weight[i]) : bf16{0};
  }
}
GK_EXPORT(rms_norm)

// residual += delta, rounded, and out = norm of it.
GK_KERNEL add_rms_norm(const bf16* delta, const float* weight, bf16* residual, bf16* out, u32 cols, float eps) {
  Shared shared;
  float* partials = shared.take<float>(num_waves());
  const u64 start = u64(block_x()) * cols;
  // Each thread reads back only what it wrote itself.
  for (u32 i = thread(); i < cols; i += num_threads()) {
    residual[start + i] = to_bf16(to_float(residual[start + i]) + to_float(delta[start + i]));
  }
  const float factor = rms_factor(residual + start, cols, eps, partials);
  for (u32 i = thread(); i < cols; i += num_threads()) {
    out[start + i] = normalised(residual[start + i], factor, weight[i]);
  }
}
GK_EXPORT(add_rms_norm)

}  // namespace gk
