//! Mixture of experts: routers, permutation, grouped products, combination.

use super::repeat;
use crate::driver::arguments::{Integers, List, NO_INTEGERS, NO_LIST, NO_TENSOR};
use crate::driver::descriptor::View;
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
    /// `[E, K, N]`, a transposed view or in NZ.
    pub(crate) weights: View,
    /// `[E, N]` and `[M]` f32: of an i8 product. The first are bf16, or f32 where the weights are in NZ.
    pub(crate) scales: Option<[View; 2]>,
    /// `[E]` i64, as [`Routed::ends`].
    pub(crate) ends: View,
    /// `[M, N]` bf16.
    pub(crate) out: View,
}

/// `codes`, `code_scales` = the quantised rows of SwiGlu of `rows[m] weights[e]`, for the rows of each expert.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FusedGateUp {
    /// `[M, K]` i8 and their scales `[M]` f32.
    pub(crate) rows: [View; 2],
    /// `[E, K, 2 I]` i8 in NZ, gate before up, and their scales `[E, 2 I]` f32.
    pub(crate) weights: [View; 2],
    /// `[E]` i64, as [`Routed::ends`].
    pub(crate) ends: View,
    /// `[M, I]` i8 and their scales `[M]` f32.
    pub(crate) out: [View; 2],
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
        repeat!(
            self,
            aclnnMoeGatingTopK,
            aclnnMoeGatingTopKGetWorkspaceSize,
            logits,
            bias,
            rules.top_k,
            rules.top_k_groups,
            rules.num_groups,
            i64::from(rules.sums_two_best),
            i64::from(rules.normalises),
            i64::from(rules.is_sigmoid),
            scores.is_some(),
            rules.scaling_factor,
            GATING_EPS,
            weights,
            ids,
            scores,
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
        let quant_mode = if routed.rows.data_type() == x.data_type() { -1_i64 } else { 1 };
        let all_experts = Integers([0, num_experts]);
        let (no_capacity, keeps_all, cumulative, gather_rows) = (0_i64, 0_i64, 0_i64, 0_i64);
        repeat!(
            self,
            aclnnMoeInitRoutingV3,
            aclnnMoeInitRoutingV3GetWorkspaceSize,
            x,
            ids,
            NO_TENSOR,
            NO_TENSOR,
            num_pairs,
            no_capacity,
            num_experts,
            keeps_all,
            cumulative,
            true,
            quant_mode,
            all_experts,
            gather_rows,
            routed.rows,
            routed.row_of_pair,
            routed.ends,
            routed.scales,
        )
    }

    /// As [`GroupedProduct`] says. Rows of no expert are not written.
    pub(crate) fn grouped_product(&mut self, product: GroupedProduct) -> Result<(), AscendError> {
        let GroupedProduct { rows, weights, scales, ends, out } = product;
        let (one_tensor, by_rows, cumulative, no_activation) = (3_i64, 0_i64, 0_i64, 0_i64);
        repeat!(
            self,
            aclnnGroupedMatmulV5,
            aclnnGroupedMatmulV5GetWorkspaceSize,
            List([rows]),
            List([weights]),
            NO_LIST,
            scales.map(|[weights, _]| List([weights])),
            NO_LIST,
            NO_LIST,
            NO_LIST,
            scales.map(|[_, rows]| List([rows])),
            ends,
            NO_LIST,
            NO_LIST,
            NO_LIST,
            one_tensor,
            by_rows,
            cumulative,
            no_activation,
            NO_INTEGERS,
            List([out]),
            NO_LIST,
            NO_LIST,
        )
    }

    /// As [`FusedGateUp`] says. Rows of no expert are not written.
    pub(crate) fn grouped_swi_glu(&mut self, fused: FusedGateUp) -> Result<(), AscendError> {
        let FusedGateUp { rows: [rows, row_scales], weights: [weights, weight_scales], ends, out } = fused;
        let [codes, code_scales] = out;
        repeat!(
            self,
            aclnnGroupedMatmulSwigluQuantWeightNZ,
            aclnnGroupedMatmulSwigluQuantWeightNZGetWorkspaceSize,
            rows,
            weights,
            NO_TENSOR,
            NO_TENSOR,
            weight_scales,
            row_scales,
            ends,
            codes,
            code_scales,
            NO_TENSOR,
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
        let rows_by_token = 2_i64;
        repeat!(
            self,
            aclnnMoeFinalizeRoutingV2,
            aclnnMoeFinalizeRoutingV2GetWorkspaceSize,
            rows,
            row_of_pair,
            shared,
            NO_TENSOR,
            NO_TENSOR,
            weights,
            ids,
            rows_by_token,
            out,
        )
    }
}
