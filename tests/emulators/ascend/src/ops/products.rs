//! Matrix products, and quantisation of their inputs.

use super::{dense, dot, quantise_row, same_shape};
use crate::api::operators;
use crate::machine::Outcome;
use crate::operator::{require, wrong_size};
use crate::tensor::DataType::{self, Bf16, F32, I8};
use crate::tensor::View;

const FLOATS: &[DataType] = &[F32, Bf16];

/// Last axes of what is multiplied in i8 are shorter than this, unless scales are f32 vectors.
const MAX_WIDTH: usize = 65_536;

operators! {
    fn aclnnMatmul aclnnMatmulGetWorkspaceSize(call, a: u64, b: u64, out: u64, math: i8) {
        let (a, b) = (call.input("self", a, FLOATS)?, call.input("mat2", b, FLOATS)?);
        let out = call.output("out", out, FLOATS)?;
        check_product(&a, &b, &out, math, 2)?;
        call.needs_workspace(out.num_elements() * 4);
        Ok(Box::new(move || {
            out.write(&product(&a.floats(), &b.transposed().floats(), a.dims[1]));
            Ok(())
        }))
    }

    fn aclnnMatmulWeightNz aclnnMatmulWeightNzGetWorkspaceSize(call, a: u64, b: u64, out: u64, math: i8) {
        let (a, b) = (call.input("self", a, &[Bf16])?, call.nz_input("mat2", b, &[Bf16])?);
        let out = call.output("out", out, &[Bf16])?;
        check_product(&a, &b, &out, math, 2)?;
        let (k, n) = (b.dims[0], b.dims[1]);
        if k == 1 || n == 1 {
            return Err(wrong_size(format!("mat2 [{k}, {n}]: NZ has no axes of 1")));
        }
        call.needs_workspace(out.num_elements() * 4);
        Ok(Box::new(move || {
            let values = b.floats();
            let columns: Vec<f32> = (0..n).flat_map(|column| values.iter().skip(column).step_by(n).copied()).collect();
            out.write(&product(&a.floats(), &columns, k));
            Ok(())
        }))
    }

    fn aclnnBatchMatMul aclnnBatchMatMulGetWorkspaceSize(call, a: u64, b: u64, out: u64, math: i8) {
        let (a, b) = (call.input("self", a, FLOATS)?, call.input("mat2", b, FLOATS)?);
        let out = call.output("out", out, FLOATS)?;
        check_product(&a, &b, &out, math, 3)?;
        call.needs_workspace(out.num_elements() * 4);
        Ok(Box::new(move || {
            let (left, right) = (a.floats(), b.transposed().floats());
            let (m, k, n) = (a.dims[1], a.dims[2], b.dims[2]);
            let pairs = left.chunks(m * k).zip(right.chunks(n * k));
            out.write(&pairs.flat_map(|(left, right)| product(left, right, k)).collect::<Vec<f32>>());
            Ok(())
        }))
    }

    fn aclnnDynamicQuant aclnnDynamicQuantGetWorkspaceSize(call, x: u64, smooth: u64, out: u64, scale: u64) {
        call.is_null(&[("smoothScalesOptional", smooth)])?;
        let x = call.input("x", x, &[Bf16])?;
        let (out, scale) = (call.output("yOut", out, &[I8])?, call.output("scaleOut", scale, &[F32])?);
        require((2..=8).contains(&x.dims.len()), || format!("x of {} dimensions", x.dims.len()))?;
        same_shape("yOut", &out.dims, &x.dims)?;
        let (rows, width) = x.dims.split_at(x.dims.len() - 1);
        same_shape("scaleOut", &scale.dims, rows)?;
        let width = width[0];
        Ok(Box::new(move || {
            let mut codes = Vec::new();
            let scales: Vec<f32> = x.floats().chunks(width).map(|row| quantise_row(row, &mut codes)).collect();
            out.write(&codes);
            scale.write(&scales);
            Ok(())
        }))
    }

    fn aclnnQuantMatmulV5 aclnnQuantMatmulV5GetWorkspaceSize(
        call, a: u64, b: u64, a_scale: u64, b_scale: u64, y_scale: u64, a_offset: u64, b_offset: u64, y_offset: u64,
        bias: u64, transposes_a: bool, transposes_b: bool, group_size: i64, out: u64,
    ) {
        call.is_null(&[
            ("yScale", y_scale), ("x1Offset", a_offset), ("x2Offset", b_offset), ("yOffset", y_offset), ("bias", bias),
        ])?;
        let (a, b) = (call.input("x1", a, &[I8])?, call.input("x2", b, &[I8])?);
        // f32 scales of rows and columns with a bf16 result: one of the combinations that A2 and A3 have.
        let (a_scale, b_scale) = (call.input("x1Scale", a_scale, &[F32])?, call.input("x2Scale", b_scale, &[F32])?);
        let out = call.output("out", out, &[Bf16])?;
        require(!transposes_a && transposes_b && group_size == 0, || "this use is not modelled".into())?;
        require(a.dims.len() == 2 && b.dims.len() == 2, || "matrices only".into())?;
        for (what, view) in [("x1", &a), ("x2", &b), ("out", &out)] {
            dense(what, view)?;
        }
        let (m, k, n) = (a.dims[0], a.dims[1], b.dims[0]);
        same_shape("x2", &b.dims, &[n, k])?;
        same_shape("x1Scale", &a_scale.dims, &[m])?;
        same_shape("x2Scale", &b_scale.dims, &[n])?;
        same_shape("out", &out.dims, &[m, n])?;
        call.needs_workspace(m * n * 4);
        Ok(Box::new(move || {
            let sums = integer_product(&a.integers(), &b.integers(), k);
            out.write(&scaled(&sums, &a_scale.floats(), &b_scale.floats()));
            Ok(())
        }))
    }
}

operators! {
    fn aclnnQuantMatmulWeightNz aclnnQuantMatmulWeightNzGetWorkspaceSize(
        call, a: u64, b: u64, a_scale: u64, b_scale: u64, y_scale: u64, a_offset: u64, b_offset: u64, y_offset: u64,
        bias: u64, transposes_a: bool, transposes_b: bool, group_size: i64, out: u64,
    ) {
        call.is_null(&[
            ("yScale", y_scale), ("x1Offset", a_offset), ("x2Offset", b_offset), ("yOffset", y_offset), ("bias", bias),
        ])?;
        let (a, b) = (call.input("x1", a, &[I8])?, call.nz_input("x2", b, &[I8])?);
        let (a_scale, b_scale) = (call.input("x1Scale", a_scale, &[F32])?, call.input("x2Scale", b_scale, &[F32])?);
        let out = call.output("out", out, &[Bf16])?;
        require(!transposes_a && !transposes_b && group_size == 0, || "this use is not modelled".into())?;
        require(a.dims.len() == 2 && b.dims.len() == 2, || "matrices only".into())?;
        for (what, view) in [("x1", &a), ("out", &out)] {
            dense(what, view)?;
        }
        let (m, k, n) = (a.dims[0], a.dims[1], b.dims[1]);
        if k == 1 || n == 1 {
            return Err(wrong_size(format!("x2 [{k}, {n}]: NZ has no axes of 1")));
        }
        check_width("x1", k)?;
        check_width("x2", n)?;
        same_shape("x2", &b.dims, &[k, n])?;
        same_shape("x1Scale", &a_scale.dims, &[m])?;
        same_shape("x2Scale", &b_scale.dims, &[n])?;
        same_shape("out", &out.dims, &[m, n])?;
        call.needs_workspace(m * n * 4);
        Ok(Box::new(move || {
            let sums = integer_product(&a.integers(), &columns(&b), k);
            out.write(&scaled(&sums, &a_scale.floats(), &b_scale.floats()));
            Ok(())
        }))
    }
}

/// The columns of a matrix in NZ, `[K, N]`, one after the other.
pub(super) fn columns(matrix: &View) -> Vec<i64> {
    let (rows, values) = (matrix.dims[matrix.dims.len() - 2], matrix.integers());
    let width = values.len() / rows;
    (0..width).flat_map(|column| (0..rows).map(|row| values[row * width + column]).collect::<Vec<i64>>()).collect()
}

fn check_product(a: &View, b: &View, out: &View, math: i8, rank: usize) -> Outcome<()> {
    require(math == 0, || format!("cubeMathType {math} is not modelled"))?;
    require(a.data_type == b.data_type, || format!("{:?} times {:?}", a.data_type, b.data_type))?;
    require(a.data_type == Bf16 || out.data_type == F32, || "f32 factors give f32".into())?;
    require(a.dims.len() == rank && b.dims.len() == rank, || format!("{rank} dimensions only"))?;
    let (batch, m, k) = (&a.dims[..rank - 2], a.dims[rank - 2], a.dims[rank - 1]);
    let n = b.dims[rank - 1];
    same_shape("mat2", &b.dims, &[batch, &[k, n]].concat())?;
    same_shape("out", &out.dims, &[batch, &[m, n]].concat())
}

/// `a [M, K]` times `b [N, K]` transposed.
pub(super) fn product(a: &[f32], b: &[f32], k: usize) -> Vec<f32> {
    a.chunks(k).flat_map(|a| b.chunks(k).map(|b| dot(a, b))).collect()
}

/// The same of i8 codes, exact.
pub(super) fn integer_product(a: &[i64], b: &[i64], k: usize) -> Vec<i32> {
    let narrow = |values: &[i64]| values.iter().map(|value| *value as i32).collect::<Vec<i32>>();
    let (a, b) = (narrow(a), narrow(b));
    let sum = |a: &[i32], b: &[i32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<i32>();
    a.chunks(k).flat_map(|a| b.chunks(k).map(|b| sum(a, b)).collect::<Vec<i32>>()).collect()
}

/// Sums `[M, N]` times a scale per row and per column.
pub(super) fn scaled(sums: &[i32], rows: &[f32], columns: &[f32]) -> Vec<f32> {
    let row = |(sums, row): (&[i32], &f32)| -> Vec<f32> {
        sums.iter().zip(columns).map(|(sum, column)| *sum as f32 * column * row).collect()
    };
    sums.chunks(columns.len()).zip(rows).flat_map(row).collect()
}

/// Refuses last axes that are too long.
pub(super) fn check_width(what: &str, width: usize) -> Outcome<()> {
    if width < MAX_WIDTH {
        Ok(())
    } else {
        Err(wrong_size(format!("{what} is {width} wide, below {MAX_WIDTH} are taken")))
    }
}
