// First half of attention, between its projections: norm and rope of the latent into the cache, rope of the queries.
//
// Latents and queries hold Lkv values, zeros up to a multiple of 16, R rotated values, zeros up to a multiple of 16.
#include "fp8_slot.h"
#include "norm.h"
#include "quant.h"

namespace gk {

namespace {

// Value `i` of the rotated `x`, pairs interleaved: y[2j] = x[2j] cos - x[2j+1] sin, y[2j+1] = x[2j] sin + x[2j+1] cos.
GK_DEVICE float rotated(const bf16* x, const float* cos, const float* sin, u32 i) {
  const u32 pair = i / 2;
  const float a = to_float(x[2 * pair]), b = to_float(x[2 * pair + 1]);
  return i % 2 == 0 ? a * cos[pair] - b * sin[pair] : a * sin[pair] + b * cos[pair];
}

constexpr u32 PAD_SLOT = 0xffffffffu;

}  // namespace

// kv_a [T][Lkv + R] to the tokens' slots of one layer. One block per token; shared memory: a float per wave.
GK_KERNEL write_latents(const bf16* kv_a, const float* norm, const float* cos, const float* sin, const u32* positions,
                        const u32* slots, bf16* cache, u32 rank, u32 padded_rank, u32 rope_dim, u32 width, float eps) {
  Shared shared;
  float* partials = shared.take<float>(num_waves());
  const u32 slot = slots[block_x()];
  if (slot == PAD_SLOT) return;
  const bf16* from = kv_a + u64(block_x()) * (rank + rope_dim);
  bf16* to = cache + u64(slot) * width;
  const u64 angles = u64(positions[block_x()]) * (rope_dim / 2);
  const float factor = rms_factor(from, rank, eps, partials);
  for (u32 i = thread(); i < width; i += num_threads()) {
    bf16 value{0};
    if (i < rank) value = normalised(from[i], factor, norm[i]);
    if (i >= padded_rank && i < padded_rank + rope_dim) {
      value = to_bf16(rotated(from + rank, cos + angles, sin + angles, i - padded_rank));
    }
    to[i] = value;
  }
}
GK_EXPORT(write_latents)

// The same to slots of the FP8 cache. Waves take the groups of 128 in turns; what is quantised has been rounded to bf16.
GK_KERNEL write_latents_fp8(const bf16* kv_a, const float* norm, const float* cos, const float* sin,
                            const u32* positions, const u32* slots, u8* cache, u32 rank, u32 padded_rank, u32 rope_dim,
                            u32 width, float eps) {
  Shared shared;
  float* partials = shared.take<float>(num_waves());
  const u32 slot = slots[block_x()];
  if (slot == PAD_SLOT) return;
  const bf16* from = kv_a + u64(block_x()) * (rank + rope_dim);
  u8* codes = cache + u64(slot) * fp8_slot_bytes(padded_rank, width);
  float* scales = reinterpret_cast<float*>(codes + padded_rank);
  bf16* rope = reinterpret_cast<bf16*>(codes + fp8_slot_rope(padded_rank));
  const float factor = rms_factor(from, rank, eps, partials);
  for (u32 first = wave() * FP8_BLOCK; first < padded_rank; first += num_waves() * FP8_BLOCK) {
    float values[GROUP_VALUES];
#pragma unroll
    for (u32 i = 0; i < GROUP_VALUES; ++i) {
      const u32 at = first + i * WAVE + lane();
      values[i] = at < rank ? to_float(normalised(from[at], factor, norm[at])) : 0.0f;
    }
    const float scale = group_scale(values);
    if (lane() == 0) scales[first / FP8_BLOCK] = scale;
#pragma unroll
    for (u32 i = 0; i < GROUP_VALUES; ++i) {
      const u32 at = first + i * WAVE + lane();
      if (at < padded_rank) codes[at] = quantised(values[i], scale);
    }
  }
  const u64 angles = u64(positions[block_x()]) * (rope_dim / 2);
  for (u32 i = thread(); i < width - padded_rank; i += num_threads()) {
    rope[i] = i < rope_dim ? to_bf16(rotated(from + rank, cos + angles, sin + angles, i)) : bf16{0};
  }
}
GK_EXPORT(write_latents_fp8)

// q [T][N][P + R] to its two parts, each filled up with zeros: `nope`, rows of `padded_nope` values `nope_stride` apart, and
// the rotated rest, rows of `padded_rope` values `rope_stride` apart. A row is a token's head, and has a block.
GK_KERNEL split_queries(const bf16* q, const float* cos, const float* sin, const u32* positions, bf16* nope, bf16* rope,
                        u32 num_heads, u32 nope_dim, u32 padded_nope, u32 nope_stride, u32 rope_dim, u32 padded_rope,
                        u32 rope_stride) {
  const bf16* from = q + u64(block_x()) * (nope_dim + rope_dim);
  bf16* to_nope = nope + u64(block_x()) * nope_stride;
  bf16* to_rope = rope + u64(block_x()) * rope_stride;
  const u64 angles = u64(positions[block_x() / num_heads]) * (rope_dim / 2);
  for (u32 i = thread(); i < padded_nope; i += num_threads()) to_nope[i] = i < nope_dim ? from[i] : bf16{0};
  for (u32 i = thread(); i < padded_rope; i += num_threads()) {
    to_rope[i] = i < rope_dim ? to_bf16(rotated(from + nope_dim, cos + angles, sin + angles, i)) : bf16{0};
  }
}
GK_EXPORT(split_queries)

}  // namespace gk
