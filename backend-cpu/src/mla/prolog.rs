//! First half: queries, and latents into the cache.

use engine_core::backend::{HostBuffer, LayerStep, PAD_SLOT, StepError};

use super::{LatentCache, Mla, Projection, Queries, Widths};
use crate::gemm::{Machine, chunked, linear};
use crate::grid::for_each_row;
use crate::scratch::CpuStream;

impl Mla {
    /// `x [T, H]` to `queries` and to the step's slots of `cache`.
    pub(crate) fn prolog(
        &self,
        machine: Machine<'_>,
        stream: &mut CpuStream,
        step: LayerStep<'_, HostBuffer>,
        x: &[f32],
        (queries, cache): (&mut Queries, &mut LatentCache),
    ) -> Result<(), StepError> {
        self.write_cache(machine, stream, step, x, cache)?;
        let q = self.project_queries(machine, stream, x)?;
        self.rotate_queries(machine, &step.meta.host().positions, q, queries);
        Ok(())
    }

    /// `[T, N (P + R)]`, before rope.
    fn project_queries<'s>(
        &self,
        machine: Machine<'_>,
        stream: &'s mut CpuStream,
        x: &[f32],
    ) -> Result<&'s [f32], StepError> {
        let CpuStream { padded, first, second, .. } = stream;
        let rows = chunked(x, self.spec.hidden_size, padded)?;
        let num_tokens = rows.len();
        let q = second.take(num_tokens * self.spec.dims.num_attention_heads * self.spec.dims.qk_head_dim())?;
        match &self.q {
            Projection::Direct(weight) => linear(machine, weight, rows, q),
            Projection::LowRank { a, norm, b } => {
                let low = first.take(num_tokens * a.num_rows())?;
                linear(machine, a, rows, low);
                norm.rows_in_place(machine, low);
                linear(machine, b, chunked(low, a.num_rows(), padded)?, q);
            }
        }
        Ok(q)
    }

    /// Splits each head into its parts and rotates the second.
    fn rotate_queries(&self, machine: Machine<'_>, positions: &[u32], q: &[f32], queries: &mut Queries) {
        let (dims, widths) = (&self.spec.dims, Widths::new(&self.spec));
        let (heads, nope_dim) = (dims.num_attention_heads, dims.qk_nope_head_dim);
        let out = &mut queries.values[..positions.len() * heads * widths.query()];
        for_each_row(machine.threads, out, widths.query(), |row, out| {
            let position = positions[row / heads] as usize;
            let (q_nope, q_pe) = q[row * dims.qk_head_dim()..][..dims.qk_head_dim()].split_at(nope_dim);
            let (nope, pe) = out.split_at_mut(widths.nope);
            nope[..nope_dim].copy_from_slice(q_nope);
            pe[..q_pe.len()].copy_from_slice(q_pe);
            self.rope(&mut pe[..q_pe.len()], position);
        });
    }

    /// `kv_c` is normalised, `k_pe` is rotated and not normalised.
    fn write_cache(
        &self,
        machine: Machine<'_>,
        stream: &mut CpuStream,
        step: LayerStep<'_, HostBuffer>,
        x: &[f32],
        cache: &mut LatentCache,
    ) -> Result<(), StepError> {
        let layout = step.meta.host();
        let (rank, width) = (self.spec.dims.kv_lora_rank, self.spec.dims.latent_width());
        let CpuStream { padded, first, .. } = stream;
        let rows = chunked(x, self.spec.hidden_size, padded)?;
        let latents = first.take(rows.len() * width)?;
        linear(machine, &self.kv_a, rows, latents);
        for_each_row(machine.threads, latents, width, |token, latent| {
            let (kv_c, k_pe) = latent.split_at_mut(rank);
            self.kv_a_norm.row_in_place(kv_c);
            self.rope(k_pe, layout.positions[token] as usize);
        });
        let rope_start = Widths::new(&self.spec).latent;
        for (latent, slot) in latents.chunks(width).zip(&layout.slot_mapping) {
            if *slot != PAD_SLOT {
                let (kv_c, k_pe) = latent.split_at(rank);
                let slot = cache.slot_mut(step.layer, *slot as usize);
                slot[..rank].copy_from_slice(kv_c);
                slot[rope_start..][..k_pe.len()].copy_from_slice(k_pe);
            }
        }
        Ok(())
    }

    /// Rotates interleaved pairs (spec 3.3).
    fn rope(&self, x: &mut [f32], position: usize) {
        let angles = self.spec.rope.cos(position).iter().zip(self.spec.rope.sin(position));
        for ([a, b], (cos, sin)) in x.as_chunks_mut::<2>().0.iter_mut().zip(angles) {
            (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
        }
    }
}
