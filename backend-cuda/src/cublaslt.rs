//! NVIDIA's own products of FP8 blocks (cuBLASLt) in place of [`wide`](crate::wide)'s, for those who ask for them.
//!
//! They are no part of what this backend needs: the library is half a gigabyte, multiplies FP8 in blocks of 128 on Hopper
//! alone, and may be missing or too old. Then the reason has a type, and our own kernels run.
//!
//! The library takes the scales of activations column by column, so they are transposed before each product, and rows in
//! fours: what is left over, three rows at most, our own kernels multiply. Scales of weights are given for a multiple of four
//! blocks of k; where there are fewer, a padded copy is made while loading. Sizes of k that are no multiple of 16 are those of
//! the stored rows, whose padding is zeros on both sides.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use engine_core::backend::{PrepareError, StepError};
use gpu_common::{Arg, GpuRuntime as _, LaunchShape, WideRows, WideWeights};

use crate::driver::Context;
use crate::driver::cublaslt::{
    Algorithm, BlockOperands, BlockProduct, FILES, LibraryAbsence, LibraryError, ProductLibrary, Products,
    WORKSPACE_BYTES,
};
use crate::runtime::{CudaBuffer, CudaKernel, CudaRuntime, CudaStream};
use crate::wide;

/// First version with scales of FP8 blocks: 12.9.0.
const MIN_VERSION: usize = 120_900;
/// Values that share a scale, and rows of W that do.
const BLOCK: u32 = 128;
/// Rows of x, and blocks of k of W's scales, come in fours.
const FOUR: u32 = 4;
/// The kernel that puts scales in the library's order, and its source file.
pub(crate) const FAMILY: &str = "scales";
const KERNEL: &str = "arrange_scales";
const THREADS: u32 = 256;
/// Rows for which the library is asked, while loading, whether it has anything for a weight.
const TRIAL_ROWS: u32 = 64;

/// Which kernels multiply the rows of prompts (64 and more) with FP8 weights on Hopper. Gated pairs of weights and experts
/// have our own in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PromptProducts {
    /// Our own.
    #[default]
    Own,
    /// NVIDIA's cuBLASLt, if it can be used.
    CublasLt,
}

/// Why cuBLASLt is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CublasLtReason {
    /// Nobody asked for it.
    NotAsked,
    /// It has products of FP8 blocks for Hopper only; the images' architecture of this device.
    OtherDevice(&'static str),
    /// The library is missing.
    NoLibrary,
    /// It lacks a function.
    MissingFunction(&'static str),
    /// It is older than its products of FP8 blocks; as it counts versions (120900 is 12.9.0).
    OldVersion(usize),
    /// It does not start; its words.
    Failed(String),
}

impl std::fmt::Display for CublasLtReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotAsked => write!(f, "cuBLASLt was not asked for"),
            Self::OtherDevice(architecture) => {
                write!(f, "cuBLASLt multiplies blocks of FP8 on sm_90a only, and this device is {architecture}")
            }
            Self::NoLibrary => {
                write!(f, "no cuBLASLt: none of {} can be loaded; install CUDA 12.9 or later", FILES.join(", "))
            }
            Self::MissingFunction(name) => {
                write!(f, "cuBLASLt has no function {name}; install CUDA 12.9 or later")
            }
            Self::OldVersion(found) => write!(
                f,
                "cuBLASLt is version {}, needed is {}; install CUDA 12.9 or later",
                version_text(*found),
                version_text(MIN_VERSION)
            ),
            Self::Failed(words) => write!(f, "cuBLASLt does not start: {words}; check that it suits the driver"),
        }
    }
}

/// `12.9.0`.
fn version_text(version: usize) -> String {
    format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
}

/// The library on one device, and what it has answered.
#[derive(Debug)]
pub struct CublasLt {
    products: Products,
    version: usize,
    /// Asked once for each product: `None` where the library has nothing for it. As many as there are shapes of weights,
    /// times the numbers of rows that steps have had.
    algorithms: Mutex<HashMap<BlockProduct, Option<Algorithm>>>,
    num_products: AtomicU64,
}

impl CublasLt {
    /// Opens the library, for a device with images of this architecture.
    pub(crate) fn open(
        asked: PromptProducts,
        (context, architecture): (&Arc<Context>, &'static str),
    ) -> Result<Self, CublasLtReason> {
        match asked {
            PromptProducts::Own => return Err(CublasLtReason::NotAsked),
            PromptProducts::CublasLt if architecture != wide::ARCHITECTURE => {
                return Err(CublasLtReason::OtherDevice(architecture));
            }
            PromptProducts::CublasLt => {}
        }
        let library = ProductLibrary::open().map_err(|absence| match absence {
            LibraryAbsence::Library => CublasLtReason::NoLibrary,
            LibraryAbsence::Symbol(name) => CublasLtReason::MissingFunction(name),
        })?;
        let version = library.version();
        if version < MIN_VERSION {
            return Err(CublasLtReason::OldVersion(version));
        }
        let products = library.on(context).map_err(|error| CublasLtReason::Failed(error.to_string()))?;
        Ok(Self { products, version, algorithms: Mutex::default(), num_products: AtomicU64::new(0) })
    }

    /// The library's version: `12.9.0`.
    pub fn version(&self) -> String {
        version_text(self.version)
    }

    /// Products that it was given since the device was opened. What was recorded counts once.
    pub fn num_products(&self) -> u64 {
        self.num_products.load(Ordering::Relaxed)
    }

    /// How the library computes a product; `None` where it has nothing for it, which is told once.
    fn algorithm(&self, product: &BlockProduct, scales: [u64; 2]) -> Result<Option<Algorithm>, LibraryError> {
        // An answer is there or it is not: a panic elsewhere changes nothing of the others.
        let mut algorithms = self.algorithms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = algorithms.get(product) {
            return Ok(*known);
        }
        let found = self.products.choose(product, scales)?;
        if found.is_none() {
            tracing::warn!(?product, "cuBLASLt has nothing for a product: our own kernels compute it");
        }
        algorithms.insert(*product, found);
        Ok(found)
    }
}

/// A weight as the library takes it.
#[derive(Debug)]
pub(crate) struct LibraryWeight {
    shape: WideWeights,
    /// Scales `[⌈n / 128⌉][blocks of k, rounded up to 4]`, where the weight's own are not so.
    padded_scales: Option<CudaBuffer>,
    arrange: CudaKernel,
}

impl LibraryWeight {
    /// Blocks of k.
    fn num_blocks(&self) -> u32 {
        self.shape.k.div_ceil(BLOCK)
    }

    /// `rows`, or some of them, times this weight.
    fn product(&self, num_rows: u32, rows: &WideRows) -> BlockProduct {
        BlockProduct {
            num_rows,
            n: self.shape.n,
            k: self.shape.row_bytes,
            x_stride: rows.stride,
            w_stride: self.shape.row_bytes,
            out_stride: rows.out_stride,
            out_is_f32: rows.out_is_f32,
        }
    }

    /// What a product of `num_rows` needs: the library's workspace, and then the scales of the rows.
    pub(crate) fn scratch_bytes(&self, num_rows: u32) -> usize {
        WORKSPACE_BYTES + 4 * self.num_blocks() as usize * fours(num_rows) as usize
    }
}

/// As many rows as come in fours.
fn fours(num_rows: u32) -> u32 {
    num_rows / FOUR * FOUR
}

/// The rows from `first` on.
fn rows_from(rows: &WideRows, first: u32, num_blocks: u32) -> Option<WideRows> {
    let skipped = |step: u32, bytes: u32| u64::from(first) * u64::from(step) * u64::from(bytes);
    (first < rows.num_rows).then(|| WideRows {
        codes: rows.codes + skipped(rows.stride, 1),
        scales: rows.scales + skipped(num_blocks, 4),
        out: rows.out + skipped(rows.out_stride, if rows.out_is_f32 { 4 } else { 2 }),
        num_rows: rows.num_rows - first,
        ..*rows
    })
}

impl CudaRuntime {
    /// A weight for the library, where it is used and has something for this one.
    pub(crate) fn prepare_for_library(&self, weights: &[WideWeights]) -> Result<Option<LibraryWeight>, PrepareError> {
        let (Ok(library), [shape @ WideWeights { count: 1, .. }]) = (self.cublaslt(), weights) else {
            return Ok(None);
        };
        let arrange = self.kernel(FAMILY, KERNEL)?;
        let mut weight = LibraryWeight { shape: *shape, padded_scales: None, arrange };
        let trial = BlockProduct {
            num_rows: TRIAL_ROWS,
            n: shape.n,
            k: shape.row_bytes,
            x_stride: shape.row_bytes,
            w_stride: shape.row_bytes,
            out_stride: shape.n,
            out_is_f32: false,
        };
        // Of the rows there are no scales yet: an address will do, which nobody reads.
        let found = library.algorithm(&trial, [shape.scales; 2]).map_err(|error| self.lost(error))?;
        if found.is_none() {
            return Ok(None);
        }
        if !weight.num_blocks().is_multiple_of(FOUR) {
            weight.padded_scales = Some(self.padded_scales(&weight)?);
        }
        Ok(Some(weight))
    }

    /// A weight's scales with rows of a multiple of four.
    fn padded_scales(&self, weight: &LibraryWeight) -> Result<CudaBuffer, StepError> {
        let (num_rows, num_blocks) = (weight.shape.n.div_ceil(BLOCK), weight.num_blocks());
        let padded_blocks = num_blocks.next_multiple_of(FOUR);
        let padded = self.alloc(4 * num_rows as usize * padded_blocks as usize, "scales of weights")?;
        let mut stream = self.stream()?;
        let to = (self.address(&padded), padded_blocks, [padded_blocks, 1]);
        self.arrange_scales(&mut stream, weight, (weight.shape.scales, num_rows), to)?;
        self.synchronize(&mut stream)?;
        Ok(padded)
    }

    /// Puts scales `[num_rows][blocks of k]` into another order: so many blocks, with these steps from row to row and from
    /// block to block.
    fn arrange_scales(
        &self,
        stream: &mut CudaStream,
        weight: &LibraryWeight,
        (from, num_rows): (u64, u32),
        (to, num_to_blocks, [row_step, block_step]): (u64, u32, [u32; 2]),
    ) -> Result<(), StepError> {
        let numbers = [num_rows, weight.num_blocks(), num_to_blocks, row_step, block_step].map(Arg::U32);
        let [num_rows_arg, num_blocks, num_to_blocks_arg, row_step, block_step] = numbers;
        let args = [Arg::Ptr(from), Arg::Ptr(to), num_rows_arg, num_blocks, num_to_blocks_arg, row_step, block_step];
        let shape = LaunchShape::linear((num_rows * num_to_blocks).div_ceil(THREADS), THREADS);
        self.launch(stream, &weight.arrange, shape, &args)
    }

    /// Queues what the library can compute of a product. What it leaves, our own kernels are for.
    pub(crate) fn multiply_in_library(
        &self,
        stream: &mut CudaStream,
        weight: &LibraryWeight,
        rows: &WideRows,
    ) -> Result<Option<WideRows>, StepError> {
        let (num_rows, num_blocks) = (fours(rows.num_rows), weight.num_blocks());
        let is_for_it = rows.experts.is_none() && rows.out_cols == weight.shape.n && num_rows > 0;
        let (Ok(library), true) = (self.cublaslt(), is_for_it) else { return Ok(Some(*rows)) };
        let w_scales = weight.padded_scales.as_ref().map_or(weight.shape.scales, |padded| self.address(padded));
        let x_scales = rows.scratch + WORKSPACE_BYTES as u64;
        let product = weight.product(num_rows, rows);
        let found = library.algorithm(&product, [w_scales, x_scales]).map_err(|error| self.lost(error))?;
        let Some(algorithm) = found else { return Ok(Some(*rows)) };
        self.arrange_scales(stream, weight, (rows.scales, num_rows), (x_scales, num_blocks, [1, num_rows]))?;
        let operands = BlockOperands {
            x: rows.codes,
            x_scales,
            w: weight.shape.values,
            w_scales,
            out: rows.out,
            workspace: rows.scratch,
        };
        let queue = self.native_queue(stream)?;
        library.products.multiply(queue.0, &product, &algorithm, &operands).map_err(|error| self.lost(error))?;
        library.num_products.fetch_add(1, Ordering::Relaxed);
        Ok(rows_from(rows, num_rows, num_blocks))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::images::{self, IMAGES};

    #[test]
    fn the_image_has_the_kernel_that_is_asked_for_and_no_other() {
        assert!(IMAGES.kernel(FAMILY, KERNEL).is_some() && images::num_kernels(FAMILY) == 1);
        assert!(IMAGES.image(FAMILY, wide::ARCHITECTURE).is_some() && IMAGES.image(FAMILY, "sm_100a").is_none());
    }

    #[test]
    fn rows_that_are_left_lie_behind_the_others() {
        let rows = WideRows {
            codes: 1 << 20,
            scales: 1 << 30,
            num_rows: 131,
            stride: 160,
            out: 1 << 40,
            out_cols: 576,
            out_stride: 600,
            out_is_f32: false,
            experts: None,
            scratch: 0,
        };
        let left = rows_from(&rows, fours(131), 2).unwrap();
        let expected = WideRows {
            codes: rows.codes + 128 * 160,
            scales: rows.scales + 128 * 2 * 4,
            num_rows: 3,
            out: rows.out + 128 * 600 * 2,
            ..rows
        };
        assert_eq!(left, expected);
        let f32 = rows_from(&WideRows { out_is_f32: true, ..rows }, 128, 2).unwrap();
        assert_eq!(f32.out, rows.out + 128 * 600 * 4);
        assert_eq!(rows_from(&WideRows { num_rows: 128, ..rows }, 128, 2), None);
        assert_eq!((fours(3), fours(4), fours(67)), (0, 4, 64));
    }

    #[test]
    fn each_reason_names_the_values_and_what_to_do() {
        for (reason, words) in [
            (CublasLtReason::NotAsked, ["not asked for", ""]),
            (CublasLtReason::OtherDevice("sm_100a"), ["sm_90a", "sm_100a"]),
            (CublasLtReason::NoLibrary, ["libcublasLt.so.12", "CUDA 12.9"]),
            (CublasLtReason::MissingFunction("cublasLtMatmul"), ["cublasLtMatmul", "CUDA 12.9"]),
            (CublasLtReason::OldVersion(120_803), ["12.8.3", "12.9.0"]),
            (CublasLtReason::Failed("cublasLtCreate answered 1".into()), ["cublasLtCreate answered 1", ""]),
        ] {
            let text = reason.to_string();
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
    }
}
