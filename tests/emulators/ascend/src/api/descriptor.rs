//! Descriptors: tensors, lists, arrays, scalars. Those that create answer null where they refuse.

use super::{answer, entries, read_all, write};
use crate::abi::{FORMAT_ND, FORMAT_NZ, Status};
use crate::machine::{Kind, Machine, Outcome};
use crate::operator::{invalid, make_repeatable, require};
use crate::tensor::{DataType, Descriptor, View};

/// Most dimensions of a tensor.
const MAX_RANK: u64 = 8;

/// Runs a function that creates a descriptor.
fn create(name: &str, mut body: impl FnMut(&mut Machine) -> Outcome<Descriptor>) -> u64 {
    let mut handle = 0;
    let _: Status = answer(name, |machine| {
        let descriptor = body(machine)?;
        let new = machine.new_handle(Kind::Descriptor);
        machine.descriptors.insert(new, descriptor);
        write(&raw mut handle, new)
    });
    handle
}

fn destroy(machine: &mut Machine, handle: u64, is_kind: impl Fn(&Descriptor) -> bool) -> Outcome<Descriptor> {
    let found = machine.descriptors.get(&handle).filter(|found| is_kind(found)).cloned();
    let found = found.ok_or_else(|| invalid(format!("{handle:#x} is no live descriptor of this kind")))?;
    require(!machine.listed.contains(&handle), || "a tensor that belongs to a list, which destroys it".into())?;
    machine.descriptors.remove(&handle);
    Ok(found)
}

// SAFETY: the name is that of CANN's function, with its parameters.
#[unsafe(no_mangle)]
#[allow(non_snake_case, clippy::too_many_arguments, reason = "CANN's own function")]
pub(crate) extern "C" fn aclCreateTensor(
    dims: *const i64,
    rank: u64,
    data_type: i32,
    strides: *const i64,
    offset: i64,
    format: i32,
    storage: *const i64,
    storage_rank: u64,
    address: u64,
) -> u64 {
    create("aclCreateTensor", |_| {
        require(rank <= MAX_RANK && storage_rank <= MAX_RANK, || format!("{rank} dimensions"))?;
        let sizes = |what: &str, from, count| -> Outcome<Vec<usize>> {
            let values = read_all(what, from, count)?;
            let sizes = values.iter().map(|value| usize::try_from(*value).ok()).collect::<Option<_>>();
            sizes.ok_or_else(|| invalid(format!("{what} {values:?}")))
        };
        require([FORMAT_ND, FORMAT_NZ].contains(&format), || format!("format {format} is not modelled"))?;
        let data_type = DataType::from_code(data_type).ok_or_else(|| invalid(format!("type {data_type}")))?;
        let view = View {
            data_type,
            dims: sizes("dimensions", dims, rank)?,
            strides: sizes("strides", strides, rank)?,
            offset: usize::try_from(offset).map_err(|_| invalid(format!("offset {offset}")))?,
            storage: sizes("storage", storage, storage_rank)?,
            address,
            is_nz: format == FORMAT_NZ,
        };
        if view.is_nz {
            require(view.dims.len() >= 2 && view.is_dense() && view.offset == 0, || format!("{view:?} in NZ"))?;
            require(view.storage == view.nz_storage(), || {
                format!("a storage {:?} of {:?} in NZ, expected {:?}", view.storage, view.dims, view.nz_storage())
            })?;
        }
        Ok(Descriptor::Tensor(view))
    })
}

// SAFETY: as above.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "CANN's own name")]
pub(crate) extern "C" fn aclCreateTensorList(tensors: *const u64, count: u64) -> u64 {
    create("aclCreateTensorList", |machine| {
        let handles = read_all("tensors", tensors, count)?;
        for handle in &handles {
            let is_tensor = matches!(machine.descriptors.get(handle), Some(Descriptor::Tensor(_)));
            require(is_tensor, || format!("{handle:#x} is no live tensor"))?;
        }
        machine.listed.extend(&handles);
        Ok(Descriptor::TensorList(handles))
    })
}

// SAFETY: as above.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "CANN's own name")]
pub(crate) extern "C" fn aclCreateIntArray(values: *const i64, count: u64) -> u64 {
    create("aclCreateIntArray", |_| Ok(Descriptor::IntArray(read_all("values", values, count)?)))
}

// SAFETY: as above.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "CANN's own name")]
pub(crate) extern "C" fn aclCreateScalar(value: *const f32, data_type: i32) -> u64 {
    create("aclCreateScalar", |_| {
        require(data_type == 0, || format!("scalars of type {data_type} are not modelled"))?;
        let value = read_all("value", value, 1)?;
        Ok(Descriptor::Scalar(f64::from(value[0])))
    })
}

entries! {
    fn aclDestroyTensor(machine, tensor: u64) {
        destroy(machine, tensor, |found| matches!(found, Descriptor::Tensor(_))).map(|_| ())
    }

    fn aclDestroyTensorList(machine, list: u64) {
        let list = destroy(machine, list, |found| matches!(found, Descriptor::TensorList(_)))?;
        if let Descriptor::TensorList(tensors) = list {
            tensors.iter().for_each(|tensor| {
                machine.listed.remove(tensor);
                machine.descriptors.remove(tensor);
            });
        }
        Ok(())
    }

    fn aclDestroyIntArray(machine, array: u64) {
        destroy(machine, array, |found| matches!(found, Descriptor::IntArray(_))).map(|_| ())
    }

    fn aclDestroyScalar(machine, scalar: u64) {
        destroy(machine, scalar, |found| matches!(found, Descriptor::Scalar(_))).map(|_| ())
    }

    fn aclSetAclOpExecutorRepeatable(machine, executor: u64) {
        make_repeatable(machine, executor)
    }

    fn aclDestroyAclOpExecutor(machine, executor: u64) {
        require(machine.executors.remove(&executor).is_some(), || format!("{executor:#x} is no live executor"))
    }
}
