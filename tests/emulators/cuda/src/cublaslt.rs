//! The library of matrix products, as far as products of FP8 in blocks of 128 go. It is a part of the driver's library here,
//! under another file name: both know the same streams and memory.
//!
//! What it wants is what its reference and those who use it say: both operands by rows of k, sizes and addresses in multiples
//! of 16 bytes, rows of x in fours, scales of W for a multiple of four blocks of k.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::Arc;

use emulator_common::memory::{self, fill, read};
use gpu_emulator::stream::Work;
use gpu_emulator::{Context, Driver, Failure, Kind, Libraries, Outcome, Status, current, status};

use crate::config::Cuda;

/// What most functions return, as the library's reference numbers it.
pub(crate) mod result {
    use super::Status;

    pub(crate) const SUCCESS: Status = 0;
    pub(crate) const NOT_INITIALIZED: Status = 1;
    pub(crate) const INVALID_VALUE: Status = 7;
    pub(crate) const EXECUTION_FAILED: Status = 13;
    pub(crate) const INTERNAL_ERROR: Status = 14;
    pub(crate) const NOT_SUPPORTED: Status = 15;
    pub(crate) const LAST: Status = 16;
}

/// What a result stands for.
pub(crate) fn words(result: Status) -> &'static CStr {
    match result {
        result::SUCCESS => c"CUBLAS_STATUS_SUCCESS",
        result::NOT_INITIALIZED => c"CUBLAS_STATUS_NOT_INITIALIZED",
        result::INVALID_VALUE => c"CUBLAS_STATUS_INVALID_VALUE",
        result::EXECUTION_FAILED => c"CUBLAS_STATUS_EXECUTION_FAILED",
        result::INTERNAL_ERROR => c"CUBLAS_STATUS_INTERNAL_ERROR",
        result::NOT_SUPPORTED => c"CUBLAS_STATUS_NOT_SUPPORTED",
        _ => c"CUBLAS_STATUS_?",
    }
}

const COMPUTE_32F: i32 = 68;
const R_32F: i32 = 0;
const R_16BF: i32 = 14;
const R_8F_E4M3: i32 = 28;
const OP_N: i32 = 0;
const OP_T: i32 = 1;
const SCALE_VEC128_32F: i32 = 4;
const SCALE_BLK128X128_32F: i32 = 5;

/// The one compute capability with scales of FP8 blocks, times ten.
const COMPUTE_CAPABILITY: u32 = 90;
/// Values that share a scale.
const BLOCK: usize = 128;
/// Bytes to which operands are aligned, and the workspace.
const ALIGNMENT: u64 = 16;
const WORKSPACE_ALIGNMENT: u64 = 256;
/// What an algorithm uses.
const WORKSPACE_BYTES: usize = 1 << 20;
/// Bytes to which operands are taken to be aligned where nothing is preferred.
const DEFAULT_ALIGNMENT: u32 = 256;
/// How an algorithm of this library begins.
const MAGIC: u64 = 0xb1a5_1e77;

/// What is to be multiplied, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Description {
    compute_type: i32,
    scale_type: i32,
    /// Of A and B.
    transposed: [i32; 2],
    scale_modes: [i32; 2],
    scales: [u64; 2],
}

/// A matrix stored by columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    data_type: i32,
    rows: u64,
    cols: u64,
    step: u64,
}

impl Layout {
    fn element_bytes(&self) -> u64 {
        match self.data_type {
            R_8F_E4M3 => 1,
            R_16BF => 2,
            _ => 4,
        }
    }

    fn num_bytes(&self) -> usize {
        (((self.cols - 1) * self.step + self.rows) * self.element_bytes()) as usize
    }
}

/// What an algorithm may use, and may take for granted of A, B, C and D.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Preference {
    workspace_bytes: u64,
    alignments: [u32; 4],
}

/// What callers hold of the library.
#[derive(Debug, Default)]
pub struct CublasLt {
    /// With the context that each was made in.
    handles: BTreeMap<u64, u64>,
    descriptions: BTreeMap<u64, Description>,
    layouts: BTreeMap<u64, Layout>,
    preferences: BTreeMap<u64, Preference>,
}

impl Libraries for CublasLt {
    fn leaks(&self) -> Vec<String> {
        let kinds = [
            (self.handles.len(), "handles"),
            (self.descriptions.len(), "descriptions"),
            (self.layouts.len(), "layouts"),
            (self.preferences.len(), "preferences"),
        ];
        kinds.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what} of cuBLASLt")).collect()
    }
}

/// How a product is computed: its words are what they were found for.
pub(crate) type Algorithm = [u64; 8];

/// A product that the library can compute.
#[derive(Debug, Clone, Copy)]
struct Problem {
    /// W, x and the result.
    layouts: [Layout; 3],
    scales: [u64; 2],
}

impl Problem {
    /// The algorithm for it; alignments are no more than what was promised.
    fn algorithm(&self, alignments: [u32; 4]) -> Algorithm {
        let [w, x, out] = self.layouts;
        let aligned = alignments.iter().rev().fold(0, |word, alignment| word << 16 | u64::from(*alignment));
        [MAGIC, w.rows, w.cols, x.cols, w.step, x.step, out.step << 8 | out.data_type as u64, aligned]
    }

    /// Blocks of k, and of k as W's scales have them.
    fn num_blocks(&self) -> [usize; 2] {
        let blocks = (self.layouts[0].rows as usize).div_ceil(BLOCK);
        [blocks, blocks.next_multiple_of(4)]
    }

    /// Bytes of W's and of x's scales.
    fn scale_bytes(&self) -> [usize; 2] {
        let [blocks, padded] = self.num_blocks();
        [4 * (self.layouts[0].cols as usize).div_ceil(BLOCK) * padded, 4 * blocks * self.layouts[1].cols as usize]
    }
}

/// A product in a stream.
#[derive(Debug)]
struct Product {
    problem: Problem,
    /// W, x and the result.
    addresses: [u64; 3],
    workspace: (u64, usize),
}

impl Product {
    /// All memory that is read or written, with what it is.
    fn ranges(&self) -> [(&'static str, u64, usize); 6] {
        let ([w, x, out], [w_scales, x_scales]) = (self.problem.layouts, self.problem.scale_bytes());
        [
            ("A", self.addresses[0], w.num_bytes()),
            ("B", self.addresses[1], x.num_bytes()),
            ("D", self.addresses[2], out.num_bytes()),
            ("scales of A", self.problem.scales[0], w_scales),
            ("scales of B", self.problem.scales[1], x_scales),
            ("the workspace", self.workspace.0, self.workspace.1),
        ]
    }

    fn check_ranges(&self, context: &Context) -> Outcome<()> {
        self.ranges()
            .iter()
            .try_for_each(|(what, address, num_bytes)| context.check_device_range(what, *address, *num_bytes))
    }
}

impl Work for Product {
    fn name(&self) -> &'static str {
        "cublasLtMatmul"
    }

    /// `D[j][i] = Σ of blocks (A's scale · B's scale · Σ within the block)`, sums in f32.
    fn run(&self, context: &mut Context) -> Outcome<()> {
        let missing = |failure: Failure| Failure::new(status::ILLEGAL_ADDRESS, failure.message);
        self.check_ranges(context).map_err(missing)?;
        fill(self.workspace.0, 0xff, self.workspace.1);
        let [w_layout, x_layout, out] = self.problem.layouts;
        let ranges = self.ranges();
        let [w, x] = [0, 1].map(|i| decoded(&read(ranges[i].1, ranges[i].2)));
        let [w_scales, x_scales] = [3, 4].map(|i| floats(&read(ranges[i].1, ranges[i].2)));
        let ([_, padded], k, num_rows) = (self.problem.num_blocks(), w_layout.rows as usize, x_layout.cols as usize);
        for j in 0..num_rows {
            let x = &x[j * x_layout.step as usize..][..k];
            for i in 0..w_layout.cols as usize {
                let w = &w[i * w_layout.step as usize..][..k];
                let blocks = w.chunks(BLOCK).zip(x.chunks(BLOCK)).enumerate();
                let sum: f32 = blocks
                    .map(|(block, (w, x))| {
                        let sum: f32 = w.iter().zip(x).map(|(w, x)| w * x).sum();
                        sum * (w_scales[i / BLOCK * padded + block] * x_scales[block * num_rows + j])
                    })
                    .sum();
                let at = self.addresses[2] + (j as u64 * out.step + i as u64) * out.element_bytes();
                if out.data_type == R_32F { memory::store(at, sum) } else { memory::store(at, rounded(sum)) }
            }
        }
        Ok(())
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// e4m3 as checkpoints store it.
fn decoded(codes: &[u8]) -> Vec<f32> {
    let value = |code: u8| {
        let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
        let magnitude = match exponent {
            _ if code & 0x7f == 0x7f => f32::NAN,
            0 => mantissa / 512.0,
            _ => (1.0 + mantissa / 8.0) * 2.0_f32.powi(exponent - 7),
        };
        if code & 0x80 == 0 { magnitude } else { -magnitude }
    };
    let table: [f32; 256] = std::array::from_fn(|code| value(code as u8));
    codes.iter().map(|code| table[usize::from(*code)]).collect()
}

/// Bits of the nearest bf16, ties to even.
fn rounded(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() { 0x7fc0 } else { ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16 }
}

pub(crate) fn invalid<T>(message: impl Into<String>) -> Outcome<T> {
    Err(Failure::new(result::INVALID_VALUE, message))
}

/// What the driver's own functions refuse, as the library passes it on.
pub(crate) fn passed_on(failure: Failure) -> Failure {
    Failure::new(result::INVALID_VALUE, failure.message)
}

fn live<'a, T>(held: &'a mut BTreeMap<u64, T>, handle: u64, what: &str) -> Outcome<&'a mut T> {
    let missing = || Failure::new(result::INVALID_VALUE, format!("{handle:#x} is no live {what}"));
    held.get_mut(&handle).ok_or_else(missing)
}

/// Operands of a call, as the caller names them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) handle: u64,
    pub(crate) description: u64,
    /// Of A, B, C and D.
    pub(crate) layouts: [u64; 4],
}

/// Where a product's operands lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operands {
    /// A, B, C and D.
    pub(crate) addresses: [u64; 4],
    /// Alpha and beta.
    pub(crate) factors: [f32; 2],
    pub(crate) algorithm: Algorithm,
    pub(crate) workspace: (u64, usize),
    pub(crate) stream: u64,
}

/// What a handle stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Made {
    Library,
    Description,
    Layout,
    Preference,
}

/// A value of as many bytes as an attribute has.
fn value<const N: usize>(bytes: &[u8]) -> Outcome<[u8; N]> {
    let wrong = |_| Failure::new(result::INVALID_VALUE, format!("{} bytes for an attribute of {N}", bytes.len()));
    bytes.try_into().map_err(wrong)
}

/// A handle for the calling thread's context.
pub(crate) fn create(driver: &mut Driver<Cuda>) -> Outcome<u64> {
    let no_device = |failure: Failure| Failure::new(result::NOT_INITIALIZED, failure.message);
    driver.context().map_err(no_device)?;
    let handle = driver.new_handle(Kind::Library);
    driver.libraries.handles.insert(handle, current());
    Ok(handle)
}

/// Gives something back, once.
pub(crate) fn destroy(driver: &mut Driver<Cuda>, kind: Made, handle: u64) -> Outcome<()> {
    let CublasLt { handles, descriptions, layouts, preferences } = &mut driver.libraries;
    let was_live = match kind {
        Made::Library => handles.remove(&handle).is_some(),
        Made::Description => descriptions.remove(&handle).is_some(),
        Made::Layout => layouts.remove(&handle).is_some(),
        Made::Preference => preferences.remove(&handle).is_some(),
    };
    if was_live { Ok(()) } else { invalid(format!("{handle:#x} is no live {kind:?}")) }
}

/// Of a product without scales, neither operand transposed.
pub(crate) fn new_description(driver: &mut Driver<Cuda>, compute_type: i32, scale_type: i32) -> Outcome<u64> {
    let handle = driver.new_handle(Kind::Library);
    let new = Description { compute_type, scale_type, transposed: [OP_N; 2], scale_modes: [0; 2], scales: [0; 2] };
    driver.libraries.descriptions.insert(handle, new);
    Ok(handle)
}

/// Sets an attribute of a description.
pub(crate) fn describe(driver: &mut Driver<Cuda>, description: u64, attribute: i32, bytes: &[u8]) -> Outcome<()> {
    let description = live(&mut driver.libraries.descriptions, description, "description")?;
    match attribute {
        3 | 4 => description.transposed[attribute as usize - 3] = i32::from_le_bytes(value(bytes)?),
        17 | 18 => description.scales[attribute as usize - 17] = u64::from_le_bytes(value(bytes)?),
        31 | 32 => description.scale_modes[attribute as usize - 31] = i32::from_le_bytes(value(bytes)?),
        _ => return Err(Failure::new(result::NOT_SUPPORTED, format!("attribute {attribute} is not modelled"))),
    }
    Ok(())
}

/// Type, rows, columns, elements from column to column.
pub(crate) fn new_layout(
    driver: &mut Driver<Cuda>,
    (data_type, rows, cols, step): (i32, u64, u64, i64),
) -> Outcome<u64> {
    if rows == 0 || cols == 0 || step < rows as i64 {
        return invalid(format!("{rows} rows and {cols} columns, {step} elements from column to column"));
    }
    let handle = driver.new_handle(Kind::Library);
    driver.libraries.layouts.insert(handle, Layout { data_type, rows, cols, step: step as u64 });
    Ok(handle)
}

/// Without a workspace.
pub(crate) fn new_preference(driver: &mut Driver<Cuda>) -> Outcome<u64> {
    let handle = driver.new_handle(Kind::Library);
    let new = Preference { workspace_bytes: 0, alignments: [DEFAULT_ALIGNMENT; 4] };
    driver.libraries.preferences.insert(handle, new);
    Ok(handle)
}

/// Sets an attribute of a preference.
pub(crate) fn prefer(driver: &mut Driver<Cuda>, preference: u64, attribute: i32, bytes: &[u8]) -> Outcome<()> {
    let preference = live(&mut driver.libraries.preferences, preference, "preference")?;
    match attribute {
        1 => preference.workspace_bytes = u64::from_le_bytes(value(bytes)?),
        5..=8 => preference.alignments[attribute as usize - 5] = u32::from_le_bytes(value(bytes)?),
        _ => return Err(Failure::new(result::NOT_SUPPORTED, format!("attribute {attribute} is not modelled"))),
    }
    Ok(())
}

/// How a product is computed, and with how much workspace; `None` where there is nothing for it.
pub(crate) fn choose(driver: &mut Driver<Cuda>, call: Call, preference: u64) -> Outcome<Option<(Algorithm, usize)>> {
    let problem = problem(driver, call)?;
    let Preference { workspace_bytes, alignments } =
        *live(&mut driver.libraries.preferences, preference, "preference")?;
    if driver.injection.is_without_algorithm() || workspace_bytes < WORKSPACE_BYTES as u64 {
        return Ok(None);
    }
    Ok(Some((problem.algorithm(alignments), WORKSPACE_BYTES)))
}

/// Queues a product.
pub(crate) fn multiply(driver: &mut Driver<Cuda>, call: Call, operands: &Operands) -> Outcome<()> {
    let problem = problem(driver, call)?;
    if let Some(message) = driver.injection.product() {
        return Err(Failure::new(result::INTERNAL_ERROR, message));
    }
    let Operands { addresses: [a, b, c, d], factors, algorithm, workspace, stream } = *operands;
    let alignments = [0, 16, 32, 48].map(|shift| (algorithm[7] >> shift) as u16);
    let aligned = |(address, alignment): (&u64, u16)| address.is_multiple_of(u64::from(alignment).max(ALIGNMENT));
    let rules = [
        (algorithm == problem.algorithm(alignments.map(u32::from)), "the algorithm is that of another product"),
        (operands.addresses.iter().zip(alignments).all(aligned), "an operand is not aligned as the algorithm has it"),
        (problem.scales.iter().all(|address| address.is_multiple_of(ALIGNMENT)), "scales are not aligned to 16"),
        (workspace.0.is_multiple_of(WORKSPACE_ALIGNMENT), "the workspace is not aligned to 256"),
        (workspace.1 >= WORKSPACE_BYTES, "the workspace is smaller than the algorithm's"),
    ];
    if let Some((_, rule)) = rules.iter().find(|(holds, _)| !holds) {
        return invalid(format!("{rule}: {operands:x?}"));
    }
    if factors != [1.0, 0.0] || c != d {
        return Err(Failure::new(result::NOT_SUPPORTED, "modelled are a factor of 1, one of 0, and C in D's place"));
    }
    let product = Product { problem, addresses: [a, b, d], workspace };
    product.check_ranges(driver.context().map_err(passed_on)?).map_err(passed_on)?;
    driver.queue_work(stream, Arc::new(product)).map_err(passed_on)
}

/// What a call is about, if the library can compute it.
fn problem(driver: &mut Driver<Cuda>, call: Call) -> Outcome<Problem> {
    let made_in = *live(&mut driver.libraries.handles, call.handle, "handle")?;
    driver.context().map_err(passed_on)?;
    if made_in != current() {
        return invalid("the handle is of another context than the thread's");
    }
    let description = *live(&mut driver.libraries.descriptions, call.description, "description")?;
    let mut layouts = [Layout { data_type: 0, rows: 0, cols: 0, step: 0 }; 4];
    for (layout, handle) in layouts.iter_mut().zip(call.layouts) {
        *layout = *live(&mut driver.libraries.layouts, handle, "layout")?;
    }
    check(&driver.config.gpu, &description, layouts)?;
    let [w, x, _, out] = layouts;
    Ok(Problem { layouts: [w, x, out], scales: description.scales })
}

/// The rules that the library's reference names for products of FP8 blocks.
fn check(gpu: &Cuda, description: &Description, layouts: [Layout; 4]) -> Outcome<()> {
    let [w, x, c, out] = layouts;
    let Description { compute_type, scale_type, transposed, scale_modes, scales } = *description;
    let in_16_bytes = |count: u64, layout: &Layout| (count * layout.element_bytes()).is_multiple_of(ALIGNMENT);
    let (no, wrong) = (result::NOT_SUPPORTED, result::INVALID_VALUE);
    let rules = [
        ((compute_type, scale_type) == (COMPUTE_32F, R_32F), no, "sums and scales of f32 are modelled"),
        (gpu.compute_capability == COMPUTE_CAPABILITY, no, "scales of FP8 blocks are for sm_90"),
        (transposed == [OP_T, OP_N], no, "A is transposed, B is not"),
        (scale_modes == [SCALE_BLK128X128_32F, SCALE_VEC128_32F], no, "A has scales of 128 x 128, B of 1 x 128"),
        (scales.iter().all(|scales| *scales != 0), wrong, "a mode of scales without their address"),
        ([w.data_type, x.data_type] == [R_8F_E4M3; 2], no, "A and B are e4m3"),
        ([R_16BF, R_32F].contains(&out.data_type) && c == out, no, "C and D are alike, of bf16 or f32"),
        (w.rows == x.rows && w.cols == out.rows && x.cols == out.cols, wrong, "sizes that do not fit"),
        (in_16_bytes(w.rows, &w) && in_16_bytes(out.rows, &out), no, "k and m are multiples of 16 bytes"),
        (layouts.iter().all(|layout| in_16_bytes(layout.step, layout)), no, "columns are 16 bytes apart"),
        (x.cols.is_multiple_of(4), no, "n is a multiple of 4"),
    ];
    match rules.iter().find(|(holds, ..)| !holds) {
        Some((_, status, rule)) => Err(Failure::new(*status, format!("{rule}: {description:x?}, {layouts:?}"))),
        None => Ok(()),
    }
}
