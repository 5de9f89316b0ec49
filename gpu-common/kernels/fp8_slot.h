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

}  // namespace gk
