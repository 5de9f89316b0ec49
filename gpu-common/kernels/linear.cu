// Linears: out = x Wt.
#include "linear.h"

namespace gk {

GK_PRODUCT_FAMILY(linear, 1)

}  // namespace gk
