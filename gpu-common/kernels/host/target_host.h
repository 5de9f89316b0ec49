// The host as a target: a block of GPU threads is a set of fibers. Included by gk.h only.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "block.h"
#include "registry.h"

// The host plays a device of a profile (tests/emulators/host/src/profile.rs), and all profiles are linked into one program.
// What is compiled for one is told its name (GK_PROFILE), its namespace (gk is defined to be another word), its GK_WAVE,
// GK_LAYOUT (layout.h) and GK_IS_FNUZ, and the lengths of operands that it multiplies (GK_LENGTHS: bf16, FP8, INT8).
#if !defined(GK_PROFILE) || !defined(gk)
#error "compile kernels for the host as a profile asks for"
#endif

#define GK_DEVICE inline
#define GK_KERNEL static void
#define GK_EXPORT(name) \
  static const gk_host::Registration registration_of_##name(GK_PROFILE, GK_FAMILY, #name, GK_WAVE, gk_host::Entry<&name>());

namespace gk {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i8 = std::int8_t;
using i32 = std::int32_t;

constexpr u32 WAVE = GK_WAVE;
constexpr bool FP8_IS_FNUZ = GK_IS_FNUZ;
constexpr u32 LENGTHS[] = {GK_LENGTHS};
constexpr u32 BF16_LENGTH = LENGTHS[0], FP8_LENGTH = LENGTHS[1], INT8_LENGTH = LENGTHS[2];

inline u32 thread() { return gk_host::block->thread(); }
inline u32 num_threads() { return gk_host::block->num_threads(); }
inline u32 block_x() { return gk_host::block->index().x; }
inline u32 block_y() { return gk_host::block->index().y; }
inline u32 block_z() { return gk_host::block->index().z; }
inline u32 grid_x() { return gk_host::block->grid().x; }
inline u32 same_in_wave(u32 number) { return number; }

// The default arguments are those of the caller.
inline void sync(const char* file = __builtin_FILE(), u32 line = __builtin_LINE()) {
  gk_host::block->sync({file, line});
}
inline unsigned char* shared_memory(u32 start, u32 end) { return gk_host::block->shared_memory(start, end); }

struct Nothing {};
inline void wave_sync(const char* file = __builtin_FILE(), u32 line = __builtin_LINE()) {
  if (gk_host::block->is_skipped({file, line})) return;
  gk_host::exchange<Nothing>("wave sync", Nothing{}, [](const Nothing*, Nothing&) {});
}

template <class T>
inline T shuffle_xor(T value, u32 mask) {
  using Lanes = T[WAVE];
  const Lanes& lanes = gk_host::exchange<Lanes>("shuffle", value, [](const T* from, Lanes& to) {
    for (u32 i = 0; i < WAVE; ++i) to[i] = from[i];
  });
  return lanes[(thread() % WAVE) ^ mask];
}

template <class T, int N>
struct Values {
  T values[N];
};

// The sums of a butterfly: its lanes all end with the same value, so one of them is computed.
template <class T, int N>
inline void sum_lanes(const Values<T, N>* lanes, Values<T, N>& sums) {
  for (int i = 0; i < N; ++i) {
    T tree[WAVE];
    for (u32 l = 0; l < WAVE; ++l) tree[l] = lanes[l].values[i];
    for (u32 width = WAVE / 2; width != 0; width /= 2) {
      for (u32 l = 0; l < width; ++l) tree[l] += tree[l + width];
    }
    sums.values[i] = tree[0];
  }
}

template <class T, int N>
inline void wave_sums(T (&values)[N]) {
  Values<T, N> mine;
  std::memcpy(mine.values, values, sizeof values);
  const Values<T, N>& sums = gk_host::exchange<Values<T, N>>("wave sum", mine, sum_lanes<T, N>);
  std::memcpy(values, sums.values, sizeof values);
}

inline float wave_max(float value) {
  return gk_host::exchange<float>("wave max", value, [](const float* lanes, float& largest) {
    largest = lanes[0];
    for (u32 i = 1; i < WAVE; ++i) largest = lanes[i] > largest ? lanes[i] : largest;
  });
}

struct Candidate {
  float value;
  u32 index;
};

// The largest value of the wave and its index; the lowest index on ties. In every lane.
inline void wave_best(float& value, u32& index) {
  const Candidate mine{value, index};
  const Candidate& best = gk_host::exchange<Candidate>("wave best", mine, [](const Candidate* lanes, Candidate& best) {
    best = lanes[0];
    for (u32 i = 1; i < WAVE; ++i) {
      const Candidate& other = lanes[i];
      if (other.value > best.value || (other.value == best.value && other.index < best.index)) best = other;
    }
  });
  value = best.value;
  index = best.index;
}

template <class V>
inline V load_vec(const void* from) {
  gk_host::block->check_alignment(from, alignof(V));
  V value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// What is at `from`, or zeros where `is_there` is false. `elsewhere` may be read.
template <class V>
inline V load_vec_or_zero(const void* from, bool is_there, const void* elsewhere) {
  const V value = load_vec<V>(is_there ? from : elsewhere);
  return is_there ? value : V{};
}

template <class V>
inline void store_vec(void* to, const V& value) {
  gk_host::block->check_alignment(to, alignof(V));
  std::memcpy(to, &value, sizeof value);
}

// Starts a copy of 16 bytes to shared memory. It takes place when its thread waits for its group, and no sooner.
inline void copy_async16_or_zero(void* to_shared, const void* from_global, bool is_there) {
  gk_host::block->start_copy(to_shared, is_there ? from_global : nullptr);
}
inline void copy_async16(void* to_shared, const void* from_global) {
  copy_async16_or_zero(to_shared, from_global, true);
}
inline void copy_async_commit() { gk_host::block->commit_copies(); }

// A wait can be left out like a barrier, see gk_host_skip_barrier.
template <u32 N>
inline void copy_async_wait(const char* file = __builtin_FILE(), u32 line = __builtin_LINE()) {
  if (gk_host::block->is_skipped({file, line})) return;
  gk_host::block->wait_for_copies(N);
}

inline float bits_to_float(u32 bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline u32 float_to_bits(float value) {
  u32 bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float exp(float x) { return std::exp(x); }
inline float exp2(float x) { return std::exp2(x); }
inline float sqrt(float x) { return std::sqrt(x); }
inline float abs(float x) { return std::fabs(x); }
// To the nearest integer, ties to even.
inline float round_even(float x) { return std::nearbyint(x); }

}  // namespace gk
