//! Tensor maps, and the limits that the driver's reference names for them.

use super::*;
use crate::api::tensor_map::cuTensorMapEncodeTiled;
use crate::config::PROFILES;
use crate::tensor_map::{NUM_WORDS, SWIZZLE_128B, TiledMatrix, UINT8, matrix_behind};

#[repr(C, align(64))]
struct Map([u64; NUM_WORDS]);

fn good() -> TiledMatrix {
    TiledMatrix {
        data_type: UINT8,
        rank: 2,
        address: 0x1000,
        sizes: [136, 576],
        row_bytes: 144,
        box_sizes: [128, 64],
        element_strides: [1, 1],
        interleave: 0,
        swizzle: SWIZZLE_128B,
        fill: 0,
    }
}

fn encode(matrix: TiledMatrix, to: *mut [u64; NUM_WORDS]) -> Status {
    let TiledMatrix {
        data_type,
        rank,
        address,
        sizes,
        row_bytes,
        box_sizes,
        element_strides,
        interleave,
        swizzle,
        fill,
    } = matrix;
    let (sizes, strides) = (sizes.as_ptr(), [row_bytes]);
    let (box_sizes, element_strides) = (box_sizes.as_ptr(), element_strides.as_ptr());
    cuTensorMapEncodeTiled(
        to,
        data_type,
        rank,
        address,
        sizes,
        strides.as_ptr(),
        box_sizes,
        element_strides,
        interleave,
        swizzle,
        0,
        fill,
    )
}

#[test]
fn a_map_tells_where_its_matrix_lies() {
    let _machine = Machine::new();
    let mut map = Map([0; NUM_WORDS]);
    assert_eq!(encode(good(), &raw mut map.0), status::SUCCESS);
    let bytes: Vec<u8> = map.0.iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(matrix_behind(&bytes), Some(Ok((0x1000, 575 * 144 + 136))));
    assert!(matrix_behind(&[0; 128]).unwrap().is_err());
    assert_eq!(matrix_behind(&[0; 8]), None);
}

#[test]
fn documented_limits_are_kept() {
    let _machine = Machine::new();
    let mut map = Map([0; NUM_WORDS]);
    for (what, matrix) in [
        ("address", TiledMatrix { address: 0x1008, ..good() }),
        ("stride", TiledMatrix { row_bytes: 136, ..good() }),
        ("overlap", TiledMatrix { row_bytes: 128, ..good() }),
        ("size 0", TiledMatrix { sizes: [136, 0], ..good() }),
        ("size", TiledMatrix { sizes: [136, (1 << 32) + 1], ..good() }),
        ("box 0", TiledMatrix { box_sizes: [128, 0], ..good() }),
        ("box", TiledMatrix { box_sizes: [128, 257], ..good() }),
        ("box row", TiledMatrix { box_sizes: [120, 64], ..good() }),
        ("swizzle", TiledMatrix { box_sizes: [144, 64], ..good() }),
        ("element stride", TiledMatrix { element_strides: [1, 9], ..good() }),
    ] {
        assert_eq!(encode(matrix, &raw mut map.0), status::INVALID_VALUE, "{what}");
    }
    let unaligned = (&raw mut map.0).cast::<u64>().wrapping_add(1).cast();
    assert_eq!(encode(good(), unaligned), status::INVALID_VALUE, "the map itself");
}

#[test]
fn what_is_not_modelled_is_not_supported() {
    let mut map = Map([0; NUM_WORDS]);
    {
        let _machine = Machine::new();
        for matrix in [
            TiledMatrix { rank: 3, ..good() },
            TiledMatrix { data_type: 1, ..good() },
            TiledMatrix { swizzle: 2, ..good() },
            TiledMatrix { box_sizes: [64, 64], ..good() },
        ] {
            assert_eq!(encode(matrix, &raw mut map.0), status::NOT_SUPPORTED, "{matrix:?}");
        }
    }
    for gpu in [PROFILES[0], PROFILES[1]] {
        let _machine = Machine::with(Config { gpu, ..default_config() });
        assert_eq!(encode(good(), &raw mut map.0), status::NOT_SUPPORTED, "{}", gpu.name);
    }
}
