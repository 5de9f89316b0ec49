// Quantisation of activations. Columns past the last one get codes of zero, up to the stride.
#include "quant.h"

namespace gk {

// e4m3 per row and group of 128 columns, scale = max(amax, 1e-4) / FP8_MAX; if `ue8m0` is not 0 the scale is rounded up to
// a power of two. One wave per group; blocks share the groups of all rows.
GK_KERNEL quantise_fp8(const bf16* x, u8* codes, float* scales, u32 rows, u32 cols, u32 x_stride, u32 stride,
                       u32 ue8m0) {
  const u32 num_groups = div_up(cols, FP8_BLOCK);
  const u32 at = block_x() * num_waves() + wave();
  if (at >= rows * num_groups) return;
  const u32 row = at / num_groups, group = at % num_groups, first = group * FP8_BLOCK;
  const bf16* from = x + u64(row) * x_stride + first;
  float values[GROUP_VALUES];
  for (u32 i = 0; i < GROUP_VALUES; ++i) {
    const u32 col = i * WAVE + lane();
    values[i] = first + col < cols ? to_float(from[col]) : 0.0f;
  }
  float scale = group_scale(values);
  if (ue8m0 != 0) {
    // By bits, so that exact powers of two stay.
    const u32 bits = float_to_bits(scale);
    if ((bits & 0x7fffffu) != 0) scale = bits_to_float((bits & 0xff800000u) + 0x800000u);
  }
  if (lane() == 0) scales[at] = scale;
  for (u32 i = 0; i < GROUP_VALUES; ++i) {
    const u32 col = first + i * WAVE + lane();
    if (col < stride) codes[u64(row) * stride + col] = quantised(values[i], scale);
  }
}
GK_EXPORT(quantise_fp8)

// Rows of codes and their scales, for each pair of token and choice those of its token: to[i] = from[pairs[i] / top_k].
// One block per pair; `stride` is a multiple of 16.
GK_KERNEL gather_codes(const u8* from, const float* from_scales, const u32* pairs, u8* to, float* to_scales, u32 top_k,
                       u32 stride, u32 num_groups) {
  const u64 row = pairs[block_x()] / top_k;
  for (u32 i = thread(); i < stride / 16; i += num_threads()) {
    store_vec(to + u64(block_x()) * stride + 16 * i, load_vec<Vec16>(from + row * stride + 16 * i));
  }
  for (u32 i = thread(); i < num_groups; i += num_threads()) {
    to_scales[u64(block_x()) * num_groups + i] = from_scales[row * num_groups + i];
  }
}
GK_EXPORT(gather_codes)

// i8 per row, scale = amax / 127; a row of zeros has scale 0. One block per row; shared memory: a float per wave.
GK_KERNEL quantise_int8(const bf16* x, u8* codes, float* scales, u32 cols, u32 x_stride, u32 stride) {
  Shared shared;
  float* partials = shared.take<float>(num_waves());
  const bf16* from = x + u64(block_x()) * x_stride;
  float amax = 0.0f;
  for (u32 i = thread(); i < cols; i += num_threads()) amax = max(amax, abs(to_float(from[i])));
  const float scale = block_max(amax, partials) / 127.0f;
  const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  if (thread() == 0) scales[block_x()] = scale;
  for (u32 i = thread(); i < stride; i += num_threads()) {
    const float value = i < cols ? round_even(to_float(from[i]) * inverse) : 0.0f;
    codes[u64(block_x()) * stride + i] = u8(i8(i32(max(-127.0f, value < 127.0f ? value : 127.0f))));
  }
}
GK_EXPORT(quantise_int8)

}  // namespace gk
