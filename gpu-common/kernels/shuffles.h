// Collectives of a wave by exchanges of two lanes' values, the same on all devices. Included by their target headers only.
#pragma once

namespace gk {

// Of floats, or of integers.
template <class T, int N>
GK_DEVICE void wave_sums(T (&values)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
#pragma unroll
    for (u32 mask = WAVE / 2; mask != 0; mask /= 2) values[i] += shuffle_xor(values[i], mask);
  }
}

GK_DEVICE float wave_max(float value) {
#pragma unroll
  for (u32 mask = WAVE / 2; mask != 0; mask /= 2) {
    const float other = shuffle_xor(value, mask);
    value = value > other ? value : other;
  }
  return value;
}

// The largest value of the wave and its index; the lowest index on ties. In every lane.
GK_DEVICE void wave_best(float& value, u32& index) {
#pragma unroll
  for (u32 mask = WAVE / 2; mask != 0; mask /= 2) {
    const float other = shuffle_xor(value, mask);
    const u32 other_index = shuffle_xor(index, mask);
    if (other > value || (other == value && other_index < index)) {
      value = other;
      index = other_index;
    }
  }
}

}  // namespace gk
