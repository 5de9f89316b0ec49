// The kernels of a family of products: every format with every input it takes.
#pragma once

#include "rows.h"
#include "stream.h"
#include "tiled.h"

namespace gk {

#define GK_PACKED_KERNELS(prefix, format, input, num_weights)              \
  GK_PRODUCT_KERNEL(prefix##_s16, (stream<format, input, 1, num_weights>)) \
  GK_PRODUCT_KERNEL(prefix##_t64, (multiply_tiles<format, input, num_weights>))

// KERNELS(prefix, format, input, num_weights) for every packed format and its inputs.
#define GK_EACH_FORMAT(KERNELS, prefix, num_weights)    \
  KERNELS(prefix##_bf16_a16, BF16, VALUES, num_weights) \
  KERNELS(prefix##_fp8_a16, FP8, VALUES, num_weights)   \
  KERNELS(prefix##_fp8_a8, FP8, CODES, num_weights)     \
  KERNELS(prefix##_int8_a16, INT8, VALUES, num_weights) \
  KERNELS(prefix##_int8_a8, INT8, CODES, num_weights)   \
  KERNELS(prefix##_int4_a16, INT4, VALUES, num_weights)

#define GK_PRODUCT_FAMILY(prefix, num_weights) \
  GK_ROW_KERNELS(prefix, num_weights)          \
  GK_EACH_FORMAT(GK_PACKED_KERNELS, prefix, num_weights)

}  // namespace gk
