//! Weight rows to f32 memory.

use std::ops::Range;

use super::formats::Cut;
use super::{Format, Span};
use crate::simd::{Kernel, Simd};

/// Writes the span's columns of `rows` to `out`, one row every `stride` values; zeros fill the last chunk.
pub(crate) struct Expand<'a, F> {
    pub(crate) weight: &'a F,
    pub(crate) rows: Range<usize>,
    pub(crate) span: Span,
    pub(crate) out: &'a mut [f32],
    pub(crate) stride: usize,
}

impl<F: Format> Kernel for Expand<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (row, out) in self.rows.zip(self.out.chunks_mut(self.stride)) {
            let cut = self.weight.cut(row, self.span);
            let out = &mut out.as_chunks_mut().0[..self.span.chunks()];
            assert!(self.span.whole <= cut.len());
            for (chunk, out) in out[..self.span.whole].iter_mut().enumerate() {
                simd.store(cut.load(simd, chunk), out);
            }
            if self.span.rest > 0 {
                out[self.span.whole] = cut.rest();
            }
        }
    }
}
