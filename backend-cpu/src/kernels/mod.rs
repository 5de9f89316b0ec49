//! Inner loops, written once in terms of [`Simd`](crate::simd::Simd).
//!
//! # The one order of a dot product
//!
//! A row of `K` values is a sequence of [chunks](crate::simd::Chunk); value `i` always meets lane `i % 16`. Chunks form
//! [`Span`]s of [`SPAN_CHUNKS`]. Within a span every lane is one chain of multiply-adds over ascending chunks; then the
//! lanes are added ([`Simd::sum`](crate::simd::Simd::sum)), and the span's sum is added to the total. Every kernel here
//! keeps to it, whatever the number of rows and tokens it holds in registers, which is why a token's result does not
//! depend on what else is in the step.

// Constant loops over arrays of vectors are what the compiler unrolls into registers; iterators hide the constants.
#![allow(clippy::needless_range_loop)]

mod dot;
mod expand;
mod formats;
mod softmax;
mod weighted_sum;

pub(crate) use dot::{Dot, OutStrides, PanelDot};
pub(crate) use expand::Expand;
pub(crate) use formats::{Bf16Rows, F32Rows, Format, Fp8Rows, Int4Rows, Int8Rows};
pub(crate) use softmax::OnlineSoftmax;
pub(crate) use weighted_sum::{Coefficients, WeightedSum};

use crate::simd::{Chunk, LANES};

/// Chunks whose products are summed lane by lane before the lanes are added: 512 values.
pub(crate) const SPAN_CHUNKS: usize = 64;

/// Values of a full span.
pub(crate) const SPAN: usize = SPAN_CHUNKS * LANES;

/// `cols` rounded up to whole chunks.
pub(crate) fn padded(cols: usize) -> usize {
    cols.next_multiple_of(LANES)
}

/// A run of columns, at most [`SPAN`], starting at a multiple of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// Index of the first chunk.
    pub(crate) first: usize,
    /// Whole chunks.
    pub(crate) whole: usize,
    /// Values of a last, partial chunk; 0 if there is none.
    pub(crate) rest: usize,
}

impl Span {
    /// The spans of a row of `cols` values.
    pub(crate) fn all(cols: usize) -> impl Iterator<Item = Span> {
        (0..cols.div_ceil(SPAN)).map(move |i| {
            let len = (cols - i * SPAN).min(SPAN);
            Span { first: i * SPAN_CHUNKS, whole: len / LANES, rest: len % LANES }
        })
    }

    /// Chunks, the partial one included.
    pub(crate) fn chunks(self) -> usize {
        self.whole + usize::from(self.rest > 0)
    }

    /// Index of the first column.
    pub(crate) fn first_col(self) -> usize {
        self.first * LANES
    }
}

/// Rows of activations, in whole chunks (zeros fill the last one), possibly picked by an index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    data: &'a [f32],
    stride: usize,
    cols: usize,
    index: Option<&'a [u32]>,
    len: usize,
}

impl<'a> Rows<'a> {
    /// All rows of `data`, `stride` apart, of which the first `cols` values (a multiple of [`LANES`]) are used.
    pub(crate) fn new(data: &'a [f32], stride: usize, cols: usize) -> Self {
        debug_assert!(cols.is_multiple_of(LANES) && cols <= stride);
        Self { data, stride, cols, index: None, len: (data.len() + stride - cols) / stride }
    }

    /// The rows `index` of these rows.
    pub(crate) fn pick(self, index: &'a [u32]) -> Self {
        debug_assert!(self.index.is_none());
        Self { index: Some(index), len: index.len(), ..self }
    }

    /// The rows `range` of these rows.
    pub(crate) fn range(self, range: std::ops::Range<usize>) -> Self {
        let len = range.len();
        match self.index {
            Some(index) => Self { index: Some(&index[range]), len, ..self },
            None => Self { data: &self.data[(range.start * self.stride).min(self.data.len())..], len, ..self },
        }
    }

    /// Number of rows.
    pub(crate) fn len(self) -> usize {
        self.len
    }

    /// One row.
    #[inline(always)]
    pub(crate) fn row(self, i: usize) -> &'a [Chunk] {
        let row = self.index.map_or(i, |index| index[i] as usize);
        self.data[row * self.stride..][..self.cols].as_chunks().0
    }
}
