//! Rules of the functions that are no operators, and of numbers that operators meet when they run.

use super::*;
use crate::api::descriptor::{aclCreateTensorList, aclDestroyIntArray, aclDestroyScalar, aclDestroyTensor};
use crate::api::memory::{aclrtFreeHost, aclrtGetMemInfo, aclrtMallocHost};
use crate::api::runtime::{aclrtGetDeviceCount, aclrtSetCurrentContext, aclrtSynchronizeDevice};
use crate::ops::elementwise::{
    aclnnEmbedding, aclnnEmbeddingGetWorkspaceSize, aclnnGather, aclnnGatherGetWorkspaceSize,
};
use crate::ops::fused_experts::{
    aclnnGroupedMatmulSwigluQuantWeightNZ, aclnnGroupedMatmulSwigluQuantWeightNZGetWorkspaceSize,
};

#[test]
fn the_runtime_is_initialised_once_and_devices_are_counted() {
    let machine = Machine::new();
    assert_eq!(aclInit(c"acl.json".as_ptr()), status::PARAM_INVALID);
    assert_eq!(aclInit(std::ptr::null()), status::REPEAT_INITIALIZE);
    let mut context = 0;
    for device in [1, -1] {
        assert_eq!(aclrtCreateContext(&raw mut context, device), status::PARAM_INVALID, "{device}");
    }
    assert_eq!(aclrtSetCurrentContext(machine.stream), status::PARAM_INVALID);
    assert_eq!(aclrtSynchronizeStream(machine.context), status::STREAM_CONTEXT);
    assert_eq!(aclrtCreateStream(std::ptr::null_mut()), status::PARAM_INVALID, "nowhere to answer");
    let config = Config { common: Common { num_devices: 0, ..Common::default() }, ..Config::default() };
    machine::replace(config);
    let mut count = 7;
    assert_eq!(aclrtGetDeviceCount(&raw mut count), status::UNINITIALIZED);
    assert_eq!(aclrtSynchronizeDevice(), status::UNINITIALIZED);
    assert_eq!(aclInit(std::ptr::null()), 0);
    assert_eq!((aclrtGetDeviceCount(&raw mut count), count), (status::NO_DEVICE, 7));
}

#[test]
fn memory_is_asked_for_in_known_ways() {
    let _machine = Machine::new();
    let (mut address, mut free, mut total) = (0, 0, 0);
    assert_eq!(aclrtMalloc(&raw mut address, 64, 3), status::PARAM_INVALID, "a policy");
    assert_eq!(aclrtGetMemInfo(2, &raw mut free, &raw mut total), status::PARAM_INVALID, "an attribute");
    assert_eq!(aclrtGetMemInfo(1, &raw mut free, &raw mut total), 0);
    assert_eq!(free, total);
    alloc(64);
    assert_eq!(aclrtGetMemInfo(1, &raw mut free, &raw mut total), 0);
    assert_eq!(total - free, 64);
    let pinned: u64 = get(|to| aclrtMallocHost(to, 64));
    assert_eq!(aclrtMemcpy(pinned, 0, pinned, 0, 1), status::PARAM_INVALID, "nothing");
    assert_eq!((aclrtFreeHost(pinned), aclrtFreeHost(pinned)), (0, status::PARAM_INVALID));
}

/// Dimensions, type, strides, offset, format, storage.
type Parts<'a> = (&'a [i64], i32, &'a [i64], i64, i32, &'a [i64]);

fn create((dims, data_type, strides, offset, format, storage): Parts<'_>) -> u64 {
    let (rank, storage_rank) = (dims.len() as u64, storage.len() as u64);
    aclCreateTensor(
        dims.as_ptr(),
        rank,
        data_type,
        strides.as_ptr(),
        offset,
        format,
        storage.as_ptr(),
        storage_rank,
        alloc(4096),
    )
}

#[test]
fn descriptors_are_those_that_are_modelled() {
    let _machine = Machine::new();
    let tiles: &[i64] = &[1, 2, 16, 32];
    assert_ne!(create((&[4, 8], F32, &[8, 1], 0, 2, &[32])), 0);
    assert_ne!(create((&[32, 32], I8, &[32, 1], 0, 29, tiles)), 0);
    let nine: &[i64] = &[1; 9];
    let wrong: [(Parts<'_>, &str); 9] = [
        ((nine, F32, nine, 0, 2, &[1]), "9 dimensions"),
        ((&[4, 8], 1, &[8, 1], 0, 2, &[32]), "type 1"),
        ((&[4, 8], F32, &[8, 1], 0, 47, &[32]), "format 47"),
        ((&[4, -8], F32, &[8, 1], 0, 2, &[32]), "dimensions [4, -8]"),
        ((&[4, 8], F32, &[-8, 1], 0, 2, &[32]), "strides [-8, 1]"),
        ((&[4, 8], F32, &[8, 1], -1, 2, &[32]), "offset -1"),
        ((&[32, 32], I8, &[32, 1], 0, 29, &[1024]), "in NZ, expected [1, 2, 16, 32]"),
        ((&[32, 32], I8, &[1, 32], 0, 29, tiles), "in NZ"),
        ((&[32, 32], I8, &[32, 1], 32, 29, tiles), "in NZ"),
    ];
    for (parts, expected) in wrong {
        assert_eq!(create(parts), 0, "{expected}");
        let said = words();
        assert!(said.contains(expected), "{said}, not {expected}");
    }
    assert_eq!(aclCreateScalar(&raw const TWO, BF16), 0);
    assert_eq!(aclCreateScalar(std::ptr::null(), F32), 0);
    let x = tensor(alloc(32), F32, &[8]);
    assert_eq!(
        (aclDestroyIntArray(x), aclDestroyScalar(x), aclDestroyTensor(x)),
        (status::INVALID, status::INVALID, 0)
    );
    assert_eq!(aclCreateTensorList(&raw const x, 1), 0, "of a tensor that is gone");
}

/// Runs what was planned, and gives what its numbers were refused with.
fn runs(machine: &Machine, planned: Status, queued: Status, expected: &str) {
    assert_eq!((planned, queued), (0, 0), "{}", words());
    assert_eq!(machine.wait(), status::AICORE_EXCEPTION, "{expected}");
    let said = words();
    assert!(said.contains(expected), "{said}, not {expected}");
}

fn ids(values: &[i32]) -> u64 {
    let values: Vec<f32> = values.iter().map(|value| f32::from_bits(*value as u32)).collect();
    tensor(upload(&values), 3, &[values.len() as i64])
}

#[test]
fn rows_and_columns_exist() {
    for id in [2, -1] {
        let machine = Machine::new();
        let (x, out) = (tensor(upload(&[1.0; 16]), F32, &[2, 8]), tensor(alloc(32), F32, &[1, 8]));
        let (mut bytes, mut executor) = (0, 0);
        let planned = aclnnEmbeddingGetWorkspaceSize(x, ids(&[id]), out, &raw mut bytes, &raw mut executor);
        runs(&machine, planned, aclnnEmbedding(0, 0, executor, machine.stream), &format!("row {id} of 2"));
    }
    let machine = Machine::new();
    let x = tensor(upload(&[1.0; 16]), F32, &[2, 8]);
    let index = tensor(upload(&[f32::from_bits(8), 0.0]), 3, &[2, 1]);
    let out = tensor(alloc(32), F32, &[2, 1]);
    let (mut bytes, mut executor) = (0, 0);
    let planned = aclnnGatherGetWorkspaceSize(x, 1, index, out, &raw mut bytes, &raw mut executor);
    runs(&machine, planned, aclnnGather(0, 0, executor, machine.stream), "column 8 of 8");
}

#[test]
fn ends_of_experts_rise_within_the_rows() {
    for ends in [[2_i64, 1], [0, 3], [-1, 2]] {
        let machine = Machine::new();
        let address = alloc(32);
        assert_eq!(aclrtMemcpy(address, 16, ends.as_ptr() as u64, 16, 1), 0);
        let ends_of = tensor(address, 9, &[2]);
        let (x, x_scale) = (tensor(alloc(32), I8, &[2, 16]), tensor(alloc(32), F32, &[2]));
        let weight = create((&[2, 16, 32], I8, &[512, 32, 1], 0, 29, &[2, 1, 1, 16, 32]));
        let w_scale = tensor(alloc(256), F32, &[2, 32]);
        let (out, out_scale) = (tensor(alloc(32), I8, &[2, 16]), tensor(alloc(32), F32, &[2]));
        let (mut bytes, mut executor) = (0, 0);
        let planned = aclnnGroupedMatmulSwigluQuantWeightNZGetWorkspaceSize(
            x,
            weight,
            0,
            0,
            w_scale,
            x_scale,
            ends_of,
            out,
            out_scale,
            0,
            &raw mut bytes,
            &raw mut executor,
        );
        let room = alloc(bytes as usize);
        let queued = aclnnGroupedMatmulSwigluQuantWeightNZ(room, bytes, executor, machine.stream);
        runs(&machine, planned, queued, &format!("groupList {ends:?} over 2 rows"));
    }
}
