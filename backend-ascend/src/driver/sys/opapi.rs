// Written by tools/ascend-bindings from backend-ascend/bindings/opapi.h.

use super::types::*;

pub struct OpApi {
    __library: ::libloading::Library,
    pub aclnnInplaceCopyGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            selfRef: *mut aclTensor,
            src: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnInplaceCopy: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnInplaceAddGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            selfRef: *const aclTensor,
            other: *const aclTensor,
            alpha: *const aclScalar,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnInplaceAdd: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnInplaceMulsGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            selfRef: *mut aclTensor,
            other: *const aclScalar,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnInplaceMuls: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnCatGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            tensors: *const aclTensorList,
            dim: i64,
            out: *mut aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnCat: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnNanToNumGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            self_: *const aclTensor,
            nan: f32,
            posinf: f32,
            neginf: f32,
            out: *mut aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnNanToNum: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMaxDimGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            self_: *const aclTensor,
            dim: i64,
            keepdim: bool,
            out: *mut aclTensor,
            indices: *mut aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMaxDim: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnEqScalarGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            self_: *const aclTensor,
            other: *const aclScalar,
            out: *mut aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnEqScalar: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnSWhereGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            condition: *const aclTensor,
            self_: *const aclTensor,
            other: *const aclTensor,
            out: *mut aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnSWhere: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnIndexSelectGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            self_: *const aclTensor,
            dim: i64,
            index: *const aclTensor,
            out: *mut aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnIndexSelect: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnGatherGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            self_: *const aclTensor,
            dim: i64,
            index: *const aclTensor,
            out: *mut aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnGather: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnEmbeddingGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            weight: *const aclTensor,
            indices: *const aclTensor,
            out: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnEmbedding: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnRmsNormGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            x: *const aclTensor,
            gamma: *const aclTensor,
            epsilon: f64,
            yOut: *const aclTensor,
            rstdOut: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnRmsNorm: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnAddRmsNormGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            x1: *const aclTensor,
            x2: *const aclTensor,
            gamma: *const aclTensor,
            epsilon: f64,
            yOut: *const aclTensor,
            rstdOut: *const aclTensor,
            xOut: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnAddRmsNorm: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnSoftmaxGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            self_: *const aclTensor,
            dim: i64,
            out: *mut aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnSoftmax: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnSwiGluGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            x: *const aclTensor,
            dim: i64,
            out: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnSwiGlu: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMatmulGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            self_: *const aclTensor,
            mat2: *const aclTensor,
            out: *mut aclTensor,
            cubeMathType: i8,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMatmul: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMatmulWeightNzGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            self_: *const aclTensor,
            mat2: *const aclTensor,
            out: *mut aclTensor,
            cubeMathType: i8,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMatmulWeightNz: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnBatchMatMulGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            self_: *const aclTensor,
            mat2: *const aclTensor,
            out: *mut aclTensor,
            cubeMathType: i8,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnBatchMatMul: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnDynamicQuantGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            x: *const aclTensor,
            smoothScalesOptional: *const aclTensor,
            yOut: *const aclTensor,
            scaleOut: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnDynamicQuant: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnQuantMatmulV5GetWorkspaceSize: Result<
        unsafe extern "C" fn(
            x1: *const aclTensor,
            x2: *const aclTensor,
            x1Scale: *const aclTensor,
            x2Scale: *const aclTensor,
            yScale: *const aclTensor,
            x1Offset: *const aclTensor,
            x2Offset: *const aclTensor,
            yOffset: *const aclTensor,
            bias: *const aclTensor,
            transposeX1: bool,
            transposeX2: bool,
            groupSize: i64,
            out: *mut aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnQuantMatmulV5: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnQuantMatmulWeightNzGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            x1: *const aclTensor,
            x2: *const aclTensor,
            x1Scale: *const aclTensor,
            x2Scale: *const aclTensor,
            yScale: *const aclTensor,
            x1Offset: *const aclTensor,
            x2Offset: *const aclTensor,
            yOffset: *const aclTensor,
            bias: *const aclTensor,
            transposeX1: bool,
            transposeX2: bool,
            groupSize: i64,
            out: *mut aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnQuantMatmulWeightNz: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnRotaryPositionEmbeddingGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            x: *const aclTensor,
            cos: *const aclTensor,
            sin: *const aclTensor,
            mode: i64,
            out: *mut aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnRotaryPositionEmbedding: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnScatterPaKvCacheGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            key: *const aclTensor,
            keyCacheRef: *mut aclTensor,
            slotMapping: *const aclTensor,
            value: *const aclTensor,
            valueCacheRef: *mut aclTensor,
            compressLensOptional: *const aclTensor,
            compressSeqOffsetOptional: *const aclTensor,
            seqLensOptional: *const aclTensor,
            cacheModeOptional: *mut ::std::os::raw::c_char,
            scatterModeOptional: *mut ::std::os::raw::c_char,
            stridesOptional: *const aclIntArray,
            offsetsOptional: *const aclIntArray,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnScatterPaKvCache: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnKvRmsNormRopeCacheGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            kv: *const aclTensor,
            gamma: *const aclTensor,
            cos: *const aclTensor,
            sin: *const aclTensor,
            index: *const aclTensor,
            kCacheRef: *mut aclTensor,
            ckvCacheRef: *mut aclTensor,
            kRopeScaleOptional: *const aclTensor,
            cKvScaleOptional: *const aclTensor,
            kRopeOffsetOptional: *const aclTensor,
            cKvOffsetOptional: *const aclTensor,
            epsilon: f64,
            cacheModeOptional: *mut ::std::os::raw::c_char,
            isOutputKv: bool,
            kRopeOut: *const aclTensor,
            cKvOut: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnKvRmsNormRopeCache: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMlaPrologV3WeightNzGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            tokenX: *const aclTensor,
            weightDq: *const aclTensor,
            weightUqQr: *const aclTensor,
            weightUk: *const aclTensor,
            weightDkvKr: *const aclTensor,
            rmsnormGammaCq: *const aclTensor,
            rmsnormGammaCkv: *const aclTensor,
            ropeSin: *const aclTensor,
            ropeCos: *const aclTensor,
            kvCacheRef: *mut aclTensor,
            krCacheRef: *mut aclTensor,
            cacheIndexOptional: *const aclTensor,
            dequantScaleXOptional: *const aclTensor,
            dequantScaleWDqOptional: *const aclTensor,
            dequantScaleWUqQrOptional: *const aclTensor,
            dequantScaleWDkvKrOptional: *const aclTensor,
            quantScaleCkvOptional: *const aclTensor,
            quantScaleCkrOptional: *const aclTensor,
            smoothScalesCqOptional: *const aclTensor,
            actualSeqLenOptional: *const aclTensor,
            kNopeClipAlphaOptional: *const aclTensor,
            rmsnormEpsilonCq: f64,
            rmsnormEpsilonCkv: f64,
            cacheModeOptional: *mut ::std::os::raw::c_char,
            weightQuantMode: i64,
            kvCacheQuantMode: i64,
            queryQuantMode: i64,
            ckvkrRepoMode: i64,
            quantScaleRepoMode: i64,
            tileSize: i64,
            qcQrScale: f64,
            kcScale: f64,
            queryOut: *const aclTensor,
            queryRopeOut: *const aclTensor,
            dequantScaleQNopeOutOptional: *const aclTensor,
            queryNormOutOptional: *const aclTensor,
            dequantScaleQNormOutOptional: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMlaPrologV3WeightNz: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnFusedInferAttentionScoreV4GetWorkspaceSize: Result<
        unsafe extern "C" fn(
            query: *const aclTensor,
            key: *const aclTensorList,
            value: *const aclTensorList,
            pseShiftOptional: *const aclTensor,
            attenMaskOptional: *const aclTensor,
            actualSeqLengthsOptional: *const aclIntArray,
            actualSeqLengthsKvOptional: *const aclIntArray,
            deqScale1Optional: *const aclTensor,
            quantScale1Optional: *const aclTensor,
            deqScale2Optional: *const aclTensor,
            quantScale2Optional: *const aclTensor,
            quantOffset2Optional: *const aclTensor,
            antiquantScaleOptional: *const aclTensor,
            antiquantOffsetOptional: *const aclTensor,
            blockTableOptional: *const aclTensor,
            queryPaddingSizeOptional: *const aclTensor,
            kvPaddingSizeOptional: *const aclTensor,
            keyAntiquantScaleOptional: *const aclTensor,
            keyAntiquantOffsetOptional: *const aclTensor,
            valueAntiquantScaleOptional: *const aclTensor,
            valueAntiquantOffsetOptional: *const aclTensor,
            keySharedPrefixOptional: *const aclTensor,
            valueSharedPrefixOptional: *const aclTensor,
            actualSharedPrefixLenOptional: *const aclIntArray,
            queryRopeOptional: *const aclTensor,
            keyRopeOptional: *const aclTensor,
            keyRopeAntiquantScaleOptional: *const aclTensor,
            dequantScaleQueryOptional: *const aclTensor,
            learnableSinkOptional: *const aclTensor,
            numHeads: i64,
            scaleValue: f64,
            preTokens: i64,
            nextTokens: i64,
            inputLayout: *mut ::std::os::raw::c_char,
            numKeyValueHeads: i64,
            sparseMode: i64,
            innerPrecise: i64,
            blockSize: i64,
            antiquantMode: i64,
            softmaxLseFlag: bool,
            keyAntiquantMode: i64,
            valueAntiquantMode: i64,
            queryQuantMode: i64,
            attentionOut: *const aclTensor,
            softmaxLse: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnFusedInferAttentionScoreV4: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMoeGatingTopKGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            x: *const aclTensor,
            biasOptional: *const aclTensor,
            k: i64,
            kGroup: i64,
            groupCount: i64,
            groupSelectMode: i64,
            renorm: i64,
            normType: i64,
            outFlag: bool,
            routedScalingFactor: f64,
            eps: f64,
            yOut: *const aclTensor,
            expertIdxOut: *const aclTensor,
            outOut: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMoeGatingTopK: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMoeInitRoutingV3GetWorkspaceSize: Result<
        unsafe extern "C" fn(
            x: *const aclTensor,
            expertIdx: *const aclTensor,
            scaleOptional: *const aclTensor,
            offsetOptional: *const aclTensor,
            activeNum: i64,
            expertCapacity: i64,
            expertNum: i64,
            dropPadMode: i64,
            expertTokensNumType: i64,
            expertTokensNumFlag: bool,
            quantMode: i64,
            activeExpertRangeOptional: *const aclIntArray,
            rowIdxType: i64,
            expandedXOut: *const aclTensor,
            expandedRowIdxOut: *const aclTensor,
            expertTokensCountOrCumsumOut: *const aclTensor,
            expandedScaleOut: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMoeInitRoutingV3: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMoeFinalizeRoutingV2GetWorkspaceSize: Result<
        unsafe extern "C" fn(
            expandedX: *const aclTensor,
            expandedRowIdx: *const aclTensor,
            x1Optional: *const aclTensor,
            x2Optional: *const aclTensor,
            biasOptional: *const aclTensor,
            scalesOptional: *const aclTensor,
            expertIdxOptional: *const aclTensor,
            dropPadMode: i64,
            out: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMoeFinalizeRoutingV2: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnGroupedMatmulV5GetWorkspaceSize: Result<
        unsafe extern "C" fn(
            x: *const aclTensorList,
            weight: *const aclTensorList,
            biasOptional: *const aclTensorList,
            scaleOptional: *const aclTensorList,
            offsetOptional: *const aclTensorList,
            antiquantScaleOptional: *const aclTensorList,
            antiquantOffsetOptional: *const aclTensorList,
            perTokenScaleOptional: *const aclTensorList,
            groupListOptional: *const aclTensor,
            activationInputOptional: *const aclTensorList,
            activationQuantScaleOptional: *const aclTensorList,
            activationQuantOffsetOptional: *const aclTensorList,
            splitItem: i64,
            groupType: i64,
            groupListType: i64,
            actType: i64,
            tuningConfigOptional: *mut aclIntArray,
            out: *mut aclTensorList,
            activationFeatureOutOptional: *mut aclTensorList,
            dynQuantScaleOutOptional: *mut aclTensorList,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnGroupedMatmulV5: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnGroupedMatmulSwigluQuantWeightNZGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            x: *const aclTensor,
            weight: *const aclTensor,
            bias: *const aclTensor,
            offset: *const aclTensor,
            weightScale: *const aclTensor,
            xScale: *const aclTensor,
            groupList: *const aclTensor,
            output: *mut aclTensor,
            outputScale: *mut aclTensor,
            outputOffset: *mut aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnGroupedMatmulSwigluQuantWeightNZ: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
}
impl OpApi {
    pub unsafe fn new<P>(path: P) -> Result<Self, ::libloading::Error>
    where
        P: AsRef<::std::ffi::OsStr>,
    {
        let path = path.as_ref();
        let library = ::libloading::Library::new(path)?;
        Self::from_library(library)
    }
    pub unsafe fn from_library<L>(library: L) -> Result<Self, ::libloading::Error>
    where
        L: Into<::libloading::Library>,
    {
        let __library = library.into();
        let aclnnInplaceCopyGetWorkspaceSize = __library.get(b"aclnnInplaceCopyGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnInplaceCopy = __library.get(b"aclnnInplaceCopy\0").map(|sym| *sym);
        let aclnnInplaceAddGetWorkspaceSize = __library.get(b"aclnnInplaceAddGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnInplaceAdd = __library.get(b"aclnnInplaceAdd\0").map(|sym| *sym);
        let aclnnInplaceMulsGetWorkspaceSize = __library.get(b"aclnnInplaceMulsGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnInplaceMuls = __library.get(b"aclnnInplaceMuls\0").map(|sym| *sym);
        let aclnnCatGetWorkspaceSize = __library.get(b"aclnnCatGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnCat = __library.get(b"aclnnCat\0").map(|sym| *sym);
        let aclnnNanToNumGetWorkspaceSize = __library.get(b"aclnnNanToNumGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnNanToNum = __library.get(b"aclnnNanToNum\0").map(|sym| *sym);
        let aclnnMaxDimGetWorkspaceSize = __library.get(b"aclnnMaxDimGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnMaxDim = __library.get(b"aclnnMaxDim\0").map(|sym| *sym);
        let aclnnEqScalarGetWorkspaceSize = __library.get(b"aclnnEqScalarGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnEqScalar = __library.get(b"aclnnEqScalar\0").map(|sym| *sym);
        let aclnnSWhereGetWorkspaceSize = __library.get(b"aclnnSWhereGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnSWhere = __library.get(b"aclnnSWhere\0").map(|sym| *sym);
        let aclnnIndexSelectGetWorkspaceSize = __library.get(b"aclnnIndexSelectGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnIndexSelect = __library.get(b"aclnnIndexSelect\0").map(|sym| *sym);
        let aclnnGatherGetWorkspaceSize = __library.get(b"aclnnGatherGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnGather = __library.get(b"aclnnGather\0").map(|sym| *sym);
        let aclnnEmbeddingGetWorkspaceSize = __library.get(b"aclnnEmbeddingGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnEmbedding = __library.get(b"aclnnEmbedding\0").map(|sym| *sym);
        let aclnnRmsNormGetWorkspaceSize = __library.get(b"aclnnRmsNormGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnRmsNorm = __library.get(b"aclnnRmsNorm\0").map(|sym| *sym);
        let aclnnAddRmsNormGetWorkspaceSize = __library.get(b"aclnnAddRmsNormGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnAddRmsNorm = __library.get(b"aclnnAddRmsNorm\0").map(|sym| *sym);
        let aclnnSoftmaxGetWorkspaceSize = __library.get(b"aclnnSoftmaxGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnSoftmax = __library.get(b"aclnnSoftmax\0").map(|sym| *sym);
        let aclnnSwiGluGetWorkspaceSize = __library.get(b"aclnnSwiGluGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnSwiGlu = __library.get(b"aclnnSwiGlu\0").map(|sym| *sym);
        let aclnnMatmulGetWorkspaceSize = __library.get(b"aclnnMatmulGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnMatmul = __library.get(b"aclnnMatmul\0").map(|sym| *sym);
        let aclnnMatmulWeightNzGetWorkspaceSize =
            __library.get(b"aclnnMatmulWeightNzGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnMatmulWeightNz = __library.get(b"aclnnMatmulWeightNz\0").map(|sym| *sym);
        let aclnnBatchMatMulGetWorkspaceSize = __library.get(b"aclnnBatchMatMulGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnBatchMatMul = __library.get(b"aclnnBatchMatMul\0").map(|sym| *sym);
        let aclnnDynamicQuantGetWorkspaceSize = __library.get(b"aclnnDynamicQuantGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnDynamicQuant = __library.get(b"aclnnDynamicQuant\0").map(|sym| *sym);
        let aclnnQuantMatmulV5GetWorkspaceSize = __library.get(b"aclnnQuantMatmulV5GetWorkspaceSize\0").map(|sym| *sym);
        let aclnnQuantMatmulV5 = __library.get(b"aclnnQuantMatmulV5\0").map(|sym| *sym);
        let aclnnQuantMatmulWeightNzGetWorkspaceSize =
            __library.get(b"aclnnQuantMatmulWeightNzGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnQuantMatmulWeightNz = __library.get(b"aclnnQuantMatmulWeightNz\0").map(|sym| *sym);
        let aclnnRotaryPositionEmbeddingGetWorkspaceSize =
            __library.get(b"aclnnRotaryPositionEmbeddingGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnRotaryPositionEmbedding = __library.get(b"aclnnRotaryPositionEmbedding\0").map(|sym| *sym);
        let aclnnScatterPaKvCacheGetWorkspaceSize =
            __library.get(b"aclnnScatterPaKvCacheGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnScatterPaKvCache = __library.get(b"aclnnScatterPaKvCache\0").map(|sym| *sym);
        let aclnnKvRmsNormRopeCacheGetWorkspaceSize =
            __library.get(b"aclnnKvRmsNormRopeCacheGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnKvRmsNormRopeCache = __library.get(b"aclnnKvRmsNormRopeCache\0").map(|sym| *sym);
        let aclnnMlaPrologV3WeightNzGetWorkspaceSize =
            __library.get(b"aclnnMlaPrologV3WeightNzGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnMlaPrologV3WeightNz = __library.get(b"aclnnMlaPrologV3WeightNz\0").map(|sym| *sym);
        let aclnnFusedInferAttentionScoreV4GetWorkspaceSize =
            __library.get(b"aclnnFusedInferAttentionScoreV4GetWorkspaceSize\0").map(|sym| *sym);
        let aclnnFusedInferAttentionScoreV4 = __library.get(b"aclnnFusedInferAttentionScoreV4\0").map(|sym| *sym);
        let aclnnMoeGatingTopKGetWorkspaceSize = __library.get(b"aclnnMoeGatingTopKGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnMoeGatingTopK = __library.get(b"aclnnMoeGatingTopK\0").map(|sym| *sym);
        let aclnnMoeInitRoutingV3GetWorkspaceSize =
            __library.get(b"aclnnMoeInitRoutingV3GetWorkspaceSize\0").map(|sym| *sym);
        let aclnnMoeInitRoutingV3 = __library.get(b"aclnnMoeInitRoutingV3\0").map(|sym| *sym);
        let aclnnMoeFinalizeRoutingV2GetWorkspaceSize =
            __library.get(b"aclnnMoeFinalizeRoutingV2GetWorkspaceSize\0").map(|sym| *sym);
        let aclnnMoeFinalizeRoutingV2 = __library.get(b"aclnnMoeFinalizeRoutingV2\0").map(|sym| *sym);
        let aclnnGroupedMatmulV5GetWorkspaceSize =
            __library.get(b"aclnnGroupedMatmulV5GetWorkspaceSize\0").map(|sym| *sym);
        let aclnnGroupedMatmulV5 = __library.get(b"aclnnGroupedMatmulV5\0").map(|sym| *sym);
        let aclnnGroupedMatmulSwigluQuantWeightNZGetWorkspaceSize =
            __library.get(b"aclnnGroupedMatmulSwigluQuantWeightNZGetWorkspaceSize\0").map(|sym| *sym);
        let aclnnGroupedMatmulSwigluQuantWeightNZ =
            __library.get(b"aclnnGroupedMatmulSwigluQuantWeightNZ\0").map(|sym| *sym);
        Ok(OpApi {
            __library,
            aclnnInplaceCopyGetWorkspaceSize,
            aclnnInplaceCopy,
            aclnnInplaceAddGetWorkspaceSize,
            aclnnInplaceAdd,
            aclnnInplaceMulsGetWorkspaceSize,
            aclnnInplaceMuls,
            aclnnCatGetWorkspaceSize,
            aclnnCat,
            aclnnNanToNumGetWorkspaceSize,
            aclnnNanToNum,
            aclnnMaxDimGetWorkspaceSize,
            aclnnMaxDim,
            aclnnEqScalarGetWorkspaceSize,
            aclnnEqScalar,
            aclnnSWhereGetWorkspaceSize,
            aclnnSWhere,
            aclnnIndexSelectGetWorkspaceSize,
            aclnnIndexSelect,
            aclnnGatherGetWorkspaceSize,
            aclnnGather,
            aclnnEmbeddingGetWorkspaceSize,
            aclnnEmbedding,
            aclnnRmsNormGetWorkspaceSize,
            aclnnRmsNorm,
            aclnnAddRmsNormGetWorkspaceSize,
            aclnnAddRmsNorm,
            aclnnSoftmaxGetWorkspaceSize,
            aclnnSoftmax,
            aclnnSwiGluGetWorkspaceSize,
            aclnnSwiGlu,
            aclnnMatmulGetWorkspaceSize,
            aclnnMatmul,
            aclnnMatmulWeightNzGetWorkspaceSize,
            aclnnMatmulWeightNz,
            aclnnBatchMatMulGetWorkspaceSize,
            aclnnBatchMatMul,
            aclnnDynamicQuantGetWorkspaceSize,
            aclnnDynamicQuant,
            aclnnQuantMatmulV5GetWorkspaceSize,
            aclnnQuantMatmulV5,
            aclnnQuantMatmulWeightNzGetWorkspaceSize,
            aclnnQuantMatmulWeightNz,
            aclnnRotaryPositionEmbeddingGetWorkspaceSize,
            aclnnRotaryPositionEmbedding,
            aclnnScatterPaKvCacheGetWorkspaceSize,
            aclnnScatterPaKvCache,
            aclnnKvRmsNormRopeCacheGetWorkspaceSize,
            aclnnKvRmsNormRopeCache,
            aclnnMlaPrologV3WeightNzGetWorkspaceSize,
            aclnnMlaPrologV3WeightNz,
            aclnnFusedInferAttentionScoreV4GetWorkspaceSize,
            aclnnFusedInferAttentionScoreV4,
            aclnnMoeGatingTopKGetWorkspaceSize,
            aclnnMoeGatingTopK,
            aclnnMoeInitRoutingV3GetWorkspaceSize,
            aclnnMoeInitRoutingV3,
            aclnnMoeFinalizeRoutingV2GetWorkspaceSize,
            aclnnMoeFinalizeRoutingV2,
            aclnnGroupedMatmulV5GetWorkspaceSize,
            aclnnGroupedMatmulV5,
            aclnnGroupedMatmulSwigluQuantWeightNZGetWorkspaceSize,
            aclnnGroupedMatmulSwigluQuantWeightNZ,
        })
    }
    pub unsafe fn aclnnInplaceCopyGetWorkspaceSize(
        &self,
        selfRef: *mut aclTensor,
        src: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnInplaceCopyGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            selfRef,
            src,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnInplaceCopy(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnInplaceCopy.as_ref().expect("Expected function, got error."))(
            workspace,
            workspaceSize,
            executor,
            stream,
        )
    }
    pub unsafe fn aclnnInplaceAddGetWorkspaceSize(
        &self,
        selfRef: *const aclTensor,
        other: *const aclTensor,
        alpha: *const aclScalar,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnInplaceAddGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            selfRef,
            other,
            alpha,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnInplaceAdd(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnInplaceAdd.as_ref().expect("Expected function, got error."))(
            workspace,
            workspaceSize,
            executor,
            stream,
        )
    }
    pub unsafe fn aclnnInplaceMulsGetWorkspaceSize(
        &self,
        selfRef: *mut aclTensor,
        other: *const aclScalar,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnInplaceMulsGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            selfRef,
            other,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnInplaceMuls(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnInplaceMuls.as_ref().expect("Expected function, got error."))(
            workspace,
            workspaceSize,
            executor,
            stream,
        )
    }
    pub unsafe fn aclnnCatGetWorkspaceSize(
        &self,
        tensors: *const aclTensorList,
        dim: i64,
        out: *mut aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnCatGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            tensors,
            dim,
            out,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnCat(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnCat.as_ref().expect("Expected function, got error."))(workspace, workspaceSize, executor, stream)
    }
    pub unsafe fn aclnnNanToNumGetWorkspaceSize(
        &self,
        self_: *const aclTensor,
        nan: f32,
        posinf: f32,
        neginf: f32,
        out: *mut aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnNanToNumGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            self_,
            nan,
            posinf,
            neginf,
            out,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnNanToNum(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnNanToNum.as_ref().expect("Expected function, got error."))(
            workspace,
            workspaceSize,
            executor,
            stream,
        )
    }
    pub unsafe fn aclnnMaxDimGetWorkspaceSize(
        &self,
        self_: *const aclTensor,
        dim: i64,
        keepdim: bool,
        out: *mut aclTensor,
        indices: *mut aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnMaxDimGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            self_,
            dim,
            keepdim,
            out,
            indices,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnMaxDim(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnMaxDim.as_ref().expect("Expected function, got error."))(workspace, workspaceSize, executor, stream)
    }
    pub unsafe fn aclnnEqScalarGetWorkspaceSize(
        &self,
        self_: *const aclTensor,
        other: *const aclScalar,
        out: *mut aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnEqScalarGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            self_,
            other,
            out,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnEqScalar(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnEqScalar.as_ref().expect("Expected function, got error."))(
            workspace,
            workspaceSize,
            executor,
            stream,
        )
    }
    pub unsafe fn aclnnSWhereGetWorkspaceSize(
        &self,
        condition: *const aclTensor,
        self_: *const aclTensor,
        other: *const aclTensor,
        out: *mut aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnSWhereGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            condition,
            self_,
            other,
            out,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnSWhere(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnSWhere.as_ref().expect("Expected function, got error."))(workspace, workspaceSize, executor, stream)
    }
    pub unsafe fn aclnnIndexSelectGetWorkspaceSize(
        &self,
        self_: *const aclTensor,
        dim: i64,
        index: *const aclTensor,
        out: *mut aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnIndexSelectGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            self_,
            dim,
            index,
            out,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnIndexSelect(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnIndexSelect.as_ref().expect("Expected function, got error."))(
            workspace,
            workspaceSize,
            executor,
            stream,
        )
    }
    pub unsafe fn aclnnGatherGetWorkspaceSize(
        &self,
        self_: *const aclTensor,
        dim: i64,
        index: *const aclTensor,
        out: *mut aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnGatherGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            self_,
            dim,
            index,
            out,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnGather(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnGather.as_ref().expect("Expected function, got error."))(workspace, workspaceSize, executor, stream)
    }
    pub unsafe fn aclnnEmbeddingGetWorkspaceSize(
        &self,
        weight: *const aclTensor,
        indices: *const aclTensor,
        out: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnEmbeddingGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            weight,
            indices,
            out,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnEmbedding(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnEmbedding.as_ref().expect("Expected function, got error."))(
            workspace,
            workspaceSize,
            executor,
            stream,
        )
    }
    pub unsafe fn aclnnRmsNormGetWorkspaceSize(
        &self,
        x: *const aclTensor,
        gamma: *const aclTensor,
        epsilon: f64,
        yOut: *const aclTensor,
        rstdOut: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnRmsNormGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            x,
            gamma,
            epsilon,
            yOut,
            rstdOut,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnRmsNorm(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnRmsNorm.as_ref().expect("Expected function, got error."))(workspace, workspaceSize, executor, stream)
    }
    pub unsafe fn aclnnAddRmsNormGetWorkspaceSize(
        &self,
        x1: *const aclTensor,
        x2: *const aclTensor,
        gamma: *const aclTensor,
        epsilon: f64,
        yOut: *const aclTensor,
        rstdOut: *const aclTensor,
        xOut: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnAddRmsNormGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            x1,
            x2,
            gamma,
            epsilon,
            yOut,
            rstdOut,
            xOut,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnAddRmsNorm(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnAddRmsNorm.as_ref().expect("Expected function, got error."))(
            workspace,
            workspaceSize,
            executor,
            stream,
        )
    }
    pub unsafe fn aclnnSoftmaxGetWorkspaceSize(
        &self,
        self_: *const aclTensor,
        dim: i64,
        out: *mut aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnSoftmaxGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            self_,
            dim,
            out,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnSoftmax(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnSoftmax.as_ref().expect("Expected function, got error."))(workspace, workspaceSize, executor, stream)
    }
    pub unsafe fn aclnnSwiGluGetWorkspaceSize(
        &self,
        x: *const aclTensor,
        dim: i64,
        out: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnSwiGluGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            x,
            dim,
            out,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnSwiGlu(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnSwiGlu.as_ref().expect("Expected function, got error."))(workspace, workspaceSize, executor, stream)
    }
    pub unsafe fn aclnnMatmulGetWorkspaceSize(
        &self,
        self_: *const aclTensor,
        mat2: *const aclTensor,
        out: *mut aclTensor,
        cubeMathType: i8,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnMatmulGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            self_,
            mat2,
            out,
            cubeMathType,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnMatmul(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnMatmul.as_ref().expect("Expected function, got error."))(workspace, workspaceSize, executor, stream)
    }
    pub unsafe fn aclnnMatmulWeightNzGetWorkspaceSize(
        &self,
        self_: *const aclTensor,
        mat2: *const aclTensor,
        out: *mut aclTensor,
        cubeMathType: i8,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnMatmulWeightNzGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            self_,
            mat2,
            out,
            cubeMathType,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnMatmulWeightNz(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnMatmulWeightNz.as_ref().expect("Expected function, got error."))(
            workspace,
            workspaceSize,
            executor,
            stream,
        )
    }
    pub unsafe fn aclnnBatchMatMulGetWorkspaceSize(
        &self,
        self_: *const aclTensor,
        mat2: *const aclTensor,
        out: *mut aclTensor,
        cubeMathType: i8,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnBatchMatMulGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            self_,
            mat2,
            out,
            cubeMathType,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnBatchMatMul(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnBatchMatMul.as_ref().expect("Expected function, got error."))(
            workspace,
            workspaceSize,
            executor,
            stream,
        )
    }
    pub unsafe fn aclnnDynamicQuantGetWorkspaceSize(
        &self,
        x: *const aclTensor,
        smoothScalesOptional: *const aclTensor,
        yOut: *const aclTensor,
        scaleOut: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnDynamicQuantGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            x,
            smoothScalesOptional,
            yOut,
            scaleOut,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnDynamicQuant(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnDynamicQuant.as_ref().expect("Expected function, got error."))(
            workspace,
            workspaceSize,
            executor,
            stream,
        )
    }
    pub unsafe fn aclnnQuantMatmulV5GetWorkspaceSize(
        &self,
        x1: *const aclTensor,
        x2: *const aclTensor,
        x1Scale: *const aclTensor,
        x2Scale: *const aclTensor,
        yScale: *const aclTensor,
        x1Offset: *const aclTensor,
        x2Offset: *const aclTensor,
        yOffset: *const aclTensor,
        bias: *const aclTensor,
        transposeX1: bool,
        transposeX2: bool,
        groupSize: i64,
        out: *mut aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnQuantMatmulV5GetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            x1,
            x2,
            x1Scale,
            x2Scale,
            yScale,
            x1Offset,
            x2Offset,
            yOffset,
            bias,
            transposeX1,
            transposeX2,
            groupSize,
            out,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnQuantMatmulV5(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnQuantMatmulV5.as_ref().expect("Expected function, got error."))(
            workspace,
            workspaceSize,
            executor,
            stream,
        )
    }
    pub unsafe fn aclnnQuantMatmulWeightNzGetWorkspaceSize(
        &self,
        x1: *const aclTensor,
        x2: *const aclTensor,
        x1Scale: *const aclTensor,
        x2Scale: *const aclTensor,
        yScale: *const aclTensor,
        x1Offset: *const aclTensor,
        x2Offset: *const aclTensor,
        yOffset: *const aclTensor,
        bias: *const aclTensor,
        transposeX1: bool,
        transposeX2: bool,
        groupSize: i64,
        out: *mut aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnQuantMatmulWeightNzGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            x1,
            x2,
            x1Scale,
            x2Scale,
            yScale,
            x1Offset,
            x2Offset,
            yOffset,
            bias,
            transposeX1,
            transposeX2,
            groupSize,
            out,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnQuantMatmulWeightNz(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnQuantMatmulWeightNz.as_ref().expect("Expected function, got error."))(
            workspace,
            workspaceSize,
            executor,
            stream,
        )
    }
    pub unsafe fn aclnnRotaryPositionEmbeddingGetWorkspaceSize(
        &self,
        x: *const aclTensor,
        cos: *const aclTensor,
        sin: *const aclTensor,
        mode: i64,
        out: *mut aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnRotaryPositionEmbeddingGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            x,
            cos,
            sin,
            mode,
            out,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnRotaryPositionEmbedding(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnRotaryPositionEmbedding.as_ref().expect("Expected function, got error."))(
            workspace,
            workspaceSize,
            executor,
            stream,
        )
    }
    pub unsafe fn aclnnScatterPaKvCacheGetWorkspaceSize(
        &self,
        key: *const aclTensor,
        keyCacheRef: *mut aclTensor,
        slotMapping: *const aclTensor,
        value: *const aclTensor,
        valueCacheRef: *mut aclTensor,
        compressLensOptional: *const aclTensor,
        compressSeqOffsetOptional: *const aclTensor,
        seqLensOptional: *const aclTensor,
        cacheModeOptional: *mut ::std::os::raw::c_char,
        scatterModeOptional: *mut ::std::os::raw::c_char,
        stridesOptional: *const aclIntArray,
        offsetsOptional: *const aclIntArray,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnScatterPaKvCacheGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            key,
            keyCacheRef,
            slotMapping,
            value,
            valueCacheRef,
            compressLensOptional,
            compressSeqOffsetOptional,
            seqLensOptional,
            cacheModeOptional,
            scatterModeOptional,
            stridesOptional,
            offsetsOptional,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnScatterPaKvCache(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnScatterPaKvCache.as_ref().expect("Expected function, got error."))(
            workspace,
            workspaceSize,
            executor,
            stream,
        )
    }
    pub unsafe fn aclnnKvRmsNormRopeCacheGetWorkspaceSize(
        &self,
        kv: *const aclTensor,
        gamma: *const aclTensor,
        cos: *const aclTensor,
        sin: *const aclTensor,
        index: *const aclTensor,
        kCacheRef: *mut aclTensor,
        ckvCacheRef: *mut aclTensor,
        kRopeScaleOptional: *const aclTensor,
        cKvScaleOptional: *const aclTensor,
        kRopeOffsetOptional: *const aclTensor,
        cKvOffsetOptional: *const aclTensor,
        epsilon: f64,
        cacheModeOptional: *mut ::std::os::raw::c_char,
        isOutputKv: bool,
        kRopeOut: *const aclTensor,
        cKvOut: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnKvRmsNormRopeCacheGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            kv,
            gamma,
            cos,
            sin,
            index,
            kCacheRef,
            ckvCacheRef,
            kRopeScaleOptional,
            cKvScaleOptional,
            kRopeOffsetOptional,
            cKvOffsetOptional,
            epsilon,
            cacheModeOptional,
            isOutputKv,
            kRopeOut,
            cKvOut,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnKvRmsNormRopeCache(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnKvRmsNormRopeCache.as_ref().expect("Expected function, got error."))(
            workspace,
            workspaceSize,
            executor,
            stream,
        )
    }
    pub unsafe fn aclnnMlaPrologV3WeightNzGetWorkspaceSize(
        &self,
        tokenX: *const aclTensor,
        weightDq: *const aclTensor,
        weightUqQr: *const aclTensor,
        weightUk: *const aclTensor,
        weightDkvKr: *const aclTensor,
        rmsnormGammaCq: *const aclTensor,
        rmsnormGammaCkv: *const aclTensor,
        ropeSin: *const aclTensor,
        ropeCos: *const aclTensor,
        kvCacheRef: *mut aclTensor,
        krCacheRef: *mut aclTensor,
        cacheIndexOptional: *const aclTensor,
        dequantScaleXOptional: *const aclTensor,
        dequantScaleWDqOptional: *const aclTensor,
        dequantScaleWUqQrOptional: *const aclTensor,
        dequantScaleWDkvKrOptional: *const aclTensor,
        quantScaleCkvOptional: *const aclTensor,
        quantScaleCkrOptional: *const aclTensor,
        smoothScalesCqOptional: *const aclTensor,
        actualSeqLenOptional: *const aclTensor,
        kNopeClipAlphaOptional: *const aclTensor,
        rmsnormEpsilonCq: f64,
        rmsnormEpsilonCkv: f64,
        cacheModeOptional: *mut ::std::os::raw::c_char,
        weightQuantMode: i64,
        kvCacheQuantMode: i64,
        queryQuantMode: i64,
        ckvkrRepoMode: i64,
        quantScaleRepoMode: i64,
        tileSize: i64,
        qcQrScale: f64,
        kcScale: f64,
        queryOut: *const aclTensor,
        queryRopeOut: *const aclTensor,
        dequantScaleQNopeOutOptional: *const aclTensor,
        queryNormOutOptional: *const aclTensor,
        dequantScaleQNormOutOptional: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnMlaPrologV3WeightNzGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            tokenX,
            weightDq,
            weightUqQr,
            weightUk,
            weightDkvKr,
            rmsnormGammaCq,
            rmsnormGammaCkv,
            ropeSin,
            ropeCos,
            kvCacheRef,
            krCacheRef,
            cacheIndexOptional,
            dequantScaleXOptional,
            dequantScaleWDqOptional,
            dequantScaleWUqQrOptional,
            dequantScaleWDkvKrOptional,
            quantScaleCkvOptional,
            quantScaleCkrOptional,
            smoothScalesCqOptional,
            actualSeqLenOptional,
            kNopeClipAlphaOptional,
            rmsnormEpsilonCq,
            rmsnormEpsilonCkv,
            cacheModeOptional,
            weightQuantMode,
            kvCacheQuantMode,
            queryQuantMode,
            ckvkrRepoMode,
            quantScaleRepoMode,
            tileSize,
            qcQrScale,
            kcScale,
            queryOut,
            queryRopeOut,
            dequantScaleQNopeOutOptional,
            queryNormOutOptional,
            dequantScaleQNormOutOptional,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnMlaPrologV3WeightNz(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnMlaPrologV3WeightNz.as_ref().expect("Expected function, got error."))(
            workspace,
            workspaceSize,
            executor,
            stream,
        )
    }
    pub unsafe fn aclnnFusedInferAttentionScoreV4GetWorkspaceSize(
        &self,
        query: *const aclTensor,
        key: *const aclTensorList,
        value: *const aclTensorList,
        pseShiftOptional: *const aclTensor,
        attenMaskOptional: *const aclTensor,
        actualSeqLengthsOptional: *const aclIntArray,
        actualSeqLengthsKvOptional: *const aclIntArray,
        deqScale1Optional: *const aclTensor,
        quantScale1Optional: *const aclTensor,
        deqScale2Optional: *const aclTensor,
        quantScale2Optional: *const aclTensor,
        quantOffset2Optional: *const aclTensor,
        antiquantScaleOptional: *const aclTensor,
        antiquantOffsetOptional: *const aclTensor,
        blockTableOptional: *const aclTensor,
        queryPaddingSizeOptional: *const aclTensor,
        kvPaddingSizeOptional: *const aclTensor,
        keyAntiquantScaleOptional: *const aclTensor,
        keyAntiquantOffsetOptional: *const aclTensor,
        valueAntiquantScaleOptional: *const aclTensor,
        valueAntiquantOffsetOptional: *const aclTensor,
        keySharedPrefixOptional: *const aclTensor,
        valueSharedPrefixOptional: *const aclTensor,
        actualSharedPrefixLenOptional: *const aclIntArray,
        queryRopeOptional: *const aclTensor,
        keyRopeOptional: *const aclTensor,
        keyRopeAntiquantScaleOptional: *const aclTensor,
        dequantScaleQueryOptional: *const aclTensor,
        learnableSinkOptional: *const aclTensor,
        numHeads: i64,
        scaleValue: f64,
        preTokens: i64,
        nextTokens: i64,
        inputLayout: *mut ::std::os::raw::c_char,
        numKeyValueHeads: i64,
        sparseMode: i64,
        innerPrecise: i64,
        blockSize: i64,
        antiquantMode: i64,
        softmaxLseFlag: bool,
        keyAntiquantMode: i64,
        valueAntiquantMode: i64,
        queryQuantMode: i64,
        attentionOut: *const aclTensor,
        softmaxLse: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnFusedInferAttentionScoreV4GetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            query,
            key,
            value,
            pseShiftOptional,
            attenMaskOptional,
            actualSeqLengthsOptional,
            actualSeqLengthsKvOptional,
            deqScale1Optional,
            quantScale1Optional,
            deqScale2Optional,
            quantScale2Optional,
            quantOffset2Optional,
            antiquantScaleOptional,
            antiquantOffsetOptional,
            blockTableOptional,
            queryPaddingSizeOptional,
            kvPaddingSizeOptional,
            keyAntiquantScaleOptional,
            keyAntiquantOffsetOptional,
            valueAntiquantScaleOptional,
            valueAntiquantOffsetOptional,
            keySharedPrefixOptional,
            valueSharedPrefixOptional,
            actualSharedPrefixLenOptional,
            queryRopeOptional,
            keyRopeOptional,
            keyRopeAntiquantScaleOptional,
            dequantScaleQueryOptional,
            learnableSinkOptional,
            numHeads,
            scaleValue,
            preTokens,
            nextTokens,
            inputLayout,
            numKeyValueHeads,
            sparseMode,
            innerPrecise,
            blockSize,
            antiquantMode,
            softmaxLseFlag,
            keyAntiquantMode,
            valueAntiquantMode,
            queryQuantMode,
            attentionOut,
            softmaxLse,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnFusedInferAttentionScoreV4(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnFusedInferAttentionScoreV4.as_ref().expect("Expected function, got error."))(
            workspace,
            workspaceSize,
            executor,
            stream,
        )
    }
    pub unsafe fn aclnnMoeGatingTopKGetWorkspaceSize(
        &self,
        x: *const aclTensor,
        biasOptional: *const aclTensor,
        k: i64,
        kGroup: i64,
        groupCount: i64,
        groupSelectMode: i64,
        renorm: i64,
        normType: i64,
        outFlag: bool,
        routedScalingFactor: f64,
        eps: f64,
        yOut: *const aclTensor,
        expertIdxOut: *const aclTensor,
        outOut: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnMoeGatingTopKGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            x,
            biasOptional,
            k,
            kGroup,
            groupCount,
            groupSelectMode,
            renorm,
            normType,
            outFlag,
            routedScalingFactor,
            eps,
            yOut,
            expertIdxOut,
            outOut,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnMoeGatingTopK(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnMoeGatingTopK.as_ref().expect("Expected function, got error."))(
            workspace,
            workspaceSize,
            executor,
            stream,
        )
    }
    pub unsafe fn aclnnMoeInitRoutingV3GetWorkspaceSize(
        &self,
        x: *const aclTensor,
        expertIdx: *const aclTensor,
        scaleOptional: *const aclTensor,
        offsetOptional: *const aclTensor,
        activeNum: i64,
        expertCapacity: i64,
        expertNum: i64,
        dropPadMode: i64,
        expertTokensNumType: i64,
        expertTokensNumFlag: bool,
        quantMode: i64,
        activeExpertRangeOptional: *const aclIntArray,
        rowIdxType: i64,
        expandedXOut: *const aclTensor,
        expandedRowIdxOut: *const aclTensor,
        expertTokensCountOrCumsumOut: *const aclTensor,
        expandedScaleOut: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnMoeInitRoutingV3GetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            x,
            expertIdx,
            scaleOptional,
            offsetOptional,
            activeNum,
            expertCapacity,
            expertNum,
            dropPadMode,
            expertTokensNumType,
            expertTokensNumFlag,
            quantMode,
            activeExpertRangeOptional,
            rowIdxType,
            expandedXOut,
            expandedRowIdxOut,
            expertTokensCountOrCumsumOut,
            expandedScaleOut,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnMoeInitRoutingV3(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnMoeInitRoutingV3.as_ref().expect("Expected function, got error."))(
            workspace,
            workspaceSize,
            executor,
            stream,
        )
    }
    pub unsafe fn aclnnMoeFinalizeRoutingV2GetWorkspaceSize(
        &self,
        expandedX: *const aclTensor,
        expandedRowIdx: *const aclTensor,
        x1Optional: *const aclTensor,
        x2Optional: *const aclTensor,
        biasOptional: *const aclTensor,
        scalesOptional: *const aclTensor,
        expertIdxOptional: *const aclTensor,
        dropPadMode: i64,
        out: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnMoeFinalizeRoutingV2GetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            expandedX,
            expandedRowIdx,
            x1Optional,
            x2Optional,
            biasOptional,
            scalesOptional,
            expertIdxOptional,
            dropPadMode,
            out,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnMoeFinalizeRoutingV2(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnMoeFinalizeRoutingV2.as_ref().expect("Expected function, got error."))(
            workspace,
            workspaceSize,
            executor,
            stream,
        )
    }
    pub unsafe fn aclnnGroupedMatmulV5GetWorkspaceSize(
        &self,
        x: *const aclTensorList,
        weight: *const aclTensorList,
        biasOptional: *const aclTensorList,
        scaleOptional: *const aclTensorList,
        offsetOptional: *const aclTensorList,
        antiquantScaleOptional: *const aclTensorList,
        antiquantOffsetOptional: *const aclTensorList,
        perTokenScaleOptional: *const aclTensorList,
        groupListOptional: *const aclTensor,
        activationInputOptional: *const aclTensorList,
        activationQuantScaleOptional: *const aclTensorList,
        activationQuantOffsetOptional: *const aclTensorList,
        splitItem: i64,
        groupType: i64,
        groupListType: i64,
        actType: i64,
        tuningConfigOptional: *mut aclIntArray,
        out: *mut aclTensorList,
        activationFeatureOutOptional: *mut aclTensorList,
        dynQuantScaleOutOptional: *mut aclTensorList,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnGroupedMatmulV5GetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            x,
            weight,
            biasOptional,
            scaleOptional,
            offsetOptional,
            antiquantScaleOptional,
            antiquantOffsetOptional,
            perTokenScaleOptional,
            groupListOptional,
            activationInputOptional,
            activationQuantScaleOptional,
            activationQuantOffsetOptional,
            splitItem,
            groupType,
            groupListType,
            actType,
            tuningConfigOptional,
            out,
            activationFeatureOutOptional,
            dynQuantScaleOutOptional,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnGroupedMatmulV5(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnGroupedMatmulV5.as_ref().expect("Expected function, got error."))(
            workspace,
            workspaceSize,
            executor,
            stream,
        )
    }
    pub unsafe fn aclnnGroupedMatmulSwigluQuantWeightNZGetWorkspaceSize(
        &self,
        x: *const aclTensor,
        weight: *const aclTensor,
        bias: *const aclTensor,
        offset: *const aclTensor,
        weightScale: *const aclTensor,
        xScale: *const aclTensor,
        groupList: *const aclTensor,
        output: *mut aclTensor,
        outputScale: *mut aclTensor,
        outputOffset: *mut aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        (self.aclnnGroupedMatmulSwigluQuantWeightNZGetWorkspaceSize.as_ref().expect("Expected function, got error."))(
            x,
            weight,
            bias,
            offset,
            weightScale,
            xScale,
            groupList,
            output,
            outputScale,
            outputOffset,
            workspaceSize,
            executor,
        )
    }
    pub unsafe fn aclnnGroupedMatmulSwigluQuantWeightNZ(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        (self.aclnnGroupedMatmulSwigluQuantWeightNZ.as_ref().expect("Expected function, got error."))(
            workspace,
            workspaceSize,
            executor,
            stream,
        )
    }
}
