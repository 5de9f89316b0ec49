//! The non-absorbed form: a tile of latents is widened to one head's keys and values, and every query of the sequence
//! that sees the tile takes it into account before the next tile is widened.

use engine_core::backend::StepLayout;

use super::online::{KeyTile, QueryBlock, Running, TILE, for_each_tile};
use super::{LatentCache, Mla, Widths};
use crate::gemm::{Machine, Product};
use crate::grid::{Grid, Tile};
use crate::kernels::{F32Rows, Rows};
use crate::scratch::{CpuStream, TaskScratch, grown, with_task_scratch};

/// Queries that take a tile into account together.
const MAX_QUERIES: usize = 16;

/// One head of one sequence.
struct HeadOfSequence<'a> {
    layout: &'a StepLayout,
    seq: usize,
    head: usize,
    /// The head's queries of the sequence, one every `stride` values.
    queries: &'a [f32],
    stride: usize,
    /// The layer's latents and rotated keys.
    latents: Rows<'a>,
    slots: Rows<'a>,
}

impl Mla {
    pub(super) fn attend_expanded(
        &self,
        machine: Machine<'_>,
        stream: &mut CpuStream,
        layout: &StepLayout,
        (queries, cache, layer): (&[f32], &LatentCache, usize),
        out: &mut [f32],
    ) {
        let widths = Widths::new(&self.spec);
        let value_dim = self.spec.dims.v_head_dim;
        let stride = widths.heads * widths.query();
        stream.offsets.clear();
        stream.offsets.extend(layout.query_start_loc.iter().map(|start| *start as usize));
        let grid = Grid { data: out, cols: widths.heads * value_dim, groups: &stream.offsets, tile_cols: value_dim };
        grid.for_each_tile(machine.threads, |mut tile| {
            let head = tile.cols.start / value_dim;
            let first_query = tile.rows.start * stride + head * widths.query();
            let work = HeadOfSequence {
                layout,
                seq: tile.group,
                head,
                queries: &queries[first_query..],
                stride,
                latents: cache.rows(layer, widths.latent),
                slots: cache.rows(layer, widths.slot()),
            };
            with_task_scratch(|scratch| self.attend_head(machine, &work, scratch, &mut tile));
        });
    }

    fn attend_head(
        &self,
        machine: Machine<'_>,
        work: &HeadOfSequence<'_>,
        scratch: &mut TaskScratch,
        out: &mut Tile<'_>,
    ) {
        let widths = Widths::new(&self.spec);
        let TaskScratch { panel, tile, other_tile, keys, scores, softmax } = scratch;
        let num_queries = out.rows.len();
        let seq_len = work.layout.seq_lens[work.seq] as usize;
        let context_len = seq_len - num_queries;
        let mut running = Running {
            max_and_sum: grown(softmax, 2 * num_queries).as_chunks_mut().0,
            values: grown(other_tile, num_queries * widths.value),
            stride: widths.value,
        };
        running.clear();
        for_each_tile(work.layout, work.seq, seq_len, |start, slots| {
            let product = Product {
                weight: &self.kv_b,
                rows: self.head_row(work.head)..self.head_row(work.head + 1),
                x: work.latents.pick(slots),
            };
            let expanded = product.compute(machine.isa, panel, tile);
            let key_tile = self.key_tile(expanded, work.slots.pick(slots), keys);
            // Queries before `whole` see a part of the tile each; the others see all of it.
            let first = start.saturating_sub(context_len);
            let whole = (start + slots.len() - 1).saturating_sub(context_len);
            let mut query = first;
            while query < num_queries {
                let len = if query < whole { 1 } else { MAX_QUERIES.min(num_queries - query) };
                let seen = (context_len + query + 1 - start).min(slots.len());
                let values = &work.queries[query * work.stride..];
                let block =
                    QueryBlock { rows: F32Rows { values, stride: work.stride }, len, scale: self.spec.softmax_scale };
                running.part(query..query + len).add(machine.isa, block, key_tile.first(seen), scores);
                query += len;
            }
        });
        running.finish();
        for (i, values) in running.values.chunks(widths.value).enumerate() {
            let out = out.row(i);
            out.copy_from_slice(&values[..out.len()]);
        }
    }

    /// Keys and values in whole chunks from `expanded [positions, P + V]` and the rotated keys of `slots`.
    fn key_tile<'k>(&self, expanded: &[f32], slots: Rows<'_>, memory: &'k mut Vec<f32>) -> KeyTile<'k> {
        let (dims, widths) = (&self.spec.dims, Widths::new(&self.spec));
        let (nope_dim, value_dim) = (dims.qk_nope_head_dim, dims.v_head_dim);
        let (keys, values) = grown(memory, TILE * (widths.query() + widths.value)).split_at_mut(TILE * widths.query());
        let rows = keys.chunks_mut(widths.query()).zip(values.chunks_mut(widths.value));
        for (i, (expanded, (key, value))) in expanded.chunks(nope_dim + value_dim).zip(rows).enumerate() {
            let (k_nope, k_pe) = key.split_at_mut(widths.nope);
            k_nope[..nope_dim].copy_from_slice(&expanded[..nope_dim]);
            k_nope[nope_dim..].fill(0.0);
            k_pe.copy_from_slice(&slots.row(i).as_flattened()[widths.latent..]);
            value[..value_dim].copy_from_slice(&expanded[nope_dim..]);
            value[value_dim..].fill(0.0);
        }
        let num_keys = slots.len();
        KeyTile {
            keys: Rows::new(keys, widths.query(), widths.query()).range(0..num_keys),
            key_width: widths.query(),
            values: Rows::new(values, widths.value, widths.value).range(0..num_keys),
        }
    }
}
