//! Sums of rows with weights: `out += coefficients · rows`.

use super::Rows;
use crate::simd::{Chunk, Kernel, LANES, Simd};

/// A matrix of factors: sum `s` takes row `i` times `values[s · sum + i · row]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Coefficients<'a> {
    pub(crate) values: &'a [f32],
    /// Step from one sum to the next.
    pub(crate) sum: usize,
    /// Step from one row to the next.
    pub(crate) row: usize,
}

/// Adds weighted rows to each sum, in ascending order of rows: every value of `out` is one chain of multiply-adds.
pub(crate) struct WeightedSum<'a> {
    pub(crate) coefficients: Coefficients<'a>,
    pub(crate) rows: Rows<'a>,
    /// The sums, each as wide as a row, `stride` apart.
    pub(crate) out: &'a mut [f32],
    pub(crate) stride: usize,
    pub(crate) num_sums: usize,
}

/// Chunks of a row that are kept in registers for each of several sums.
const STRIP: usize = 4;

impl Kernel for WeightedSum<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        if self.rows.len() == 0 {
            return;
        }
        let width = self.rows.row(0).len();
        let mut chunk = 0;
        while chunk + STRIP <= width {
            self.strip::<S, STRIP>(simd, chunk);
            chunk += STRIP;
        }
        while chunk < width {
            self.strip::<S, 1>(simd, chunk);
            chunk += 1;
        }
    }
}

impl WeightedSum<'_> {
    #[inline(always)]
    fn strip<S: Simd, const C: usize>(&mut self, simd: S, chunk: usize) {
        let mut sum = 0;
        while S::WIDE && sum + 4 <= self.num_sums {
            self.register_tile::<S, 4, C>(simd, sum, chunk);
            sum += 4;
        }
        while sum < self.num_sums {
            self.register_tile::<S, 1, C>(simd, sum, chunk);
            sum += 1;
        }
    }

    #[inline(always)]
    fn register_tile<S: Simd, const M: usize, const C: usize>(&mut self, simd: S, sum: usize, chunk: usize) {
        let mut lanes = [[simd.splat(0.0); C]; M];
        for m in 0..M {
            let out = self.out_chunks(sum + m, chunk);
            for c in 0..C {
                lanes[m][c] = simd.load(&out[c]);
            }
        }
        for i in 0..self.rows.len() {
            let row = &self.rows.row(i)[chunk..][..C];
            for m in 0..M {
                let Coefficients { values, sum: sum_stride, row: row_stride } = self.coefficients;
                let factor = simd.splat(values[(sum + m) * sum_stride + i * row_stride]);
                for c in 0..C {
                    lanes[m][c] = simd.fma(factor, simd.load(&row[c]), lanes[m][c]);
                }
            }
        }
        for m in 0..M {
            let out = self.out_chunks(sum + m, chunk);
            for c in 0..C {
                simd.store(lanes[m][c], &mut out[c]);
            }
        }
    }

    #[inline(always)]
    fn out_chunks(&mut self, sum: usize, chunk: usize) -> &mut [Chunk] {
        self.out[sum * self.stride + chunk * LANES..].as_chunks_mut().0
    }
}
