//! Weight formats as rows of values that are widened sixteen at a time.
//!
//! Every format yields `stored value × scale` with one rounding to f32, the weight the reference multiplies with.

use engine_core::quant::FP8_BLOCK;
use engine_core::quant::fp8::E4M3_TABLE;

use super::{SPAN_CHUNKS, Span};
use crate::simd::{Chunk, LANES, Simd};

/// A weight matrix in memory.
pub(crate) trait Format: Sync {
    /// The part of a row that lies in a span.
    type Cut<'a>: Cut
    where
        Self: 'a;

    /// Row `row` in `span`.
    fn cut(&self, row: usize, span: Span) -> Self::Cut<'_>;
}

/// Part of a row.
pub(crate) trait Cut {
    /// A chunk as it is stored.
    type Stored;

    /// The whole chunks.
    fn chunks(&self) -> &[Self::Stored];

    /// The values of whole chunk `index`, which is `stored`.
    fn widen<S: Simd>(&self, simd: S, index: usize, stored: &Self::Stored) -> S::Vector;

    /// The partial chunk at the end, zeros after it.
    fn rest(&self) -> Chunk;

    /// True where a whole chunk holds a NaN that [`Cut::widen`] does not show: sums over this part are NaN.
    #[inline(always)]
    fn hides_nan<S: Simd>(&self, _: S) -> bool {
        false
    }
}

fn zero_filled(values: impl Iterator<Item = f32>) -> Chunk {
    let mut chunk = [0.0; LANES];
    for (to, from) in chunk.iter_mut().zip(values) {
        *to = from;
    }
    chunk
}

/// Splits the columns of `span` off a row of `T`.
#[inline(always)]
fn split<T>(row: &[T], span: Span) -> (&[[T; LANES]], &[T]) {
    let (chunks, rest) = row[span.first_col()..][..span.whole * LANES + span.rest].as_chunks();
    (&chunks[..span.whole], rest)
}

/// How far ahead of their use weights are asked for, in bytes. Widening leaves so few loads in flight that the processor's
/// own prefetching does not reach memory's full rate.
const PREFETCH_BYTES: usize = 512;

/// Asks for the bytes that follow a chunk at a distance; past the end of a row they are those of the next.
#[inline(always)]
fn prefetch<S: Simd, C>(simd: S, stored: &C) {
    simd.prefetch(std::ptr::from_ref(stored).wrapping_byte_add(PREFETCH_BYTES));
}

/// The first `N` of a row's remaining scales, zeros where there are fewer.
#[inline(always)]
fn first_scales<const N: usize>(scales: &[f32]) -> [f32; N] {
    // A copy of constant length is a few instructions; the loop is for the end of a row.
    if let Some(scales) = scales.first_chunk() {
        return *scales;
    }
    let mut out = [0.0; N];
    out[..scales.len()].copy_from_slice(scales);
    out
}

/// f32 values, `stride` apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct F32Rows<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) stride: usize,
}

pub(crate) struct F32Cut<'a> {
    chunks: &'a [Chunk],
    rest: &'a [f32],
}

impl Format for F32Rows<'_> {
    type Cut<'a>
        = F32Cut<'a>
    where
        Self: 'a;

    #[inline(always)]
    fn cut(&self, row: usize, span: Span) -> F32Cut<'_> {
        let (chunks, rest) = split(&self.values[row * self.stride..], span);
        F32Cut { chunks, rest }
    }
}

impl Cut for F32Cut<'_> {
    type Stored = Chunk;

    #[inline(always)]
    fn chunks(&self) -> &[Chunk] {
        self.chunks
    }

    #[inline(always)]
    fn widen<S: Simd>(&self, simd: S, _: usize, stored: &Chunk) -> S::Vector {
        simd.load(stored)
    }

    fn rest(&self) -> Chunk {
        zero_filled(self.rest.iter().copied())
    }
}

/// bf16 bit patterns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bf16Rows<'a> {
    pub(crate) values: &'a [u16],
    pub(crate) cols: usize,
}

pub(crate) struct Bf16Cut<'a> {
    chunks: &'a [[u16; LANES]],
    rest: &'a [u16],
}

impl Format for Bf16Rows<'_> {
    type Cut<'a>
        = Bf16Cut<'a>
    where
        Self: 'a;

    #[inline(always)]
    fn cut(&self, row: usize, span: Span) -> Bf16Cut<'_> {
        let (chunks, rest) = split(&self.values[row * self.cols..], span);
        Bf16Cut { chunks, rest }
    }
}

impl Cut for Bf16Cut<'_> {
    type Stored = [u16; LANES];

    #[inline(always)]
    fn chunks(&self) -> &[[u16; LANES]] {
        self.chunks
    }

    #[inline(always)]
    fn widen<S: Simd>(&self, simd: S, _: usize, stored: &[u16; LANES]) -> S::Vector {
        prefetch(simd, stored);
        simd.bf16(stored)
    }

    fn rest(&self) -> Chunk {
        zero_filled(self.rest.iter().map(|bits| f32::from_bits(u32::from(*bits) << 16)))
    }
}

/// e4m3 bytes with a scale per 128 x 128 block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fp8Rows<'a> {
    pub(crate) values: &'a [u8],
    pub(crate) cols: usize,
    pub(crate) scales: &'a [f32],
}

/// Chunks under one scale.
const FP8_CHUNKS: usize = FP8_BLOCK / LANES;
/// Scales of a span.
const FP8_SCALES: usize = SPAN_CHUNKS / FP8_CHUNKS;

pub(crate) struct Fp8Cut<'a> {
    chunks: &'a [[u8; LANES]],
    rest: &'a [u8],
    /// Scales times 2^8, which [`Simd::e4m3_div_256`] leaves to us.
    scales: [f32; FP8_SCALES],
}

impl Format for Fp8Rows<'_> {
    type Cut<'a>
        = Fp8Cut<'a>
    where
        Self: 'a;

    #[inline(always)]
    fn cut(&self, row: usize, span: Span) -> Fp8Cut<'_> {
        let (chunks, rest) = split(&self.values[row * self.cols..], span);
        let blocks = self.cols.div_ceil(FP8_BLOCK);
        let row_scales = &self.scales[row / FP8_BLOCK * blocks..][..blocks];
        let scales = first_scales(&row_scales[span.first / FP8_CHUNKS..]);
        Fp8Cut { chunks, rest, scales: scales.map(|scale| scale * 256.0) }
    }
}

impl Cut for Fp8Cut<'_> {
    type Stored = [u8; LANES];

    #[inline(always)]
    fn chunks(&self) -> &[[u8; LANES]] {
        self.chunks
    }

    #[inline(always)]
    fn widen<S: Simd>(&self, simd: S, index: usize, stored: &[u8; LANES]) -> S::Vector {
        prefetch(simd, stored);
        let scale = simd.splat(self.scales[index / FP8_CHUNKS % FP8_SCALES]);
        simd.mul(simd.e4m3_div_256(stored), scale)
    }

    fn rest(&self) -> Chunk {
        let scale = self.scales[self.chunks.len() / FP8_CHUNKS % FP8_SCALES] / 256.0;
        zero_filled(self.rest.iter().map(|byte| E4M3_TABLE[*byte as usize] * scale))
    }

    /// Looked for after the bytes were used, when they are in the first-level cache: far cheaper than a mask per chunk.
    #[inline(always)]
    fn hides_nan<S: Simd>(&self, simd: S) -> bool {
        simd.has_e4m3_nan(self.chunks)
    }
}

/// i8 values with a scale per row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Int8Rows<'a> {
    pub(crate) values: &'a [i8],
    pub(crate) cols: usize,
    pub(crate) scales: &'a [f32],
}

pub(crate) struct Int8Cut<'a> {
    chunks: &'a [[i8; LANES]],
    rest: &'a [i8],
    scale: f32,
}

impl Format for Int8Rows<'_> {
    type Cut<'a>
        = Int8Cut<'a>
    where
        Self: 'a;

    #[inline(always)]
    fn cut(&self, row: usize, span: Span) -> Int8Cut<'_> {
        let (chunks, rest) = split(&self.values[row * self.cols..], span);
        Int8Cut { chunks, rest, scale: self.scales[row] }
    }
}

impl Cut for Int8Cut<'_> {
    type Stored = [i8; LANES];

    #[inline(always)]
    fn chunks(&self) -> &[[i8; LANES]] {
        self.chunks
    }

    #[inline(always)]
    fn widen<S: Simd>(&self, simd: S, _: usize, stored: &[i8; LANES]) -> S::Vector {
        prefetch(simd, stored);
        simd.mul(simd.i8(stored), simd.splat(self.scale))
    }

    fn rest(&self) -> Chunk {
        zero_filled(self.rest.iter().map(|value| f32::from(*value) * self.scale))
    }
}

/// 4-bit values, two a byte, with a scale per group of a power of two of chunks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Int4Rows<'a> {
    pub(crate) packed: &'a [u8],
    pub(crate) row_bytes: usize,
    /// Binary logarithm of the number of chunks per scale.
    pub(crate) group_shift: u32,
    pub(crate) scales: &'a [f32],
    pub(crate) scales_per_row: usize,
}

pub(crate) struct Int4Cut<'a> {
    chunks: &'a [[u8; LANES / 2]],
    rest: &'a [u8],
    rest_len: usize,
    group_shift: u32,
    scales: [f32; SPAN_CHUNKS],
}

impl Format for Int4Rows<'_> {
    type Cut<'a>
        = Int4Cut<'a>
    where
        Self: 'a;

    #[inline(always)]
    fn cut(&self, row: usize, span: Span) -> Int4Cut<'_> {
        let bytes = &self.packed[row * self.row_bytes..][..self.row_bytes][span.first_col() / 2..];
        let (chunks, rest) = bytes.as_chunks();
        let rest = if span.rest > 0 && chunks.len() > span.whole { &chunks[span.whole][..] } else { rest };
        let row_scales = &self.scales[row * self.scales_per_row..][..self.scales_per_row];
        let scales = first_scales(&row_scales[span.first >> self.group_shift..]);
        Int4Cut { chunks: &chunks[..span.whole], rest, rest_len: span.rest, group_shift: self.group_shift, scales }
    }
}

impl Cut for Int4Cut<'_> {
    type Stored = [u8; LANES / 2];

    #[inline(always)]
    fn chunks(&self) -> &[[u8; LANES / 2]] {
        self.chunks
    }

    #[inline(always)]
    fn widen<S: Simd>(&self, simd: S, index: usize, stored: &[u8; LANES / 2]) -> S::Vector {
        prefetch(simd, stored);
        let scale = self.scales[(index >> self.group_shift) % SPAN_CHUNKS];
        simd.mul(simd.int4(stored), simd.splat(scale))
    }

    fn rest(&self) -> Chunk {
        let scale = self.scales[(self.chunks.len() >> self.group_shift) % SPAN_CHUNKS];
        let value = |i: usize| i32::from((self.rest[i / 2] >> (4 * (i % 2))) & 0xF) - 8;
        zero_filled((0..self.rest_len).map(|i| value(i) as f32 * scale))
    }
}
