//! Rules about what tensors hold, which are seen when an operator runs.

use super::*;
use crate::ops::attention::*;
use crate::ops::fused_attention::*;
use crate::ops::prolog::*;

/// 32-bit integers on the device.
fn ids(values: &[i32], dims: &[i64]) -> u64 {
    let values: Vec<f32> = values.iter().map(|value| f32::from_bits(value.cast_unsigned())).collect();
    tensor(upload(&values), I32, dims)
}

/// 64-bit ones.
fn longs(values: &[i64]) -> u64 {
    let words: Vec<f32> =
        values.iter().flat_map(|value| [*value as u32, (*value >> 32) as u32]).map(f32::from_bits).collect();
    tensor(upload(&words), I64, &[values.len() as i64])
}

/// bf16 zeros.
fn zeros(dims: &[i64]) -> u64 {
    let num_values = dims.iter().product::<i64>() as usize;
    tensor(upload(&vec![0.0; num_values.div_ceil(2)]), BF16, dims)
}

/// Plans an operator and runs it: what went wrong, if anything. What fails on a device loses it.
fn run(plan: impl FnOnce(*mut u64, *mut u64) -> Status, launch: impl FnOnce(u64, u64, u64, u64) -> Status) -> String {
    let stream = get(|to| crate::api::runtime::aclrtCreateStream(to));
    let (mut bytes, mut executor) = (0, 0);
    assert_eq!(plan(&raw mut bytes, &raw mut executor), 0, "{}", words());
    let workspace = if bytes > 0 { alloc((bytes as usize).next_multiple_of(32)) } else { 0 };
    assert_eq!(launch(workspace, bytes, executor, stream), 0, "{}", words());
    match aclrtSynchronizeStream(stream) {
        0 => String::new(),
        _ => words(),
    }
}

/// Nothing went wrong, or what is expected.
fn expect(said: &str, wrong: &str) {
    assert!(said.contains(wrong) && said.is_empty() == wrong.is_empty(), "{said:?}, not {wrong:?}");
}

#[test]
fn slots() {
    for (slots, wrong) in
        [([0, 5, 31], ""), ([0, 5, 32], "slot 32 of 32"), ([4, 5, 4], "slot 4 of 32"), ([0, -1, 2], "slot -1")]
    {
        let _machine = Machine::new();
        let (key, value) = (zeros(&[3, 1, 32]), zeros(&[3, 1, 16]));
        let (keys, values) = (zeros(&[2, 16, 1, 32]), zeros(&[2, 16, 1, 16]));
        let (slots, none, norm) = (ids(&slots, &[3]), c"None".as_ptr(), c"Norm".as_ptr());
        let said = run(
            |w, e| {
                aclnnScatterPaKvCacheGetWorkspaceSize(key, keys, slots, value, values, 0, 0, 0, norm, none, 0, 0, w, e)
            },
            |workspace, bytes, executor, stream| aclnnScatterPaKvCache(workspace, bytes, executor, stream),
        );
        expect(&said, wrong);
    }
    // A padding token has slot -1 here.
    for (slots, wrong) in [([0, -1, 31], ""), ([0, 5, 32], "slot 32 of 32"), ([4, 5, 4], "slot 4 of 32")] {
        let _machine = Machine::new();
        let [cos, sin, k_out] = [(); 3].map(|()| zeros(&[3, 1, 1, 16]));
        let (keys, latents, slots) = (zeros(&[2, 16, 1, 16]), zeros(&[2, 16, 1, 32]), longs(&slots));
        let (kv, gamma, c_out) = (zeros(&[3, 1, 1, 48]), zeros(&[32]), zeros(&[3, 1, 1, 32]));
        let mode = c"PA_BNSD".as_ptr();
        let said = run(
            |w, e| {
                aclnnKvRmsNormRopeCacheGetWorkspaceSize(
                    kv, gamma, cos, sin, slots, keys, latents, 0, 0, 0, 0, 1e-6, mode, false, k_out, c_out, w, e,
                )
            },
            |workspace, bytes, executor, stream| aclnnKvRmsNormRopeCache(workspace, bytes, executor, stream),
        );
        expect(&said, wrong);
    }
}

#[test]
fn blocks_of_a_table() {
    for (blocks, wrong) in [([0, 7], ""), ([0, 8], "block 8"), ([-1, 7], "block -1")] {
        let _machine = Machine::new();
        let [query, rope, out] = [512, 64, 512].map(|width| zeros(&[1, 1, 4, width]));
        let (key, key_rope) = (list(&[zeros(&[8, 16, 512])]), zeros(&[8, 16, 64]));
        let (table, lengths, all) = (ids(&blocks, &[1, 2]), ints(&[20]), i64::from(i32::MAX));
        let layout = c"BSND".as_ptr();
        let said = run(
            |w, e| {
                aclnnFusedInferAttentionScoreV4GetWorkspaceSize(
                    query, key, key, 0, 0, 0, lengths, 0, 0, 0, 0, 0, 0, 0, table, 0, 0, 0, 0, 0, 0, 0, 0, 0, rope,
                    key_rope, 0, 0, 0, 4, 0.1, all, all, layout, 1, 0, 0, 16, 0, false, 0, 0, 0, out, 0, w, e,
                )
            },
            |workspace, bytes, executor, stream| aclnnFusedInferAttentionScoreV4(workspace, bytes, executor, stream),
        );
        expect(&said, wrong);
    }
}

#[test]
fn ends_of_groups() {
    for (ends, wrong) in [([2, 2, 6], ""), ([3, 2, 6], "groupList [3, 2, 6]"), ([2, 4, 7], "groupList [2, 4, 7]")] {
        let _machine = Machine::new();
        let (x, weight) = (list(&[zeros(&[6, 48])]), list(&[zeros(&[3, 48, 32])]));
        let (out, ends) = (list(&[zeros(&[6, 32])]), longs(&ends));
        let said = run(
            |w, e| grouped(x, weight, 0, 0, 0, ends, 3, 0, 0, 0, out, w, e),
            |workspace, bytes, executor, stream| aclnnGroupedMatmulV5(workspace, bytes, executor, stream),
        );
        expect(&said, wrong);
    }
}

#[test]
fn places_and_columns() {
    for (places, wrong) in [([0, 5, 2, 1, 4, 3], ""), ([0, 6, 2, 1, 4, 3], "6 of 6")] {
        let _machine = Machine::new();
        let (rows, places, out) = (zeros(&[6, 8]), ids(&places, &[6]), zeros(&[3, 8]));
        let weights = tensor(upload(&[0.5; 6]), F32, &[3, 2]);
        let said = run(
            |w, e| aclnnMoeFinalizeRoutingV2GetWorkspaceSize(rows, places, 0, 0, 0, weights, 0, 2, out, w, e),
            |workspace, bytes, executor, stream| aclnnMoeFinalizeRoutingV2(workspace, bytes, executor, stream),
        );
        expect(&said, wrong);
    }
    for (columns, wrong) in [([0, 7], ""), ([0, 8], "column 8 of 8"), ([-1, 0], "column -1 of 8")] {
        let _machine = Machine::new();
        let (x, columns, out) = (tensor(upload(&[1.0; 8]), F32, &[1, 8]), ids(&columns, &[1, 2]), new(F32, &[1, 2]));
        let said = run(
            |w, e| aclnnGatherGetWorkspaceSize(x, 1, columns, out, w, e),
            |workspace, bytes, executor, stream| aclnnGather(workspace, bytes, executor, stream),
        );
        expect(&said, wrong);
    }
}
