//! Mixture of experts: routers, permutation, grouped products, combination.

use std::ptr;

use super::run;
use crate::driver::descriptor::{View, raw_or_null};
use crate::driver::{AscendError, Stream};

/// How a router turns logits into a choice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct GatingRules {
    pub(crate) top_k: i64,
    pub(crate) num_groups: i64,
    pub(crate) top_k_groups: i64,
    /// A group counts as much as its two best experts together, otherwise as its best one.
    pub(crate) sums_two_best: bool,
    /// Sigmoid, whose chosen scores are always divided by their sum; otherwise softmax.
    pub(crate) is_sigmoid: bool,
    /// Divide the chosen softmax scores by their sum.
    pub(crate) normalises: bool,
    pub(crate) scaling_factor: f64,
}

/// Added to the sum that chosen scores are divided by.
const GATING_EPS: f64 = 1e-20;

/// Tokens sorted by expert.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Routed {
    /// `[T K, H]`, in the order of experts: bf16, or i8 where the input is quantised.
    pub(crate) rows: View,
    /// `[T K]` i32: where the row of token t and choice k is.
    pub(crate) row_of_pair: View,
    /// `[E]` i64: rows of this expert and of those before it.
    pub(crate) ends: View,
    /// `[T K]` f32: of quantised rows.
    pub(crate) scales: View,
}

/// `out[m] = rows[m] weights[e]` for the rows of each expert.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupedProduct {
    /// `[M, K]` bf16, or i8 with scales.
    pub(crate) rows: View,
    /// `[E, K, N]`.
    pub(crate) weights: View,
    /// `[E, N]` bf16 and `[M]` f32: of an i8 product.
    pub(crate) scales: Option<[View; 2]>,
    /// `[E]` i64, as [`Routed::ends`].
    pub(crate) ends: View,
    /// `[M, N]` bf16.
    pub(crate) out: View,
}

impl Stream {
    /// Chooses experts: `logits [T, E]` f32, `bias [E]` f32, `weights [T, K]` f32, `ids [T, K]` i32, and all experts'
    /// scores `[T, E]` f32 without bias where `scores` asks for them.
    pub(crate) fn choose_experts(
        &mut self,
        rules: GatingRules,
        (logits, bias): (View, Option<View>),
        (weights, ids, scores): (View, View, Option<View>),
    ) -> Result<(), AscendError> {
        let context = self.context.clone();
        let libraries = context.libraries();
        let [logits, weights, ids] = libraries.tensors([logits, weights, ids])?;
        let (bias, scores) = (libraries.optional_tensor(bias)?, libraries.optional_tensor(scores)?);
        run!(
            self,
            aclnnMoeGatingTopK,
            aclnnMoeGatingTopKGetWorkspaceSize,
            logits.raw(),
            raw_or_null(bias.as_ref()),
            rules.top_k,
            rules.top_k_groups,
            rules.num_groups,
            i64::from(rules.sums_two_best),
            i64::from(rules.normalises),
            i64::from(rules.is_sigmoid),
            scores.is_some(),
            rules.scaling_factor,
            GATING_EPS,
            weights.raw(),
            ids.raw(),
            raw_or_null(scores.as_ref()),
        )
    }

    /// Sorts `x [T, H]` bf16 by the experts `ids [T, K]` i32, every token as often as it has choices; quantises each row
    /// where `routed.rows` is i8.
    pub(crate) fn sort_by_expert(
        &mut self,
        x: View,
        ids: View,
        num_experts: usize,
        routed: Routed,
    ) -> Result<(), AscendError> {
        let (num_pairs, num_experts) = (routed.rows.dim(0) as i64, num_experts as i64);
        let quant_mode = if routed.rows.data_type() == x.data_type() { -1 } else { 1 };
        let context = self.context.clone();
        let libraries = context.libraries();
        let [x, ids] = libraries.tensors([x, ids])?;
        let [rows, row_of_pair, ends, scales] =
            libraries.tensors([routed.rows, routed.row_of_pair, routed.ends, routed.scales])?;
        let all_experts = libraries.int_array(&[0, num_experts])?;
        let (keeps_all, cumulative, gather_rows) = (0, 0, 0);
        run!(
            self,
            aclnnMoeInitRoutingV3,
            aclnnMoeInitRoutingV3GetWorkspaceSize,
            x.raw(),
            ids.raw(),
            ptr::null(),
            ptr::null(),
            num_pairs,
            0,
            num_experts,
            keeps_all,
            cumulative,
            true,
            quant_mode,
            all_experts.raw(),
            gather_rows,
            rows.raw(),
            row_of_pair.raw(),
            ends.raw(),
            scales.raw(),
        )
    }

    /// As [`GroupedProduct`] says. Rows of no expert are not written.
    pub(crate) fn grouped_product(&mut self, product: GroupedProduct) -> Result<(), AscendError> {
        let context = self.context.clone();
        let libraries = context.libraries();
        let [rows, weights, out] =
            [product.rows, product.weights, product.out].map(|view| libraries.tensor_list(&[view]));
        let (rows, weights, out) = (rows?, weights?, out?);
        let ends = libraries.tensor(product.ends)?;
        let list = |view| libraries.tensor_list(&[view]);
        let weight_scales = product.scales.map(|[weights, _]| list(weights)).transpose()?;
        let row_scales = product.scales.map(|[_, rows]| list(rows)).transpose()?;
        let raw_or_null = |list: &Option<crate::driver::descriptor::TensorList<'_>>| {
            list.as_ref().map_or(ptr::null_mut(), |list| list.raw())
        };
        let (none, one_tensor, by_rows, cumulative, no_activation) = (ptr::null_mut(), 3, 0, 0, 0);
        run!(
            self,
            aclnnGroupedMatmulV5,
            aclnnGroupedMatmulV5GetWorkspaceSize,
            rows.raw(),
            weights.raw(),
            none,
            raw_or_null(&weight_scales),
            none,
            none,
            none,
            raw_or_null(&row_scales),
            ends.raw(),
            none,
            none,
            none,
            one_tensor,
            by_rows,
            cumulative,
            no_activation,
            ptr::null_mut(),
            out.raw(),
            none,
            none,
        )
    }

    /// `out[t] = shared[t] + Σ_k weights[t, k] · rows[row_of_pair[t, k]]`: `rows [T K, H]`, `shared` and `out [T, H]`,
    /// `weights [T, K]` f32, `ids [T, K]` i32.
    pub(crate) fn combine_experts(
        &mut self,
        (rows, row_of_pair): (View, View),
        (weights, ids): (View, View),
        shared: Option<View>,
        out: View,
    ) -> Result<(), AscendError> {
        let context = self.context.clone();
        let libraries = context.libraries();
        let [rows, row_of_pair, weights, ids, out] = libraries.tensors([rows, row_of_pair, weights, ids, out])?;
        let shared = libraries.optional_tensor(shared)?;
        let (none, rows_by_token) = (ptr::null(), 2);
        run!(
            self,
            aclnnMoeFinalizeRoutingV2,
            aclnnMoeFinalizeRoutingV2GetWorkspaceSize,
            rows.raw(),
            row_of_pair.raw(),
            raw_or_null(shared.as_ref()),
            none,
            none,
            weights.raw(),
            ids.raw(),
            rows_by_token,
            out.raw(),
        )
    }
}
