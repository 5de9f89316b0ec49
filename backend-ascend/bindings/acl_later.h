/* Functions of the runtime that came later than the others: a version may lack them. */
#include "types.h"

#ifdef __cplusplus
extern "C" {
#endif

aclError aclrtStreamAbort(aclrtStream stream);

#ifdef __cplusplus
}
#endif
