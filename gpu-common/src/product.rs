//! Products with weights: which kernel, on how many blocks, with which arguments (`kernels/product.h`).

use engine_core::backend::{PrepareError, StepError};
use engine_core::quant::{ActivationScheme, FP8_BLOCK, WeightFormat};

use crate::device::Device;
use crate::matrix::{Matrices, MatrixArgs, ROW_MULTIPLE, format_name};
use crate::runtime::{Arg, GpuRuntime, LaunchShape};
use crate::scratch::{GpuStream, Slot};

/// Rows and columns of a tile (`TILE` in tile.h).
pub(crate) const TILE: u32 = 16;
/// Columns of x that a wave streams at a time (`STREAM_BLOCK` in stream.h).
const STREAM_BLOCK: u32 = 128;
/// Threads of a block of tiles, its rows, and bytes between rows of staged operands (tiled.h).
const TILED_THREADS: u32 = 256;
const TILED_ROWS: u32 = 64;
const STAGED_STRIDE: u32 = 144;

/// The loops that a product can run through, with the rows of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    /// F32 weights, read once for all rows of a block (rows.h).
    Rows(u32),
    /// Packed weights, read once for all rows of a block (stream.h).
    Stream(u32),
    /// Tiles in shared memory (tiled.h).
    Tiled,
}

impl Body {
    fn max_rows(self) -> u32 {
        match self {
            Body::Rows(rows) | Body::Stream(rows) => rows,
            Body::Tiled => TILED_ROWS,
        }
    }
}

/// The kernels of one format and one kind of input.
#[derive(Debug, Clone)]
enum Bodies<K> {
    /// F32 weights are not rounded for matrix tiles.
    F32 { m1: K, m4: K },
    /// `s32` for products of one weight only.
    Packed { s16: K, s32: Option<K>, t64: K },
}

impl<K> Bodies<K> {
    /// What suits `num_rows` rows. `tiles_fill` says if tiles would keep all multiprocessors busy; streams do.
    fn body_for(&self, num_rows: u32, tiles_fill: bool) -> Body {
        match self {
            Bodies::F32 { .. } if num_rows <= 1 => Body::Rows(1),
            Bodies::F32 { .. } => Body::Rows(4),
            Bodies::Packed { .. } if num_rows <= TILE => Body::Stream(TILE),
            Bodies::Packed { s32: Some(_), .. } if num_rows <= 2 * TILE || !tiles_fill => Body::Stream(2 * TILE),
            Bodies::Packed { .. } => Body::Tiled,
        }
    }

    fn kernel(&self, body: Body) -> &K {
        match (self, body) {
            (Bodies::F32 { m1, .. }, Body::Rows(1)) => m1,
            (Bodies::F32 { m4, .. }, _) => m4,
            (Bodies::Packed { s32: Some(s32), .. }, Body::Stream(rows)) if rows > TILE => s32,
            (Bodies::Packed { s16, .. }, Body::Stream(_)) => s16,
            (Bodies::Packed { t64, .. }, _) => t64,
        }
    }
}

/// What a product computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// `x Wᵀ`.
    Linear,
    /// `silu(x W0ᵀ) ⊙ x W1ᵀ`.
    GateUp,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Family::Linear => "linear",
            Family::GateUp => "gate_up",
        }
    }

    fn num_weights(self) -> u32 {
        match self {
            Family::Linear => 1,
            Family::GateUp => 2,
        }
    }

    /// Columns of the result that a block of tiles computes.
    fn tiled_cols(self, wave_size: u32) -> u32 {
        TILED_THREADS / wave_size / 2 * 32 / self.num_weights()
    }

    /// Columns of the result that a wave computes from F32 weights.
    fn outputs_per_wave(self) -> u32 {
        match self {
            Family::Linear => 2,
            Family::GateUp => 1,
        }
    }
}

/// The kernels of a weight format.
#[derive(Debug, Clone)]
pub(crate) struct ProductKernels<K> {
    family: Family,
    values: Bodies<K>,
    codes: Option<Bodies<K>>,
}

impl<K: Clone + Send + Sync> ProductKernels<K> {
    pub(crate) fn new<R: GpuRuntime<Kernel = K>>(
        device: &Device<R>,
        family: Family,
        weight: &Matrices<R>,
    ) -> Result<Self, PrepareError> {
        let quantises = weight.scheme != ActivationScheme::Float;
        let bodies = |input: &str| -> Result<Bodies<K>, PrepareError> {
            let kernel = |body: &str| {
                let name = format!("{}_{}_{input}_{body}", family.name(), format_name(weight.format));
                device.runtime().kernel(family.name(), &name)
            };
            Ok(match weight.format {
                WeightFormat::F32 => Bodies::F32 { m1: kernel("m1")?, m4: kernel("m4")? },
                WeightFormat::Bf16 | WeightFormat::Fp8Block | WeightFormat::Int8Channel | WeightFormat::Int4Group => {
                    let s32 = match family {
                        Family::Linear => Some(kernel("s32")?),
                        Family::GateUp => None,
                    };
                    Bodies::Packed { s16: kernel("s16")?, s32, t64: kernel("t64")? }
                }
            })
        };
        Ok(Self { family, values: bodies("a16")?, codes: if quantises { Some(bodies("a8")?) } else { None } })
    }

    /// True where the input is to be quantised.
    pub(crate) fn takes_codes(&self) -> bool {
        self.codes.is_some()
    }

    /// Rows of the tiles into which experts' rows are cut when each expert has about `rows_per_expert`.
    pub(crate) fn tile_rows(&self, rows_per_expert: u32) -> u32 {
        self.values.body_for(rows_per_expert, true).max_rows()
    }
}

/// What a block computes, and what it needs.
#[derive(Debug, Clone, Copy)]
struct Block {
    cols: u32,
    threads: u32,
    shared_bytes: u32,
}

/// Activations as kernels read them: rows padded with zeros to a multiple of 32 elements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input {
    pub(crate) address: u64,
    /// Scales of quantised rows, 0 for values.
    pub(crate) scales: u64,
    pub(crate) num_rows: u32,
    /// Elements from row to row.
    pub(crate) stride: u32,
}

/// Where results go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) address: u64,
    /// Columns that are stored; those from n on are zero.
    pub(crate) cols: u32,
    /// Elements from row to row.
    pub(crate) stride: u32,
    pub(crate) is_f32: bool,
}

/// How rows meet matrices.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rows {
    /// All rows meet the one matrix.
    All,
    /// Matrix `i` of `count` meets the columns from `i · input_step` on and writes from column `i · output_step` on.
    Batch { count: u32, input_step: u32, output_step: u32 },
    /// Each tile meets its expert's matrix.
    Experts(ExpertRows),
}

/// Tiles of rows that experts compute (`plan_experts`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExpertRows {
    pub(crate) tiles: u64,
    pub(crate) pairs: u64,
    pub(crate) num_tiles: u32,
    pub(crate) tile_rows: u32,
    /// If not 0, row i of the input is the token of pair i: the pair divided by this.
    pub(crate) gather: u32,
    /// Row i of the result is that of its pair.
    pub(crate) scatter: bool,
    /// The tiles are those of a wide product ([`Wide`](crate::wide::Wide)).
    pub(crate) is_wide: bool,
}

impl<R: GpuRuntime> Device<R> {
    /// Rows of a tensor as kernels read them; copied where their width is no multiple of 32.
    pub(crate) fn input(
        &self,
        kernels: &Kernels<R::Kernel>,
        stream: &mut GpuStream<R>,
        (address, num_rows, cols): (u64, u32, u32),
    ) -> Result<Input, StepError> {
        let stride = cols.next_multiple_of(ROW_MULTIPLE as u32);
        if stride == cols {
            return Ok(Input { address, scales: 0, num_rows, stride });
        }
        let padded = stream.scratch(self, Slot::Padded, num_rows as usize * stride as usize * 2)?;
        let args = [Arg::Ptr(address), Arg::Ptr(padded), Arg::U32(cols), Arg::U32(stride)];
        self.launch(&mut stream.queue, &kernels.pad_rows, LaunchShape::linear(num_rows, self.threads()), &args)?;
        Ok(Input { address: padded, scales: 0, num_rows, stride })
    }

    /// Quantises the first `k` columns of values by the scheme of `weight`, into the memory of `[codes, scales]`.
    pub(crate) fn quantised(
        &self,
        kernels: &Kernels<R::Kernel>,
        stream: &mut GpuStream<R>,
        (input, weight): (Input, &Matrices<R>),
        [codes, scales]: [Slot; 2],
    ) -> Result<Input, StepError> {
        let Input { address, num_rows, stride: from_stride, .. } = input;
        let stride = weight.k.next_multiple_of(ROW_MULTIPLE as u32);
        let codes = stream.scratch(self, codes, num_rows as usize * stride as usize)?;
        let num_groups = weight.k.div_ceil(FP8_BLOCK as u32);
        let scales = stream.scratch(self, scales, num_rows as usize * num_groups as usize * 4)?;
        let [from, to, scale] = [address, codes, scales].map(Arg::Ptr);
        let [cols, from_stride, to_stride] = [weight.k, from_stride, stride].map(Arg::U32);
        match weight.scheme {
            ActivationScheme::Float => return Ok(input),
            ActivationScheme::Fp8Group { ue8m0 } => {
                let shape = LaunchShape::linear((num_rows * num_groups).div_ceil(self.waves()), self.threads());
                let [rows, ue8m0] = [num_rows, u32::from(ue8m0)].map(Arg::U32);
                let args = [from, to, scale, rows, cols, from_stride, to_stride, ue8m0];
                self.launch(&mut stream.queue, &kernels.quantise_fp8, shape, &args)?;
            }
            ActivationScheme::Int8Token => {
                let shape = LaunchShape::linear(num_rows, self.threads()).with_shared(self.wave_floats(1));
                let args = [from, to, scale, cols, from_stride, to_stride];
                self.launch(&mut stream.queue, &kernels.quantise_int8, shape, &args)?;
            }
        }
        Ok(Input { address: codes, scales, num_rows, stride })
    }

    /// Shared memory for `count` floats or words per wave.
    pub(crate) fn wave_floats(&self, count: u32) -> u32 {
        count * (4 * self.waves()).next_multiple_of(16)
    }

    /// Queues a product. `input` is quantised before if the kernels take codes.
    pub(crate) fn product(
        &self,
        stream: &mut GpuStream<R>,
        kernels: &ProductKernels<R::Kernel>,
        weights: &[MatrixArgs],
        (input, output): (Input, Output),
        rows: Rows,
    ) -> Result<(), StepError> {
        let bodies = match &kernels.codes {
            Some(codes) if input.scales != 0 => codes,
            Some(_) | None => &kernels.values,
        };
        let family = kernels.family;
        let (batch, input_step, output_step) = match rows {
            Rows::All | Rows::Experts(_) => (1, 0, 0),
            Rows::Batch { count, input_step, output_step } => (count, input_step, output_step),
        };
        let experts = match rows {
            Rows::All | Rows::Batch { .. } => None,
            Rows::Experts(experts) => Some(experts),
        };
        let tiled_cols = family.tiled_cols(self.info().wave_size);
        let (body, num_row_blocks) = match experts {
            None => {
                let num_tiles = output.cols.div_ceil(tiled_cols) * input.num_rows.div_ceil(TILED_ROWS) * batch;
                let body = bodies.body_for(input.num_rows, num_tiles >= self.info().num_multiprocessors);
                (body, input.num_rows.div_ceil(body.max_rows()))
            }
            Some(experts) => (bodies.body_for(experts.tile_rows, true), experts.num_tiles),
        };
        let block = match body {
            Body::Rows(_) => {
                Block { cols: family.outputs_per_wave() * self.waves(), threads: self.threads(), shared_bytes: 0 }
            }
            Body::Stream(rows) => {
                let waves = self.waves().min(weights[0].k.div_ceil(STREAM_BLOCK));
                let shared_bytes = waves * family.num_weights() * rows * TILE * 4;
                Block { cols: TILE, threads: waves * self.info().wave_size, shared_bytes }
            }
            Body::Tiled => {
                let staged_rows = TILED_ROWS + tiled_cols * family.num_weights();
                Block { cols: tiled_cols, threads: TILED_THREADS, shared_bytes: 2 * staged_rows * STAGED_STRIDE }
            }
        };
        let shape = LaunchShape {
            grid: [output.cols.div_ceil(block.cols), num_row_blocks, batch],
            block: [block.threads, 1, 1],
            shared_bytes: block.shared_bytes,
        };
        let weight = weights[0];
        let [second_values, second_scales] = weights.get(1).map_or([0; 2], |weight| [weight.values, weight.scales]);
        let args = [
            Arg::Ptr(input.address),
            Arg::Ptr(input.scales),
            Arg::Ptr(weight.values),
            Arg::Ptr(weight.scales),
            Arg::Ptr(second_values),
            Arg::Ptr(second_scales),
            Arg::Ptr(output.address),
            Arg::Ptr(experts.map_or(0, |e| e.tiles)),
            Arg::Ptr(experts.map_or(0, |e| e.pairs)),
            Arg::U32(weight.n),
            Arg::U32(weight.k),
            Arg::U32(weight.row_bytes),
            Arg::U32(weight.group),
            Arg::U32(input.num_rows),
            Arg::U32(input.stride),
            Arg::U32(input_step),
            Arg::U32(output.cols),
            Arg::U32(output.stride),
            Arg::U32(output_step),
            Arg::U32(weight.matrix_bytes),
            Arg::U32(weight.matrix_scales),
            Arg::U32(experts.map_or(0, |e| e.gather)),
            Arg::U32(experts.map_or(0, |e| u32::from(e.scatter))),
            Arg::U32(u32::from(output.is_f32)),
        ];
        self.launch(&mut stream.queue, bodies.kernel(body), shape, &args)
    }
}

/// Kernels that no prepared weight brings along.
#[derive(Debug)]
pub(crate) struct Kernels<K> {
    pub(crate) add: K,
    pub(crate) concat: K,
    pub(crate) gather_rows: K,
    pub(crate) pad_rows: K,
    pub(crate) quantise_fp8: K,
    pub(crate) quantise_int8: K,
    pub(crate) argmax: K,
    pub(crate) top_of_logits: K,
    pub(crate) top_of_choices: K,
}

impl<K> Kernels<K> {
    pub(crate) fn new<R: GpuRuntime<Kernel = K>>(runtime: &R) -> Result<Self, PrepareError> {
        Ok(Self {
            add: runtime.kernel("elementwise", "add")?,
            concat: runtime.kernel("elementwise", "concat")?,
            gather_rows: runtime.kernel("elementwise", "gather_rows")?,
            pad_rows: runtime.kernel("elementwise", "pad_rows")?,
            quantise_fp8: runtime.kernel("quant", "quantise_fp8")?,
            quantise_int8: runtime.kernel("quant", "quantise_int8")?,
            argmax: runtime.kernel("sample", "argmax")?,
            top_of_logits: runtime.kernel("sample", "top_of_logits")?,
            top_of_choices: runtime.kernel("sample", "top_of_choices")?,
        })
    }
}
