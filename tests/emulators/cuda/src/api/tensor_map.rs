//! Tensor maps.

use gpu_emulator::{Failure, entries, read_at, status, write};

use crate::config::Cuda;
use crate::tensor_map::{NUM_WORDS, TiledMatrix};

/// First compute capability with a copy engine for boxes, times ten.
const FIRST_WITH_MAPS: u32 = 90;
/// Bytes to which a map is aligned.
const MAP_ALIGNMENT: usize = 64;

entries! {
    Cuda;

    fn cuTensorMapEncodeTiled(
        driver,
        map: *mut [u64; NUM_WORDS],
        data_type: u32,
        rank: u32,
        address: u64,
        sizes: *const u64,
        strides: *const u64,
        box_sizes: *const u32,
        element_strides: *const u32,
        interleave: u32,
        swizzle: u32,
        _l2_promotion: u32,
        fill: u32,
    ) {
        driver.check_initialised()?;
        if driver.config.gpu.compute_capability < FIRST_WITH_MAPS {
            return Err(Failure::new(status::NOT_SUPPORTED, "devices before sm_90 have no tensor maps"));
        }
        if !(map as usize).is_multiple_of(MAP_ALIGNMENT) {
            return Err(Failure::new(status::INVALID_VALUE, "a map that is not aligned to 64 bytes"));
        }
        let matrix = TiledMatrix {
            data_type,
            rank,
            address,
            sizes: [read_at(sizes, 0)?, read_at(sizes, 1)?],
            row_bytes: read_at(strides, 0)?,
            box_sizes: [read_at(box_sizes, 0)?, read_at(box_sizes, 1)?],
            element_strides: [read_at(element_strides, 0)?, read_at(element_strides, 1)?],
            interleave,
            swizzle,
            fill,
        };
        write(map, matrix.encode()?)
    }
}
