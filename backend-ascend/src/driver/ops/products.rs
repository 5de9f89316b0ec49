//! Matrix products, and quantisation of their inputs.

use super::repeat;
use crate::driver::arguments::NO_TENSOR;
use crate::driver::descriptor::View;
use crate::driver::{AscendError, Stream};

/// `cubeMathType` KEEP_DTYPE: f32 stays f32.
const KEEP_TYPE: i8 = 0;

impl Stream {
    /// `out = a b`: `a [M, K]`, `b [K, N]` (a weight `[N, K]` as a transposed view), `out [M, N]`; two bf16 matrices may
    /// give f32.
    pub(crate) fn product(&mut self, a: View, b: View, out: View) -> Result<(), AscendError> {
        repeat!(self, aclnnMatmul, aclnnMatmulGetWorkspaceSize, a, b, out, KEEP_TYPE)
    }

    /// `out = a b` in bf16: `a [M, K]`, `b [K, N]` in NZ, `out [M, N]`.
    pub(crate) fn nz_product(&mut self, a: View, b: View, out: View) -> Result<(), AscendError> {
        repeat!(self, aclnnMatmulWeightNz, aclnnMatmulWeightNzGetWorkspaceSize, a, b, out, KEEP_TYPE)
    }

    /// `out[n] = a[n] b[n]`: `a [N, M, K]`, `b [N, K, L]`, `out [N, M, L]`.
    pub(crate) fn batched_product(&mut self, a: View, b: View, out: View) -> Result<(), AscendError> {
        repeat!(self, aclnnBatchMatMul, aclnnBatchMatMulGetWorkspaceSize, a, b, out, KEEP_TYPE)
    }

    /// `codes [M, K]` i8 and `scales [M]` f32 of `x [M, K]` bf16: `scale = max |x| / 127` per row.
    pub(crate) fn quantise(&mut self, x: View, codes: View, scales: View) -> Result<(), AscendError> {
        repeat!(self, aclnnDynamicQuant, aclnnDynamicQuantGetWorkspaceSize, x, NO_TENSOR, codes, scales)
    }

    /// `out = (codes weightᵀ) · weight_scales · scales`: `codes [M, K]`, `scales [M]`, `weight [N, K]` or `[K, N]` in NZ,
    /// `weight_scales [N]`, `out [M, N]` bf16.
    pub(crate) fn quantised_product(
        &mut self,
        codes: [View; 2],
        [weight, weight_scales]: [View; 2],
        out: View,
    ) -> Result<(), AscendError> {
        match weight.is_nz() {
            true => self.packed_product(codes, [weight, weight_scales], out),
            false => self.dense_product(codes, [weight, weight_scales], out),
        }
    }

    fn dense_product(
        &mut self,
        [codes, scales]: [View; 2],
        [weight, weight_scales]: [View; 2],
        out: View,
    ) -> Result<(), AscendError> {
        let (is_transposed, group_size) = (true, 0_i64);
        repeat!(
            self,
            aclnnQuantMatmulV5,
            aclnnQuantMatmulV5GetWorkspaceSize,
            codes,
            weight,
            scales,
            weight_scales,
            NO_TENSOR,
            NO_TENSOR,
            NO_TENSOR,
            NO_TENSOR,
            NO_TENSOR,
            false,
            is_transposed,
            group_size,
            out,
        )
    }

    fn packed_product(
        &mut self,
        [codes, scales]: [View; 2],
        [weight, weight_scales]: [View; 2],
        out: View,
    ) -> Result<(), AscendError> {
        let group_size = 0_i64;
        repeat!(
            self,
            aclnnQuantMatmulWeightNz,
            aclnnQuantMatmulWeightNzGetWorkspaceSize,
            codes,
            weight,
            scales,
            weight_scales,
            NO_TENSOR,
            NO_TENSOR,
            NO_TENSOR,
            NO_TENSOR,
            NO_TENSOR,
            false,
            false,
            group_size,
            out,
        )
    }
}
