//! Products of many FP8 rows on Hopper: which kernel, on how many blocks, with which arguments
//! (`gpu-common/kernels/hopper_gemm.cu`).

use gpu_common::{LaunchShape, WideRows, WideWeights};

use crate::cublaslt::LibraryWeight;
use crate::driver::{ByteMatrix, DriverError, TensorMap};
use crate::runtime::CudaKernel;

/// The kernels' source file.
pub(crate) const FAMILY: &str = "hopper_gemm";
/// The one architecture that they are compiled for.
pub(crate) const ARCHITECTURE: &str = "sm_90a";

/// Rows of a block's tile, smallest first.
const TILE_ROWS: [u32; 3] = [64, 128, 256];
/// Columns of a block's tile, shared among the weights (`TILE_COLS`).
const TILE_COLS: u32 = 128;
/// Bytes of k in a stage (`SWIZZLE_BYTES`), and what shared memory is rounded up to (`PATTERN_BYTES`).
const STAGE_K: u32 = 128;
const PATTERN_BYTES: u32 = 1024;
const WARPGROUP: u32 = 128;
/// Two barriers of eight bytes a stage, in two pieces of shared memory that begin at multiples of 16.
const BARRIER_BYTES: u32 = 8;
/// Results are stored 16 bytes at a time.
const COLUMN_MULTIPLE: u32 = 8;
/// What a tile costs beside its rows, in rows: filling the pipeline and storing. A guess, not measured.
const TILE_OVERHEAD: u64 = 16;

/// Weights, prepared for these kernels.
#[derive(Debug)]
pub struct CudaWide {
    kernels: [CudaKernel; TILE_ROWS.len()],
    /// One or two; where there is one it stands for both.
    weights: [TensorMap; 2],
    scales: [u64; 2],
    shape: WideWeights,
    num_weights: u32,
    library: Option<LibraryWeight>,
}

/// A launch of one kernel: the maps come before the words.
pub(crate) struct WideLaunch<'a> {
    pub(crate) kernel: &'a CudaKernel,
    pub(crate) shape: LaunchShape,
    pub(crate) maps: [TensorMap; 3],
    pub(crate) words: [u64; 14],
}

/// Names of the kernels for one or two weights.
pub(crate) fn kernel_names(num_weights: u32) -> [String; TILE_ROWS.len()] {
    let family = if num_weights == 1 { "linear" } else { "gate_up" };
    TILE_ROWS.map(|rows| format!("{family}_fp8_wgmma{rows}"))
}

/// True where the kernels can multiply with these weights.
pub(crate) fn suits(weights: &[WideWeights]) -> bool {
    let of_one_shape = |w: &WideWeights| {
        WideWeights { values: 0, scales: 0, ..*w } == WideWeights { values: 0, scales: 0, ..weights[0] }
    };
    matches!(weights.len(), 1 | 2)
        && weights.iter().all(of_one_shape)
        && weights[0].n.is_multiple_of(COLUMN_MULTIPLE)
        // Rows of the copied matrix are signed numbers.
        && u64::from(weights[0].n) * u64::from(weights[0].count) <= i32::MAX as u64
}

/// Rows of the tiles of matrices that have about `rows_per_matrix` rows each: none is larger than needed.
pub(crate) fn tile_rows(rows_per_matrix: u32) -> u32 {
    if rows_per_matrix <= TILE_ROWS[0] { TILE_ROWS[0] } else { TILE_ROWS[1] }
}

impl CudaWide {
    /// `weights` are what [`suits`] accepts.
    pub(crate) fn new(
        kernels: [CudaKernel; TILE_ROWS.len()],
        weights: &[WideWeights],
        library: Option<LibraryWeight>,
    ) -> Result<Self, DriverError> {
        let num_weights = weights.len() as u32;
        let map = |w: &WideWeights| {
            TensorMap::new(&ByteMatrix {
                address: w.values,
                rows: u64::from(w.n) * u64::from(w.count),
                cols: u64::from(w.k),
                row_bytes: u64::from(w.row_bytes),
                box_rows: TILE_COLS / num_weights,
            })
        };
        let (first, last) = (weights[0], weights[weights.len() - 1]);
        Ok(Self {
            kernels,
            weights: [map(&first)?, map(&last)?],
            scales: [first.scales, last.scales],
            shape: first,
            num_weights,
            library,
        })
    }

    /// The weight as NVIDIA's library takes it, where that is used.
    pub(crate) fn library(&self) -> Option<&LibraryWeight> {
        self.library.as_ref()
    }

    /// What to launch for these rows on a device of `num_multiprocessors`.
    pub(crate) fn launch(&self, rows: &WideRows, num_multiprocessors: u32) -> Result<WideLaunch<'_>, DriverError> {
        let col_tiles = rows.out_cols.div_ceil(TILE_COLS / self.num_weights);
        let which = match &rows.experts {
            Some(experts) => {
                TILE_ROWS.iter().position(|tile| *tile >= experts.tile_rows).unwrap_or(TILE_ROWS.len() - 1)
            }
            None => best_tile(rows.num_rows, col_tiles, num_multiprocessors),
        };
        let tile_rows = TILE_ROWS[which];
        let row_tiles = rows.experts.map_or(rows.num_rows.div_ceil(tile_rows), |experts| experts.num_tiles);
        let x = TensorMap::new(&ByteMatrix {
            address: rows.codes,
            rows: u64::from(rows.num_rows),
            cols: u64::from(self.shape.k),
            row_bytes: u64::from(rows.stride),
            box_rows: tile_rows,
        })?;
        let WideWeights { n, k, .. } = self.shape;
        let matrix_scales = n.div_ceil(STAGE_K) * k.div_ceil(STAGE_K);
        let [tiles, scatter] = rows.experts.map_or([0; 2], |experts| [experts.tiles, experts.scatter]);
        let [gate_scales, up_scales] = self.scales;
        let numbers = [rows.num_rows, row_tiles, n, k, matrix_scales, rows.out_cols, rows.out_stride];
        let [num_rows, row_tiles_word, n, k, matrix_scales, out_cols, out_stride] = numbers.map(u64::from);
        Ok(WideLaunch {
            kernel: &self.kernels[which],
            shape: LaunchShape::linear((row_tiles * col_tiles).min(num_multiprocessors), num_threads(tile_rows))
                .with_shared(shared_bytes(tile_rows)),
            maps: [x, self.weights[0], self.weights[1]],
            words: [
                rows.scales,
                gate_scales,
                up_scales,
                rows.out,
                tiles,
                scatter,
                num_rows,
                row_tiles_word,
                n,
                k,
                matrix_scales,
                out_cols,
                out_stride,
                u64::from(rows.out_is_f32),
            ],
        })
    }
}

/// The tile whose blocks have the least to do one after the other; the largest of equals, which reads least.
fn best_tile(num_rows: u32, col_tiles: u32, num_multiprocessors: u32) -> usize {
    let cost = |rows: u32| {
        let num_tiles = u64::from(num_rows.div_ceil(rows)) * u64::from(col_tiles);
        num_tiles.div_ceil(u64::from(num_multiprocessors)) * (u64::from(rows) + TILE_OVERHEAD)
    };
    let costs = TILE_ROWS.map(cost);
    (0..TILE_ROWS.len()).rev().min_by_key(|which| costs[*which]).unwrap_or(0)
}

/// A warpgroup that copies, and one or two that multiply.
fn num_threads(tile_rows: u32) -> u32 {
    (if tile_rows == 64 { 2 } else { 3 }) * WARPGROUP
}

/// The ring of stages, what aligns it, and two barriers a stage.
fn shared_bytes(tile_rows: u32) -> u32 {
    let stages = if tile_rows == 256 { 4 } else { 6 };
    stages * (tile_rows + TILE_COLS) * STAGE_K + PATTERN_BYTES + 2 * (stages * BARRIER_BYTES).next_multiple_of(16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::{self, IMAGES};

    #[test]
    fn the_image_has_the_kernels_that_are_asked_for_and_no_others() {
        let asked: Vec<String> = [1, 2].into_iter().flat_map(kernel_names).collect();
        for name in &asked {
            assert!(IMAGES.kernel(FAMILY, name).is_some(), "{name}");
        }
        assert_eq!(images::num_kernels(FAMILY), asked.len());
        assert!(IMAGES.image(FAMILY, ARCHITECTURE).is_some() && IMAGES.image(FAMILY, "sm_100a").is_none());
    }

    #[test]
    fn tiles_fill_the_device() {
        // 4096 rows of 7168 columns: 896 large tiles in 7 rounds.
        assert_eq!(TILE_ROWS[best_tile(4096, 56, 132)], 256);
        // 64 rows have no use for more.
        assert_eq!(TILE_ROWS[best_tile(64, 17, 132)], 64);
        // 68 tiles of 128 rows run side by side, 34 of 256 rows would take twice as long.
        assert_eq!(TILE_ROWS[best_tile(512, 17, 132)], 128);
        assert!([64, 128, 256].into_iter().all(|rows| shared_bytes(rows) <= 227 << 10));
    }

    #[test]
    fn shapes_that_cannot_be_stored_or_counted_are_not_taken() {
        let good = WideWeights { values: 256, scales: 512, count: 1, n: 576, k: 136, row_bytes: 144 };
        assert!(suits(&[good]) && suits(&[good, WideWeights { values: 1024, ..good }]));
        assert!(!suits(&[WideWeights { n: 577, ..good }]), "rows of results that do not begin at 16 bytes");
        assert!(!suits(&[good, WideWeights { n: 584, ..good }]), "two shapes");
        assert!(!suits(&[WideWeights { n: 1 << 20, count: 1 << 12, ..good }]), "more rows than a copy counts");
    }
}
