//! What operators refuse.

use super::*;
use crate::api::descriptor::{aclCreateTensorList, aclDestroyTensor, aclDestroyTensorList};
use crate::ops::attention::aclnnRotaryPositionEmbeddingGetWorkspaceSize;
use crate::ops::elementwise::{
    aclnnIndexSelect, aclnnIndexSelectGetWorkspaceSize, aclnnInplaceCopyGetWorkspaceSize, aclnnRmsNormGetWorkspaceSize,
};
use crate::ops::moe::aclnnMoeGatingTopKGetWorkspaceSize;
use crate::ops::products::{aclnnDynamicQuantGetWorkspaceSize, aclnnMatmulGetWorkspaceSize};

/// Refused with these words, and nothing planned.
fn refused(wrong: &str, plan: impl FnOnce(*mut u64, *mut u64) -> Status) {
    let (mut bytes, mut executor) = (0, 0);
    let status = plan(&raw mut bytes, &raw mut executor);
    let said = words();
    assert!([status::INVALID, status::TILING].contains(&status) && said.contains(wrong), "{wrong}: {status} {said}");
    assert_eq!(executor, 0);
}

fn new(data_type: i32, dims: &[i64]) -> u64 {
    tensor(alloc(1024), data_type, dims)
}

#[test]
fn types_and_shapes() {
    let _machine = Machine::new();
    let (f, b) = (new(F32, &[4, 8]), new(BF16, &[4, 8]));
    refused("is F32", |w, e| aclnnDynamicQuantGetWorkspaceSize(f, 0, new(I8, &[4, 8]), new(F32, &[4]), w, e));
    refused("scaleOut", |w, e| aclnnDynamicQuantGetWorkspaceSize(b, 0, new(I8, &[4, 8]), new(F32, &[4, 1]), w, e));
    refused("F32 times Bf16", |w, e| aclnnMatmulGetWorkspaceSize(f, new(BF16, &[8, 2]), new(F32, &[4, 2]), 0, w, e));
    refused("f32 factors", |w, e| aclnnMatmulGetWorkspaceSize(f, new(F32, &[8, 2]), new(BF16, &[4, 2]), 0, w, e));
    refused("mat2", |w, e| aclnnMatmulGetWorkspaceSize(f, new(F32, &[4, 8]), new(F32, &[4, 8]), 0, w, e));
    refused("gamma is F32", |w, e| {
        aclnnRmsNormGetWorkspaceSize(b, new(F32, &[8]), 1e-6, new(BF16, &[4, 8]), new(F32, &[4, 1]), w, e)
    });
}

#[test]
fn places() {
    let _machine = Machine::new();
    let address = alloc(128);
    let x = new(F32, &[2, 8]);
    refused("no multiple of 32", |w, e| aclnnInplaceCopyGetWorkspaceSize(tensor(address + 4, F32, &[2, 8]), x, w, e));
    refused("not in one live", |w, e| aclnnInplaceCopyGetWorkspaceSize(tensor(address, F32, &[8, 8]), x, w, e));
    let over = tensor(address + 32, F32, &[2, 8]);
    refused("lies over", |w, e| aclnnInplaceCopyGetWorkspaceSize(tensor(address, F32, &[2, 8]), over, w, e));
    let (dims, strides, storage) = ([2, 8], [8, 1], [8]);
    let outside = aclCreateTensor(dims.as_ptr(), 2, F32, strides.as_ptr(), 0, 2, storage.as_ptr(), 1, address);
    refused("a storage of 8", |w, e| aclnnInplaceCopyGetWorkspaceSize(outside, x, w, e));
}

#[test]
fn limits_of_a2_and_a3() {
    let _machine = Machine::new();
    let rope = |mode| {
        let [x, cos, sin, out] = [[2, 4, 8], [2, 1, 8], [2, 1, 8], [2, 4, 8]].map(|dims| new(F32, &dims));
        move |w, e| aclnnRotaryPositionEmbeddingGetWorkspaceSize(x, cos, sin, mode, out, w, e)
    };
    refused("mode 3", rope(3));
    let gate = |experts: i64, groups: i64, mode: i64| {
        let (x, weights, ids) = (new(F32, &[1, experts]), new(F32, &[1, 2]), new(3, &[1, 2]));
        move |w, e| {
            aclnnMoeGatingTopKGetWorkspaceSize(x, 0, 2, 1, groups, mode, 0, 1, false, 1.0, 1e-20, weights, ids, 0, w, e)
        }
    };
    refused("16 experts", gate(16, 16, 0));
    refused("128 experts, 1 of 128 groups", gate(128, 128, 0));
    refused("4 experts, 1 of 2 groups", {
        let (x, weights, ids) = (new(F32, &[1, 4]), new(F32, &[1, 3]), new(3, &[1, 3]));
        move |w, e| aclnnMoeGatingTopKGetWorkspaceSize(x, 0, 3, 1, 2, 1, 0, 1, false, 1.0, 1e-20, weights, ids, 0, w, e)
    });
}

#[test]
fn indices_are_checked_when_it_runs() {
    let machine = Machine::new();
    let (x, out) = (tensor(upload(&[1.0; 16]), F32, &[2, 8]), new(F32, &[1, 8]));
    let index = tensor(upload(&[f32::from_bits(2)]), 3, &[1]);
    let (mut bytes, mut executor) = (0, 0);
    assert_eq!(aclnnIndexSelectGetWorkspaceSize(x, 0, index, out, &raw mut bytes, &raw mut executor), 0);
    assert_eq!(aclnnIndexSelect(0, 0, executor, machine.stream), 0);
    assert_eq!(machine.wait(), status::AICORE_EXCEPTION);
    assert!(words().contains("row 2 of 2"));
}

#[test]
fn a_list_owns_its_tensors() {
    let _machine = Machine::new();
    let x = new(F32, &[4]);
    let list = aclCreateTensorList(&raw const x, 1);
    assert_eq!(aclDestroyTensor(x), status::INVALID);
    assert_eq!(aclDestroyTensorList(list), 0);
    assert_eq!((aclDestroyTensor(x), aclDestroyTensorList(list)), (status::INVALID, status::INVALID));
}
