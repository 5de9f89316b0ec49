// A slot of the FP8 cache: codes of the latent, zeros up to a multiple of 32; an f32 scale per 128 of them; from the next
// multiple of 16 bytes on the rotated values in bf16, zeros up to a multiple of 16. 656 bytes for 512 and 64 values.
#pragma once

#include "formats.h"

namespace gk {

GK_DEVICE u32 fp8_slot_rope(u32 padded_rank) {
  return (padded_rank + 4 * div_up(padded_rank, FP8_BLOCK) + 15) / 16 * 16;
}
// `width`: of the latent and the rotated values, both filled up.
GK_DEVICE u32 fp8_slot_bytes(u32 padded_rank, u32 width) { return fp8_slot_rope(padded_rank) + 2 * (width - padded_rank); }

// A slot to bf16 values, by lane `lane` of `num_lanes`: code times scale, rounded once; rotated values as they are.
GK_DEVICE void widen_slot(const u8* slot, u32 padded_rank, u32 width, u32 lane, u32 num_lanes, bf16* latent, bf16* rotated) {
  constexpr u32 N = PER_VEC<FP8>;
  const float* scales = reinterpret_cast<const float*>(slot + padded_rank);
#pragma unroll 1
  for (u32 col = lane * N; col < padded_rank; col += num_lanes * N) {
    const float scale = scales[col / FP8_BLOCK];
    float values[N];
    decode<FP8>(load_vec<Vec16>(slot + col), values);
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
      Vec16 pairs;
#pragma unroll
      for (u32 i = 0; i < 4; ++i) {
        const u32 at = N / 2 * half + 2 * i;
        pairs.words[i] = rounded_pair(values[at] * scale, values[at + 1] * scale);
      }
      store_vec(latent + col + N / 2 * half, pairs);
    }
  }
  const u8* rope = slot + fp8_slot_rope(padded_rank);
#pragma unroll 1
  for (u32 col = lane * 8; col < width - padded_rank; col += num_lanes * 8) {
    store_vec(rotated + col, load_vec<Vec16>(rope + 2 * col));
  }
}

}  // namespace gk
