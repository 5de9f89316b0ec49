//! Descriptions of matrices for the copy engine of Hopper (TMA).

use std::ffi::c_void;
use std::ptr;

use cudarc::driver::sys::{
    self, CUtensorMap, CUtensorMapDataType, CUtensorMapFloatOOBfill, CUtensorMapInterleave, CUtensorMapL2promotion,
    CUtensorMapSwizzle,
};

use super::{DriverError, check};

/// Bytes of a row that are copied at once: the span of the swizzle that the kernels read.
pub(crate) const BOX_BYTES: u32 = 128;

/// A matrix of bytes in device memory, and how many rows are copied of it at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteMatrix {
    /// A multiple of 16.
    pub(crate) address: u64,
    pub(crate) rows: u64,
    pub(crate) cols: u64,
    /// From row to row, a multiple of 16.
    pub(crate) row_bytes: u64,
    /// At most 256.
    pub(crate) box_rows: u32,
}

/// What a kernel gets of it: 128 opaque bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TensorMap(CUtensorMap);

impl TensorMap {
    /// Describes a matrix. The memory need not be there yet; what kernels do with it is the launcher's promise.
    pub(crate) fn new(matrix: &ByteMatrix) -> Result<Self, DriverError> {
        let ByteMatrix { address, rows, cols, row_bytes, box_rows } = *matrix;
        let mut map = CUtensorMap { opaque: [0; 16] };
        let (sizes, strides) = ([cols, rows], [row_bytes]);
        let (box_sizes, element_strides) = ([BOX_BYTES, box_rows], [1_u32; 2]);
        // SAFETY: all arrays have an entry per dimension (one fewer for the strides) and outlive the call, which copies
        // them; the result goes to a map that does too. The address is stored, not read.
        let status = unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT8,
                sizes.len() as u32,
                ptr::without_provenance_mut::<c_void>(address as usize),
                sizes.as_ptr(),
                strides.as_ptr(),
                box_sizes.as_ptr(),
                element_strides.as_ptr(),
                CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        check("cuTensorMapEncodeTiled", status)?;
        Ok(Self(map))
    }

    pub(super) fn as_argument(&self) -> *mut c_void {
        ptr::from_ref(&self.0).cast_mut().cast()
    }
}
