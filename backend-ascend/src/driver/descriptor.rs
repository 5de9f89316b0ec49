//! What operators take: descriptors of tensors, lists, arrays and scalars, alive until the operator is queued.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use super::AscendError;
use super::context::Context;
use super::library::Libraries;
use super::sys::types::{aclDataType, aclFormat, aclIntArray, aclScalar, aclTensor, aclTensorList};
use crate::nz;

/// Dimensions of the largest tensor there is: NZ weights of experts.
const MAX_RANK: usize = 5;

/// Element types that cross the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataType {
    F32,
    Bf16,
    I8,
    I32,
    I64,
    Bool,
}

impl DataType {
    /// Bytes of one element.
    pub(crate) fn num_bytes(self) -> usize {
        match self {
            DataType::I64 => 8,
            DataType::F32 | DataType::I32 => 4,
            DataType::Bf16 => 2,
            DataType::I8 | DataType::Bool => 1,
        }
    }

    fn code(self) -> aclDataType {
        match self {
            DataType::F32 => aclDataType::ACL_FLOAT,
            DataType::Bf16 => aclDataType::ACL_BF16,
            DataType::I8 => aclDataType::ACL_INT8,
            DataType::I32 => aclDataType::ACL_INT32,
            DataType::I64 => aclDataType::ACL_INT64,
            DataType::Bool => aclDataType::ACL_BOOL,
        }
    }
}

/// A strided view of device memory: plain data. Whoever makes one keeps the memory alive until work that uses it is done;
/// [`Allocation`](super::Allocation) waits for that before it is freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    /// Where the memory begins; a multiple of 32 bytes.
    address: u64,
    data_type: DataType,
    rank: usize,
    dims: [i64; MAX_RANK],
    strides: [i64; MAX_RANK],
    /// Elements from `address` to the first one of the view.
    offset: i64,
    /// True where the elements of the last two axes lie in NZ ([`nz`]).
    is_nz: bool,
}

impl View {
    /// Row-major and dense.
    pub(crate) fn new<const N: usize>(address: u64, data_type: DataType, dims: [usize; N]) -> Self {
        let (dims_of, strides) = ([1; MAX_RANK], [1; MAX_RANK]);
        let mut view = Self { address, data_type, rank: N, dims: dims_of, strides, offset: 0, is_nz: false };
        let mut stride = 1;
        for axis in (0..N).rev() {
            (view.dims[axis], view.strides[axis]) = (dims[axis] as i64, stride);
            stride *= dims[axis] as i64;
        }
        view
    }

    /// A weight packed in NZ, by the dimensions of what is packed: `[K, N]`, or `[E, K, N]` of experts.
    pub(crate) fn nz<const N: usize>(address: u64, data_type: DataType, dims: [usize; N]) -> Self {
        Self { is_nz: true, ..Self::new(address, data_type, dims) }
    }

    /// The same elements of a dense view in other dimensions.
    ///
    /// # Panics
    /// If this view is not dense, or has another number of elements: a bug of the op.
    pub(crate) fn reshaped<const N: usize>(self, dims: [usize; N]) -> Self {
        let view = Self { offset: self.offset, ..Self::new(self.address, self.data_type, dims) };
        assert!(self.is_dense() && view.num_elements() == self.num_elements(), "{self:?} as {dims:?}");
        view
    }

    /// Two axes exchanged.
    pub(crate) fn swapped(mut self, a: usize, b: usize) -> Self {
        self.dims.swap(a, b);
        self.strides.swap(a, b);
        self
    }

    /// `count` elements of an axis from `first` on.
    ///
    /// # Panics
    /// If the axis has fewer: a bug of the op.
    pub(crate) fn narrowed(mut self, axis: usize, first: usize, count: usize) -> Self {
        assert!((first + count) as i64 <= self.dims[axis], "{first}..{} of axis {axis} of {self:?}", first + count);
        self.offset += first as i64 * self.strides[axis];
        self.dims[axis] = count as i64;
        self
    }

    /// With an axis of one element before `axis`.
    ///
    /// # Panics
    /// If there is no room for another axis: a bug of the op.
    pub(crate) fn with_axis(mut self, axis: usize) -> Self {
        assert!(self.rank < MAX_RANK, "another axis for {self:?}");
        self.dims.copy_within(axis..self.rank, axis + 1);
        self.strides.copy_within(axis..self.rank, axis + 1);
        (self.dims[axis], self.strides[axis]) = (1, 1);
        self.rank += 1;
        self
    }

    /// The last axis in two: its elements with even numbers, then those with odd ones.
    ///
    /// # Panics
    /// If it cannot be halved or there is no room for another axis: a bug of the op.
    pub(crate) fn halves(mut self) -> Self {
        let last = self.rank - 1;
        let (dim, stride) = (self.dims[last], self.strides[last]);
        assert!(self.rank < MAX_RANK && dim % 2 == 0, "halves of {self:?}");
        (self.dims[last], self.strides[last]) = (2, stride);
        (self.dims[last + 1], self.strides[last + 1]) = (dim / 2, 2 * stride);
        self.rank += 1;
        self
    }

    /// True where [`View::nz`] made it.
    pub(crate) fn is_nz(self) -> bool {
        self.is_nz
    }

    pub(crate) fn data_type(self) -> DataType {
        self.data_type
    }

    /// Elements along an axis.
    pub(crate) fn dim(self, axis: usize) -> usize {
        self.dims[axis] as usize
    }

    fn num_elements(&self) -> i64 {
        self.dims[..self.rank].iter().product()
    }

    fn is_dense(&self) -> bool {
        let mut stride = 1;
        (0..self.rank).rev().all(|axis| {
            let as_dense = self.dims[axis] == 1 || self.strides[axis] == stride;
            stride *= self.dims[axis];
            as_dense
        })
    }

    /// Numbers that tell it from every other view.
    pub(super) fn key(self) -> [u64; 3 + 2 * MAX_RANK] {
        let mut key = [0; 3 + 2 * MAX_RANK];
        let kind = (self.data_type as u64) << 16 | (self.rank as u64) << 8 | u64::from(self.is_nz);
        key[..3].copy_from_slice(&[self.address, kind, self.offset as u64]);
        let dims = self.dims.iter().chain(&self.strides);
        key[3..].iter_mut().zip(dims).for_each(|(part, dim)| *part = *dim as u64);
        key
    }

    /// How the memory is described: its dimensions, and how many there are.
    fn storage(&self) -> ([i64; MAX_RANK], usize) {
        let mut storage = [1; MAX_RANK];
        if !self.is_nz {
            storage[0] = self.extent();
            return (storage, 1);
        }
        let batch = self.rank - 2;
        let matrix = [self.dim(batch), self.dim(batch + 1)];
        storage[..batch].copy_from_slice(&self.dims[..batch]);
        let tiles = nz::dims(matrix, self.data_type.num_bytes()).map(|dim| dim as i64);
        storage[batch..batch + tiles.len()].copy_from_slice(&tiles);
        (storage, batch + tiles.len())
    }

    /// Elements of memory that the view spans from `address` on.
    fn extent(&self) -> i64 {
        self.offset + 1 + (0..self.rank).map(|axis| (self.dims[axis] - 1) * self.strides[axis]).sum::<i64>()
    }
}

/// Owned handles; each kind is destroyed by its own function.
macro_rules! descriptor {
    ($(#[$doc:meta])* $name:ident, $handle:ident, $destroy:ident) => {
        $(#[$doc])*
        pub(super) struct $name<'a> {
            libraries: &'a Libraries,
            handle: *mut $handle,
        }

        impl<'a> $name<'a> {
            fn own(libraries: &'a Libraries, create: &'static str, handle: *mut $handle) -> Result<Self, AscendError> {
                if handle.is_null() { Err(libraries.error(create, 0)) } else { Ok(Self { libraries, handle }) }
            }

            pub(super) fn raw(&self) -> *mut $handle {
                self.handle
            }

            /// The handle, for whoever destroys it later.
            #[allow(dead_code, reason = "scalars are never kept")]
            fn release(self) -> *mut $handle {
                std::mem::ManuallyDrop::new(self).handle
            }
        }

        impl Drop for $name<'_> {
            fn drop(&mut self) {
                // SAFETY: the handle is owned by `self`; the operator that was given it is queued, or was refused.
                let status = unsafe { (self.libraries.base.$destroy)(self.handle) };
                super::report_drop(self.libraries.check(stringify!($destroy), status));
            }
        }
    };
}

descriptor!(
    /// Of a tensor.
    Tensor, aclTensor, aclDestroyTensor
);
descriptor!(
    /// Of tensors, which it owns.
    TensorList, aclTensorList, aclDestroyTensorList
);
descriptor!(
    /// Of integers, copied when it is made.
    IntArray, aclIntArray, aclDestroyIntArray
);
descriptor!(
    /// Of one f32, copied when it is made.
    Scalar, aclScalar, aclDestroyScalar
);

/// Descriptors of one call, which outlive the borrow of the libraries: a repeatable executor keeps them.
#[derive(Debug)]
pub(super) struct Descriptors {
    context: Arc<Context>,
    handles: Vec<Handle>,
}

#[derive(Debug, Clone, Copy)]
enum Handle {
    Tensor(*mut aclTensor),
    List(*mut aclTensorList),
    Integers(*mut aclIntArray),
}

impl Descriptors {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context, handles: Vec::new() }
    }

    pub(super) fn tensor(&mut self, view: View) -> Result<*mut aclTensor, AscendError> {
        let handle = self.context.libraries().tensor(view)?.release();
        self.handles.push(Handle::Tensor(handle));
        Ok(handle)
    }

    pub(super) fn list(&mut self, views: &[View]) -> Result<*mut aclTensorList, AscendError> {
        let handle = self.context.libraries().tensor_list(views)?.release();
        self.handles.push(Handle::List(handle));
        Ok(handle)
    }

    pub(super) fn integers(&mut self, values: &[i64]) -> Result<*mut aclIntArray, AscendError> {
        let handle = self.context.libraries().int_array(values)?.release();
        self.handles.push(Handle::Integers(handle));
        Ok(handle)
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        let libraries = self.context.libraries();
        for handle in self.handles.drain(..) {
            match handle {
                Handle::Tensor(handle) => drop(Tensor { libraries, handle }),
                Handle::List(handle) => drop(TensorList { libraries, handle }),
                Handle::Integers(handle) => drop(IntArray { libraries, handle }),
            }
        }
    }
}

impl Libraries {
    pub(super) fn tensor(&self, view: View) -> Result<Tensor<'_>, AscendError> {
        let (storage, storage_rank) = view.storage();
        let format = if view.is_nz { aclFormat::ACL_FORMAT_FRACTAL_NZ } else { aclFormat::ACL_FORMAT_ND };
        // SAFETY: the arrays are as long as they are said to be and are copied; the memory is used by queued work only.
        let handle = unsafe {
            (self.base.aclCreateTensor)(
                view.dims.as_ptr(),
                view.rank as u64,
                view.data_type.code(),
                view.strides.as_ptr(),
                view.offset,
                format,
                storage.as_ptr(),
                storage_rank as u64,
                view.address as *mut c_void,
            )
        };
        Tensor::own(self, "aclCreateTensor", handle)
    }

    pub(super) fn tensors<const N: usize>(&self, views: [View; N]) -> Result<[Tensor<'_>; N], AscendError> {
        let mut made = Vec::with_capacity(N);
        for view in views {
            made.push(self.tensor(view)?);
        }
        made.try_into().map_err(|_| self.error("aclCreateTensor", 0))
    }

    pub(super) fn optional_tensor(&self, view: Option<View>) -> Result<Option<Tensor<'_>>, AscendError> {
        view.map(|view| self.tensor(view)).transpose()
    }

    pub(super) fn tensor_list(&self, views: &[View]) -> Result<TensorList<'_>, AscendError> {
        let mut tensors = Vec::with_capacity(views.len());
        for view in views {
            tensors.push(self.tensor(*view)?);
        }
        let handles: Vec<*const aclTensor> = tensors.iter().map(|tensor| tensor.raw().cast_const()).collect();
        // SAFETY: as many live tensors as it is said; the list copies the array.
        let handle = unsafe { (self.base.aclCreateTensorList)(handles.as_ptr(), handles.len() as u64) };
        let list = TensorList::own(self, "aclCreateTensorList", handle)?;
        // The list destroys its tensors.
        tensors.into_iter().for_each(std::mem::forget);
        Ok(list)
    }

    pub(super) fn int_array(&self, values: &[i64]) -> Result<IntArray<'_>, AscendError> {
        // SAFETY: as many values as it is said; they are copied.
        let handle = unsafe { (self.base.aclCreateIntArray)(values.as_ptr(), values.len() as u64) };
        IntArray::own(self, "aclCreateIntArray", handle)
    }

    pub(super) fn scalar(&self, mut value: f32) -> Result<Scalar<'_>, AscendError> {
        // SAFETY: one value of the type that is named; it is copied.
        let handle = unsafe { (self.base.aclCreateScalar)((&raw mut value).cast(), aclDataType::ACL_FLOAT) };
        Scalar::own(self, "aclCreateScalar", handle)
    }
}

/// The handle of something that may be left out.
pub(super) fn raw_or_null(tensor: Option<&Tensor<'_>>) -> *mut aclTensor {
    tensor.map_or(ptr::null_mut(), Tensor::raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_know_what_they_span() {
        let whole = View::new(64, DataType::Bf16, [4, 6]);
        assert_eq!((whole.extent(), whole.is_dense()), (24, true));
        let columns = whole.narrowed(1, 4, 2);
        assert_eq!((columns.offset, columns.extent(), columns.is_dense()), (4, 24, false));
        let transposed = whole.swapped(0, 1);
        assert_eq!((transposed.dims, transposed.strides), ([6, 4, 1, 1, 1], [1, 6, 1, 1, 1]));
        assert_eq!(whole.reshaped([2, 2, 6]).strides, [12, 6, 1, 1, 1]);
        let inserted = columns.with_axis(1);
        assert_eq!((inserted.dims, inserted.strides, inserted.extent()), ([4, 1, 2, 1, 1], [6, 1, 1, 1, 1], 24));
        let halves = whole.halves();
        assert_eq!((halves.dims, halves.strides, halves.extent()), ([4, 2, 3, 1, 1], [6, 1, 2, 1, 1], 24));
        let last_rows = whole.narrowed(0, 2, 2);
        assert_eq!((last_rows.is_dense(), last_rows.reshaped([12]).offset), (true, 12));
    }

    #[test]
    fn packed_weights_say_how_they_lie() {
        assert_eq!(View::new(64, DataType::I8, [4, 6]).storage(), ([24, 1, 1, 1, 1], 1));
        assert_eq!(View::nz(64, DataType::I8, [7168, 1536]).storage(), ([48, 448, 16, 32, 1], 4));
        assert_eq!(View::nz(64, DataType::Bf16, [8, 64, 32]).storage(), ([8, 2, 4, 16, 16], 5));
    }

    #[test]
    #[should_panic(expected = "of axis 1")]
    fn a_view_ends_where_its_memory_does() {
        View::new(64, DataType::F32, [4, 6]).narrowed(1, 4, 3);
    }
}
