//! INT8 experts from their inputs to the codes of their hidden values.

use super::moe::{MAX_GROUPS, groups, part, require_ends};
use super::products::{check_width, columns, integer_product, scaled};
use super::{dense, quantise_row, same_shape, swi_glu};
use crate::api::operators;
use crate::operator::{require, wrong_size};
use crate::tensor::DataType::{F32, I8, I64};

/// Widest gate and up together.
const MAX_WIDTH: usize = 10_240;
/// Sides of a tile of NZ, which sizes must fill.
const TILE: [usize; 2] = [16, 32];

operators! {
    fn aclnnGroupedMatmulSwigluQuantWeightNZ aclnnGroupedMatmulSwigluQuantWeightNZGetWorkspaceSize(
        call, x: u64, weight: u64, bias: u64, offset: u64, weight_scale: u64, x_scale: u64, ends: u64, out: u64,
        out_scale: u64, out_offset: u64,
    ) {
        call.is_null(&[("bias", bias), ("offset", offset), ("outputOffset", out_offset)])?;
        let (x, weight) = (call.input("x", x, &[I8])?, call.nz_input("weight", weight, &[I8])?);
        let weight_scale = call.input("weightScale", weight_scale, &[F32])?;
        let (x_scale, ends) = (call.input("xScale", x_scale, &[F32])?, call.input("groupList", ends, &[I64])?);
        let (out, out_scale) = (call.output("output", out, &[I8])?, call.output("outputScale", out_scale, &[F32])?);
        require(x.dims.len() == 2 && weight.dims.len() == 3, || format!("x {:?}, weight {:?}", x.dims, weight.dims))?;
        let (m, k, n, experts) = (x.dims[0], x.dims[1], weight.dims[2], weight.dims[0]);
        same_shape("weight", &weight.dims, &[experts, k, n])?;
        if !k.is_multiple_of(TILE[0]) || !n.is_multiple_of(TILE[1]) {
            return Err(wrong_size(format!("weight [{experts}, {k}, {n}] does not fill tiles of {TILE:?}")));
        }
        check_width("x", k)?;
        if n > MAX_WIDTH || experts > MAX_GROUPS {
            return Err(wrong_size(format!(
                "weight [{experts}, {k}, {n}]: {MAX_GROUPS} experts of width {MAX_WIDTH} at most are taken"
            )));
        }
        same_shape("weightScale", &weight_scale.dims, &[experts, n])?;
        same_shape("xScale", &x_scale.dims, &[m])?;
        same_shape("groupList", &ends.dims, &[experts])?;
        same_shape("output", &out.dims, &[m, n / 2])?;
        same_shape("outputScale", &out_scale.dims, &[m])?;
        for (what, view) in [("x", &x), ("output", &out), ("outputScale", &out_scale)] {
            dense(what, view)?;
        }
        call.needs_workspace(m * n * 4);
        Ok(Box::new(move || {
            let ends = ends.integers();
            require_ends(&ends, m)?;
            for (expert, rows) in groups(&ends) {
                let one = expert..expert + 1;
                let sums = integer_product(&part(&x, &rows).integers(), &columns(&part(&weight, &one)), k);
                let gate_up = scaled(&sums, &part(&x_scale, &rows).floats(), &part(&weight_scale, &one).floats());
                let mut codes = Vec::new();
                let hidden = swi_glu(&gate_up, n);
                let scales: Vec<f32> = hidden.chunks(n / 2).map(|row| quantise_row(row, &mut codes)).collect();
                part(&out, &rows).write(&codes);
                part(&out_scale, &rows).write(&scales);
            }
            Ok(())
        }))
    }
}
