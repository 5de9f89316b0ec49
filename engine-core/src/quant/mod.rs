//! Weights as typed values.
//!
//! A [`HostWeight`] is one matrix `[out, in]` in one of the formats a checkpoint can hold. Each format has private
//! fields and one checked constructor, so a quantised weight without its scales cannot be written down. The
//! activation scheme follows from the weight format ([`HostWeight::activation_scheme`]).

pub mod act;
mod bf16;
mod class;
mod convert;
pub mod fp8;
mod fp8_block;
mod int4_group;
mod int8_channel;
mod share;
mod shared;

pub use bf16::{Bf16Weight, F32Weight};
pub use class::{Precision, PrecisionPolicy, WeightClass};
pub use convert::target_format;
pub use fp8_block::{Fp8BlockWeight, ScaleFormat};
pub use int4_group::Int4GroupWeight;
pub use int8_channel::Int8ChannelWeight;
pub use shared::SharedSlice;

/// Side of an FP8 scale block, and the group of FP8 activation quantisation (spec section 4).
pub const FP8_BLOCK: usize = 128;

/// Inputs per scale of the INT4 weights this library makes; checkpoints may come with other group sizes.
pub const INT4_GROUP: usize = 32;

/// Shape of a linear weight: `out` rows of `in` values (`y = x Wᵀ`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MatrixShape {
    /// Output features (rows).
    pub out_features: usize,
    /// Input features (columns).
    pub in_features: usize,
}

impl MatrixShape {
    /// `[out_features, in_features]`.
    pub fn new(out_features: usize, in_features: usize) -> Self {
        Self { out_features, in_features }
    }

    /// Number of weights.
    pub fn num_elements(&self) -> usize {
        self.out_features * self.in_features
    }
}

impl std::fmt::Display for MatrixShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}, {}]", self.out_features, self.in_features)
    }
}

/// The formats of [`HostWeight`], as plain data (capabilities, plans, messages).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightFormat {
    /// IEEE single.
    F32,
    /// bfloat16.
    Bf16,
    /// e4m3fn with an f32 scale per 128 x 128 block.
    #[serde(rename = "fp8")]
    Fp8Block,
    /// i8 with an f32 scale per output row.
    #[serde(rename = "int8")]
    Int8Channel,
    /// 4-bit with an f32 scale per group of inputs.
    #[serde(rename = "int4")]
    Int4Group,
}

impl std::fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            WeightFormat::F32 => "f32",
            WeightFormat::Bf16 => "bf16",
            WeightFormat::Fp8Block => "fp8",
            WeightFormat::Int8Channel => "int8",
            WeightFormat::Int4Group => "int4",
        })
    }
}

/// How a backend that quantises activations must do it for a given weight format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivationScheme {
    /// Activations stay in floating point.
    Float,
    /// e4m3 per token and group of 128 inputs, scale = max(amax, 1e-4)/448, optionally rounded up to a power of two.
    Fp8Group {
        /// Round the scale up to a power of two (`scale_fmt: ue8m0`).
        ue8m0: bool,
    },
    /// i8 per token, scale = amax/127.
    Int8Token,
}

/// Which linears quantise their inputs by the weight's scheme (W8A8); the inputs of the others stay in floating point
/// (weight-only).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct QuantisedInputs {
    /// Those with FP8 weights.
    pub fp8: bool,
    /// Those with INT8 weights.
    pub int8: bool,
}

impl QuantisedInputs {
    /// Weight-only throughout.
    pub const NONE: Self = Self { fp8: false, int8: false };
    /// Every format that has a scheme.
    pub const ALL: Self = Self { fp8: true, int8: true };

    /// What is done to the inputs of a weight with this scheme.
    pub fn applied(self, scheme: ActivationScheme) -> ActivationScheme {
        let is_applied = match scheme {
            ActivationScheme::Float => false,
            ActivationScheme::Fp8Group { .. } => self.fp8,
            ActivationScheme::Int8Token => self.int8,
        };
        if is_applied { scheme } else { ActivationScheme::Float }
    }
}

impl std::fmt::Display for QuantisedInputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.fp8, self.int8) {
            (false, false) => "weight-only",
            (true, true) => "quantised inputs",
            (true, false) => "quantised inputs of fp8",
            (false, true) => "quantised inputs of int8",
        })
    }
}

/// One linear weight on the host, memory-mapped or owned; cloning is cheap.
#[derive(Debug, Clone)]
pub enum HostWeight {
    /// f32 values.
    F32(F32Weight),
    /// bf16 values.
    Bf16(Bf16Weight),
    /// FP8 with block scales.
    Fp8Block(Fp8BlockWeight),
    /// INT8 with per-channel scales.
    Int8Channel(Int8ChannelWeight),
    /// INT4 with group scales.
    Int4Group(Int4GroupWeight),
}

impl HostWeight {
    /// `[out, in]`.
    pub fn shape(&self) -> MatrixShape {
        match self {
            HostWeight::F32(w) => w.shape(),
            HostWeight::Bf16(w) => w.shape(),
            HostWeight::Fp8Block(w) => w.shape(),
            HostWeight::Int8Channel(w) => w.shape(),
            HostWeight::Int4Group(w) => w.shape(),
        }
    }

    /// The format of the stored values.
    pub fn format(&self) -> WeightFormat {
        match self {
            HostWeight::F32(_) => WeightFormat::F32,
            HostWeight::Bf16(_) => WeightFormat::Bf16,
            HostWeight::Fp8Block(_) => WeightFormat::Fp8Block,
            HostWeight::Int8Channel(_) => WeightFormat::Int8Channel,
            HostWeight::Int4Group(_) => WeightFormat::Int4Group,
        }
    }

    /// The activation quantisation that belongs to this format, for backends that quantise activations.
    pub fn activation_scheme(&self) -> ActivationScheme {
        match self {
            HostWeight::F32(_) | HostWeight::Bf16(_) | HostWeight::Int4Group(_) => ActivationScheme::Float,
            HostWeight::Fp8Block(w) => ActivationScheme::Fp8Group { ue8m0: w.scale_format() == ScaleFormat::Ue8m0 },
            HostWeight::Int8Channel(_) => ActivationScheme::Int8Token,
        }
    }

    /// Writes row `row` as real values (`stored value × scale`, one f32 rounding) into `out`.
    ///
    /// # Panics
    /// If `row` is out of range or `out.len() != in_features`: a bug of the caller.
    pub fn row_f32(&self, row: usize, out: &mut [f32]) {
        match self {
            HostWeight::F32(w) => w.row_f32(row, out),
            HostWeight::Bf16(w) => w.row_f32(row, out),
            HostWeight::Fp8Block(w) => w.row_f32(row, out),
            HostWeight::Int8Channel(w) => w.row_f32(row, out),
            HostWeight::Int4Group(w) => w.row_f32(row, out),
        }
    }

    /// The stored values as they lie in memory, row-major; the rows of INT4 are padded to whole words.
    pub fn value_bytes(&self) -> &[u8] {
        match self {
            HostWeight::F32(w) => bytemuck::cast_slice(w.values()),
            HostWeight::Bf16(w) => bytemuck::cast_slice(w.values()),
            HostWeight::Fp8Block(w) => w.values(),
            HostWeight::Int8Channel(w) => bytemuck::cast_slice(w.values()),
            HostWeight::Int4Group(w) => w.packed(),
        }
    }

    /// The scales, row-major; none for floating point.
    pub fn scales(&self) -> &[f32] {
        match self {
            HostWeight::F32(_) | HostWeight::Bf16(_) => &[],
            HostWeight::Fp8Block(w) => w.scales(),
            HostWeight::Int8Channel(w) => w.scales(),
            HostWeight::Int4Group(w) => w.scales(),
        }
    }

    /// Bytes of values and scales together.
    pub fn num_bytes(&self) -> usize {
        match self {
            HostWeight::F32(w) => w.num_bytes(),
            HostWeight::Bf16(w) => w.num_bytes(),
            HostWeight::Fp8Block(w) => w.num_bytes(),
            HostWeight::Int8Channel(w) => w.num_bytes(),
            HostWeight::Int4Group(w) => w.num_bytes(),
        }
    }
}

/// Why a weight cannot be built or converted. The tensor's name is added by whoever knows it
/// ([`WeightError::named`]).
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WeightError {
    /// The number of stored values does not match the shape.
    #[error("{tensor}: {found} {what} for shape {shape}, expected {expected}")]
    Length {
        /// Tensor name.
        tensor: String,
        /// "values" or "scales".
        what: &'static str,
        /// Shape of the weight.
        shape: MatrixShape,
        /// Count found.
        found: usize,
        /// Count the shape needs.
        expected: usize,
    },
    /// A scale is NaN, infinite or negative.
    #[error("{tensor}: scale {index} is {value}; scales must be finite and not negative, the checkpoint is damaged")]
    Scale {
        /// Tensor name.
        tensor: String,
        /// Position in the scale tensor, row-major.
        index: usize,
        /// Value found.
        value: f32,
    },
    /// A value is NaN, infinite or beyond the target format's range.
    #[error(
        "{tensor}: value {value} at row {row}, column {column} is not a number the target format can hold; the checkpoint is damaged"
    )]
    NotFinite {
        /// Tensor name.
        tensor: String,
        /// Output row.
        row: usize,
        /// Input column.
        column: usize,
        /// Real value (stored value × scale) found.
        value: f32,
    },
    /// A group size that cannot be used.
    #[error("{tensor}: group size {found} is not a positive even number")]
    GroupSize {
        /// Tensor name.
        tensor: String,
        /// Value found.
        found: usize,
    },
    /// A part that begins or ends among values that share a scale or a word.
    #[error(
        "{tensor}: {what} {start}..{end} cut a block of {block} that shares a scale; choose another precision for it or another tensor_parallel_size"
    )]
    Cut {
        /// Tensor name.
        tensor: String,
        /// "rows" or "columns".
        what: &'static str,
        /// First row or column of the part.
        start: usize,
        /// The one after its last.
        end: usize,
        /// Rows or columns that belong together.
        block: usize,
    },
    /// A precision name that is not known.
    #[error(
        "precision {found:?} is not known; use auto, fp8, bf16, int8, int4 or CLASS=PRECISION,… with CLASS one of {classes}"
    )]
    UnknownPrecision {
        /// Text found.
        found: String,
        /// Accepted class names.
        classes: String,
    },
}

impl WeightError {
    /// Puts the tensor's name into the message.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        match &mut self {
            WeightError::Length { tensor, .. }
            | WeightError::Scale { tensor, .. }
            | WeightError::NotFinite { tensor, .. }
            | WeightError::Cut { tensor, .. }
            | WeightError::GroupSize { tensor, .. } => *tensor = name.to_owned(),
            WeightError::UnknownPrecision { .. } => {}
        }
        self
    }
}

pub(crate) fn check_len(
    what: &'static str,
    shape: MatrixShape,
    found: usize,
    expected: usize,
) -> Result<(), WeightError> {
    if found == expected {
        Ok(())
    } else {
        Err(WeightError::Length { tensor: "weight".into(), what, shape, found, expected })
    }
}

pub(crate) fn check_scales(scales: &[f32]) -> Result<(), WeightError> {
    match scales.iter().position(|s| !s.is_finite() || *s < 0.0) {
        None => Ok(()),
        Some(index) => Err(WeightError::Scale { tensor: "weight".into(), index, value: scales[index] }),
    }
}
