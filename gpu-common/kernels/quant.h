// Quantisation to e4m3 in groups of 128 values: of activations, and of latents in the cache.
#pragma once

#include "formats.h"

namespace gk {

// Values of a group that a lane has: i * WAVE + lane().
constexpr u32 GROUP_VALUES = FP8_BLOCK / WAVE;

// The scale of the group that the lanes of a wave hold, in every lane: max(amax, 1e-4) / FP8_MAX.
GK_DEVICE float group_scale(const float (&values)[GROUP_VALUES]) {
  float amax = 0.0f;
#pragma unroll
  for (u32 i = 0; i < GROUP_VALUES; ++i) amax = max(amax, abs(values[i]));
  return max(wave_max(amax), 1e-4f) / FP8_MAX;
}

GK_DEVICE u8 quantised(float value, float scale) { return u8(float_to_e4m3(value / scale)); }

}  // namespace gk
