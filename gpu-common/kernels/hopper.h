// Hopper's own machinery: boxes of a matrix copied by the copy engine (TMA), barriers in shared memory that count what has
// arrived (mbarrier), and products by four waves at once whose operands stay in shared memory (wgmma). All of it is
// asynchronous; the meaning of each operation is that of the PTX ISA. Devices other than sm_90a do not have it.
//
// The host runs a model of it (host/async.h) that does everything as late as the rules allow, or as early.
#pragma once

#include "gk.h"

#if defined(__CUDACC_RTC__)
// A kernel for blocks of a fixed number of threads.
#define GK_KERNEL_OF(threads) extern "C" __global__ void __launch_bounds__(threads, 1)
// A parameter whose address is used.
#define GK_BY_VALUE __grid_constant__
#else
#define GK_KERNEL_OF(threads) static void
#define GK_BY_VALUE
#endif

namespace gk {

// Waves that multiply together, in threads.
constexpr u32 WARPGROUP = 128;
// Rows and columns of one such product, and bytes of k. A thread holds 64 of its results.
constexpr u32 PRODUCT_ROWS = 64;
constexpr u32 PRODUCT_COLS = 128;
constexpr u32 PRODUCT_K = 32;
constexpr u32 PRODUCT_VALUES = PRODUCT_ROWS * PRODUCT_COLS / WARPGROUP;
// Bytes of k in a row of shared memory, and the rows after which the swizzle repeats.
constexpr u32 SWIZZLE_BYTES = 128;
constexpr u32 SWIZZLE_ROWS = 8;

// A matrix in device memory as the copy engine knows it: written by the driver, opaque to kernels.
struct alignas(64) TensorMap {
  u64 words[16];
};

#if defined(__CUDACC_RTC__)
// Number of the warpgroup, in a form that tells the compiler that it is the same for a whole wave.
GK_DEVICE u32 warpgroup() { return __shfl_sync(0xffffffffu, thread() / WARPGROUP, 0); }
#else
// Shared memory as instructions name it.
inline u32 shared_address(const void* place) { return gk_host::block->shared_address(place); }
inline u32 warpgroup() { return thread() / WARPGROUP; }
#endif

// Row and column of value `i` of a product in this thread.
GK_DEVICE u32 product_row(u32 i) { return thread() % WARPGROUP / WAVE * 16 + lane() / 4 + i / 2 % 2 * 8; }
GK_DEVICE u32 product_col(u32 i) { return i / 4 * 8 + lane() % 4 * 2 + i % 2; }

// An operand for multiply(): rows of SWIZZLE_BYTES in shared memory that a copy of boxes has filled. Bytes of k further
// right are 16 to a unit: operand + 2 are the next PRODUCT_K.
GK_DEVICE u64 product_operand(const void* first_row) {
  constexpr u64 STRIDE = SWIZZLE_ROWS * SWIZZLE_BYTES / 16, SWIZZLE_128_BYTES = 1;
  return u64(shared_address(first_row) >> 4) | u64(1) << 16 | STRIDE << 32 | SWIZZLE_128_BYTES << 62;
}

#if defined(__CUDACC_RTC__)

// A barrier completes a phase when `count` threads have arrived and the bytes that they expect are there.
GK_DEVICE void init_barrier(u64* barrier, u32 count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count) : "memory");
}

// Makes initialised barriers known to the copy engine.
GK_DEVICE void fence_barriers() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

GK_DEVICE void arrive(u64* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

// Arrives, and has the phase wait for bytes.
GK_DEVICE void arrive_expecting(u64* barrier, u32 num_bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(num_bytes)
               : "memory");
}

// Waits until the phase of this parity is over. The phase before the first one counts as one of parity 1.
GK_DEVICE void wait(u64* barrier, u32 parity) {
  u32 is_over;
  do {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n"
        "}"
        : "=r"(is_over)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
  } while (is_over == 0);
}

// Queues the copy of a box of a matrix, whose upper left corner is given, to shared memory; `barrier` gets its bytes.
// What lies outside of the matrix is zero.
GK_DEVICE void copy_box(void* to, const TensorMap& from, u32 col, u32 row, u64* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
          shared_address(to)),
      "l"(&from), "r"(shared_address(barrier)), "r"(col), "r"(row)
      : "memory");
}

GK_DEVICE void prefetch(const TensorMap& map) { asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory"); }

// Gives registers of this warpgroup's threads away, or takes what others have given.
template <u32 COUNT>
GK_DEVICE void keep_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}
template <u32 COUNT>
GK_DEVICE void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

// Before the first product, and whenever the results' registers were touched.
GK_DEVICE void fence_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Queues d = a bt, or d += a bt, for 64 x 128 e4m3 operands. `d` is out of reach until wait_products().
GK_DEVICE void multiply(float (&d)[PRODUCT_VALUES], u64 a, u64 b, bool adds) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, %64, %65, p, 1, 1;\n"
      "}"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]),
        "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
        "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),
        "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
        "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]),
        "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
        "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]),
        "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]),
        "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]),
        "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]),
        "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
        "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]),
        "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
        "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]),
        "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
      : "l"(a), "l"(b), "r"(u32(adds)));
}

// Closes the products queued so far.
GK_DEVICE void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits for all that are closed.
GK_DEVICE void wait_products() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }

#else

// The host's model: host/async.h. The default arguments are those of the caller.
inline void init_barrier(u64* barrier, u32 count) {
  gk_host::block->async().init_barrier(*gk_host::block, shared_address(barrier), count);
}
inline void fence_barriers() { gk_host::block->async().fence_barriers(*gk_host::block); }
inline void arrive(u64* barrier) { gk_host::block->async().arrive(*gk_host::block, shared_address(barrier), 0); }
inline void arrive_expecting(u64* barrier, u32 num_bytes) {
  gk_host::block->async().arrive(*gk_host::block, shared_address(barrier), num_bytes);
}
inline void wait(u64* barrier, u32 parity, const char* file = __builtin_FILE(), u32 line = __builtin_LINE()) {
  gk_host::block->async().wait(*gk_host::block, shared_address(barrier), parity, {file, line});
}
inline void copy_box(void* to, const TensorMap& from, u32 col, u32 row, u64* barrier) {
  gk_host::block->async().copy_box(*gk_host::block, shared_address(to), &from, i32(col), i32(row),
                                   shared_address(barrier));
}
inline void prefetch(const TensorMap&) {}
template <u32 COUNT>
inline void keep_registers() {}
template <u32 COUNT>
inline void take_registers() {}
inline void fence_products() { gk_host::block->async().fence_products(*gk_host::block); }
inline void multiply(float (&d)[PRODUCT_VALUES], u64 a, u64 b, bool adds) {
  gk_host::block->async().multiply(*gk_host::block, d, a, b, adds);
}
inline void commit_products() { gk_host::block->async().commit_products(*gk_host::block); }
inline void wait_products() { gk_host::block->async().wait_products(*gk_host::block); }

#endif

}  // namespace gk
