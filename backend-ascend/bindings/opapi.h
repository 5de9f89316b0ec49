/* Operators: two functions each. The first checks its arguments and plans; the second queues what was planned, with the
 * same signature for all. They live in libopapi.so, and in libopapi_{math,nn,transformer}.so from CANN 9 on. */
#include "types.h"

#ifdef __cplusplus
extern "C" {
#endif

#define OPERATOR(name, ...)                                                                                            \
    aclnnStatus name##GetWorkspaceSize(__VA_ARGS__, uint64_t *workspaceSize, aclOpExecutor **executor);                \
    aclnnStatus name(void *workspace, uint64_t workspaceSize, aclOpExecutor *executor, aclrtStream stream);

/* Elementwise, copies, choices. */
OPERATOR(aclnnInplaceCopy, aclTensor *selfRef, const aclTensor *src)
OPERATOR(aclnnInplaceAdd, const aclTensor *selfRef, const aclTensor *other, const aclScalar *alpha)
OPERATOR(aclnnInplaceMuls, aclTensor *selfRef, const aclScalar *other)
OPERATOR(aclnnCat, const aclTensorList *tensors, int64_t dim, aclTensor *out)
OPERATOR(aclnnNanToNum, const aclTensor *self, float nan, float posinf, float neginf, aclTensor *out)
OPERATOR(aclnnMaxDim, const aclTensor *self, int64_t dim, bool keepdim, aclTensor *out, aclTensor *indices)
OPERATOR(aclnnEqScalar, const aclTensor *self, const aclScalar *other, aclTensor *out)
OPERATOR(aclnnSWhere, const aclTensor *condition, const aclTensor *self, const aclTensor *other, aclTensor *out)

/* Rows by index, norms, products. */
OPERATOR(aclnnIndexSelect, const aclTensor *self, int64_t dim, const aclTensor *index, aclTensor *out)
OPERATOR(aclnnGather, const aclTensor *self, const int64_t dim, const aclTensor *index, aclTensor *out)
OPERATOR(aclnnEmbedding, const aclTensor *weight, const aclTensor *indices, const aclTensor *out)
OPERATOR(aclnnRmsNorm, const aclTensor *x, const aclTensor *gamma, double epsilon, const aclTensor *yOut,
         const aclTensor *rstdOut)
OPERATOR(aclnnAddRmsNorm, const aclTensor *x1, const aclTensor *x2, const aclTensor *gamma, double epsilon,
         const aclTensor *yOut, const aclTensor *rstdOut, const aclTensor *xOut)
OPERATOR(aclnnSoftmax, const aclTensor *self, int64_t dim, aclTensor *out)
OPERATOR(aclnnSwiGlu, const aclTensor *x, int64_t dim, const aclTensor *out)
OPERATOR(aclnnMatmul, const aclTensor *self, const aclTensor *mat2, aclTensor *out, int8_t cubeMathType)
OPERATOR(aclnnMatmulWeightNz, const aclTensor *self, const aclTensor *mat2, aclTensor *out, int8_t cubeMathType)
OPERATOR(aclnnBatchMatMul, const aclTensor *self, const aclTensor *mat2, aclTensor *out, int8_t cubeMathType)
OPERATOR(aclnnDynamicQuant, const aclTensor *x, const aclTensor *smoothScalesOptional, const aclTensor *yOut,
         const aclTensor *scaleOut)
OPERATOR(aclnnQuantMatmulV5, const aclTensor *x1, const aclTensor *x2, const aclTensor *x1Scale,
         const aclTensor *x2Scale, const aclTensor *yScale, const aclTensor *x1Offset, const aclTensor *x2Offset,
         const aclTensor *yOffset, const aclTensor *bias, bool transposeX1, bool transposeX2, int64_t groupSize,
         aclTensor *out)
OPERATOR(aclnnQuantMatmulWeightNz, const aclTensor *x1, const aclTensor *x2, const aclTensor *x1Scale,
         const aclTensor *x2Scale, const aclTensor *yScale, const aclTensor *x1Offset, const aclTensor *x2Offset,
         const aclTensor *yOffset, const aclTensor *bias, bool transposeX1, bool transposeX2, int64_t groupSize,
         aclTensor *out)

/* Attention. */
OPERATOR(aclnnRotaryPositionEmbedding, const aclTensor *x, const aclTensor *cos, const aclTensor *sin, int64_t mode,
         aclTensor *out)
OPERATOR(aclnnScatterPaKvCache, const aclTensor *key, aclTensor *keyCacheRef, const aclTensor *slotMapping,
         const aclTensor *value, aclTensor *valueCacheRef, const aclTensor *compressLensOptional,
         const aclTensor *compressSeqOffsetOptional, const aclTensor *seqLensOptional, char *cacheModeOptional,
         char *scatterModeOptional, const aclIntArray *stridesOptional, const aclIntArray *offsetsOptional)
OPERATOR(aclnnKvRmsNormRopeCache, const aclTensor *kv, const aclTensor *gamma, const aclTensor *cos,
         const aclTensor *sin, const aclTensor *index, aclTensor *kCacheRef, aclTensor *ckvCacheRef,
         const aclTensor *kRopeScaleOptional, const aclTensor *cKvScaleOptional, const aclTensor *kRopeOffsetOptional,
         const aclTensor *cKvOffsetOptional, double epsilon, char *cacheModeOptional, bool isOutputKv,
         const aclTensor *kRopeOut, const aclTensor *cKvOut)
OPERATOR(aclnnMlaPrologV3WeightNz, const aclTensor *tokenX, const aclTensor *weightDq, const aclTensor *weightUqQr,
         const aclTensor *weightUk, const aclTensor *weightDkvKr, const aclTensor *rmsnormGammaCq,
         const aclTensor *rmsnormGammaCkv, const aclTensor *ropeSin, const aclTensor *ropeCos, aclTensor *kvCacheRef,
         aclTensor *krCacheRef, const aclTensor *cacheIndexOptional, const aclTensor *dequantScaleXOptional,
         const aclTensor *dequantScaleWDqOptional, const aclTensor *dequantScaleWUqQrOptional,
         const aclTensor *dequantScaleWDkvKrOptional, const aclTensor *quantScaleCkvOptional,
         const aclTensor *quantScaleCkrOptional, const aclTensor *smoothScalesCqOptional,
         const aclTensor *actualSeqLenOptional, const aclTensor *kNopeClipAlphaOptional, double rmsnormEpsilonCq,
         double rmsnormEpsilonCkv, char *cacheModeOptional, int64_t weightQuantMode, int64_t kvCacheQuantMode,
         int64_t queryQuantMode, int64_t ckvkrRepoMode, int64_t quantScaleRepoMode, int64_t tileSize, double qcQrScale,
         double kcScale, const aclTensor *queryOut, const aclTensor *queryRopeOut,
         const aclTensor *dequantScaleQNopeOutOptional, const aclTensor *queryNormOutOptional,
         const aclTensor *dequantScaleQNormOutOptional)
OPERATOR(aclnnFusedInferAttentionScoreV4, const aclTensor *query, const aclTensorList *key, const aclTensorList *value,
         const aclTensor *pseShiftOptional, const aclTensor *attenMaskOptional,
         const aclIntArray *actualSeqLengthsOptional, const aclIntArray *actualSeqLengthsKvOptional,
         const aclTensor *deqScale1Optional, const aclTensor *quantScale1Optional, const aclTensor *deqScale2Optional,
         const aclTensor *quantScale2Optional, const aclTensor *quantOffset2Optional,
         const aclTensor *antiquantScaleOptional, const aclTensor *antiquantOffsetOptional,
         const aclTensor *blockTableOptional, const aclTensor *queryPaddingSizeOptional,
         const aclTensor *kvPaddingSizeOptional, const aclTensor *keyAntiquantScaleOptional,
         const aclTensor *keyAntiquantOffsetOptional, const aclTensor *valueAntiquantScaleOptional,
         const aclTensor *valueAntiquantOffsetOptional, const aclTensor *keySharedPrefixOptional,
         const aclTensor *valueSharedPrefixOptional, const aclIntArray *actualSharedPrefixLenOptional,
         const aclTensor *queryRopeOptional, const aclTensor *keyRopeOptional,
         const aclTensor *keyRopeAntiquantScaleOptional, const aclTensor *dequantScaleQueryOptional,
         const aclTensor *learnableSinkOptional, int64_t numHeads, double scaleValue, int64_t preTokens,
         int64_t nextTokens, char *inputLayout, int64_t numKeyValueHeads, int64_t sparseMode, int64_t innerPrecise,
         int64_t blockSize, int64_t antiquantMode, bool softmaxLseFlag, int64_t keyAntiquantMode,
         int64_t valueAntiquantMode, int64_t queryQuantMode, const aclTensor *attentionOut,
         const aclTensor *softmaxLse)

/* Mixture of experts. */
OPERATOR(aclnnMoeGatingTopK, const aclTensor *x, const aclTensor *biasOptional, int64_t k, int64_t kGroup,
         int64_t groupCount, int64_t groupSelectMode, int64_t renorm, int64_t normType, bool outFlag,
         double routedScalingFactor, double eps, const aclTensor *yOut, const aclTensor *expertIdxOut,
         const aclTensor *outOut)
OPERATOR(aclnnMoeInitRoutingV3, const aclTensor *x, const aclTensor *expertIdx, const aclTensor *scaleOptional,
         const aclTensor *offsetOptional, int64_t activeNum, int64_t expertCapacity, int64_t expertNum,
         int64_t dropPadMode, int64_t expertTokensNumType, bool expertTokensNumFlag, int64_t quantMode,
         const aclIntArray *activeExpertRangeOptional, int64_t rowIdxType, const aclTensor *expandedXOut,
         const aclTensor *expandedRowIdxOut, const aclTensor *expertTokensCountOrCumsumOut,
         const aclTensor *expandedScaleOut)
OPERATOR(aclnnMoeFinalizeRoutingV2, const aclTensor *expandedX, const aclTensor *expandedRowIdx,
         const aclTensor *x1Optional, const aclTensor *x2Optional, const aclTensor *biasOptional,
         const aclTensor *scalesOptional, const aclTensor *expertIdxOptional, int64_t dropPadMode, const aclTensor *out)
OPERATOR(aclnnGroupedMatmulV5, const aclTensorList *x, const aclTensorList *weight, const aclTensorList *biasOptional,
         const aclTensorList *scaleOptional, const aclTensorList *offsetOptional,
         const aclTensorList *antiquantScaleOptional, const aclTensorList *antiquantOffsetOptional,
         const aclTensorList *perTokenScaleOptional, const aclTensor *groupListOptional,
         const aclTensorList *activationInputOptional, const aclTensorList *activationQuantScaleOptional,
         const aclTensorList *activationQuantOffsetOptional, int64_t splitItem, int64_t groupType,
         int64_t groupListType, int64_t actType, aclIntArray *tuningConfigOptional, aclTensorList *out,
         aclTensorList *activationFeatureOutOptional, aclTensorList *dynQuantScaleOutOptional)
OPERATOR(aclnnGroupedMatmulSwigluQuantWeightNZ, const aclTensor *x, const aclTensor *weight, const aclTensor *bias,
         const aclTensor *offset, const aclTensor *weightScale, const aclTensor *xScale, const aclTensor *groupList,
         aclTensor *output, aclTensor *outputScale, aclTensor *outputOffset)

#undef OPERATOR

#ifdef __cplusplus
}
#endif
