//! Every rule of an operator, broken on purpose: one call that is taken, and the same call with one thing wrong.

use super::*;
use crate::api::descriptor::{aclCreateIntArray, aclCreateTensorList};
use crate::ops::elementwise::*;
use crate::ops::fused_experts::aclnnGroupedMatmulSwigluQuantWeightNZGetWorkspaceSize;
use crate::ops::moe::*;
use crate::ops::products::*;

const I32: i32 = 3;
const I64: i32 = 9;
const BOOL: i32 = 12;
/// `aclFormat` FRACTAL_NZ.
const NZ: i32 = 29;

/// Arguments of a call: handles and attributes, and a number instead of any of them where it is changed.
type Changed<'a> = &'a dyn Fn(usize, u64) -> u64;
/// A call with its arguments changed.
type Call<'a> = &'a dyn Fn(Changed<'_>) -> Status;

/// A tensor with memory of its own, more than it needs.
fn new(data_type: i32, dims: &[i64]) -> u64 {
    let num_bytes = 8 * dims.iter().product::<i64>() as usize;
    tensor(alloc(num_bytes.next_multiple_of(32).max(1 << 16)), data_type, dims)
}

/// Columns that lie two apart.
fn strided(data_type: i32, dims: [i64; 2]) -> u64 {
    let strides = [2 * dims[1], 2];
    let storage = [2 * dims[0] * dims[1]];
    aclCreateTensor(dims.as_ptr(), 2, data_type, strides.as_ptr(), 0, 2, storage.as_ptr(), 1, alloc(1 << 16))
}

fn nz(data_type: i32, dims: &[i64]) -> u64 {
    let strides: Vec<i64> = (0..dims.len()).map(|axis| dims[axis + 1..].iter().product()).collect();
    let (batch, matrix) = dims.split_at(dims.len() - 2);
    let columns = if data_type == I8 { 32 } else { 16 };
    let tiles = [(matrix[1] + columns - 1) / columns, (matrix[0] + 15) / 16, 16, columns];
    let storage = [batch, &tiles].concat();
    let (rank, storage_rank) = (dims.len() as u64, storage.len() as u64);
    let bytes = storage.iter().product::<i64>() as usize * if data_type == I8 { 1 } else { 2 };
    aclCreateTensor(
        dims.as_ptr(),
        rank,
        data_type,
        strides.as_ptr(),
        0,
        NZ,
        storage.as_ptr(),
        storage_rank,
        alloc(bytes.next_multiple_of(32)),
    )
}

fn list(tensors: &[u64]) -> u64 {
    aclCreateTensorList(tensors.as_ptr(), tensors.len() as u64)
}

fn ints(values: &[i64]) -> u64 {
    aclCreateIntArray(values.as_ptr(), values.len() as u64)
}

/// The call is taken as it is, and refused with these words when the argument of that number is another.
fn breaks(name: &str, call: Call<'_>, wrong: &[(usize, u64, &str)]) {
    let taken = call(&|_, argument| argument);
    assert_eq!(taken, 0, "{name}: {}", words());
    for (number, value, expected) in wrong {
        let status = call(&|index, argument| if index == *number { *value } else { argument });
        let said = words();
        let is_refusal = [status::INVALID, status::TILING, status::NULLPTR].contains(&status);
        assert!(is_refusal && said.contains(expected), "{name}, argument {number}: {status}, {said}, not {expected}");
    }
}

/// Calls a first function with arguments by number.
macro_rules! call {
    ($function:ident($($argument:expr),+ $(,)?)) => {
        |changed: Changed<'_>| {
            let (mut bytes, mut executor, mut number) = (0, 0, 0);
            let mut next = |argument: u64| {
                number += 1;
                changed(number - 1, argument)
            };
            $function($(next($argument as u64) as _,)+ &raw mut bytes, &raw mut executor)
        }
    };
}

// After the macro, which the first one uses.
mod attention;
mod values;

#[test]
fn copies_and_choices() {
    let _machine = Machine::new();
    let [x, y, small] = [new(F32, &[4, 8]), new(F32, &[4, 8]), new(F32, &[3, 8])];
    let codes = new(I8, &[4, 8]);
    breaks(
        "copy",
        &call!(aclnnInplaceCopyGetWorkspaceSize(x, y)),
        &[
            (1, small, "cannot be broadcast"),
            (1, codes, "a copy of I8 to F32"),
            (0, 0, "selfRef is null"),
            (1, list(&[]), "is a list of tensors, not a tensor"),
            (1, new(F32, &[0, 8]), "is empty"),
            (1, nz(BF16, &[16, 16]), "in NZ"),
        ],
    );
    let one = get_scalar(1.0);
    breaks(
        "add",
        &call!(aclnnInplaceAddGetWorkspaceSize(x, y, one)),
        &[(1, new(BF16, &[4, 8]), "types differ"), (1, codes, "is I8"), (2, x, "not a scalar")],
    );
    let out = new(F32, &[4, 16]);
    breaks(
        "cat",
        &call!(aclnnCatGetWorkspaceSize(list(&[new(F32, &[4, 8]), new(F32, &[4, 8])]), -1_i64, out)),
        &[
            (0, list(&[new(F32, &[4, 8])]), "8 columns to 16"),
            (0, list(&[new(F32, &[4, 8]), new(F32, &[3, 8])]), "the rows of a tensor"),
            (0, list(&[new(BF16, &[4, 8]), new(BF16, &[4, 8])]), "is Bf16"),
            (0, x, "not a list"),
            (1, 0, "axis 0"),
        ],
    );
    breaks(
        "softmax",
        &call!(aclnnSoftmaxGetWorkspaceSize(x, -1_i64, y)),
        &[(1, 0, "axis 0"), (2, small, "out [3, 8]")],
    );
    breaks(
        "swiglu",
        &call!(aclnnSwiGluGetWorkspaceSize(x, -1_i64, new(F32, &[4, 4]))),
        &[
            (0, new(F32, &[4, 7]), "cannot be halved"),
            (1, 0, "other than rows"),
            (2, y, "out [4, 8]"),
            (2, strided(F32, [4, 4]), "not dense"),
        ],
    );
    breaks("equals", &call!(aclnnEqScalarGetWorkspaceSize(x, one, new(BOOL, &[4, 8]))), &[(2, y, "is F32")]);
    let [ids, picked] = [new(I32, &[4]), new(I32, &[4])];
    breaks(
        "where",
        &call!(aclnnSWhereGetWorkspaceSize(new(BOOL, &[4]), new(I32, &[1]), ids, picked)),
        &[(0, new(BOOL, &[3]), "cannot be broadcast"), (1, x, "is F32")],
    );
    breaks(
        "max",
        &call!(aclnnMaxDimGetWorkspaceSizeOf(x, 1_i64, 0_u64, new(F32, &[4]), ids)),
        &[
            (1, 0, "other than rows"),
            (2, 1, "other than rows"),
            (3, new(F32, &[3]), "out [3]"),
            (4, new(I32, &[3]), "indices [3]"),
        ],
    );
    breaks(
        "rows",
        &call!(aclnnIndexSelectGetWorkspaceSize(x, 0_i64, new(I32, &[2]), new(F32, &[2, 8]))),
        &[
            (1, 1, "other than rows"),
            (2, new(I32, &[2, 1]), "an index of 2 dimensions"),
            (2, new(F32, &[2]), "is F32"),
            (3, small, "out [3, 8]"),
        ],
    );
    breaks(
        "columns",
        &call!(aclnnGatherGetWorkspaceSize(x, 1_i64, new(I32, &[4, 2]), new(F32, &[4, 2]))),
        &[(1, 0, "other than columns"), (3, small, "out [3, 8]")],
    );
    breaks(
        "embedding",
        &call!(aclnnEmbeddingGetWorkspaceSize(x, new(I32, &[2]), new(F32, &[2, 8]))),
        &[(0, new(F32, &[4]), "a table of 1"), (2, small, "out [3, 8]")],
    );
    breaks(
        "norm",
        &call!(rms_norm(new(BF16, &[4, 8]), new(BF16, &[8]), new(BF16, &[4, 8]), new(F32, &[4, 1]))),
        &[
            (1, new(BF16, &[7]), "gamma [7]"),
            (2, new(BF16, &[3, 8]), "yOut"),
            (3, new(F32, &[4]), "rstdOut"),
            (3, 0, "rstdOut is null"),
        ],
    );
}

fn get_scalar(value: f32) -> u64 {
    aclCreateScalar(&raw const value, F32)
}

#[allow(non_snake_case, reason = "named after the function")]
fn aclnnMaxDimGetWorkspaceSizeOf(
    x: u64,
    axis: i64,
    keeps: u64,
    out: u64,
    ids: u64,
    w: *mut u64,
    e: *mut u64,
) -> Status {
    aclnnMaxDimGetWorkspaceSize(x, axis, keeps != 0, out, ids, w, e)
}

fn rms_norm(x: u64, gamma: u64, out: u64, rstd: u64, w: *mut u64, e: *mut u64) -> Status {
    aclnnRmsNormGetWorkspaceSize(x, gamma, 1e-6, out, rstd, w, e)
}

#[test]
fn products() {
    let _machine = Machine::new();
    let (a, b) = (new(BF16, &[4, 8]), new(BF16, &[8, 2]));
    breaks(
        "matmul",
        &call!(aclnnMatmulGetWorkspaceSize(a, b, new(BF16, &[4, 2]), 0)),
        &[(0, new(BF16, &[1, 4, 8]), "2 dimensions"), (2, new(BF16, &[4, 3]), "out [4, 3]"), (3, 1, "cubeMathType 1")],
    );
    let (a, b) = (new(BF16, &[3, 4, 8]), new(BF16, &[3, 8, 2]));
    breaks(
        "batched",
        &call!(aclnnBatchMatMulGetWorkspaceSize(a, b, new(BF16, &[3, 4, 2]), 0)),
        &[
            (1, new(BF16, &[2, 8, 2]), "mat2 [2, 8, 2]"),
            (2, new(BF16, &[3, 2, 4]), "out [3, 2, 4]"),
            (0, new(BF16, &[4, 8]), "3 dimensions"),
        ],
    );
    breaks(
        "quantise",
        &call!(quantise(new(BF16, &[4, 8]), 0, new(I8, &[4, 8]), new(F32, &[4]))),
        &[
            (0, new(BF16, &[8]), "x of 1 dimensions"),
            (1, a, "smoothScalesOptional is given"),
            (2, new(I8, &[4, 7]), "yOut [4, 7]"),
            (2, new(BF16, &[4, 8]), "is Bf16"),
            (3, new(F32, &[3]), "scaleOut [3]"),
        ],
    );
    let [x, x_scale, w_scale, out] = [new(I8, &[4, 64]), new(F32, &[4]), new(F32, &[32]), new(BF16, &[4, 32])];
    let dense = new(I8, &[32, 64]);
    let rules: [(usize, u64, &str); 11] = [
        (0, new(BF16, &[4, 64]), "x1 is Bf16"),
        (0, strided(I8, [4, 64]), "x1 [4, 64] with strides"),
        (2, new(F32, &[3]), "x1Scale [3]"),
        (2, new(BF16, &[4]), "x1Scale is Bf16"),
        (2, 0, "x1Scale is null"),
        (3, new(F32, &[31]), "x2Scale [31]"),
        (4, x_scale, "yScale is given"),
        (8, x_scale, "bias is given"),
        (9, 1, "not modelled"),
        (11, 32, "not modelled"),
        (12, new(F32, &[4, 32]), "out is F32"),
    ];
    let call = call!(quant_matmul(x, dense, x_scale, w_scale, 0, 0, 0, 0, 0, 0, 1, 0, out));
    breaks("int8", &call, &rules);
    breaks(
        "int8",
        &call,
        &[
            (1, new(I8, &[32, 63]), "x2 [32, 63]"),
            (1, nz(I8, &[64, 32]), "x2 is in NZ"),
            (1, strided(I8, [32, 64]), "not dense"),
            (10, 0, "not modelled"),
            (12, new(BF16, &[4, 31]), "out [4, 31]"),
        ],
    );
    let call = call!(quant_matmul_nz(x, nz(I8, &[64, 32]), x_scale, w_scale, 0, 0, 0, 0, 0, 0, 0, 0, out));
    breaks("int8 in NZ", &call, &rules);
    breaks(
        "int8 in NZ",
        &call,
        &[
            (1, dense, "x2 is not in NZ"),
            (1, nz(I8, &[48, 32]), "x2 [48, 32]"),
            (1, nz(BF16, &[64, 32]), "x2 is Bf16"),
            (1, nz(I8, &[64, 1]), "no axes of 1"),
            (1, nz(I8, &[2, 64, 32]), "matrices only"),
            (1, nz(I8, &[64, 65_536]), "x2 is 65536 wide"),
            (10, 1, "not modelled"),
        ],
    );
}

fn quantise(x: u64, smooth: u64, out: u64, scale: u64, w: *mut u64, e: *mut u64) -> Status {
    aclnnDynamicQuantGetWorkspaceSize(x, smooth, out, scale, w, e)
}

/// With numbers in place of truth values.
macro_rules! quantised_products {
    ($($name:ident $function:ident)*) => {
        $(#[allow(clippy::too_many_arguments, reason = "CANN's own function")]
        fn $name(
            x: u64, w: u64, a: u64, b: u64, c: u64, d: u64, e: u64, f: u64, bias: u64, tx: u64, tw: u64, group: i64,
            out: u64, bytes: *mut u64, executor: *mut u64,
        ) -> Status {
            $function(x, w, a, b, c, d, e, f, bias, tx != 0, tw != 0, group, out, bytes, executor)
        })*
    };
}

quantised_products! {
    quant_matmul aclnnQuantMatmulV5GetWorkspaceSize
    quant_matmul_nz aclnnQuantMatmulWeightNzGetWorkspaceSize
}

#[test]
fn experts_in_one_operator() {
    let _machine = Machine::new();
    let [x, x_scale, ends] = [new(I8, &[6, 48]), new(F32, &[6]), new(I64, &[3])];
    let (weight, w_scale) = (nz(I8, &[3, 48, 64]), new(F32, &[3, 64]));
    let (out, out_scale) = (new(I8, &[6, 32]), new(F32, &[6]));
    breaks(
        "fused",
        &call!(aclnnGroupedMatmulSwigluQuantWeightNZGetWorkspaceSize(
            x, weight, 0, 0, w_scale, x_scale, ends, out, out_scale, 0
        )),
        &[
            (0, new(BF16, &[6, 48]), "x is Bf16"),
            (0, strided(I8, [6, 48]), "not dense"),
            (0, new(I8, &[6, 32]), "weight [3, 48, 64]"),
            (1, new(I8, &[3, 48, 64]), "weight is not in NZ"),
            (1, nz(I8, &[48, 64]), "weight [48, 64]"),
            (1, nz(I8, &[3, 48, 80]), "does not fill tiles"),
            (1, nz(I8, &[1025, 48, 32]), "1024 experts"),
            (1, nz(I8, &[1, 48, 10_272]), "width 10240 at most"),
            (2, ends, "bias is given"),
            (3, x_scale, "offset is given"),
            (4, new(F32, &[3, 32]), "weightScale [3, 32]"),
            (4, 0, "weightScale is null"),
            (5, new(F32, &[5]), "xScale [5]"),
            (6, new(I32, &[3]), "groupList is I32"),
            (6, new(I64, &[4]), "groupList [4]"),
            (7, new(I8, &[6, 64]), "output [6, 64]"),
            (7, strided(I8, [6, 32]), "not dense"),
            (8, new(F32, &[7]), "outputScale [7]"),
            (9, out_scale, "outputOffset is given"),
        ],
    );
    let wide = [new(I8, &[1, 40]), nz(I8, &[1, 40, 64]), new(F32, &[1, 64]), new(F32, &[1]), new(I64, &[1])];
    let [x, weight, w_scale, x_scale, ends] = wide;
    let (mut bytes, mut executor) = (0, 0);
    let status = aclnnGroupedMatmulSwigluQuantWeightNZGetWorkspaceSize(
        x,
        weight,
        0,
        0,
        w_scale,
        x_scale,
        ends,
        new(I8, &[1, 32]),
        new(F32, &[1]),
        0,
        &raw mut bytes,
        &raw mut executor,
    );
    assert_eq!(status, status::TILING, "40 rows do not fill tiles of 16");
}

/// The arguments of a grouped product that are always null or fixed, and the others by number.
#[allow(clippy::too_many_arguments, reason = "CANN's own function")]
fn grouped(
    x: u64,
    weight: u64,
    bias: u64,
    scale: u64,
    row_scale: u64,
    ends: u64,
    split: i64,
    group: i64,
    counts: i64,
    activation: i64,
    out: u64,
    w: *mut u64,
    e: *mut u64,
) -> Status {
    aclnnGroupedMatmulV5GetWorkspaceSize(
        x, weight, bias, scale, 0, 0, 0, row_scale, ends, 0, 0, 0, split, group, counts, activation, 0, out, 0, 0, w, e,
    )
}

#[test]
fn grouped_products() {
    let _machine = Machine::new();
    let only = |data_type, dims: &[i64]| list(&[new(data_type, dims)]);
    let one = |weight| list(&[weight]);
    let [x, ends, out] = [only(BF16, &[6, 48]), new(I64, &[3]), only(BF16, &[6, 32])];
    let weight = only(BF16, &[3, 48, 32]);
    breaks(
        "bf16",
        &call!(grouped(x, weight, 0, 0, 0, ends, 3, 0, 0, 0, out)),
        &[
            (0, only(F32, &[6, 48]), "x is F32"),
            (0, new(BF16, &[6, 48]), "not a list"),
            (0, list(&[new(BF16, &[6, 48]), new(BF16, &[6, 48])]), "x has 2 tensors"),
            (0, one(strided(BF16, [6, 48])), "not dense"),
            (1, only(I8, &[3, 48, 32]), "weight is I8"),
            (1, only(BF16, &[3, 32, 48]), "weight [3, 32, 48]"),
            (1, one(nz(BF16, &[3, 48, 32])), "in NZ are not modelled"),
            (1, only(BF16, &[48, 32]), "weight [48, 32]"),
            (2, x, "is given"),
            (3, x, "scaleOptional is given"),
            (4, x, "perTokenScaleOptional is given"),
            (5, new(I64, &[2]), "groupListOptional [2]"),
            (5, new(I32, &[3]), "is I32"),
            (6, 0, "not modelled"),
            (7, 2, "not modelled"),
            (8, 1, "not modelled"),
            (9, 1, "not modelled"),
            (10, only(BF16, &[6, 48]), "out [6, 48]"),
        ],
    );
    let (x, weight) = (only(I8, &[6, 48]), only(I8, &[3, 48, 32]));
    let (scale, row_scale) = (only(BF16, &[3, 32]), only(F32, &[6]));
    breaks(
        "int8",
        &call!(grouped(x, weight, 0, scale, row_scale, ends, 3, 0, 0, 0, out)),
        &[
            (3, only(F32, &[3, 32]), "scaleOptional is F32"),
            (3, only(BF16, &[3, 48]), "scaleOptional [3, 48]"),
            (3, 0, "scaleOptional is null"),
            (4, only(F32, &[5]), "perTokenScaleOptional [5]"),
            (4, 0, "perTokenScaleOptional is null"),
        ],
    );
    let (weight, scale) = (one(nz(I8, &[3, 48, 32])), only(F32, &[3, 32]));
    breaks(
        "int8 in NZ",
        &call!(grouped(x, weight, 0, scale, row_scale, ends, 3, 0, 0, 0, out)),
        &[(3, only(BF16, &[3, 32]), "scaleOptional is Bf16"), (1, one(nz(I8, &[3, 32, 32])), "weight [3, 32, 32]")],
    );
    let many = [only(BF16, &[6, 16]), only(BF16, &[1025, 16, 1]), new(I64, &[1025]), only(BF16, &[6, 1])];
    let (mut bytes, mut executor) = (0, 0);
    let [x, weight, ends, out] = many;
    let status = grouped(x, weight, 0, 0, 0, ends, 3, 0, 0, 0, out, &raw mut bytes, &raw mut executor);
    assert_eq!(status, status::TILING, "1025 groups");
}

/// What changes of `aclnnMoeInitRoutingV3`.
#[allow(clippy::too_many_arguments, reason = "CANN's own function")]
fn sort(
    x: u64,
    ids: u64,
    active: i64,
    experts: i64,
    counts: i64,
    quant: i64,
    range: u64,
    rows: u64,
    places: u64,
    ends: u64,
    scales: u64,
    w: *mut u64,
    e: *mut u64,
) -> Status {
    aclnnMoeInitRoutingV3GetWorkspaceSize(
        x, ids, 0, 0, active, 0, experts, 0, counts, true, quant, range, 0, rows, places, ends, scales, w, e,
    )
}

#[test]
fn routing() {
    let _machine = Machine::new();
    let [x, ids] = [new(BF16, &[3, 8]), new(I32, &[3, 2])];
    let [places, ends, scales] = [new(I32, &[6]), new(I64, &[4]), new(F32, &[6])];
    let rules: [(usize, u64, &str); 12] = [
        (0, new(F32, &[3, 8]), "x is F32"),
        (0, new(BF16, &[4, 8]), "x [4, 8] and expertIdx [3, 2]"),
        (1, new(I64, &[3, 2]), "expertIdx is I64"),
        (2, 5, "not modelled"),
        (3, 5, "experts [0, 4] of 5"),
        (4, 1, "not modelled"),
        (5, 0, "quantMode 0"),
        (6, ints(&[0, 3]), "experts [0, 3] of 4"),
        (6, x, "not an array"),
        (8, new(I32, &[5]), "expandedRowIdxOut [5]"),
        (9, new(I64, &[5]), "expertTokensCountOrCumsumOut [5]"),
        (10, new(F32, &[5]), "expandedScaleOut [5]"),
    ];
    let range = ints(&[0, 4]);
    let call = call!(sort(x, ids, 6, 4, 0, -1_i64, range, new(BF16, &[6, 8]), places, ends, scales));
    breaks("bf16", &call, &rules);
    breaks("bf16", &call, &[(7, new(I8, &[6, 8]), "is I8"), (7, new(BF16, &[5, 8]), "expandedXOut [5, 8]")]);
    let call = call!(sort(x, ids, 6, 4, 0, 1, range, new(I8, &[6, 8]), places, ends, scales));
    breaks("int8", &call, &rules);
    breaks("int8", &call, &[(7, new(BF16, &[6, 8]), "is Bf16")]);
    let [rows, weights, out] = [new(BF16, &[6, 8]), new(F32, &[3, 2]), new(BF16, &[3, 8])];
    let call = call!(aclnnMoeFinalizeRoutingV2GetWorkspaceSize(rows, places, x, 0, 0, weights, ids, 2, out));
    breaks(
        "combine",
        &call,
        &[
            (0, new(BF16, &[5, 8]), "expandedX [5, 8]"),
            (1, new(I32, &[5]), "expandedRowIdx [5]"),
            (2, new(BF16, &[3, 7]), "x1Optional [3, 7]"),
            (3, x, "x2Optional is given"),
            (4, x, "biasOptional is given"),
            (5, new(F32, &[3, 3]), "expandedX"),
            (6, new(I32, &[3, 3]), "expertIdxOptional [3, 3]"),
            (7, 0, "dropPadMode 0"),
            (8, new(F32, &[3, 8]), "out is F32"),
            (8, strided(BF16, [3, 8]), "not dense"),
        ],
    );
}
