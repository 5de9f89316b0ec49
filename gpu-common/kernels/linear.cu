// Linears: out = x Wt.
#include "family.h"

namespace gk {

GK_PRODUCT_FAMILY(linear, 1)

// Two W would leave no registers for these.
#define GK_WIDE_STREAM_KERNEL(prefix, format, input, num_weights) \
  GK_PRODUCT_KERNEL(prefix##_s32, (stream<format, input, 2, num_weights>))

GK_EACH_FORMAT(GK_WIDE_STREAM_KERNEL, linear, 1)

}  // namespace gk
