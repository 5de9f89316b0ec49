//! Weight rows to f32 memory.

use std::ops::Range;

use super::formats::Cut;
use super::{Format, Span};
use crate::simd::{Kernel, LANES, Simd};

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
            for (i, (stored, out)) in cut.chunks().iter().zip(&mut *out).enumerate() {
                simd.store(cut.widen(simd, i, stored), out);
            }
            if self.span.rest > 0 {
                out[self.span.whole] = cut.rest();
            }
            if cut.hides_nan(simd) {
                out.fill([f32::NAN; LANES]);
            }
        }
    }
}
