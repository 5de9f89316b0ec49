//! First half: queries, and latents into the cache.

use engine_core::backend::{LayerStep, StepError};

use super::form::Form;
use super::{AscendLatentCache, AscendMla, AscendQueries, LowRank, Projection};
use crate::device::{AscendBuffer, Device};
use crate::driver::{DataType, KeyPart, MlaProlog, View};
use crate::linear::{AscendLinear, Input};
use crate::scratch::{AscendStream, Slot};

impl AscendMla {
    /// `x [T, H]` to `queries` and to the step's slots of `cache`.
    pub(crate) fn prolog(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        step: LayerStep<'_, AscendBuffer>,
        x: View,
        (cache, queries): (&AscendLatentCache, &AscendQueries),
    ) -> Result<(), StepError> {
        stream.step.counts_written |= self.first_half.is_whole || !self.first_half.takes_keys(step.meta.host());
        if let (Projection::LowRank(q), Some(half_angles)) = (&self.q, self.rope.halves())
            && self.first_half.takes_step(self.forms, step.meta.host())
        {
            let angles = self.half_angles(device, stream, step, half_angles)?;
            return self.whole_prolog(device, stream, step, (x, q, angles), (cache, queries));
        }
        let num_tokens = x.dim(0);
        let mut input = Input::outer(x);
        let width = self.dims.latent_width();
        let kv_a = stream.scratch(device, Slot::KvA, DataType::Bf16, [num_tokens, width])?;
        self.kv_a.forward(device, stream, &mut input, kv_a)?;
        let q = self.project_queries(device, stream, &mut input, num_tokens)?;
        self.rotate_and_write(device, stream, step, (q, kv_a), (cache, queries))?;
        self.leave_queries(device, stream, step, q, queries)
    }

    /// The rotated part of queries, and latents and rotated keys to the cache: `q [T, N, P + R]`, `kv_a [T, Lkv + R]`.
    fn rotate_and_write(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        step: LayerStep<'_, AscendBuffer>,
        (q, kv_a): (View, View),
        (cache, queries): (&AscendLatentCache, &AscendQueries),
    ) -> Result<(), StepError> {
        let num_tokens = q.dim(0);
        let [_, rotated] = queries.views(&self.dims, num_tokens);
        if let Some(half_angles) = self.rope.halves()
            && self.first_half.takes_keys(step.meta.host())
        {
            self.rotate(device, stream, step, (q, None), rotated)?;
            let angles = self.half_angles(device, stream, step, half_angles)?;
            return self.write_keys(device, stream, step, (kv_a, angles), cache);
        }
        let dims = [num_tokens, 1, self.dims.qk_rope_head_dim];
        let key = stream.scratch(device, Slot::KeyRotated, DataType::Bf16, dims)?;
        self.rotate(device, stream, step, (q, Some((kv_a, key))), rotated)?;
        self.write_cache(device, stream, step, (kv_a, key), cache)
    }

    /// The other part of queries, as each sequence is attended: plain or absorbed.
    fn leave_queries(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        step: LayerStep<'_, AscendBuffer>,
        q: View,
        queries: &AscendQueries,
    ) -> Result<(), StepError> {
        let layout = step.meta.host();
        let [absorbed, _] = queries.views(&self.dims, q.dim(0));
        for run in self.forms.runs(layout) {
            let tokens = run.tokens(layout);
            let rows = |view: View| view.narrowed(0, tokens.start, tokens.len());
            match run.form {
                Form::Expanded => {
                    let nope = rows(q).narrowed(2, 0, self.dims.qk_nope_head_dim);
                    device.check(stream.queue.copy(queries.plain(&self.dims, tokens.clone()), nope))?;
                }
                Form::Paged | Form::Pieces | Form::Unfused => self.absorb(device, stream, rows(q), rows(absorbed))?,
            }
        }
        Ok(())
    }

    /// Everything in one operator.
    fn whole_prolog(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        step: LayerStep<'_, AscendBuffer>,
        (x, q, angles): (View, &LowRank, [View; 2]),
        (cache, queries): (&AscendLatentCache, &AscendQueries),
    ) -> Result<(), StepError> {
        let slots = self.token_slots(device, stream, step)?;
        let linears = [&q.a, &q.b, &self.kv_a];
        let scales = match linears.map(AscendLinear::scales) {
            [Some(a), Some(b), Some(kv_a)] => Some([a, b, kv_a].map(|scales| scales.with_axis(0))),
            _ => None,
        };
        let x = match scales {
            Some(_) => {
                let [codes, scales] = Input::outer(x).quantised(device, stream)?;
                (codes, Some(scales.with_axis(1)))
            }
            None => (x, None),
        };
        device.check(stream.queue.mla_prolog(MlaProlog {
            x,
            weights: linears.map(AscendLinear::values),
            scales,
            w_uk: self.w_uk.view,
            norms: [q.norm.parts(), self.kv_a_norm.parts()],
            angles,
            slots,
            cache: cache.layer(step.layer).map(|part| part.with_axis(2)),
            queries: queries.views(&self.dims, x.0.dim(0)),
        }))
    }

    /// `[T, N, P + R]`, before rope.
    fn project_queries(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        x: &mut Input,
        num_tokens: usize,
    ) -> Result<View, StepError> {
        let (heads, head_width) = (self.dims.num_attention_heads, self.dims.qk_head_dim());
        let q = stream.scratch(device, Slot::Query, DataType::Bf16, [num_tokens, heads * head_width])?;
        match &self.q {
            Projection::Direct(weight) => weight.forward(device, stream, x, q)?,
            Projection::LowRank(low_rank) => {
                let LowRank { a, norm, b } = &**low_rank;
                let dims = [num_tokens, a.width()];
                let low = stream.scratch(device, Slot::QueryLow, DataType::Bf16, dims)?;
                let normed = stream.scratch(device, Slot::QueryNormed, DataType::Bf16, dims)?;
                a.forward(device, stream, x, low)?;
                norm.forward(device, stream, low, normed)?;
                b.forward(device, stream, &mut Input::inner(normed), q)?;
            }
        }
        Ok(q.reshaped([num_tokens, heads, head_width]))
    }

    /// Rotates the last R values of queries in f32, to `queries [T, N, R]`, and of the key where one is given: from `kv_a [T,
    /// Lkv + R]` to `key [T, 1, R]`.
    fn rotate(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        step: LayerStep<'_, AscendBuffer>,
        (q, key): (View, Option<(View, View)>),
        queries: View,
    ) -> Result<(), StepError> {
        let (heads, rope) = (self.dims.num_attention_heads, self.dims.qk_rope_head_dim);
        let angles = self.angles(device, stream, step)?;
        let dims = [q.dim(0), heads + usize::from(key.is_some()), rope];
        let before = stream.scratch(device, Slot::Rotary, DataType::F32, dims)?;
        let after = stream.scratch(device, Slot::Rotated, DataType::F32, dims)?;
        let queue = &mut stream.queue;
        let q_pe = q.narrowed(2, self.dims.qk_nope_head_dim, rope);
        device.check(queue.copy(before.narrowed(1, 0, heads), q_pe))?;
        if let Some((kv_a, _)) = key {
            let k_pe = kv_a.narrowed(1, self.dims.kv_lora_rank, rope).with_axis(1);
            device.check(queue.copy(before.narrowed(1, heads, 1), k_pe))?;
        }
        device.check(queue.rotate(before, angles, after))?;
        let halves = self.first_half.orders_halves();
        let mut leave = |to: View, from: View| match halves {
            true => queue.copy(to.reshaped([to.dim(0), to.dim(1), 2, rope / 2]), from.halves()),
            false => queue.copy(to, from),
        };
        device.check(leave(queries, after.narrowed(1, 0, heads)))?;
        match key {
            Some((_, key)) => device.check(leave(key, after.narrowed(1, heads, 1))),
            None => Ok(()),
        }
    }

    /// Norm, rope and cache of the key part in one operator; padding tokens have no slot and are skipped.
    fn write_keys(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        step: LayerStep<'_, AscendBuffer>,
        (kv_a, angles): (View, [View; 2]),
        cache: &AscendLatentCache,
    ) -> Result<(), StepError> {
        let num_tokens = kv_a.dim(0);
        let slots = self.token_slots(device, stream, step)?;
        let part = |stream: &mut AscendStream, slot: Slot, width: usize| {
            stream.scratch(device, slot, DataType::Bf16, [num_tokens, 1, 1, width])
        };
        let unused = [
            part(stream, Slot::KvC, self.dims.kv_lora_rank)?,
            part(stream, Slot::KeyRotated, self.dims.qk_rope_head_dim)?,
        ];
        device.check(stream.queue.write_keys(KeyPart {
            kv: kv_a.with_axis(1).with_axis(1),
            norm: self.kv_a_norm.parts(),
            angles: angles.map(|view| view.with_axis(1).with_axis(1)),
            slots,
            cache: cache.layer(step.layer).map(|part| part.with_axis(2)),
            unused,
        }))
    }

    /// Normalised latents and rotated keys of the step's tokens to their slots. Padding tokens come last and have none.
    fn write_cache(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        step: LayerStep<'_, AscendBuffer>,
        (kv_a, key): (View, View),
        cache: &AscendLatentCache,
    ) -> Result<(), StepError> {
        let num_written = step.meta.host().num_written();
        if num_written == 0 {
            return Ok(());
        }
        let rank = self.dims.kv_lora_rank;
        let kv_c = stream.scratch(device, Slot::KvC, DataType::Bf16, [num_written, rank])?;
        let latent = kv_a.narrowed(0, 0, num_written).narrowed(1, 0, rank);
        self.kv_a_norm.forward(device, stream, latent, kv_c)?;
        let slots = View::new(step.meta.slot_mapping.buffer().0.address(), DataType::I32, [num_written]);
        let rows = [kv_c.with_axis(1), key.narrowed(0, 0, num_written)];
        let layer = cache.layer(step.layer).map(|part| part.with_axis(2));
        device.check(stream.queue.write_cache(rows, slots, layer))
    }

    /// Folds W_UK into the first P values of each head: `out [T, N, Lkv]`.
    fn absorb(&self, device: &Device, stream: &mut AscendStream, q: View, out: View) -> Result<(), StepError> {
        let (heads, p) = (self.dims.num_attention_heads, self.dims.qk_nope_head_dim);
        let num_tokens = q.dim(0);
        let nope = stream.scratch(device, Slot::QueryNope, DataType::Bf16, [heads, num_tokens, p])?;
        let dims = [heads, num_tokens, self.dims.kv_lora_rank];
        let absorbed = stream.scratch(device, Slot::QueryAbsorbed, DataType::Bf16, dims)?;
        let queue = &mut stream.queue;
        device.check(queue.copy(nope, q.narrowed(2, 0, p).swapped(0, 1)))?;
        device.check(queue.batched_product(nope, self.w_uk.view, absorbed))?;
        device.check(queue.copy(out, absorbed.swapped(0, 1)))
    }
}
