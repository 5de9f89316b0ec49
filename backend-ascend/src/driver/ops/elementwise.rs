//! Copies, sums, norms, rows by index, choices.

use super::{repeat, run};
use crate::driver::arguments::List;
use crate::driver::descriptor::View;
use crate::driver::{AscendError, Stream};

impl Stream {
    /// `to = from`, both strided, converted to the type of `to` (f32 to bf16 rounds to nearest).
    pub(crate) fn copy(&mut self, to: View, from: View) -> Result<(), AscendError> {
        repeat!(self, aclnnInplaceCopy, aclnnInplaceCopyGetWorkspaceSize, to, from)
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
        repeat!(self, aclnnCat, aclnnCatGetWorkspaceSize, List([a, b]), -1_i64, out)
    }

    /// `out[i] = x[index[i]]`: rows by i32 numbers.
    pub(crate) fn select_rows(&mut self, x: View, index: View, out: View) -> Result<(), AscendError> {
        repeat!(self, aclnnIndexSelect, aclnnIndexSelectGetWorkspaceSize, x, 0_i64, index, out)
    }

    /// `out[t, i] = x[t, index[t, i]]`.
    pub(crate) fn select_columns(&mut self, x: View, index: View, out: View) -> Result<(), AscendError> {
        repeat!(self, aclnnGather, aclnnGatherGetWorkspaceSize, x, 1_i64, index, out)
    }

    /// `out[t] = table[tokens[t]]`, `tokens` i32.
    pub(crate) fn embed(&mut self, table: View, tokens: View, out: View) -> Result<(), AscendError> {
        repeat!(self, aclnnEmbedding, aclnnEmbeddingGetWorkspaceSize, table, tokens, out)
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
        let eps = f64::from(eps);
        repeat!(self, aclnnRmsNorm, aclnnRmsNormGetWorkspaceSize, x, gamma, eps, out, rstd)
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
        let eps = f64::from(eps);
        repeat!(self, aclnnAddRmsNorm, aclnnAddRmsNormGetWorkspaceSize, x, sum, gamma, eps, out, rstd, sum)
    }

    /// Softmax of the last axis.
    pub(crate) fn softmax(&mut self, x: View, out: View) -> Result<(), AscendError> {
        repeat!(self, aclnnSoftmax, aclnnSoftmaxGetWorkspaceSize, x, -1_i64, out)
    }

    /// `out = silu(x[.., ..I]) ⊙ x[.., I..]`: `x [M, 2 I]`, `out [M, I]`.
    pub(crate) fn swi_glu(&mut self, x: View, out: View) -> Result<(), AscendError> {
        repeat!(self, aclnnSwiGlu, aclnnSwiGluGetWorkspaceSize, x, -1_i64, out)
    }

    /// `out = x` with NaN replaced by −∞.
    pub(crate) fn replace_nan(&mut self, x: View, out: View) -> Result<(), AscendError> {
        let (lowest, highest) = (f32::NEG_INFINITY, f32::INFINITY);
        repeat!(self, aclnnNanToNum, aclnnNanToNumGetWorkspaceSize, x, lowest, highest, lowest, out)
    }

    /// The highest value of each row and where it is: `x [M, D]`, `values [M]`, `ids [M]` i32.
    pub(crate) fn highest(&mut self, x: View, values: View, ids: View) -> Result<(), AscendError> {
        repeat!(self, aclnnMaxDim, aclnnMaxDimGetWorkspaceSize, x, 1_i64, false, values, ids)
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
        repeat!(self, aclnnSWhere, aclnnSWhereGetWorkspaceSize, condition, a, b, out)
    }
}
