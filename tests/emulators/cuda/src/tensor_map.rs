//! Tensor maps: what the driver tells the copy engine about a matrix. Those of the real driver are opaque; here they hold
//! the words that the host's copies read (`BoxSource` in `gpu-common/kernels/host/async.h`).

use gpu_emulator::{Failure, Outcome, Status, status};

/// The first word.
const MAGIC: u64 = 0x7061_6d72_6f73_6e74;
pub(crate) const NUM_WORDS: usize = 16;
pub(crate) const NUM_BYTES: usize = 8 * NUM_WORDS;

/// `CUtensorMapDataType`, `CUtensorMapSwizzle`: the values that are modelled.
pub(crate) const UINT8: u32 = 0;
pub(crate) const SWIZZLE_128B: u32 = 3;
const SWIZZLE_BYTES: u32 = 128;
/// Limits of the driver's reference.
const MAX_BOX: u32 = 256;
const MAX_SIZE: u64 = 1 << 32;
const MAX_STRIDE: u64 = 1 << 40;
const ALIGNMENT: u64 = 16;

/// A matrix of bytes, as `cuTensorMapEncodeTiled` is told about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TiledMatrix {
    pub(crate) data_type: u32,
    pub(crate) rank: u32,
    pub(crate) address: u64,
    /// Columns and rows.
    pub(crate) sizes: [u64; 2],
    pub(crate) row_bytes: u64,
    pub(crate) box_sizes: [u32; 2],
    pub(crate) element_strides: [u32; 2],
    pub(crate) interleave: u32,
    pub(crate) swizzle: u32,
    pub(crate) fill: u32,
}

impl TiledMatrix {
    /// The map's words.
    ///
    /// # Errors
    /// What breaks a documented limit; what the limits permit and nothing here models is not supported.
    pub(crate) fn encode(&self) -> Outcome<[u64; NUM_WORDS]> {
        self.check_modelled()?;
        let Self { address, sizes, row_bytes, box_sizes, element_strides, .. } = *self;
        let [cols, rows] = sizes;
        let [box_cols, box_rows] = box_sizes;
        let rules = [
            (address % ALIGNMENT == 0, "the address is a multiple of 16"),
            (row_bytes % ALIGNMENT == 0 && row_bytes < MAX_STRIDE, "strides are multiples of 16 and below 2^40"),
            (row_bytes >= cols, "rows do not overlap"),
            (sizes.iter().all(|size| (1..=MAX_SIZE).contains(size)), "sizes are from 1 to 2^32"),
            (box_sizes.iter().all(|size| (1..=MAX_BOX).contains(size)), "sides of a box are from 1 to 256"),
            (u64::from(box_cols) % ALIGNMENT == 0, "rows of a box are multiples of 16 bytes"),
            (box_cols <= SWIZZLE_BYTES, "rows of a box are no longer than what is swizzled"),
            (element_strides.iter().all(|stride| (1..=8).contains(stride)), "strides of elements are from 1 to 8"),
        ];
        if let Some((_, rule)) = rules.iter().find(|(holds, _)| !holds) {
            return failed(status::INVALID_VALUE, rule, self);
        }
        if box_cols != SWIZZLE_BYTES || element_strides != [1, 1] {
            return failed(status::NOT_SUPPORTED, "boxes narrower than the swizzle and strides of elements", self);
        }
        let mut words = [0; NUM_WORDS];
        words[..7].copy_from_slice(&[MAGIC, address, cols, rows, row_bytes, u64::from(box_cols), u64::from(box_rows)]);
        Ok(words)
    }

    fn check_modelled(&self) -> Outcome<()> {
        let is_modelled =
            (self.data_type, self.rank, self.interleave, self.swizzle, self.fill) == (UINT8, 2, 0, SWIZZLE_128B, 0);
        if is_modelled {
            Ok(())
        } else {
            failed(status::NOT_SUPPORTED, "modelled are bytes in two dimensions, swizzled over 128 bytes", self)
        }
    }
}

fn failed<T>(status: Status, rule: &str, matrix: &TiledMatrix) -> Outcome<T> {
    Err(Failure::new(status, format!("{rule}: {matrix:x?}")))
}

/// Address and size in bytes of the matrix behind a kernel's argument, if it is a map.
pub(crate) fn matrix_behind(argument: &[u8]) -> Option<Result<(u64, u64), String>> {
    let bytes = <[u8; NUM_BYTES]>::try_from(argument).ok()?;
    let word = |i: usize| bytes[8 * i..8 * i + 8].iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
    let [magic, address, cols, rows, row_bytes] = [0, 1, 2, 3, 4].map(word);
    if magic != MAGIC {
        return Some(Err("128 bytes that are no tensor map of this driver".into()));
    }
    Some(Ok((address, (rows - 1) * row_bytes + cols)))
}
