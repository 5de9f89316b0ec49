// AMD devices, compiled by clang with -x hip and without headers or device libraries. Included by gk.h only.
//
// gfx9 runs waves of 64, gfx11 and gfx12 waves of 32.
#pragma once

#define GK_DEVICE __attribute__((device)) inline __attribute__((always_inline))
// No kernel runs in blocks of more than eight waves.
#define GK_KERNEL extern "C" __attribute__((global)) __attribute__((amdgpu_flat_work_group_size(1, 8 * GK_WAVE))) void
#define GK_EXPORT(name)

#if defined(__GFX9__)
#define GK_WAVE 64
#define GK_LAYOUT LaneRowLayout
#elif defined(__GFX11__)
#define GK_WAVE 32
#define GK_LAYOUT Wmma3Layout
#elif defined(__GFX12__)
#define GK_WAVE 32
#define GK_LAYOUT LaneRowLayout
#else
#error "no kernels for this generation of AMD devices"
#endif

// FP8 in conversions and matrix units.
#if defined(__gfx942__) || defined(__gfx950__) || defined(__GFX12__)
#define GK_HAS_FP8 1
#else
#define GK_HAS_FP8 0
#endif

extern __attribute__((shared)) __attribute__((aligned(16))) unsigned char gk_shared_memory[];

namespace gk {

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i8 = signed char;
using i32 = int;

constexpr u32 WAVE = GK_WAVE;

// Which e4m3 the device converts and multiplies.
#if defined(__gfx942__)
constexpr bool FP8_IS_FNUZ = true;
#else
constexpr bool FP8_IS_FNUZ = false;
#endif
// Lengths of operands that its matrix instructions take.
#if defined(__gfx950__)
constexpr u32 BF16_LENGTH = 2, FP8_LENGTH = 4, INT8_LENGTH = 2;
#else
constexpr u32 BF16_LENGTH = 1, FP8_LENGTH = 1, INT8_LENGTH = 1;
#endif

GK_DEVICE u32 thread() { return __builtin_amdgcn_workitem_id_x(); }
GK_DEVICE u32 num_threads() { return __builtin_amdgcn_workgroup_size_x(); }
GK_DEVICE u32 block_x() { return __builtin_amdgcn_workgroup_id_x(); }
GK_DEVICE u32 block_y() { return __builtin_amdgcn_workgroup_id_y(); }
GK_DEVICE u32 block_z() { return __builtin_amdgcn_workgroup_id_z(); }
// A number that is the same in all lanes, which the compiler does not see: it is held once for the wave.
GK_DEVICE u32 same_in_wave(u32 number) { return __builtin_amdgcn_readfirstlane(number); }
// The first of the arguments that the runtime adds.
GK_DEVICE u32 grid_x() { return *(const u32*)__builtin_amdgcn_implicitarg_ptr(); }

GK_DEVICE void sync() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}
GK_DEVICE void wave_sync() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront");
  __builtin_amdgcn_wave_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront");
}
GK_DEVICE unsigned char* shared_memory(u32 start, u32) { return gk_shared_memory + start; }

// Within a row of 16 lanes: lanes exchange as the control word of a DPP move says.
template <u32 CONTROL>
GK_DEVICE i32 exchange_in_row(i32 bits) {
  return __builtin_amdgcn_update_dpp(bits, bits, CONTROL, 0xf, 0xf, true);
}

// Loops over masks are unrolled, which leaves one case of these.
GK_DEVICE i32 exchange_bits(i32 bits, u32 mask) {
  switch (mask) {
    // A permutation of every four lanes.
    case 1: return exchange_in_row<0xb1>(bits);
    case 2: return exchange_in_row<0x4e>(bits);
    // In a row of 16 lanes, a rotation by 8 is the exchange of its halves.
    case 8: return exchange_in_row<0x128>(bits);
    // Among 32 lanes: those whose number differs by the mask in bits 10 to 14.
    case 4: return __builtin_amdgcn_ds_swizzle(bits, 4 << 10 | 0x1f);
    case 16: return __builtin_amdgcn_ds_swizzle(bits, 16 << 10 | 0x1f);
    default: return __builtin_amdgcn_ds_bpermute(i32((thread() % WAVE ^ mask) * 4), bits);
  }
}

template <class T>
GK_DEVICE T shuffle_xor(T value, u32 mask) {
  return __builtin_bit_cast(T, exchange_bits(__builtin_bit_cast(i32, value), mask));
}

template <class V>
GK_DEVICE V load_vec(const void* from) {
  return *static_cast<const V*>(from);
}

// What is at `from`, or zeros where `is_there` is false. `elsewhere` is read then: lanes that wait for a branch around a
// load cost more than lanes that load in vain. A mask that the compiler knew to be one would become a branch.
template <class V>
GK_DEVICE V load_vec_or_zero(const void* from, bool is_there, const void* elsewhere) {
  // Selectors of a byte of ones, and of a byte of zeros.
  const u32 mask = __builtin_amdgcn_perm(0, 0, is_there ? 0x0d0d0d0du : 0x0c0c0c0cu);
  V value = load_vec<V>(is_there ? from : elsewhere);
#pragma unroll
  for (u32 i = 0; i < sizeof(V) / 4; ++i) value.words[i] &= mask;
  return value;
}

template <class V>
GK_DEVICE void store_vec(void* to, const V& value) {
  *static_cast<V*>(to) = value;
}

// There is no copy to shared memory that goes past the registers to any address: these are over when they are called. What is
// not there has an address that may be read.
struct alignas(16) CopiedWords {
  u32 words[4];
};
GK_DEVICE void copy_async16_or_zero(void* to_shared, const void* from_global, bool is_there) {
  store_vec(to_shared, load_vec_or_zero<CopiedWords>(from_global, is_there, from_global));
}
GK_DEVICE void copy_async16(void* to_shared, const void* from_global) {
  store_vec(to_shared, load_vec<CopiedWords>(from_global));
}
GK_DEVICE void copy_async_commit() {}
template <u32 N>
GK_DEVICE void copy_async_wait() {}

GK_DEVICE float bits_to_float(u32 bits) { return __builtin_bit_cast(float, bits); }
GK_DEVICE u32 float_to_bits(float value) { return __builtin_bit_cast(u32, value); }

GK_DEVICE float exp(float x) { return __builtin_elementwise_exp(x); }
GK_DEVICE float exp2(float x) { return __builtin_elementwise_exp2(x); }
GK_DEVICE float sqrt(float x) { return __builtin_elementwise_sqrt(x); }
GK_DEVICE float abs(float x) { return __builtin_elementwise_abs(x); }
// To the nearest integer, ties to even.
GK_DEVICE float round_even(float x) { return __builtin_elementwise_roundeven(x); }

}  // namespace gk

#include "shuffles.h"
