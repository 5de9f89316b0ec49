//! Dot products of weight rows with tokens, as register tiles.

use std::ops::Range;

use super::formats::Cut;
use super::{Expand, F32Rows, Format, Rows, SPAN, Span};
use crate::simd::{Chunk, Kernel, Simd};

/// Where a tile kernel puts the product of token `t` and row `r`: at `t · token + r · row`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutStrides {
    pub(crate) token: usize,
    pub(crate) row: usize,
}

/// `out = x · rowsᵀ`, the rows widened in registers: for few tokens, where reading the weights is all the time.
pub(crate) struct Dot<'a, F> {
    pub(crate) weight: &'a F,
    pub(crate) rows: Range<usize>,
    /// Values per row.
    pub(crate) cols: usize,
    pub(crate) x: Rows<'a>,
    pub(crate) out: &'a mut [f32],
    pub(crate) strides: OutStrides,
}

impl<F: Format> Kernel for Dot<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        self.out_of_tiles(simd);
    }
}

impl<F: Format> Dot<'_, F> {
    #[inline(always)]
    fn out_of_tiles<S: Simd>(&mut self, simd: S) {
        let len = self.x.len();
        let mut token = 0;
        while token < len {
            token += match (len - token, S::WIDE) {
                (1, _) => self.token_tile::<S, 4, 1>(simd, token),
                (2, true) => self.token_tile::<S, 4, 2>(simd, token),
                (3 | 4, true) => self.token_tile::<S, 4, 4>(simd, token),
                (_, true) => self.token_tile::<S, 2, 8>(simd, token),
                (_, false) => self.token_tile::<S, 2, 2>(simd, token),
            };
        }
    }

    /// All rows for `M` tokens, `R` rows at a time.
    #[inline(always)]
    fn token_tile<S: Simd, const R: usize, const M: usize>(&mut self, simd: S, token: usize) -> usize {
        let mut row = 0;
        while row + R <= self.rows.len() {
            self.register_tile::<S, R, M>(simd, row, token);
            row += R;
        }
        while row < self.rows.len() {
            self.register_tile::<S, 1, M>(simd, row, token);
            row += 1;
        }
        M
    }

    #[inline(always)]
    fn register_tile<S: Simd, const R: usize, const M: usize>(&mut self, simd: S, row: usize, token: usize) {
        let x = tokens::<M>(self.x, token);
        let mut totals = [[0.0; M]; R];
        for span in Span::all(self.cols) {
            let sums = span_sums::<S, F, R, M>(simd, self.weight, self.rows.start + row, x, span);
            for r in 0..R {
                for m in 0..M {
                    totals[r][m] += sums[r][m];
                }
            }
        }
        for (r, totals) in totals.iter().enumerate() {
            for (m, total) in totals.iter().take(self.x.len() - token).enumerate() {
                self.out[(token + m) * self.strides.token + (row + r) * self.strides.row] = *total;
            }
        }
    }
}

/// `out = x · rowsᵀ`, the rows widened once per span into `panel`: for many tokens.
pub(crate) struct PanelDot<'a, F> {
    pub(crate) weight: &'a F,
    pub(crate) rows: Range<usize>,
    /// Values per row.
    pub(crate) cols: usize,
    pub(crate) x: Rows<'a>,
    /// Scratch of at least `rows.len()` times [`SPAN`].
    pub(crate) panel: &'a mut [f32],
    pub(crate) out: &'a mut [f32],
    pub(crate) strides: OutStrides,
}

impl<F: Format> Kernel for PanelDot<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for t in 0..self.x.len() {
            for r in 0..self.rows.len() {
                self.out[t * self.strides.token + r * self.strides.row] = 0.0;
            }
        }
        for span in Span::all(self.cols) {
            let panel = &mut self.panel[..self.rows.len() * SPAN];
            Expand { weight: self.weight, rows: self.rows.clone(), span, out: panel, stride: SPAN }.run(simd);
            let panel = F32Rows { values: panel, stride: SPAN };
            add_products(simd, panel, self.rows.len(), (self.x, span), self.out, self.strides);
        }
    }
}

/// Adds the span's products of `num_rows` panel rows and all tokens to `out`.
#[inline(always)]
fn add_products<S: Simd>(
    simd: S,
    panel: F32Rows<'_>,
    num_rows: usize,
    (x, span): (Rows<'_>, Span),
    out: &mut [f32],
    strides: OutStrides,
) {
    let mut tile = PanelTile { panel, num_rows, x, span, out, strides };
    let mut token = 0;
    while token < x.len() {
        token += match (x.len() - token, S::WIDE) {
            (1, _) => tile.tokens::<S, 4, 1>(simd, token),
            (2, true) => tile.tokens::<S, 4, 2>(simd, token),
            (3 | 4 | 7 | 8, true) => tile.tokens::<S, 4, 4>(simd, token),
            (_, true) => tile.tokens::<S, 4, 6>(simd, token),
            (_, false) => tile.tokens::<S, 2, 2>(simd, token),
        };
    }
}

struct PanelTile<'a> {
    panel: F32Rows<'a>,
    num_rows: usize,
    x: Rows<'a>,
    span: Span,
    out: &'a mut [f32],
    strides: OutStrides,
}

impl PanelTile<'_> {
    #[inline(always)]
    fn tokens<S: Simd, const R: usize, const M: usize>(&mut self, simd: S, token: usize) -> usize {
        let mut row = 0;
        while row + R <= self.num_rows {
            self.register_tile::<S, R, M>(simd, row, token);
            row += R;
        }
        while row < self.num_rows {
            self.register_tile::<S, 1, M>(simd, row, token);
            row += 1;
        }
        M
    }

    #[inline(always)]
    fn register_tile<S: Simd, const R: usize, const M: usize>(&mut self, simd: S, row: usize, token: usize) {
        let first = self.span.first;
        let x = tokens::<M>(self.x, token).map(|x| &x[first..]);
        // The panel starts at the span and holds whole chunks.
        let span = Span { first: 0, whole: self.span.chunks(), rest: 0 };
        let sums = span_sums::<S, F32Rows<'_>, R, M>(simd, &self.panel, row, x, span);
        for (r, sums) in sums.iter().enumerate() {
            for (m, sum) in sums.iter().take(self.x.len() - token).enumerate() {
                self.out[(token + m) * self.strides.token + (row + r) * self.strides.row] += *sum;
            }
        }
    }
}

/// `M` tokens from `first` on. Past the end the last one is repeated: its products are computed and not used.
#[inline(always)]
fn tokens<const M: usize>(x: Rows<'_>, first: usize) -> [&[Chunk]; M] {
    let last = x.len() - 1;
    std::array::from_fn(|m| x.row((first + m).min(last)))
}

/// The span's share of the dot products of `R` rows and `M` tokens: the innermost loop of everything.
#[inline(always)]
fn span_sums<S: Simd, F: Format, const R: usize, const M: usize>(
    simd: S,
    weight: &F,
    row: usize,
    x: [&[Chunk]; M],
    span: Span,
) -> [[f32; M]; R] {
    let cuts: [F::Cut<'_>; R] = std::array::from_fn(|r| weight.cut(row + r, span));
    let x: [&[Chunk]; M] = std::array::from_fn(|m| &x[m][span.first..]);
    let mut lanes = [[simd.splat(0.0); M]; R];
    // Slices of one known length: the loop needs no check.
    let whole = span.whole;
    let stored: [&[_]; R] = std::array::from_fn(|r| &cuts[r].chunks()[..whole]);
    let tokens: [&[Chunk]; M] = std::array::from_fn(|m| &x[m][..whole]);
    for i in 0..whole {
        let tokens = load_tokens(simd, tokens, i);
        for r in 0..R {
            let w = cuts[r].widen(simd, i, &stored[r][i]);
            for m in 0..M {
                lanes[r][m] = simd.fma(w, tokens[m], lanes[r][m]);
            }
        }
    }
    if span.rest > 0 {
        let tokens = load_tokens(simd, x, whole);
        for r in 0..R {
            let w = simd.load(&cuts[r].rest());
            for m in 0..M {
                lanes[r][m] = simd.fma(w, tokens[m], lanes[r][m]);
            }
        }
    }
    let mut sums = sum_lanes(simd, &lanes);
    for r in 0..R {
        if cuts[r].hides_nan(simd) {
            sums[r] = [f32::NAN; M];
        }
    }
    sums
}

/// The sum of each vector's lanes.
#[inline(always)]
fn sum_lanes<S: Simd, const R: usize, const M: usize>(simd: S, lanes: &[[S::Vector; M]; R]) -> [[f32; M]; R] {
    let mut sums = [[0.0; M]; R];
    if R.is_multiple_of(4) {
        for r in (0..R).step_by(4) {
            for m in 0..M {
                let four = simd.sum4([lanes[r][m], lanes[r + 1][m], lanes[r + 2][m], lanes[r + 3][m]]);
                for i in 0..4 {
                    sums[r + i][m] = four[i];
                }
            }
        }
    } else if M.is_multiple_of(4) {
        for r in 0..R {
            for m in (0..M).step_by(4) {
                let four = [lanes[r][m], lanes[r][m + 1], lanes[r][m + 2], lanes[r][m + 3]];
                sums[r][m..m + 4].copy_from_slice(&simd.sum4(four));
            }
        }
    } else {
        for r in 0..R {
            for m in 0..M {
                sums[r][m] = simd.sum(lanes[r][m]);
            }
        }
    }
    sums
}

#[inline(always)]
fn load_tokens<S: Simd, const M: usize>(simd: S, x: [&[Chunk]; M], i: usize) -> [S::Vector; M] {
    let mut tokens = [simd.splat(0.0); M];
    for m in 0..M {
        tokens[m] = simd.load(&x[m][i]);
    }
    tokens
}
