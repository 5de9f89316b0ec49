//! Copies, sums, norms, rows by index, choices.

use super::run;
use crate::driver::descriptor::View;
use crate::driver::{AscendError, Stream};

impl Stream {
    /// `to = from`, both strided, converted to the type of `to` (f32 to bf16 rounds to nearest).
    pub(crate) fn copy(&mut self, to: View, from: View) -> Result<(), AscendError> {
        let context = self.context.clone();
        let [to, from] = context.libraries().tensors([to, from])?;
        run!(self, aclnnInplaceCopy, aclnnInplaceCopyGetWorkspaceSize, to.raw(), from.raw())
    }

    /// `to += x`; `x` is broadcast.
    pub(crate) fn add(&mut self, to: View, x: View) -> Result<(), AscendError> {
        let context = self.context.clone();
        let [to, x] = context.libraries().tensors([to, x])?;
        let alpha = context.libraries().scalar(1.0)?;
        run!(self, aclnnInplaceAdd, aclnnInplaceAddGetWorkspaceSize, to.raw(), x.raw(), alpha.raw())
    }

    /// `x *= factor`.
    pub(crate) fn scale(&mut self, x: View, factor: f32) -> Result<(), AscendError> {
        let context = self.context.clone();
        let x = context.libraries().tensor(x)?;
        let factor = context.libraries().scalar(factor)?;
        run!(self, aclnnInplaceMuls, aclnnInplaceMulsGetWorkspaceSize, x.raw(), factor.raw())
    }

    /// `out = [a, b]` along the last axis.
    pub(crate) fn concatenate(&mut self, a: View, b: View, out: View) -> Result<(), AscendError> {
        let context = self.context.clone();
        let list = context.libraries().tensor_list(&[a, b])?;
        let out = context.libraries().tensor(out)?;
        run!(self, aclnnCat, aclnnCatGetWorkspaceSize, list.raw(), -1, out.raw())
    }

    /// `out[i] = x[index[i]]`: rows by i32 numbers.
    pub(crate) fn select_rows(&mut self, x: View, index: View, out: View) -> Result<(), AscendError> {
        let context = self.context.clone();
        let [x, index, out] = context.libraries().tensors([x, index, out])?;
        run!(self, aclnnIndexSelect, aclnnIndexSelectGetWorkspaceSize, x.raw(), 0, index.raw(), out.raw())
    }

    /// `out[t, i] = x[t, index[t, i]]`.
    pub(crate) fn select_columns(&mut self, x: View, index: View, out: View) -> Result<(), AscendError> {
        let context = self.context.clone();
        let [x, index, out] = context.libraries().tensors([x, index, out])?;
        run!(self, aclnnGather, aclnnGatherGetWorkspaceSize, x.raw(), 1, index.raw(), out.raw())
    }

    /// `out[t] = table[tokens[t]]`, `tokens` i32.
    pub(crate) fn embed(&mut self, table: View, tokens: View, out: View) -> Result<(), AscendError> {
        let context = self.context.clone();
        let [table, tokens, out] = context.libraries().tensors([table, tokens, out])?;
        run!(self, aclnnEmbedding, aclnnEmbeddingGetWorkspaceSize, table.raw(), tokens.raw(), out.raw())
    }

    /// RMS norm of the last axis: `x [T, D]`, `gamma [D]` of the same type; `rstd [T, 1]` f32 is written too.
    pub(crate) fn rms_norm(
        &mut self,
        x: View,
        gamma: View,
        eps: f32,
        out: View,
        rstd: View,
    ) -> Result<(), AscendError> {
        let context = self.context.clone();
        let [x, gamma, out, rstd] = context.libraries().tensors([x, gamma, out, rstd])?;
        let eps = f64::from(eps);
        run!(self, aclnnRmsNorm, aclnnRmsNormGetWorkspaceSize, x.raw(), gamma.raw(), eps, out.raw(), rstd.raw())
    }

    /// `sum += x` and the RMS norm of that: `x`, `sum` and `out` `[T, D]`, `gamma [D]`, all of one type; `rstd [T, 1]` f32 is
    /// written too. The sum takes the place of the second input, as it does in `aclnnInplaceAddRmsNorm`.
    pub(crate) fn add_rms_norm(
        &mut self,
        (x, sum): (View, View),
        gamma: View,
        eps: f32,
        out: View,
        rstd: View,
    ) -> Result<(), AscendError> {
        let context = self.context.clone();
        let [x, before, after, gamma, out, rstd] = context.libraries().tensors([x, sum, sum, gamma, out, rstd])?;
        run!(
            self,
            aclnnAddRmsNorm,
            aclnnAddRmsNormGetWorkspaceSize,
            x.raw(),
            before.raw(),
            gamma.raw(),
            f64::from(eps),
            out.raw(),
            rstd.raw(),
            after.raw()
        )
    }

    /// Softmax of the last axis.
    pub(crate) fn softmax(&mut self, x: View, out: View) -> Result<(), AscendError> {
        let context = self.context.clone();
        let [x, out] = context.libraries().tensors([x, out])?;
        run!(self, aclnnSoftmax, aclnnSoftmaxGetWorkspaceSize, x.raw(), -1, out.raw())
    }

    /// `out = silu(x[.., ..I]) ⊙ x[.., I..]`: `x [M, 2 I]`, `out [M, I]`.
    pub(crate) fn swi_glu(&mut self, x: View, out: View) -> Result<(), AscendError> {
        let context = self.context.clone();
        let [x, out] = context.libraries().tensors([x, out])?;
        run!(self, aclnnSwiGlu, aclnnSwiGluGetWorkspaceSize, x.raw(), -1, out.raw())
    }

    /// `out = x` with NaN replaced by −∞.
    pub(crate) fn replace_nan(&mut self, x: View, out: View) -> Result<(), AscendError> {
        let context = self.context.clone();
        let [x, out] = context.libraries().tensors([x, out])?;
        let (lowest, highest) = (f32::NEG_INFINITY, f32::INFINITY);
        run!(self, aclnnNanToNum, aclnnNanToNumGetWorkspaceSize, x.raw(), lowest, highest, lowest, out.raw())
    }

    /// The highest value of each row and where it is: `x [M, D]`, `values [M]`, `ids [M]` i32.
    pub(crate) fn highest(&mut self, x: View, values: View, ids: View) -> Result<(), AscendError> {
        let context = self.context.clone();
        let [x, values, ids] = context.libraries().tensors([x, values, ids])?;
        run!(self, aclnnMaxDim, aclnnMaxDimGetWorkspaceSize, x.raw(), 1, false, values.raw(), ids.raw())
    }

    /// `out = x == value`, bool.
    pub(crate) fn equals(&mut self, x: View, value: f32, out: View) -> Result<(), AscendError> {
        let context = self.context.clone();
        let [x, out] = context.libraries().tensors([x, out])?;
        let value = context.libraries().scalar(value)?;
        run!(self, aclnnEqScalar, aclnnEqScalarGetWorkspaceSize, x.raw(), value.raw(), out.raw())
    }

    /// `out = condition ? a : b`; `a` is broadcast.
    pub(crate) fn choose(&mut self, condition: View, a: View, b: View, out: View) -> Result<(), AscendError> {
        let context = self.context.clone();
        let [condition, a, b, out] = context.libraries().tensors([condition, a, b, out])?;
        run!(self, aclnnSWhere, aclnnSWhereGetWorkspaceSize, condition.raw(), a.raw(), b.raw(), out.raw())
    }
}
