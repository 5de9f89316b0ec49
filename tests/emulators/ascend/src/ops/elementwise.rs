//! Copies, sums, norms, rows by index, choices.

use super::{broadcast, dense, same_shape, swi_glu};
use crate::api::operators;
use crate::operator::{invalid, require};
use crate::tensor::DataType::{self, Bf16, Bool, F32, I8, I32, I64, U8};

const FLOATS: &[DataType] = &[F32, Bf16];
const ALL: &[DataType] = &[F32, Bf16, I8, I32, I64, U8, Bool];

operators! {
    fn aclnnInplaceCopy aclnnInplaceCopyGetWorkspaceSize(call, to: u64, from: u64) {
        let (to, from) = (call.in_place("selfRef", to, ALL)?, call.input("src", from, ALL)?);
        let from = broadcast(&from, &to.dims)?;
        let are_floats = FLOATS.contains(&to.data_type) && FLOATS.contains(&from.data_type);
        require(are_floats || to.data_type == from.data_type, || {
            format!("a copy of {:?} to {:?} is not modelled", from.data_type, to.data_type)
        })?;
        Ok(Box::new(move || {
            if are_floats { to.write(&from.floats()) } else { to.write_integers(&from.integers()) }
            Ok(())
        }))
    }

    fn aclnnInplaceAdd aclnnInplaceAddGetWorkspaceSize(call, to: u64, other: u64, alpha: u64) {
        let (to, other) = (call.in_place("selfRef", to, FLOATS)?, call.input("other", other, FLOATS)?);
        let alpha = call.scalar("alpha", alpha)? as f32;
        require(to.data_type == other.data_type, || "types differ".into())?;
        let other = broadcast(&other, &to.dims)?;
        Ok(Box::new(move || {
            let sums = to.floats().iter().zip(other.floats()).map(|(a, b)| a + alpha * b).collect::<Vec<f32>>();
            to.write(&sums);
            Ok(())
        }))
    }

    fn aclnnInplaceMuls aclnnInplaceMulsGetWorkspaceSize(call, to: u64, factor: u64) {
        let to = call.in_place("selfRef", to, FLOATS)?;
        let factor = call.scalar("other", factor)? as f32;
        Ok(Box::new(move || {
            let products: Vec<f32> = to.floats().iter().map(|value| value * factor).collect();
            to.write(&products);
            Ok(())
        }))
    }

    fn aclnnCat aclnnCatGetWorkspaceSize(call, list: u64, axis: i64, out: u64) {
        let out = call.output("out", out, ALL)?;
        let mut parts = Vec::new();
        for tensor in call.list("tensors", list)? {
            parts.push(call.input("a tensor of the list", tensor, &[out.data_type])?);
        }
        let last = out.dims.len() - 1;
        require(axis == -1 || axis == last as i64, || format!("axis {axis} is not modelled"))?;
        let widths: usize = parts.iter().map(|part| part.dims[last]).sum();
        require(widths == out.dims[last], || format!("{widths} columns to {}", out.dims[last]))?;
        for part in &parts {
            same_shape("the rows of a tensor", &part.dims[..last], &out.dims[..last])?;
        }
        Ok(Box::new(move || {
            let values: Vec<(usize, Vec<f32>)> =
                parts.iter().map(|part| (part.dims[last], part.floats())).collect();
            let rows = out.num_elements() / out.dims[last];
            let row = |row: usize| values.iter().flat_map(move |(width, part)| &part[row * width..][..*width]);
            out.write(&(0..rows).flat_map(row).copied().collect::<Vec<f32>>());
            Ok(())
        }))
    }

    fn aclnnNanToNum aclnnNanToNumGetWorkspaceSize(call, x: u64, nan: f32, highest: f32, lowest: f32, out: u64) {
        let (x, out) = (call.input("self", x, FLOATS)?, call.output("out", out, FLOATS)?);
        same_shape("out", &out.dims, &x.dims)?;
        Ok(Box::new(move || {
            let value = |value: f32| match value {
                _ if value.is_nan() => nan,
                f32::INFINITY => highest,
                f32::NEG_INFINITY => lowest,
                other => other,
            };
            out.write(&x.floats().into_iter().map(value).collect::<Vec<f32>>());
            Ok(())
        }))
    }

    fn aclnnMaxDim aclnnMaxDimGetWorkspaceSize(
        call, x: u64, axis: i64, keeps: bool, out: u64, indices: u64,
    ) {
        let x = call.input("self", x, FLOATS)?;
        let (out, indices) = (call.output("out", out, &[x.data_type])?, call.output("indices", indices, &[I32, I64])?);
        require(x.dims.len() == 2 && axis == 1 && !keeps, || "other than rows of a matrix is not modelled".into())?;
        same_shape("out", &out.dims, &x.dims[..1])?;
        same_shape("indices", &indices.dims, &x.dims[..1])?;
        Ok(Box::new(move || {
            let rows = x.floats();
            let highest = |row: &[f32]| {
                let later = |best: usize, i: usize| if row[i] > row[best] { i } else { best };
                let best = (1..row.len()).fold(0, later);
                (best as i64, row[best])
            };
            let (ids, values): (Vec<i64>, Vec<f32>) = rows.chunks(x.dims[1]).map(highest).unzip();
            out.write(&values);
            indices.write_integers(&ids);
            Ok(())
        }))
    }

    fn aclnnEqScalar aclnnEqScalarGetWorkspaceSize(call, x: u64, value: u64, out: u64) {
        let (x, out) = (call.input("self", x, FLOATS)?, call.output("out", out, &[Bool])?);
        let value = call.scalar("other", value)? as f32;
        same_shape("out", &out.dims, &x.dims)?;
        Ok(Box::new(move || {
            out.write_integers(&x.floats().iter().map(|x| i64::from(*x == value)).collect::<Vec<i64>>());
            Ok(())
        }))
    }

    fn aclnnSWhere aclnnSWhereGetWorkspaceSize(call, condition: u64, a: u64, b: u64, out: u64) {
        let condition = call.input("condition", condition, &[Bool, U8])?;
        let (a, b) = (call.input("self", a, &[I32])?, call.input("other", b, &[I32])?);
        let out = call.output("out", out, &[I32])?;
        let [condition, a, b] =
            [broadcast(&condition, &out.dims)?, broadcast(&a, &out.dims)?, broadcast(&b, &out.dims)?];
        Ok(Box::new(move || {
            let choices = condition.integers().into_iter().zip(a.integers().into_iter().zip(b.integers()));
            out.write_integers(&choices.map(|(yes, (a, b))| if yes == 0 { b } else { a }).collect::<Vec<i64>>());
            Ok(())
        }))
    }

    fn aclnnIndexSelect aclnnIndexSelectGetWorkspaceSize(call, x: u64, axis: i64, index: u64, out: u64) {
        let (x, index) = (call.input("self", x, FLOATS)?, call.input("index", index, &[I32, I64])?);
        let out = call.output("out", out, &[x.data_type])?;
        require(x.dims.len() == 2 && axis == 0, || "other than rows of a matrix is not modelled".into())?;
        require(index.dims.len() <= 1, || format!("an index of {} dimensions", index.dims.len()))?;
        same_shape("out", &out.dims, &[index.num_elements(), x.dims[1]])?;
        Ok(Box::new(move || rows_by_index(&x, &index, &out)))
    }

    fn aclnnEmbedding aclnnEmbeddingGetWorkspaceSize(call, table: u64, index: u64, out: u64) {
        let (table, index) = (call.input("weight", table, FLOATS)?, call.input("indices", index, &[I32, I64])?);
        let out = call.output("out", out, &[table.data_type])?;
        require(table.dims.len() == 2, || format!("a table of {} dimensions", table.dims.len()))?;
        same_shape("out", &out.dims, &[index.num_elements(), table.dims[1]])?;
        Ok(Box::new(move || rows_by_index(&table, &index, &out)))
    }

    fn aclnnGather aclnnGatherGetWorkspaceSize(call, x: u64, axis: i64, index: u64, out: u64) {
        let (x, index) = (call.input("self", x, FLOATS)?, call.input("index", index, &[I32, I64])?);
        let out = call.output("out", out, &[x.data_type])?;
        require(x.dims.len() == 2 && axis == 1, || "other than columns of a matrix is not modelled".into())?;
        same_shape("out", &out.dims, &index.dims)?;
        require(index.dims.len() == 2 && index.dims[0] <= x.dims[0], || format!("an index {:?}", index.dims))?;
        Ok(Box::new(move || {
            let (values, width) = (x.floats(), x.dims[1]);
            let mut found = Vec::new();
            for (row, ids) in index.integers().chunks(index.dims[1]).enumerate() {
                for id in ids {
                    let column = usize::try_from(*id).ok().filter(|id| *id < width);
                    found.push(values[row * width + column.ok_or_else(|| format!("column {id} of {width}"))?]);
                }
            }
            out.write(&found);
            Ok(())
        }))
    }

    fn aclnnRmsNorm aclnnRmsNormGetWorkspaceSize(call, x: u64, gamma: u64, eps: f64, out: u64, rstd: u64) {
        let x = call.input("x", x, FLOATS)?;
        let (gamma, out) = (call.input("gamma", gamma, &[x.data_type])?, call.output("yOut", out, &[x.data_type])?);
        let rstd = call.output("rstdOut", rstd, &[F32])?;
        let width = *x.dims.last().ok_or_else(|| invalid("x without dimensions"))?;
        same_shape("gamma", &gamma.dims, &[width])?;
        same_shape("yOut", &out.dims, &x.dims)?;
        same_shape("rstdOut", &rstd.dims, &[&x.dims[..x.dims.len() - 1], &[1]].concat())?;
        Ok(Box::new(move || {
            let (normed, factors) = rms_norm(&x.floats(), &gamma.floats(), eps);
            out.write(&normed);
            rstd.write(&factors);
            Ok(())
        }))
    }

    fn aclnnAddRmsNorm aclnnAddRmsNormGetWorkspaceSize(
        call, x1: u64, x2: u64, gamma: u64, eps: f64, out: u64, rstd: u64, sum: u64,
    ) {
        let x1 = call.input("x1", x1, FLOATS)?;
        // Modelled is the sum in the place of x2, as aclnnInplaceAddRmsNorm leaves it.
        let x2 = call.in_place("x2", x2, &[x1.data_type])?;
        let (gamma, out) = (call.input("gamma", gamma, &[x1.data_type])?, call.output("yOut", out, &[x1.data_type])?);
        let rstd = call.output("rstdOut", rstd, &[F32])?;
        let sum = call.same_place("xOut", sum, &x2)?;
        let width = *x1.dims.last().ok_or_else(|| invalid("x1 without dimensions"))?;
        same_shape("x2", &x2.dims, &x1.dims)?;
        same_shape("gamma", &gamma.dims, &[width])?;
        same_shape("yOut", &out.dims, &x1.dims)?;
        same_shape("xOut", &sum.dims, &x1.dims)?;
        same_shape("rstdOut", &rstd.dims, &[&x1.dims[..x1.dims.len() - 1], &[1]].concat())?;
        for (what, view) in [("x1", &x1), ("x2", &x2), ("yOut", &out)] {
            dense(what, view)?;
        }
        Ok(Box::new(move || {
            let sums: Vec<f32> = x1.floats().iter().zip(x2.floats()).map(|(a, b)| a + b).collect();
            let (normed, factors) = rms_norm(&sums, &gamma.floats(), eps);
            sum.write(&sums);
            out.write(&normed);
            rstd.write(&factors);
            Ok(())
        }))
    }

    fn aclnnSoftmax aclnnSoftmaxGetWorkspaceSize(call, x: u64, axis: i64, out: u64) {
        let (x, out) = (call.input("self", x, FLOATS)?, call.output("out", out, FLOATS)?);
        same_shape("out", &out.dims, &x.dims)?;
        require(axis == -1, || format!("axis {axis} is not modelled"))?;
        let width = *x.dims.last().ok_or_else(|| invalid("self without dimensions"))?;
        Ok(Box::new(move || {
            let mut values = x.floats();
            values.chunks_mut(width).for_each(softmax);
            out.write(&values);
            Ok(())
        }))
    }

    fn aclnnSwiGlu aclnnSwiGluGetWorkspaceSize(call, x: u64, axis: i64, out: u64) {
        let x = call.input("x", x, FLOATS)?;
        let out = call.output("out", out, &[x.data_type])?;
        require(axis == -1 && x.dims.len() == 2, || "other than rows of a matrix is not modelled".into())?;
        let width = x.dims[1];
        require(width.is_multiple_of(2), || format!("{width} columns cannot be halved"))?;
        same_shape("out", &out.dims, &[x.dims[0], width / 2])?;
        dense("out", &out)?;
        Ok(Box::new(move || {
            out.write(&swi_glu(&x.floats(), width));
            Ok(())
        }))
    }
}

/// RMS norm of rows as wide as `gamma`, and the factor of each.
pub(super) fn rms_norm(values: &[f32], gamma: &[f32], eps: f64) -> (Vec<f32>, Vec<f32>) {
    let (mut normed, mut factors) = (Vec::with_capacity(values.len()), Vec::new());
    for row in values.chunks(gamma.len()) {
        let mean = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / gamma.len() as f64;
        let factor = ((mean + eps).sqrt().recip()) as f32;
        normed.extend(row.iter().zip(gamma).map(|(value, gamma)| value * factor * gamma));
        factors.push(factor);
    }
    (normed, factors)
}

/// Softmax in place; the largest value is subtracted first.
pub(super) fn softmax(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|value| *value = (*value - max).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|value| *value /= sum);
}

fn rows_by_index(
    x: &crate::tensor::View,
    index: &crate::tensor::View,
    out: &crate::tensor::View,
) -> Result<(), String> {
    let (num_rows, width) = (x.dims[0], x.dims[1]);
    let mut found = Vec::with_capacity(out.num_elements());
    for id in index.integers() {
        let row = usize::try_from(id).ok().filter(|row| *row < num_rows);
        let row = row.ok_or_else(|| format!("row {id} of {num_rows}"))?;
        let one = crate::tensor::View { dims: vec![width], strides: vec![x.strides[1]], ..x.clone() };
        found.extend(crate::tensor::View { offset: x.offset + row * x.strides[0], ..one }.floats());
    }
    out.write(&found);
    Ok(())
}
