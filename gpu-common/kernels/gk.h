// The kernel dialect: one source for NVIDIA (NVRTC), AMD (clang) and the host, where every GPU thread is a fiber.
//
// A kernel is written against this header alone. No vendor header and, on devices, no standard header is included.
//
//   GK_KERNEL add(const gk::bf16* x, gk::bf16* out, gk::u32 n) { ... }
//   GK_EXPORT(add)
//
// Rules that the host ring checks and a GPU does not:
//  * every thread of a block reaches the same gk::sync(); every lane of a wave reaches the same collective;
//  * shared memory is taken from gk::Shared in the same order by every thread, holds NaN until it is written, and is no
//    larger than the launch asked for;
//  * 16-byte loads, stores and copies are aligned.
//
// Asynchronous copies: copy_async16(to_shared, from_global) and copy_async16_or_zero(.., is_there) start a copy of 16
// bytes, copy_async_commit() closes a thread's group of them, copy_async_wait<N>() waits for all of a thread's groups
// but the last N. What was copied is then there for this thread, and for others after a sync. Until then the destination
// holds nothing and the source does not change. A target without such copies loads and stores at once, and has nothing
// to wait for.
//
// Targets differ in their headers, in the layout of tiles that these name (layout.h) and in the tile operations that tile.h
// includes, and nowhere else.
#pragma once

#if defined(__CUDACC_RTC__)
#include "target_nvidia.h"
#elif defined(__HIP__)
#include "target_amdgpu.h"
#else
#include "host/target_host.h"
#endif

namespace gk {

// One of two types.
template <bool IS_FIRST, class First, class Second>
struct Either {
  using Type = First;
};
template <class First, class Second>
struct Either<false, First, Second> {
  using Type = Second;
};

// Plain old data of 16 bytes: what one thread loads or stores at once.
struct alignas(16) Vec16 {
  u32 words[4];
};

struct alignas(8) Vec8 {
  u32 words[2];
};

// bfloat16: the upper half of a float.
struct bf16 {
  u16 bits;
};

GK_DEVICE float to_float(bf16 value) { return bits_to_float(u32(value.bits) << 16); }
GK_DEVICE float to_float(float value) { return value; }

// Nearest, ties to even; NaN stays NaN.
GK_DEVICE bf16 to_bf16(float value) {
  const u32 bits = float_to_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return bf16{u16(0x7fc0)};
  return bf16{u16((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

// The two bf16 values of a word, the first one in the lower half.
GK_DEVICE float low_half(u32 word) { return bits_to_float(word << 16); }
GK_DEVICE float high_half(u32 word) { return bits_to_float(word & 0xffff0000u); }
GK_DEVICE u32 pack(bf16 low, bf16 high) { return u32(low.bits) | u32(high.bits) << 16; }

GK_DEVICE u32 min(u32 a, u32 b) { return a < b ? a : b; }
GK_DEVICE u32 max(u32 a, u32 b) { return a > b ? a : b; }
GK_DEVICE float max(float a, float b) { return a > b ? a : b; }
GK_DEVICE u32 div_up(u32 a, u32 b) { return (a + b - 1) / b; }
GK_DEVICE float neg_infinity() { return bits_to_float(0xff800000u); }

GK_DEVICE u32 lane() { return thread() % WAVE; }
GK_DEVICE u32 wave() { return same_in_wave(thread() / WAVE); }
GK_DEVICE u32 num_waves() { return num_threads() / WAVE; }

// Sum of one value per lane, in every lane. The order is a butterfly on every target.
GK_DEVICE float wave_sum(float value) {
  float values[1] = {value};
  wave_sums(values);
  return values[0];
}

// Hands out the block's dynamic shared memory. Every thread makes the same requests in the same order.
class Shared {
 public:
  GK_DEVICE Shared() : used_(0) {}

  // `count` elements, aligned to 16 bytes. The launch asks for the sum of shared_bytes<T>(count).
  template <class T>
  GK_DEVICE T* take(u32 count) {
    const u32 start = used_;
    used_ += (count * u32(sizeof(T)) + 15u) / 16u * 16u;
    return reinterpret_cast<T*>(shared_memory(start, used_));
  }

 private:
  u32 used_;
};

// Sum over the block, in every thread. `partials` holds a float per wave and may be used again after the next sync.
GK_DEVICE float block_sum(float value, float* partials) {
  value = wave_sum(value);
  if (lane() == 0) partials[wave()] = value;
  sync();
  float sum = 0.0f;
  for (u32 i = 0; i < num_waves(); ++i) sum += partials[i];
  return sum;
}

// Largest over the block, in every thread; `partials` as for block_sum.
GK_DEVICE float block_max(float value, float* partials) {
  value = wave_max(value);
  if (lane() == 0) partials[wave()] = value;
  sync();
  float largest = partials[0];
  for (u32 i = 1; i < num_waves(); ++i) largest = max(largest, partials[i]);
  return largest;
}

GK_DEVICE float sigmoid(float x) { return 1.0f / (1.0f + exp(-x)); }
GK_DEVICE float silu(float x) { return x / (1.0f + exp(-x)); }
// The results of two linears are activations, rounded like all of them, before they meet.
GK_DEVICE float gated(float gate, float up) { return silu(to_float(to_bf16(gate))) * to_float(to_bf16(up)); }

}  // namespace gk
