//! Matrix products, and quantisation of their inputs.

use std::ptr;

use super::run;
use crate::driver::descriptor::View;
use crate::driver::{AscendError, Stream};

/// `cubeMathType` KEEP_DTYPE: f32 stays f32.
const KEEP_TYPE: i8 = 0;

impl Stream {
    /// `out = a b`: `a [M, K]`, `b [K, N]` (a weight `[N, K]` as a transposed view), `out [M, N]`; two bf16 matrices may
    /// give f32.
    pub(crate) fn product(&mut self, a: View, b: View, out: View) -> Result<(), AscendError> {
        let context = self.context.clone();
        let [a, b, out] = context.libraries().tensors([a, b, out])?;
        run!(self, aclnnMatmul, aclnnMatmulGetWorkspaceSize, a.raw(), b.raw(), out.raw(), KEEP_TYPE)
    }

    /// `out = a b` in bf16: `a [M, K]`, `b [K, N]` in NZ, `out [M, N]`.
    pub(crate) fn nz_product(&mut self, a: View, b: View, out: View) -> Result<(), AscendError> {
        let context = self.context.clone();
        let [a, b, out] = context.libraries().tensors([a, b, out])?;
        run!(self, aclnnMatmulWeightNz, aclnnMatmulWeightNzGetWorkspaceSize, a.raw(), b.raw(), out.raw(), KEEP_TYPE)
    }

    /// `out[n] = a[n] b[n]`: `a [N, M, K]`, `b [N, K, L]`, `out [N, M, L]`.
    pub(crate) fn batched_product(&mut self, a: View, b: View, out: View) -> Result<(), AscendError> {
        let context = self.context.clone();
        let [a, b, out] = context.libraries().tensors([a, b, out])?;
        run!(self, aclnnBatchMatMul, aclnnBatchMatMulGetWorkspaceSize, a.raw(), b.raw(), out.raw(), KEEP_TYPE)
    }

    /// `codes [M, K]` i8 and `scales [M]` f32 of `x [M, K]` bf16: `scale = max |x| / 127` per row.
    pub(crate) fn quantise(&mut self, x: View, codes: View, scales: View) -> Result<(), AscendError> {
        let context = self.context.clone();
        let [x, codes, scales] = context.libraries().tensors([x, codes, scales])?;
        let no_smoothing = ptr::null();
        run!(
            self,
            aclnnDynamicQuant,
            aclnnDynamicQuantGetWorkspaceSize,
            x.raw(),
            no_smoothing,
            codes.raw(),
            scales.raw()
        )
    }

    /// `out = (codes weightᵀ) · weight_scales · scales`: `codes [M, K]`, `scales [M]`, `weight [N, K]`, `weight_scales [N]`,
    /// `out [M, N]` bf16.
    pub(crate) fn quantised_product(
        &mut self,
        [codes, scales]: [View; 2],
        [weight, weight_scales]: [View; 2],
        out: View,
    ) -> Result<(), AscendError> {
        let context = self.context.clone();
        let [codes, scales, weight, weight_scales, out] =
            context.libraries().tensors([codes, scales, weight, weight_scales, out])?;
        let (none, is_transposed, group_size) = (ptr::null(), true, 0);
        run!(
            self,
            aclnnQuantMatmulV5,
            aclnnQuantMatmulV5GetWorkspaceSize,
            codes.raw(),
            weight.raw(),
            scales.raw(),
            weight_scales.raw(),
            none,
            none,
            none,
            none,
            none,
            false,
            is_transposed,
            group_size,
            out.raw(),
        )
    }
}
