// NVIDIA devices, compiled by NVRTC for sm_80 and later. Included by gk.h only.
#pragma once

#define GK_DEVICE __device__ __forceinline__
// No kernel runs in blocks of more than 256 threads; one such block a multiprocessor leaves each thread 255 registers.
#define GK_KERNEL extern "C" __global__ void __launch_bounds__(256, 1)
#define GK_EXPORT(name)
#define GK_LAYOUT MmaLayout

extern __shared__ __align__(16) unsigned char gk_shared_memory[];

namespace gk {

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i8 = signed char;
using i32 = int;

constexpr u32 WAVE = 32;
// FP8 is e4m3fn, as checkpoints have it.
constexpr bool FP8_IS_FNUZ = false;
// Lengths of operands that its matrix instructions take.
constexpr u32 BF16_LENGTH = 1, FP8_LENGTH = 1, INT8_LENGTH = 1;

GK_DEVICE u32 thread() { return threadIdx.x; }
GK_DEVICE u32 num_threads() { return blockDim.x; }
GK_DEVICE u32 block_x() { return blockIdx.x; }
GK_DEVICE u32 block_y() { return blockIdx.y; }
GK_DEVICE u32 block_z() { return blockIdx.z; }
GK_DEVICE u32 grid_x() { return gridDim.x; }
// A number that is the same in all lanes, for compilers that do not see it.
GK_DEVICE u32 same_in_wave(u32 number) { return number; }

GK_DEVICE void sync() { __syncthreads(); }
GK_DEVICE void wave_sync() { __syncwarp(); }
GK_DEVICE unsigned char* shared_memory(u32 start, u32) { return gk_shared_memory + start; }

template <class T>
GK_DEVICE T shuffle_xor(T value, u32 mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}

template <class V>
GK_DEVICE V load_vec(const void* from) {
  return *reinterpret_cast<const V*>(from);
}

// What is at `from`, or zeros where `is_there` is false. `elsewhere` may be read.
template <class V>
GK_DEVICE V load_vec_or_zero(const void* from, bool is_there, const void*) {
  return is_there ? load_vec<V>(from) : V{};
}

template <class V>
GK_DEVICE void store_vec(void* to, const V& value) {
  *reinterpret_cast<V*>(to) = value;
}

GK_DEVICE u32 shared_address(const void* address) { return u32(__cvta_generic_to_shared(address)); }

// Starts a copy of 16 bytes to shared memory that goes past the registers.
GK_DEVICE void copy_async16(void* to_shared, const void* from_global) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(shared_address(to_shared)), "l"(from_global)
               : "memory");
}

// The same, or zeros where `is_there` is false; the address is not read then.
GK_DEVICE void copy_async16_or_zero(void* to_shared, const void* from_global, bool is_there) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared_address(to_shared)),
               "l"(from_global), "r"(is_there ? 16 : 0)
               : "memory");
}

GK_DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <u32 N>
GK_DEVICE void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

GK_DEVICE float bits_to_float(u32 bits) { return __uint_as_float(bits); }
GK_DEVICE u32 float_to_bits(float value) { return __float_as_uint(value); }

GK_DEVICE float exp(float x) { return expf(x); }
GK_DEVICE float exp2(float x) { return exp2f(x); }
GK_DEVICE float sqrt(float x) { return __fsqrt_rn(x); }
GK_DEVICE float abs(float x) { return fabsf(x); }
// To the nearest integer, ties to even.
GK_DEVICE float round_even(float x) { return rintf(x); }

}  // namespace gk

#include "shuffles.h"
