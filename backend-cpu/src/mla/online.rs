//! Softmax over keys that arrive in tiles.
//!
//! A query's running maximum, sum and weighted values are brought up to date tile by tile. Tiles start at multiples of
//! [`TILE`] of the sequence's positions and a query's last tile ends at its own position, so what is computed for a
//! query follows from its position alone, however the sequence was cut into steps and blocks.

use std::ops::Range;

use engine_core::backend::StepLayout;

use crate::gemm::Machine;
use crate::kernels::{Coefficients, Dot, F32Rows, OnlineSoftmax, OutStrides, Rows, WeightedSum};
use crate::scratch::grown;
use crate::simd::Isa;

/// Positions of a tile.
pub(super) const TILE: usize = 64;

/// Queries that see the same keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueryBlock<'a> {
    /// The queries, as wide as the keys.
    pub(super) rows: F32Rows<'a>,
    pub(super) len: usize,
    /// σ.
    pub(super) scale: f32,
}

/// Keys and values of the positions of a tile.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyTile<'a> {
    pub(super) keys: Rows<'a>,
    pub(super) key_width: usize,
    pub(super) values: Rows<'a>,
}

impl KeyTile<'_> {
    /// The first `len` positions.
    pub(super) fn first(self, len: usize) -> Self {
        Self { keys: self.keys.range(0..len), values: self.values.range(0..len), ..self }
    }
}

/// Running softmax of some queries.
pub(super) struct Running<'a> {
    /// Maximum and sum of each query.
    pub(super) max_and_sum: &'a mut [[f32; 2]],
    /// Weighted values of each query, `stride` apart, not yet divided by the sum.
    pub(super) values: &'a mut [f32],
    pub(super) stride: usize,
}

impl Running<'_> {
    /// Some of the queries.
    pub(super) fn part(&mut self, queries: Range<usize>) -> Running<'_> {
        let values = &mut self.values[queries.start * self.stride..queries.end * self.stride];
        Running { max_and_sum: &mut self.max_and_sum[queries], values, stride: self.stride }
    }

    /// No keys seen.
    pub(super) fn clear(&mut self) {
        self.max_and_sum.fill([f32::NEG_INFINITY, 0.0]);
        self.values.fill(0.0);
    }

    /// Takes a tile of keys into account.
    pub(super) fn add(&mut self, isa: Isa, queries: QueryBlock<'_>, tile: KeyTile<'_>, scores: &mut Vec<f32>) {
        let (num_queries, num_keys) = (queries.len, tile.keys.len());
        let scores = grown(scores, num_queries * num_keys);
        let strides = OutStrides { token: num_queries, row: 1 };
        let dot = Dot {
            weight: &queries.rows,
            rows: 0..num_queries,
            cols: tile.key_width,
            x: tile.keys,
            out: &mut *scores,
            strides,
        };
        isa.run(dot);
        isa.run(OnlineSoftmax {
            scores: &mut *scores,
            scale: queries.scale,
            max_and_sum: &mut *self.max_and_sum,
            values: &mut *self.values,
            stride: self.stride,
        });
        let coefficients = Coefficients { values: scores, sum: 1, row: num_queries };
        let (out, stride) = (&mut *self.values, self.stride);
        isa.run(WeightedSum { coefficients, rows: tile.values, out, stride, num_sums: num_queries });
    }

    /// Divides by the sums: the values are attention's result.
    pub(super) fn finish(&mut self) {
        for (values, [_, sum]) in self.values.chunks_mut(self.stride).zip(&*self.max_and_sum) {
            values.iter_mut().for_each(|value| *value /= sum);
        }
    }
}

/// The tiles of the positions `0..len` as `(first position, slots)`.
pub(super) fn for_each_tile(layout: &StepLayout, seq: usize, len: usize, mut task: impl FnMut(usize, &[u32])) {
    let mut slots = [0; TILE];
    for start in (0..len).step_by(TILE) {
        let num_keys = TILE.min(len - start);
        for (i, slot) in slots[..num_keys].iter_mut().enumerate() {
            *slot = layout.slot(seq, start + i) as u32;
        }
        task(start, &slots[..num_keys]);
    }
}

/// The largest divisor of `heads` up to `limit` that still gives every thread two tasks. Never decides a result.
pub(super) fn heads_per_task(machine: Machine<'_>, num_tokens: usize, heads: usize, limit: usize) -> usize {
    let enough = |size: usize| num_tokens * heads / size >= 2 * machine.threads.len();
    (1..=limit.min(heads)).rev().find(|size| heads.is_multiple_of(*size) && enough(*size)).unwrap_or(1)
}
