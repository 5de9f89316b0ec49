/* Types of the CANN runtime, of aclnn and of HCCL, as far as this crate uses them. Written for this project from the documented
 * interfaces; no file of an SDK is copied. `tools/check-ascend-header.sh` compares it with an installed SDK. */
#ifndef BATHYSPHERE_ASCEND_TYPES_H
#define BATHYSPHERE_ASCEND_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The check includes the SDK's own types before this file. */
#ifndef BATHYSPHERE_SDK_TYPES

typedef int aclError;
typedef int32_t aclnnStatus;
typedef int HcclResult;

typedef void *aclrtContext;
typedef void *aclrtStream;
typedef void *HcclComm;
typedef void *aclrtEvent;
typedef void *aclrtTaskGrp;
typedef void *aclmdlRI;

typedef enum aclDataType {
    ACL_FLOAT = 0,
    ACL_INT8 = 2,
    ACL_INT32 = 3,
    ACL_INT64 = 9,
    ACL_BOOL = 12,
    ACL_BF16 = 27,
} aclDataType;

typedef enum aclFormat {
    ACL_FORMAT_ND = 2,
    ACL_FORMAT_FRACTAL_NZ = 29,
} aclFormat;

typedef enum aclrtMemAttr {
    ACL_HBM_MEM = 1,
} aclrtMemAttr;

typedef enum aclrtMemMallocPolicy {
    ACL_MEM_MALLOC_HUGE_FIRST = 0,
} aclrtMemMallocPolicy;

typedef enum aclrtMemcpyKind {
    ACL_MEMCPY_HOST_TO_DEVICE = 1,
    ACL_MEMCPY_DEVICE_TO_HOST = 2,
} aclrtMemcpyKind;

typedef enum HcclDataType {
    HCCL_DATA_TYPE_BFP16 = 11,
} HcclDataType;

typedef enum HcclReduceOp {
    HCCL_REDUCE_SUM = 0,
} HcclReduceOp;
typedef enum aclmdlRICaptureMode {
    ACL_MODEL_RI_CAPTURE_MODE_THREAD_LOCAL = 1,
} aclmdlRICaptureMode;

typedef struct aclTensor aclTensor;
typedef struct aclTensorList aclTensorList;
typedef struct aclIntArray aclIntArray;
typedef struct aclScalar aclScalar;
typedef struct aclOpExecutor aclOpExecutor;

#endif
#endif
