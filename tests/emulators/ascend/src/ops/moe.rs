//! Mixture of experts: routers, permutation, grouped products, combination.

use super::products::{check_width, columns, integer_product, product, scaled};
use super::{dense, quantise_row, same_shape};
use crate::api::operators;
use crate::machine::Outcome;
use crate::operator::{require, wrong_size};
use crate::tensor::DataType::{Bf16, F32, I8, I32, I64};

/// Experts of a router, each group filled up to a multiple of 32.
const MAX_EXPERTS: usize = 2048;
/// Experts of a grouped product.
pub(super) const MAX_GROUPS: usize = 1024;

operators! {
    fn aclnnMoeGatingTopK aclnnMoeGatingTopKGetWorkspaceSize(
        call, x: u64, bias: u64, k: i64, k_group: i64, group_count: i64, group_mode: i64, renorm: i64, norm_type: i64,
        gives_scores: bool, factor: f64, eps: f64, weights: u64, ids: u64, scores: u64,
    ) {
        let x = call.input("x", x, &[F32])?;
        let bias = call.optional_input("biasOptional", bias, &[F32])?;
        let (weights, ids) = (call.output("yOut", weights, &[F32])?, call.output("expertIdxOut", ids, &[I32])?);
        let scores = if gives_scores { Some(call.output("outOut", scores, &[F32])?) } else { None };
        require(x.dims.len() == 2, || format!("x of {} dimensions", x.dims.len()))?;
        let rules = Gating::new(x.dims[1], (k, k_group, group_count), (group_mode, renorm, norm_type), (factor, eps))?;
        let chosen = [x.dims[0], rules.k];
        same_shape("yOut", &weights.dims, &chosen)?;
        same_shape("expertIdxOut", &ids.dims, &chosen)?;
        if let Some(bias) = &bias {
            same_shape("biasOptional", &bias.dims, &x.dims[1..])?;
        }
        if let Some(scores) = &scores {
            same_shape("outOut", &scores.dims, &x.dims)?;
        }
        Ok(Box::new(move || {
            let bias = bias.as_ref().map_or_else(|| vec![0.0; x.dims[1]], |bias| bias.floats());
            let (mut all, mut chosen, mut values) = (Vec::new(), Vec::new(), Vec::new());
            for logits in x.floats().chunks(x.dims[1]) {
                let normed = rules.normed(logits);
                let best = rules.choose(&normed, &bias);
                values.extend(rules.weights(&normed, &best));
                chosen.extend(best.into_iter().map(|id| id as i64));
                all.extend(normed);
            }
            weights.write(&values);
            ids.write_integers(&chosen);
            if let Some(scores) = &scores {
                scores.write(&all);
            }
            Ok(())
        }))
    }

    fn aclnnMoeInitRoutingV3 aclnnMoeInitRoutingV3GetWorkspaceSize(
        call, x: u64, ids: u64, scale: u64, offset: u64, active: i64, capacity: i64, num_experts: i64, drop_mode: i64,
        count_type: i64, counts: bool, quant_mode: i64, range: u64, index_type: i64, rows: u64, row_of_pair: u64,
        ends: u64, scales: u64,
    ) {
        call.is_null(&[("scaleOptional", scale), ("offsetOptional", offset)])?;
        let (x, ids) = (call.input("x", x, &[Bf16])?, call.input("expertIdx", ids, &[I32])?);
        require([-1, 1].contains(&quant_mode), || format!("quantMode {quant_mode}; -1 and 1 are modelled"))?;
        let rows = call.output("expandedXOut", rows, if quant_mode == 1 { &[I8] } else { &[Bf16] })?;
        let row_of_pair = call.output("expandedRowIdxOut", row_of_pair, &[I32])?;
        let ends = call.output("expertTokensCountOrCumsumOut", ends, &[I64])?;
        let scales = call.output("expandedScaleOut", scales, &[F32])?;
        require(x.dims.len() == 2 && ids.dims.len() == 2 && ids.dims[0] == x.dims[0], || {
            format!("x {:?} and expertIdx {:?}", x.dims, ids.dims)
        })?;
        let num_pairs = ids.num_elements();
        let keeps_all = drop_mode == 0 && count_type == 0 && counts && index_type == 0 && capacity == 0;
        require(keeps_all && (active == 0 || active == num_pairs as i64), || "this use is not modelled".into())?;
        let range = call.integers("activeExpertRangeOptional", range)?;
        require(range == [0, num_experts], || format!("experts {range:?} of {num_experts}; all of them are modelled"))?;
        same_shape("expandedXOut", &rows.dims, &[num_pairs, x.dims[1]])?;
        same_shape("expandedRowIdxOut", &row_of_pair.dims, &[num_pairs])?;
        same_shape("expertTokensCountOrCumsumOut", &ends.dims, &[num_experts as usize])?;
        same_shape("expandedScaleOut", &scales.dims, &[num_pairs])?;
        for (what, view) in [("x", &x), ("expertIdx", &ids), ("expandedXOut", &rows)] {
            dense(what, view)?;
        }
        call.needs_workspace(num_pairs * 8);
        Ok(Box::new(move || {
            let ids = ids_below(&ids.integers(), num_experts)?;
            let mut order: Vec<usize> = (0..num_pairs).collect();
            order.sort_by_key(|pair| ids[*pair]);
            let (values, width, top_k) = (x.floats(), x.dims[1], num_pairs / x.dims[0]);
            let (mut expanded, mut row_scales) = (Vec::new(), Vec::new());
            let mut places = vec![0; num_pairs];
            for (place, pair) in order.into_iter().enumerate() {
                let row = &values[pair / top_k * width..][..width];
                places[pair] = place as i64;
                if quant_mode == 1 {
                    row_scales.push(quantise_row(row, &mut expanded));
                } else {
                    expanded.extend(row);
                }
            }
            let end = |expert: usize| ids.iter().filter(|id| **id <= expert).count() as i64;
            rows.write(&expanded);
            row_of_pair.write_integers(&places);
            ends.write_integers(&(0..num_experts as usize).map(end).collect::<Vec<i64>>());
            if quant_mode == 1 {
                scales.write(&row_scales);
            }
            Ok(())
        }))
    }

    fn aclnnGroupedMatmulV5 aclnnGroupedMatmulV5GetWorkspaceSize(
        call, x: u64, weight: u64, bias: u64, scale: u64, offset: u64, antiquant_scale: u64, antiquant_offset: u64,
        row_scale: u64, ends: u64, act_in: u64, act_scale: u64, act_offset: u64, split: i64, group_type: i64,
        list_type: i64, act_type: i64, tuning: u64, out: u64, act_out: u64, quant_out: u64,
    ) {
        call.is_null(&[
            ("biasOptional", bias), ("offsetOptional", offset), ("antiquantScaleOptional", antiquant_scale),
            ("antiquantOffsetOptional", antiquant_offset), ("activationInputOptional", act_in),
            ("activationQuantScaleOptional", act_scale), ("activationQuantOffsetOptional", act_offset),
            ("tuningConfigOptional", tuning), ("activationFeatureOutOptional", act_out),
            ("dynQuantScaleOutOptional", quant_out),
        ])?;
        let is_supported = [2, 3].contains(&split) && group_type == 0 && list_type == 0 && act_type == 0;
        require(is_supported, || "this use is not modelled".into())?;
        let [x, weight, out] = [call.only("x", x)?, call.only("weight", weight)?, call.only("out", out)?];
        let x = call.input("x", x, &[Bf16, I8])?;
        let weight = call.weight("weight", weight, &[x.data_type])?;
        let out = call.output("out", out, &[Bf16])?;
        require(!weight.is_nz || x.data_type == I8, || "bf16 weights in NZ are not modelled".into())?;
        let ends = call.input("groupListOptional", ends, &[I64])?;
        let scales = if x.data_type == I8 {
            // Scales in f32 give bf16 with weights in NZ, and f16 otherwise; scales in bf16 give bf16.
            let taken = if weight.is_nz { F32 } else { Bf16 };
            let [scale, row_scale] =
                [call.only("scaleOptional", scale)?, call.only("perTokenScaleOptional", row_scale)?];
            let scale = call.input("scaleOptional", scale, &[taken])?;
            Some((scale, call.input("perTokenScaleOptional", row_scale, &[F32])?))
        } else {
            call.is_null(&[("scaleOptional", scale), ("perTokenScaleOptional", row_scale)])?;
            None
        };
        require(x.dims.len() == 2 && weight.dims.len() == 3, || format!("x {:?}, weight {:?}", x.dims, weight.dims))?;
        let (m, k, n, experts) = (x.dims[0], x.dims[1], weight.dims[2], weight.dims[0]);
        same_shape("weight", &weight.dims, &[experts, k, n])?;
        same_shape("out", &out.dims, &[m, n])?;
        same_shape("groupListOptional", &ends.dims, &[experts])?;
        if experts > MAX_GROUPS {
            return Err(wrong_size(format!("{experts} groups, {MAX_GROUPS} at most are taken")));
        }
        if let Some((scale, row_scale)) = &scales {
            same_shape("scaleOptional", &scale.dims, &[experts, n])?;
            same_shape("perTokenScaleOptional", &row_scale.dims, &[m])?;
        }
        check_width("x", k)?;
        check_width("weight", if weight.is_dense() { n } else { k })?;
        dense("x", &x)?;
        call.needs_workspace(m * n * 4);
        Ok(Box::new(move || {
            let ends = ends.integers();
            require_ends(&ends, m)?;
            for (expert, rows) in groups(&ends) {
                let (x, weight) = (part(&x, &rows), part(&weight, &(expert..expert + 1)));
                let values = match &scales {
                    None => product(&x.floats(), &weight.transposed().floats(), k),
                    Some((scale, row_scale)) => {
                        let weight = if weight.is_nz { columns(&weight) } else { weight.transposed().integers() };
                        let sums = integer_product(&x.integers(), &weight, k);
                        let columns = part(scale, &(expert..expert + 1)).floats();
                        scaled(&sums, &part(row_scale, &rows).floats(), &columns)
                    }
                };
                part(&out, &rows).write(&values);
            }
            Ok(())
        }))
    }

    fn aclnnMoeFinalizeRoutingV2 aclnnMoeFinalizeRoutingV2GetWorkspaceSize(
        call, rows: u64, row_of_pair: u64, x1: u64, x2: u64, bias: u64, weights: u64, ids: u64, drop_mode: i64, out: u64,
    ) {
        call.is_null(&[("x2Optional", x2), ("biasOptional", bias)])?;
        let (rows, row_of_pair) =
            (call.input("expandedX", rows, &[Bf16])?, call.input("expandedRowIdx", row_of_pair, &[I32])?);
        let x1 = call.optional_input("x1Optional", x1, &[Bf16])?;
        let weights = call.input("scalesOptional", weights, &[F32, Bf16])?;
        let ids = call.optional_input("expertIdxOptional", ids, &[I32])?;
        let out = call.output("out", out, &[Bf16])?;
        require(drop_mode == 2, || format!("dropPadMode {drop_mode} is not modelled"))?;
        require(out.dims.len() == 2 && weights.dims.len() == 2, || "matrices only".into())?;
        let (num_tokens, width, top_k) = (out.dims[0], out.dims[1], weights.dims[1]);
        same_shape("scalesOptional", &weights.dims, &[num_tokens, top_k])?;
        same_shape("expandedX", &rows.dims, &[num_tokens * top_k, width])?;
        same_shape("expandedRowIdx", &row_of_pair.dims, &[num_tokens * top_k])?;
        if let Some(ids) = &ids {
            same_shape("expertIdxOptional", &ids.dims, &weights.dims)?;
        }
        if let Some(x1) = &x1 {
            same_shape("x1Optional", &x1.dims, &out.dims)?;
        }
        dense("out", &out)?;
        Ok(Box::new(move || {
            let (values, weights) = (rows.floats(), weights.floats());
            let places = ids_below(&row_of_pair.integers(), rows.dims[0] as i64)?;
            let mut sums = x1.as_ref().map_or_else(|| vec![0.0; num_tokens * width], |x1| x1.floats());
            for (pair, (place, weight)) in places.into_iter().zip(weights).enumerate() {
                let sum = &mut sums[pair / top_k * width..][..width];
                sum.iter_mut().zip(&values[place * width..]).for_each(|(sum, value)| *sum += weight * value);
            }
            out.write(&sums);
            Ok(())
        }))
    }
}

/// Rows `range` of the first axis; of a weight in NZ, matrices.
pub(super) fn part(view: &crate::tensor::View, range: &std::ops::Range<usize>) -> crate::tensor::View {
    let mut part = view.clone();
    part.dims[0] = range.len();
    if view.is_nz {
        let one = view.storage[1..].iter().product::<usize>() as u64 * view.data_type.num_bytes();
        part.address += range.start as u64 * one;
        part.storage[0] = range.len();
    } else {
        part.offset += range.start * part.strides[0];
    }
    part
}

/// Experts that have rows, and which, of the ends of all.
pub(super) fn groups(ends: &[i64]) -> Vec<(usize, std::ops::Range<usize>)> {
    let begins = std::iter::once(&0).chain(ends);
    let rows = begins.zip(ends).map(|(begin, end)| *begin as usize..*end as usize);
    rows.enumerate().filter(|(_, rows)| !rows.is_empty()).collect()
}

fn ids_below(ids: &[i64], bound: i64) -> Result<Vec<usize>, String> {
    let checked = |id: &i64| if (0..bound).contains(id) { Ok(*id as usize) } else { Err(format!("{id} of {bound}")) };
    ids.iter().map(checked).collect()
}

pub(super) fn require_ends(ends: &[i64], num_rows: usize) -> Result<(), String> {
    let rises = ends.windows(2).all(|pair| pair[0] <= pair[1]);
    let within = ends.iter().all(|end| (0..=num_rows as i64).contains(end));
    if rises && within { Ok(()) } else { Err(format!("groupList {ends:?} over {num_rows} rows")) }
}

/// The rules of a router.
struct Gating {
    k: usize,
    k_group: usize,
    group: usize,
    sums_two_best: bool,
    renorm: bool,
    is_sigmoid: bool,
    factor: f32,
    eps: f32,
}

impl Gating {
    fn new(
        num_experts: usize,
        (k, k_group, group_count): (i64, i64, i64),
        (group_mode, renorm, norm_type): (i64, i64, i64),
        (factor, eps): (f64, f64),
    ) -> Outcome<Self> {
        let sizes = [k, k_group, group_count].map(|size| usize::try_from(size).unwrap_or(0));
        let [k, k_group, groups] = sizes;
        let wrong = || wrong_size(format!("{k} of {num_experts} experts, {k_group} of {groups} groups"));
        if k == 0 || groups == 0 || !num_experts.is_multiple_of(groups) || !(1..=groups).contains(&k_group) {
            return Err(wrong());
        }
        let group = num_experts / groups;
        let padded = group.next_multiple_of(32) * groups;
        if k > group * k_group || num_experts > MAX_EXPERTS || padded > MAX_EXPERTS || group as i64 <= group_mode {
            return Err(wrong());
        }
        let known = [0, 1].contains(&group_mode) && [0, 1].contains(&renorm) && [0, 1].contains(&norm_type);
        require(known, || format!("groupSelectMode {group_mode}, renorm {renorm}, normType {norm_type}"))?;
        Ok(Self {
            k,
            k_group,
            group,
            sums_two_best: group_mode == 1,
            renorm: renorm == 1,
            is_sigmoid: norm_type == 1,
            factor: factor as f32,
            eps: eps as f32,
        })
    }

    fn normed(&self, logits: &[f32]) -> Vec<f32> {
        if self.is_sigmoid {
            return logits.iter().map(|logit| 1.0 / (1.0 + (-logit).exp())).collect();
        }
        let mut scores = logits.to_vec();
        super::elementwise::softmax(&mut scores);
        scores
    }

    fn choose(&self, normed: &[f32], bias: &[f32]) -> Vec<usize> {
        let mut values: Vec<f32> = normed.iter().zip(bias).map(|(score, bias)| score + bias).collect();
        let groups = values.len() / self.group;
        if groups > 1 {
            let score = |group: &[f32]| {
                let best = highest(group, 2);
                if self.sums_two_best { group[best[0]] + group[best[1]] } else { group[best[0]] }
            };
            let scores: Vec<f32> = values.chunks(self.group).map(score).collect();
            let kept = highest(&scores, self.k_group);
            for (number, group) in values.chunks_mut(self.group).enumerate() {
                if !kept.contains(&number) {
                    group.fill(f32::NEG_INFINITY);
                }
            }
        }
        highest(&values, self.k)
    }

    fn weights(&self, normed: &[f32], chosen: &[usize]) -> Vec<f32> {
        let scores = chosen.iter().map(|id| normed[*id]);
        let sum = scores.clone().sum::<f32>() + self.eps;
        let divisor = if self.is_sigmoid || self.renorm { sum } else { 1.0 };
        scores.map(|score| score / divisor * self.factor).collect()
    }
}

/// Indices of the `count` highest values, best first, the lowest index of equals first.
fn highest(values: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    order.truncate(count);
    order
}
