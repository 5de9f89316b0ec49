// The host ring's C interface: what the in-process runtime and an emulated driver call.
#pragma once

#include <cstddef>
#include <cstdint>

#include "block.h"

extern "C" {

// One kernel, as a device of one profile runs it.
struct GkHostKernel {
  const char* profile;
  const char* family;
  const char* name;
  std::uint32_t num_params;
  // Bytes of each parameter.
  const std::uint8_t* param_bytes;
};

// Kernel number `index`, or false past the last one.
bool gk_host_kernel(std::size_t index, GkHostKernel* kernel);

// Runs a kernel to its end on the calling thread. `args` holds the address of each argument's value; their number and
// sizes are the caller's to check. `order` chooses the order in which threads run: they start ascending (0), descending
// (1) or shuffled, and in odd orders one wave runs ahead. Returns a gk_host::Status.
int gk_host_launch(const char* profile, const char* family, const char* name, gk_host::Dim3 grid, gk_host::Dim3 block,
                   std::uint32_t shared_bytes, void** args, std::uint32_t order);

// Barrier number `index` of those that kernels launched by the calling thread have come to, or false past the last one.
bool gk_host_barrier(std::size_t index, const char** file, std::uint32_t* line);

// From now on kernels launched by the calling thread leave this barrier out; none if `line` is 0.
void gk_host_skip_barrier(const char* file, std::uint32_t line);

// What the last failed launch of the calling thread was about.
const char* gk_host_error();
}
