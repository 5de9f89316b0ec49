//! The same for attention's operators, and for the router's.

use std::ffi::c_char;

use super::*;
use crate::ops::attention::*;
use crate::ops::fused_attention::aclnnFusedInferAttentionScoreV4GetWorkspaceSize;
use crate::ops::prolog::*;

/// What changes of fused attention.
#[allow(clippy::too_many_arguments, reason = "CANN's own function")]
fn fused(
    query: u64,
    keys: u64,
    values: u64,
    mask: u64,
    ends: u64,
    lengths: u64,
    table: u64,
    query_rope: u64,
    key_rope: u64,
    window: i64,
    layout: *const c_char,
    key_heads: i64,
    sparse: i64,
    precise: i64,
    block_size: i64,
    gives_sums: u64,
    out: u64,
    w: *mut u64,
    e: *mut u64,
) -> Status {
    aclnnFusedInferAttentionScoreV4GetWorkspaceSize(
        query,
        keys,
        values,
        0,
        mask,
        ends,
        lengths,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        table,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        query_rope,
        key_rope,
        0,
        0,
        0,
        4,
        0.1,
        window,
        window,
        layout,
        key_heads,
        sparse,
        precise,
        block_size,
        0,
        gives_sums != 0,
        0,
        0,
        0,
        out,
        0,
        w,
        e,
    )
}

#[test]
fn fused_attention() {
    let _machine = Machine::new();
    let all = i64::from(i32::MAX);
    let (causal, one_each, other) = (c"TND".as_ptr(), c"BSND".as_ptr(), c"BNSD".as_ptr());
    let [query, query_rope, out] = [512, 64, 512].map(|width| new(BF16, &[3, 4, width]));
    let (key, key_rope, table) = (new(BF16, &[8, 16, 512]), new(BF16, &[8, 16, 64]), new(I32, &[2, 4]));
    let (keys, mask) = (list(&[key]), new(I8, &[2048, 2048]));
    let (ends, lengths) = (ints(&[1, 3]), ints(&[9, 16]));
    breaks(
        "over the cache",
        &call!(fused(
            query, keys, keys, mask, ends, lengths, table, query_rope, key_rope, all, causal, 1, 3, 0, 16, 0, out
        )),
        &[
            (1, list(&[new(BF16, &[8, 16, 512])]), "value is not the memory of key"),
            (2, list(&[new(BF16, &[8, 16, 512])]), "value is not the memory of key"),
            (3, 0, "sparseMode 3 without a mask"),
            (3, new(I8, &[1024, 1024]), "attenMaskOptional"),
            (6, new(I32, &[3, 4]), "[3, 4] blocks of 2 sequences"),
            (6, 0, "blocks of 16 without a table"),
            (8, new(BF16, &[8, 16, 32]), "keyRopeOptional"),
            (9, 0, "windows 0 and 0"),
            (10, other as u64, "layout BNSD"),
            (10, one_each as u64, "layout BSND"),
            (12, 0, "sparseMode 0"),
            (13, 1, "not modelled"),
            (15, 1, "not modelled"),
        ],
    );
    // One token each, and keys of every head, which are for prompts.
    let [query, query_rope, out] = [128, 64, 128].map(|width| new(BF16, &[2, 1, 4, width]));
    let [keys, values] = [(); 2].map(|()| list(&[new(BF16, &[25, 4, 128])]));
    let key_rope = new(BF16, &[25, 4, 64]);
    let (mut bytes, mut executor) = (0, 0);
    let to = (&raw mut bytes, &raw mut executor);
    let status = fused(
        query, keys, values, 0, 0, lengths, 0, query_rope, key_rope, all, one_each, 4, 0, 0, 0, 0, out, to.0, to.1,
    );
    assert!(status != 0 && words().contains("for causal TND"), "{}", words());
}

#[test]
fn rotation_and_the_cache() {
    let _machine = Machine::new();
    let [x, out] = [(); 2].map(|()| new(BF16, &[3, 4, 16]));
    let [cos, sin] = [(); 2].map(|()| new(BF16, &[3, 1, 16]));
    breaks(
        "rope",
        &call!(aclnnRotaryPositionEmbeddingGetWorkspaceSize(x, cos, sin, 1, out)),
        &[
            (0, new(BF16, &[12, 16]), "other layouts than TND"),
            (0, new(BF16, &[3, 1000, 16]), "1000 heads"),
            (0, new(BF16, &[3, 4, 896]), "width 896"),
            (0, new(BF16, &[3, 4, 15]), "width 15"),
            (1, new(BF16, &[3, 4, 16]), "cos [3, 4, 16]"),
            (2, new(F32, &[3, 1, 16]), "sin is F32"),
            (3, 0, "mode 0"),
            (4, strided(BF16, [3, 16]), "out [3, 16]"),
        ],
    );
    let (key, value) = (new(BF16, &[3, 1, 32]), new(BF16, &[3, 1, 16]));
    let (keys, values) = (new(BF16, &[2, 16, 1, 32]), new(BF16, &[2, 16, 1, 16]));
    let (slots, none, norm, nz) = (new(I32, &[3]), c"None".as_ptr(), c"Norm".as_ptr(), c"PA_NZ".as_ptr());
    breaks(
        "scatter",
        &call!(aclnnScatterPaKvCacheGetWorkspaceSize(key, keys, slots, value, values, 0, 0, 0, norm, none, 0, 0)),
        &[
            (0, new(BF16, &[3, 32]), "key [3, 32]"),
            (0, new(BF16, &[4, 1, 32]), "key [4, 1, 32]"),
            (1, new(BF16, &[2, 16, 32]), "key [3, 1, 32]"),
            (2, new(F32, &[3]), "slotMapping is F32"),
            (4, new(BF16, &[1, 16, 1, 16]), "valueCacheRef's blocks"),
            (5, key, "compressLensOptional is given"),
            (8, nz as u64, "not modelled"),
            (9, nz as u64, "not modelled"),
        ],
    );
}

/// With a number in place of a truth value.
#[allow(clippy::too_many_arguments, reason = "CANN's own function")]
fn key_part(
    kv: u64,
    gamma: u64,
    cos: u64,
    sin: u64,
    index: u64,
    keys: u64,
    latents: u64,
    scale: u64,
    mode: *const c_char,
    k_out: u64,
    c_out: u64,
    w: *mut u64,
    e: *mut u64,
) -> Status {
    aclnnKvRmsNormRopeCacheGetWorkspaceSize(
        kv, gamma, cos, sin, index, keys, latents, scale, 0, 0, 0, 1e-6, mode, false, k_out, c_out, w, e,
    )
}

#[test]
fn first_halves() {
    let _machine = Machine::new();
    let [cos, sin, k_out] = [(); 3].map(|()| new(BF16, &[3, 1, 1, 16]));
    let (keys, latents) = (new(BF16, &[2, 16, 1, 16]), new(BF16, &[2, 16, 1, 32]));
    let (kv, gamma, index, c_out) =
        (new(BF16, &[3, 1, 1, 48]), new(BF16, &[32]), new(I64, &[3]), new(BF16, &[3, 1, 1, 32]));
    breaks(
        "key part",
        &call!(key_part(kv, gamma, cos, sin, index, keys, latents, 0, c"PA_BNSD".as_ptr(), k_out, c_out)),
        &[
            (0, new(BF16, &[3, 1, 48]), "kv [3, 1, 48]"),
            (0, new(BF16, &[3, 2, 1, 48]), "kv [3, 2, 1, 48]"),
            (0, new(BF16, &[3, 1, 1, 47]), "kv [47]"),
            (1, new(BF16, &[16]), "gamma [16]"),
            (2, new(BF16, &[3, 1, 1, 8]), "cos"),
            (4, new(I64, &[2]), "index [2]"),
            (5, new(BF16, &[2, 16, 16]), "kCacheRef [2, 16, 16]"),
            (5, new(BF16, &[2, 16, 2, 16]), "kCacheRef [2, 16, 2, 16]"),
            (5, new(BF16, &[1, 16, 1, 16]), "blocks of both caches"),
            (7, gamma, "kRopeScaleOptional is given"),
            (9, c_out, "kRopeOut"),
            (10, k_out, "cKvOut"),
        ],
    );
    let (x, dq, uq, dkv) =
        (new(BF16, &[2, 1024]), nz(BF16, &[1024, 1536]), nz(BF16, &[1536, 384]), nz(BF16, &[1024, 576]));
    let (uk, gamma_q, gamma_kv) = (new(BF16, &[2, 128, 512]), new(BF16, &[1536]), new(BF16, &[512]));
    let [sin, cos] = [(); 2].map(|()| new(BF16, &[2, 64]));
    let (latents, keys) = (new(BF16, &[2, 16, 1, 512]), new(BF16, &[2, 16, 1, 64]));
    let (query, rope) = (new(BF16, &[2, 2, 512]), new(BF16, &[2, 2, 64]));
    let (index, mode) = (new(I64, &[2]), c"PA_BSND".as_ptr());
    breaks(
        "whole",
        &call!(aclnnMlaPrologV3WeightNzGetWorkspaceSize(
            x, dq, uq, uk, dkv, gamma_q, gamma_kv, sin, cos, latents, keys, index, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            mode, 0, 0, 0, 0, 0, 128, 1, 1, query, rope, 0, 0, 0
        )),
        &[
            (0, new(BF16, &[2, 1, 1024]), "tokenX [2, 1, 1024]"),
            (1, nz(BF16, &[1, 1024, 1536]), "weightDq [1, 1024, 1536]"),
            (1, new(BF16, &[1024, 1536]), "weightDq is not in NZ"),
            (2, nz(BF16, &[1536, 192]), "weightUqQr [1536, 192]"),
            (3, new(BF16, &[256, 512]), "weightUk [256, 512]"),
            (4, nz(BF16, &[1024, 512]), "weightDkvKr [1024, 512]"),
            (5, new(BF16, &[512]), "rmsnormGammaCq [512]"),
            (12, gamma_q, "dequantScaleXOptional is given"),
            (13, gamma_q, "dequantScaleWDqOptional is given"),
            (25, 1, "nothing else scaled"),
            (30, 2, "nothing else scaled"),
        ],
    );
}

/// With a number in place of a truth value.
#[allow(clippy::too_many_arguments, reason = "CANN's own function")]
fn choose(
    x: u64,
    bias: u64,
    k: i64,
    k_group: i64,
    groups: i64,
    group_mode: i64,
    renorm: i64,
    norm: i64,
    weights: u64,
    ids: u64,
    w: *mut u64,
    e: *mut u64,
) -> Status {
    aclnnMoeGatingTopKGetWorkspaceSize(
        x, bias, k, k_group, groups, group_mode, renorm, norm, false, 1.0, 1e-20, weights, ids, 0, w, e,
    )
}

#[test]
fn the_router() {
    let _machine = Machine::new();
    let (x, bias, weights, ids) = (new(F32, &[3, 64]), new(F32, &[64]), new(F32, &[3, 4]), new(I32, &[3, 4]));
    breaks(
        "router",
        &call!(choose(x, bias, 4, 2, 4, 1, 0, 1, weights, ids)),
        &[
            (0, new(F32, &[64]), "x of 1 dimensions"),
            (0, new(BF16, &[3, 64]), "x is Bf16"),
            (2, 0, "0 of 64 experts"),
            (2, 33, "33 of 64 experts"),
            (3, 5, "5 of 4 groups"),
            (4, 3, "2 of 3 groups"),
            (5, 2, "groupSelectMode 2"),
            (6, 2, "renorm 2"),
            (7, 2, "normType 2"),
            (8, new(F32, &[3, 5]), "yOut [3, 5]"),
            (9, new(I32, &[3, 5]), "expertIdxOut [3, 5]"),
        ],
    );
}

#[test]
fn shapes_without_a_meaning() {
    let _machine = Machine::new();
    let [scalar, other, rstd] = [new(BF16, &[]), new(BF16, &[]), new(F32, &[1])];
    let (mut bytes, mut executor) = (0, 0);
    let to = (&raw mut bytes, &raw mut executor);
    assert!(
        rms_norm(scalar, new(BF16, &[1]), other, rstd, to.0, to.1) != 0 && words().contains("x without dimensions")
    );
    let sum =
        aclnnAddRmsNormGetWorkspaceSize(scalar, other, new(BF16, &[1]), 1e-6, new(BF16, &[]), rstd, other, to.0, to.1);
    assert!(sum != 0 && words().contains("x1 without dimensions"), "{}", words());
    assert!(aclnnSoftmaxGetWorkspaceSize(scalar, -1, other, to.0, to.1) != 0, "of no axis");
    assert!(words().contains("self without dimensions"), "{}", words());
    let columns = call!(aclnnGatherGetWorkspaceSize(new(F32, &[4, 8]), 1_i64, new(I32, &[4, 2]), new(F32, &[4, 2])));
    assert_eq!(columns(&|_, argument| argument), 0);
    let index = new(I32, &[5, 2]);
    let more = call!(aclnnGatherGetWorkspaceSize(new(F32, &[4, 8]), 1_i64, index, new(F32, &[5, 2])));
    assert!(more(&|_, argument| argument) != 0 && words().contains("an index [5, 2]"), "{}", words());
    let narrow =
        call!(aclnnMatmulWeightNzGetWorkspaceSize(new(BF16, &[4, 16]), nz(BF16, &[16, 1]), new(BF16, &[4, 1]), 0));
    assert!(narrow(&|_, argument| argument) != 0 && words().contains("no axes of 1"), "{}", words());
    let (x, scales, out) = (new(I8, &[1, 4, 64]), new(F32, &[4]), new(BF16, &[4, 32]));
    let cube = call!(quant_matmul(x, new(I8, &[32, 64]), scales, new(F32, &[32]), 0, 0, 0, 0, 0, 0, 1, 0, out));
    assert!(cube(&|_, argument| argument) != 0 && words().contains("matrices only"), "{}", words());
    let rows = call!(aclnnMoeFinalizeRoutingV2GetWorkspaceSize(
        new(BF16, &[6, 8]),
        new(I32, &[6]),
        0,
        0,
        0,
        new(F32, &[3, 2]),
        0,
        2,
        new(BF16, &[3, 1, 8])
    ));
    assert!(rows(&|_, argument| argument) != 0 && words().contains("matrices only"), "{}", words());
}
