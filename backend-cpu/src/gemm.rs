//! `x Wᵀ`: tiles of output rows over the threads, one [tile kernel](crate::kernels) for few tokens and one for many.

use std::ops::Range;

use engine_core::backend::StepError;

use crate::grid::Grid;
use crate::kernels::{Dot, Expand, OutStrides, PanelDot, Rows, SPAN, Span, padded};
use crate::matrix::{Matrix, with_rows};
use crate::scratch::{Buffer, grown, with_task_scratch};
use crate::simd::Isa;
use crate::threads::Threads;

/// Tokens a tile takes at once; more come in batches of this.
pub(crate) const MAX_TOKENS: usize = 256;

/// Largest and smallest number of weight rows in a task.
const MAX_TILE_ROWS: usize = 32;
const MIN_TILE_ROWS: usize = 4;

/// Up to this many tokens weights are widened in registers, once for each register tile.
const MAX_DIRECT_TOKENS: usize = 8;

/// What ops run on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine<'a> {
    pub(crate) isa: Isa,
    pub(crate) threads: &'a Threads,
}

impl Machine<'_> {
    /// Weight rows per task, so that every thread gets several tasks out of `num_rows`. Never decides a result.
    pub(crate) fn tile_rows(self, num_rows: usize) -> usize {
        let wanted = num_rows / (4 * self.threads.len());
        wanted.next_multiple_of(MIN_TILE_ROWS).clamp(MIN_TILE_ROWS, MAX_TILE_ROWS)
    }
}

/// Some rows of a weight times some tokens.
pub(crate) struct Product<'a> {
    pub(crate) weight: &'a Matrix,
    pub(crate) rows: Range<usize>,
    /// At most [`MAX_TOKENS`], in whole chunks.
    pub(crate) x: Rows<'a>,
}

impl Product<'_> {
    /// The products `[token][row]`, in `out`; `panel` is scratch.
    pub(crate) fn compute<'o>(self, isa: Isa, panel: &mut Vec<f32>, out: &'o mut Vec<f32>) -> &'o [f32] {
        let Product { weight, rows, x } = self;
        debug_assert!(x.len() <= MAX_TOKENS);
        let out = grown(out, x.len() * rows.len());
        let strides = OutStrides { token: rows.len(), row: 1 };
        let cols = weight.num_cols();
        if x.len() <= MAX_DIRECT_TOKENS {
            with_rows!(weight, w => isa.run(Dot { weight: &w, rows, cols, x, out: &mut *out, strides }));
        } else {
            let panel = grown(panel, rows.len() * SPAN);
            with_rows!(weight, w => isa.run(PanelDot { weight: &w, rows, cols, x, panel, out: &mut *out, strides }));
        }
        out
    }
}

/// Widens `rows` of a weight to f32, in whole chunks, into `out`. Returns the rows.
pub(crate) fn expand_rows<'o>(isa: Isa, weight: &Matrix, rows: Range<usize>, out: &'o mut Vec<f32>) -> Rows<'o> {
    let width = padded(weight.num_cols());
    let out = grown(out, rows.len() * width);
    for span in Span::all(weight.num_cols()) {
        let out = &mut out[span.first_col()..];
        with_rows!(weight, w => isa.run(Expand { weight: &w, rows: rows.clone(), span, out, stride: width }));
    }
    Rows::new(out, width, width)
}

/// Activations `[T, cols]` as rows of whole chunks: as they are, or copied to `buffer` with zeros at the end.
pub(crate) fn chunked<'a>(x: &'a [f32], cols: usize, buffer: &'a mut Buffer) -> Result<Rows<'a>, StepError> {
    let width = padded(cols);
    if width == cols {
        return Ok(Rows::new(x, cols, cols));
    }
    let copy = buffer.take(x.len() / cols * width)?;
    for (to, from) in copy.chunks_mut(width).zip(x.chunks(cols)) {
        to[..cols].copy_from_slice(from);
        to[cols..].fill(0.0);
    }
    Ok(Rows::new(copy, width, width))
}

/// `out [T, O] = x [T, I] Wᵀ`.
pub(crate) fn linear(machine: Machine<'_>, weight: &Matrix, x: Rows<'_>, out: &mut [f32]) {
    let cols = weight.num_rows();
    let grid = Grid { data: out, cols, groups: &[0, x.len()], tile_cols: machine.tile_rows(cols) };
    grid.for_each_tile(machine.threads, |mut tile| {
        with_task_scratch(|scratch| {
            for tokens in batches(x.len()) {
                let product = Product { weight, rows: tile.cols.clone(), x: x.range(tokens.clone()) };
                let products = product.compute(machine.isa, &mut scratch.panel, &mut scratch.tile);
                for (token, products) in tokens.zip(products.chunks(tile.cols.len())) {
                    tile.row(token).copy_from_slice(products);
                }
            }
        });
    });
}

/// `0..len` in pieces of at most [`MAX_TOKENS`].
pub(crate) fn batches(len: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(MAX_TOKENS).map(move |start| start..(start + MAX_TOKENS).min(len))
}
