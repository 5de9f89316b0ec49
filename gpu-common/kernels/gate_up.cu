// The inner half of a gated FFN: out = silu(x W0t) * (x W1t).
#include "family.h"

namespace gk {

GK_PRODUCT_FAMILY(gate_up, 2)

}  // namespace gk
