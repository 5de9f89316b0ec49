//! The absorbed form: W_UK folded into the queries, W_UV into the result. Every head attends to the same latents, so a
//! task takes several heads of one token and reads each latent once for all of them.

use engine_core::backend::{StepError, StepLayout};

use super::online::{KeyTile, QueryBlock, Running, for_each_tile, heads_per_task};
use super::{LatentCache, Mla, Widths, fill_places};
use crate::gemm::{MAX_TOKENS, Machine, Product, expand_rows};
use crate::grid::{Grid, for_each_piece};
use crate::kernels::{Coefficients, F32Rows, Rows, WeightedSum};
use crate::scratch::{CpuStream, grown, with_task_scratch};

/// Heads that share the reading of a latent.
const MAX_HEADS: usize = 16;

/// Absorbed queries and attended latents kept at a time, in values.
const MAX_SCRATCH: usize = 8 << 20;

impl Mla {
    pub(super) fn attend_absorbed(
        &self,
        machine: Machine<'_>,
        stream: &mut CpuStream,
        layout: &StepLayout,
        (queries, cache, layer): (&[f32], &LatentCache, usize),
        out: &mut [f32],
    ) -> Result<(), StepError> {
        let widths = Widths::new(&self.spec);
        let CpuStream { first, second, places, .. } = stream;
        fill_places(layout, places);
        let batch = (MAX_SCRATCH / (widths.heads * (widths.slot() + widths.latent))).clamp(1, MAX_TOKENS);
        let out_width = widths.heads * self.spec.dims.v_head_dim;
        for start in (0..places.len()).step_by(batch) {
            let places = &places[start..(start + batch).min(places.len())];
            let tokens = start..start + places.len();
            let queries = &queries[start * widths.heads * widths.query()..];
            let absorbed = first.take(places.len() * widths.heads * widths.slot())?;
            self.absorb(machine, queries, places.len(), absorbed);
            let attended = second.take(places.len() * widths.heads * widths.latent)?;
            self.attend(machine, (layout, places), absorbed, (cache, layer), attended);
            self.project_values(machine, attended, &mut out[tokens.start * out_width..tokens.end * out_width]);
        }
        Ok(())
    }

    /// `q̃_h = q_nope,h · W_UK,h`, beside `q_pe,h`: `[T, N]` queries as wide as a slot.
    fn absorb(&self, machine: Machine<'_>, queries: &[f32], num_tokens: usize, absorbed: &mut [f32]) {
        let widths = Widths::new(&self.spec);
        let (heads, nope_dim) = (widths.heads, self.spec.dims.qk_nope_head_dim);
        let query = |token: usize, head: usize| &queries[(token * heads + head) * widths.query()..][..widths.query()];
        let grid =
            Grid { data: absorbed, cols: heads * widths.slot(), groups: &[0, num_tokens], tile_cols: widths.slot() };
        grid.for_each_tile(machine.threads, |mut tile| {
            let head = tile.cols.start / widths.slot();
            let w_uk = self.head_row(head)..self.head_row(head) + nope_dim;
            with_task_scratch(|scratch| {
                let rows = expand_rows(machine.isa, &self.kv_b, w_uk, &mut scratch.panel);
                let sums = grown(&mut scratch.tile, num_tokens * widths.latent);
                sums.fill(0.0);
                let values = &queries[head * widths.query()..];
                let coefficients = Coefficients { values, sum: heads * widths.query(), row: 1 };
                let stride = widths.latent;
                machine.isa.run(WeightedSum { coefficients, rows, out: &mut *sums, stride, num_sums: num_tokens });
                for (token, sum) in sums.chunks(widths.latent).enumerate() {
                    let (latent, pe) = tile.row(token).split_at_mut(widths.latent);
                    latent.copy_from_slice(sum);
                    pe.copy_from_slice(&query(token, head)[widths.nope..]);
                }
            });
        });
    }

    /// `Σ softmax(σ q̃ · latent) kv_c`: `[T, N]` of width Lkv.
    fn attend(
        &self,
        machine: Machine<'_>,
        (layout, places): (&StepLayout, &[super::Place]),
        absorbed: &[f32],
        (cache, layer): (&LatentCache, usize),
        attended: &mut [f32],
    ) {
        let widths = Widths::new(&self.spec);
        let heads = heads_per_task(machine, places.len(), widths.heads, MAX_HEADS);
        for_each_piece(machine.threads, attended, heads * widths.latent, |piece, values| {
            let place = places[piece * heads / widths.heads];
            let absorbed = &absorbed[piece * heads * widths.slot()..][..heads * widths.slot()];
            let rows = F32Rows { values: absorbed, stride: widths.slot() };
            let queries = QueryBlock { rows, len: heads, scale: self.spec.softmax_scale };
            let mut max_and_sum = [[0.0; 2]; MAX_HEADS];
            let max_and_sum = &mut max_and_sum[..heads];
            let mut running = Running { max_and_sum, values, stride: widths.latent };
            running.clear();
            with_task_scratch(|scratch| {
                for_each_tile(layout, place.seq, place.position + 1, |_, slots| {
                    let tile = KeyTile {
                        keys: cache.rows(layer, widths.slot()).pick(slots),
                        key_width: widths.slot(),
                        values: cache.rows(layer, widths.latent).pick(slots),
                    };
                    running.add(machine.isa, queries, tile, &mut scratch.scores);
                });
            });
            running.finish();
        });
    }

    /// `W_UV,h` on each head: `[T, N · V]`.
    fn project_values(&self, machine: Machine<'_>, attended: &[f32], out: &mut [f32]) {
        let widths = Widths::new(&self.spec);
        let (heads, value_dim) = (widths.heads, self.spec.dims.v_head_dim);
        let num_tokens = attended.len() / (heads * widths.latent);
        let grid = Grid { data: out, cols: heads * value_dim, groups: &[0, num_tokens], tile_cols: value_dim };
        grid.for_each_tile(machine.threads, |mut tile| {
            let head = tile.cols.start / value_dim;
            let first = self.head_row(head) + self.spec.dims.qk_nope_head_dim;
            let x = Rows::new(&attended[head * widths.latent..], heads * widths.latent, widths.latent);
            let product = Product { weight: &self.kv_b, rows: first..first + value_dim, x };
            with_task_scratch(|scratch| {
                let products = product.compute(machine.isa, &mut scratch.panel, &mut scratch.tile);
                for (token, products) in products.chunks(value_dim).enumerate() {
                    tile.row(token).copy_from_slice(products);
                }
            });
        });
    }
}
