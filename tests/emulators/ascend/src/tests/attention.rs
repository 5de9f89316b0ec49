//! What the fused operators of attention refuse, and weights in NZ.

use super::*;
use crate::api::descriptor::{aclCreateIntArray, aclCreateTensorList};
use crate::ops::elementwise::aclnnAddRmsNormGetWorkspaceSize;
use crate::ops::fused_attention::aclnnFusedInferAttentionScoreV4GetWorkspaceSize;
use crate::ops::products::{aclnnMatmulGetWorkspaceSize, aclnnMatmulWeightNz, aclnnMatmulWeightNzGetWorkspaceSize};
use crate::ops::prolog::{aclnnKvRmsNormRopeCacheGetWorkspaceSize, aclnnMlaPrologV3WeightNzGetWorkspaceSize};

const I32: i32 = 3;
const I64: i32 = 9;
const NZ: i32 = 29;

/// A tensor with memory of its own.
fn new(data_type: i32, dims: &[i64]) -> u64 {
    tensor(alloc((8 * dims.iter().product::<i64>() as usize).next_multiple_of(32)), data_type, dims)
}

/// A weight in NZ, its tiles `columns` wide.
fn packed(data_type: i32, [k, n]: [i64; 2], columns: i64) -> u64 {
    let storage = [n / columns, k / 16, 16, columns];
    let (dims, strides, address) = ([k, n], [n, 1], alloc((k * n * 2) as usize));
    aclCreateTensor(dims.as_ptr(), 2, data_type, strides.as_ptr(), 0, NZ, storage.as_ptr(), 4, address)
}

/// Plans what is expected to be refused with these words, or to be accepted without any.
fn expect(wrong: &str, plan: impl FnOnce(*mut u64, *mut u64) -> Status) {
    let (mut bytes, mut executor) = (0, 0);
    let status = plan(&raw mut bytes, &raw mut executor);
    let said = words();
    let as_expected = if wrong.is_empty() { status == 0 } else { status != 0 && said.contains(wrong) };
    assert!(as_expected, "{wrong:?} expected: {status} {said}");
}

/// Attention of some tokens over the cache, or over keys of every head.
struct Attention {
    heads: i64,
    width: i64,
    ends: Vec<i64>,
    lengths: Vec<i64>,
    /// 0 for expanded keys.
    block_size: i64,
    key_heads: i64,
}

impl Attention {
    fn plan(&self, wrong: &str) {
        let Self { heads, width, ends, lengths, block_size, key_heads } = self;
        let (num_tokens, num_seqs) = (ends[ends.len() - 1], lengths.len() as i64);
        let is_paged = *block_size > 0;
        let rows = if is_paged { vec![8, *block_size] } else { vec![lengths[lengths.len() - 1], *heads] };
        let of = |width: i64| [rows.as_slice(), &[width]].concat();
        let (key, key_rope) = (new(BF16, &of(*width)), new(BF16, &of(64)));
        let value = if is_paged { key } else { new(BF16, &of(*width)) };
        let (query, rope) = (new(BF16, &[num_tokens, *heads, *width]), new(BF16, &[num_tokens, *heads, 64]));
        let table = if is_paged { new(I32, &[num_seqs, 4]) } else { 0 };
        let (out, mask) = (new(BF16, &[num_tokens, *heads, *width]), new(I8, &[2048, 2048]));
        let array = |values: &[i64]| aclCreateIntArray(values.as_ptr(), values.len() as u64);
        let (ends, lengths) = (array(ends), array(lengths));
        let keys = aclCreateTensorList(&raw const key, 1);
        let values = if is_paged { keys } else { aclCreateTensorList(&raw const value, 1) };
        let all = i64::from(i32::MAX);
        expect(wrong, |bytes, executor| {
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
                rope,
                key_rope,
                0,
                0,
                0,
                *heads,
                0.1,
                all,
                all,
                c"TND".as_ptr(),
                *key_heads,
                3,
                0,
                *block_size,
                0,
                false,
                0,
                0,
                0,
                out,
                0,
                bytes,
                executor,
            )
        });
    }
}

#[test]
fn fused_attention_over_the_cache() {
    let _machine = Machine::new();
    let paged =
        || Attention { heads: 4, width: 512, ends: vec![2, 18], lengths: vec![9, 16], block_size: 16, key_heads: 1 };
    paged().plan("");
    Attention { width: 128, ..paged() }.plan("key [8, 16, 128]");
    Attention { heads: 3, ..paged() }.plan("of 3 heads");
    Attention { key_heads: 4, ..paged() }.plan("4 key heads");
    Attention { block_size: 24, ..paged() }.plan("blocks of 24");
    Attention { ends: vec![1, 18], lengths: vec![9, 17], ..paged() }.plan("17 tokens of a sequence");
    Attention { lengths: vec![1, 16], ..paged() }.plan("2 tokens of a sequence of 1");
    Attention { lengths: vec![9, 65], ..paged() }.plan("in a table for 64");
    Attention { ends: vec![18], ..paged() }.plan("2 lengths of 1");
}

#[test]
fn fused_attention_over_keys_of_every_head() {
    let _machine = Machine::new();
    let expanded =
        || Attention { heads: 3, width: 128, ends: vec![2, 22], lengths: vec![9, 40], block_size: 0, key_heads: 3 };
    expanded().plan("");
    Attention { width: 192, ..expanded() }.plan("of 3 heads");
    Attention { heads: 257, key_heads: 257, ends: vec![1], lengths: vec![1], ..expanded() }.plan("of 257 heads");
    Attention { key_heads: 1, ..expanded() }.plan("1 key heads of 3");
    Attention { lengths: vec![9, 9], ..expanded() }.plan("actualSeqLengthsKvOptional");
    Attention { lengths: vec![9, 28], ..expanded() }.plan("20 tokens of a sequence of 19");
    Attention { ends: vec![22], ..expanded() }.plan("2 lengths of 1");
}

#[test]
fn weights_in_nz() {
    let machine = Machine::new();
    let (x, out) = (new(BF16, &[4, 32]), new(BF16, &[4, 16]));
    let weight = packed(BF16, [32, 16], 16);
    expect("mat2 is in NZ", |w, e| aclnnMatmulGetWorkspaceSize(x, weight, out, 0, w, e));
    let dense = new(BF16, &[32, 16]);
    expect("mat2 is not in NZ", |w, e| aclnnMatmulWeightNzGetWorkspaceSize(x, dense, out, 0, w, e));
    assert_eq!(packed(BF16, [32, 32], 32), 0, "tiles of bf16 have 16 columns");
    assert!(words().contains("in NZ, expected"));
    // Row 17, column 3 is in the second tile of the first column of tiles, and counts where x is 1.
    let (mut values, mut x) = (vec![0_u16; 32 * 16], vec![0_u16; 32]);
    (values[(16 + 1) * 16 + 3], x[17]) = (half::bf16::from_f32(5.0).to_bits(), half::bf16::ONE.to_bits());
    let place = |values: &[u16]| {
        let address = alloc(size_of_val(values));
        assert_eq!(aclrtMemcpy(address, size_of_val(values), values.as_ptr() as u64, size_of_val(values), 1), 0);
        address
    };
    let (dims, strides, storage, memory) = ([32, 16], [16, 1], [1, 2, 16, 16], place(&values));
    let weight = aclCreateTensor(dims.as_ptr(), 2, BF16, strides.as_ptr(), 0, NZ, storage.as_ptr(), 4, memory);
    let (address, workspace) = (alloc(64), alloc(64));
    let (x, out) = (tensor(place(&x), BF16, &[1, 32]), tensor(address, BF16, &[1, 16]));
    let (mut bytes, mut executor) = (0, 0);
    assert_eq!(aclnnMatmulWeightNzGetWorkspaceSize(x, weight, out, 0, &raw mut bytes, &raw mut executor), 0);
    assert_eq!(aclnnMatmulWeightNz(workspace, bytes, executor, machine.stream), 0);
    assert_eq!(machine.wait(), 0);
    let mut sums = [0_u16; 16];
    assert_eq!(aclrtMemcpy(sums.as_mut_ptr() as u64, 32, address, 32, 2), 0);
    let expected: [u16; 16] = std::array::from_fn(|i| if i == 3 { half::bf16::from_f32(5.0).to_bits() } else { 0 });
    assert_eq!(sums, expected);
}

#[test]
fn sums_and_their_norm() {
    let _machine = Machine::new();
    let [x, sum, gamma, out] = [[2, 8].as_slice(), &[2, 8], &[8], &[2, 8]].map(|dims| new(BF16, dims));
    let rstd = new(F32, &[2, 1]);
    expect("", |w, e| aclnnAddRmsNormGetWorkspaceSize(x, sum, gamma, 1e-6, out, rstd, sum, w, e));
    let elsewhere = new(BF16, &[2, 8]);
    expect("not in the place", |w, e| aclnnAddRmsNormGetWorkspaceSize(x, sum, gamma, 1e-6, out, rstd, elsewhere, w, e));
    expect("lies over", |w, e| aclnnAddRmsNormGetWorkspaceSize(x, sum, gamma, 1e-6, x, rstd, sum, w, e));
}

#[test]
fn the_key_part() {
    let _machine = Machine::new();
    let plan = |wrong: &str, block: i64, index: i32, mode: &std::ffi::CStr, gives_rows: bool| {
        let (kv, gamma) = (new(BF16, &[3, 1, 1, 48]), new(BF16, &[32]));
        let [cos, sin, k_out] = [(); 3].map(|()| new(BF16, &[3, 1, 1, 16]));
        let (k, c, c_out) = (new(BF16, &[2, block, 1, 16]), new(BF16, &[2, block, 1, 32]), new(BF16, &[3, 1, 1, 32]));
        let index = new(index, &[3]);
        expect(wrong, |w, e| {
            aclnnKvRmsNormRopeCacheGetWorkspaceSize(
                kv,
                gamma,
                cos,
                sin,
                index,
                k,
                c,
                0,
                0,
                0,
                0,
                1e-6,
                mode.as_ptr(),
                gives_rows,
                k_out,
                c_out,
                w,
                e,
            )
        });
    };
    plan("", 16, I64, c"PA_BNSD", false);
    plan("blocks of 8", 8, I64, c"PA_BNSD", false);
    plan("index is I32", 16, I32, c"PA_BNSD", false);
    plan("cacheMode PA_NZ", 16, I64, c"PA_NZ", false);
    plan("isOutputKv true", 16, I64, c"PA_BNSD", true);
}

#[test]
fn the_whole_first_half() {
    let _machine = Machine::new();
    let plan = |wrong: &str, hidden: i64, rank: i64, heads: i64, mode: i64| {
        let (data_type, columns) = if mode == 2 { (I8, 32) } else { (BF16, 16) };
        let scale = |width: i64| if mode == 2 { new(F32, &[1, width]) } else { 0 };
        let x_scale = if mode == 2 { new(F32, &[2, 1]) } else { 0 };
        let x = new(data_type, &[2, hidden]);
        let (dq, uq) = (packed(data_type, [hidden, rank], columns), packed(data_type, [rank, heads * 192], columns));
        let (dkv, uk) = (packed(data_type, [hidden, 576], columns), new(BF16, &[heads, 128, 512]));
        let (gamma_q, gamma_kv) = (new(BF16, &[rank]), new(BF16, &[512]));
        let [sin, cos] = [(); 2].map(|()| new(BF16, &[2, 64]));
        let (latents, keys) = (new(BF16, &[2, 16, 1, 512]), new(BF16, &[2, 16, 1, 64]));
        let (query, rope) = (new(BF16, &[2, heads, 512]), new(BF16, &[2, heads, 64]));
        let index = new(I64, &[2]);
        expect(wrong, |w, e| {
            aclnnMlaPrologV3WeightNzGetWorkspaceSize(
                x,
                dq,
                uq,
                uk,
                dkv,
                gamma_q,
                gamma_kv,
                sin,
                cos,
                latents,
                keys,
                index,
                x_scale,
                scale(rank),
                scale(heads * 192),
                scale(576),
                0,
                0,
                0,
                0,
                0,
                1e-6,
                1e-6,
                c"PA_BSND".as_ptr(),
                mode,
                0,
                0,
                0,
                0,
                128,
                1.0,
                1.0,
                query,
                rope,
                0,
                0,
                0,
                w,
                e,
            )
        });
    };
    plan("", 1024, 1536, 2, 0);
    plan("", 1024, 1536, 2, 2);
    plan("hidden 512", 512, 1536, 2, 0);
    plan("query rank 1024", 1024, 1024, 2, 2);
    plan("3 heads", 1024, 1536, 3, 0);
    plan("weightQuantMode 1", 1024, 1536, 2, 1);
}
