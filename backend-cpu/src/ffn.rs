//! The gated FFN, dense or as one of many experts: `down(silu(gate x) ⊙ up x)`.

use engine_core::backend::{FfnWeights, PrepareError, StepError};

use crate::gemm::{Machine, Product, batches, chunked};
use crate::grid::{Grid, Tile};
use crate::kernels::{Rows, padded};
use crate::matrix::Matrix;
use crate::scratch::{CpuStream, TaskScratch, with_task_scratch};

/// Gate, up and down projections.
#[derive(Debug, Clone)]
pub struct Ffn {
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

impl Ffn {
    pub(crate) fn new(weights: FfnWeights) -> Result<Self, PrepareError> {
        let FfnWeights { gate, up, down } = weights;
        Ok(Self { gate: Matrix::new(gate)?, up: Matrix::new(up)?, down: Matrix::new(down)? })
    }

    /// I, the width between the projections, in whole chunks.
    pub(crate) fn padded_width(&self) -> usize {
        padded(self.gate.num_rows())
    }

    /// `x [T, H]` to `out [T, H]`.
    pub(crate) fn forward(
        &self,
        machine: Machine<'_>,
        stream: &mut CpuStream,
        x: &[f32],
        out: &mut [f32],
    ) -> Result<(), StepError> {
        let x = chunked(x, self.gate.num_cols(), &mut stream.padded)?;
        let width = self.padded_width();
        let gated = stream.first.take(x.len() * width)?;
        gate_up(machine, &[0, x.len()], |_| self, x, gated);
        let gated = Rows::new(gated, width, width);
        sum_down(machine, x.len(), self.down.num_rows(), out, |tile, scratch| {
            self.add_down(machine, gated, Destination::EachToken, tile, scratch);
        });
        Ok(())
    }

    /// `silu(gate x) ⊙ up x` for the tile's columns of I.
    fn gate_up_tile(&self, machine: Machine<'_>, x: Rows<'_>, tile: &mut Tile<'_>, scratch: &mut TaskScratch) {
        let width = self.gate.num_rows();
        let rows = tile.cols.start.min(width)..tile.cols.end.min(width);
        for tokens in batches(x.len()) {
            let product = |weight| Product { weight, rows: rows.clone(), x: x.range(tokens.clone()) };
            let gate = product(&self.gate).compute(machine.isa, &mut scratch.panel, &mut scratch.tile);
            let up = product(&self.up).compute(machine.isa, &mut scratch.panel, &mut scratch.other_tile);
            for (i, token) in tokens.enumerate() {
                let (out, padding) = tile.row(token).split_at_mut(rows.len());
                let gate_and_up = gate[i * rows.len()..].iter().zip(&up[i * rows.len()..]);
                for (out, (gate, up)) in out.iter_mut().zip(gate_and_up) {
                    *out = silu(*gate) * up;
                }
                padding.fill(0.0);
            }
        }
    }

    /// Adds `weight · down(gated)` to the tokens' rows of a tile of the output.
    pub(crate) fn add_down(
        &self,
        machine: Machine<'_>,
        gated: Rows<'_>,
        destination: Destination<'_>,
        tile: &mut Tile<'_>,
        scratch: &mut TaskScratch,
    ) {
        for batch in batches(gated.len()) {
            let product = Product { weight: &self.down, rows: tile.cols.clone(), x: gated.range(batch.clone()) };
            let products = product.compute(machine.isa, &mut scratch.panel, &mut scratch.tile);
            for (i, products) in batch.zip(products.chunks(tile.cols.len())) {
                let (token, weight) = match destination {
                    Destination::EachToken => (i, 1.0),
                    Destination::Chosen { tokens, weights } => (tokens[i] as usize, weights[i]),
                };
                for (out, product) in tile.row(token).iter_mut().zip(products) {
                    *out += weight * product;
                }
            }
        }
    }
}

/// Which tokens the rows of an FFN belong to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Destination<'a> {
    /// Row `i` is token `i`, with weight 1.
    EachToken,
    /// Row `i` is token `tokens[i]`, with a weight.
    Chosen { tokens: &'a [u32], weights: &'a [f32] },
}

/// First half: `silu(gate x) ⊙ up x` for every row of `x`, each group of rows with its own FFN; all have one width.
pub(crate) fn gate_up<'w>(
    machine: Machine<'_>,
    groups: &[usize],
    ffn_of_group: impl Fn(usize) -> &'w Ffn + Sync + Send,
    x: Rows<'_>,
    gated: &mut [f32],
) {
    if x.len() == 0 {
        return;
    }
    let cols = ffn_of_group(0).padded_width();
    let tile_cols = machine.tile_rows(cols * (groups.len() - 1));
    Grid { data: gated, cols, groups, tile_cols }.for_each_tile(machine.threads, |mut tile| {
        let x = x.range(tile.rows.clone());
        with_task_scratch(|scratch| ffn_of_group(tile.group).gate_up_tile(machine, x, &mut tile, scratch));
    });
}

/// Second half: zeroes each tile of `out [T, H]` and lets `add` add to it. One task owns a tile from zero to end, so
/// the order of the sum is the order in which `add` goes through the experts.
pub(crate) fn sum_down(
    machine: Machine<'_>,
    num_tokens: usize,
    hidden: usize,
    out: &mut [f32],
    add: impl Fn(&mut Tile<'_>, &mut TaskScratch) + Sync + Send,
) {
    let grid = Grid { data: out, cols: hidden, groups: &[0, num_tokens], tile_cols: machine.tile_rows(hidden) };
    grid.for_each_tile(machine.threads, |mut tile| {
        for i in 0..num_tokens {
            tile.row(i).fill(0.0);
        }
        with_task_scratch(|scratch| add(&mut tile, scratch));
    });
}

/// x · sigmoid(x).
fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}
