//! Multi-head latent attention (spec 3.2) in both forms.

use half::bf16;

use super::ReferenceBackend;
use super::dense::{ReferenceLinear, ReferenceNorm};
use super::math::{axpy, dot, rope, softmax};
use super::numerics::{MlaForm, Numerics};
use crate::backend::{
    CacheFormat, CacheSpec, HostBuffer, LayerStep, MlaPrologIo, MlaSpec, MlaWeights, PAD_SLOT, QueryProjection,
    StepError, StepLayout,
};
use crate::quant::act;

/// A layer's attention weights.
#[derive(Debug, Clone)]
pub struct ReferenceMla {
    spec: MlaSpec,
    q: Projection,
    kv_a: ReferenceLinear,
    kv_a_norm: ReferenceNorm,
    kv_b: ReferenceLinear,
}

#[derive(Debug, Clone)]
enum Projection {
    Direct(ReferenceLinear),
    LowRank { a: ReferenceLinear, norm: ReferenceNorm, b: ReferenceLinear },
}

/// Latent KV of all layers, `[layer][slot][Lkv + R]`: what is left of the values in the cache's format.
#[derive(Debug, Clone)]
pub struct ReferenceCache {
    spec: CacheSpec,
    layers: Vec<Vec<f32>>,
}

impl ReferenceCache {
    pub(super) fn new(spec: &CacheSpec) -> Result<Self, StepError> {
        let values = spec.num_slots().saturating_mul(spec.latent_width());
        let all_values = values.saturating_mul(spec.num_layers);
        Vec::<f32>::new().try_reserve_exact(all_values).map_err(|_| StepError::OutOfMemory {
            device: "reference".into(),
            what: "the latent cache".into(),
            requested_bytes: (all_values as u64).saturating_mul(size_of::<f32>() as u64),
        })?;
        Ok(Self { spec: *spec, layers: (0..spec.num_layers).map(|_| vec![0.0; values]).collect() })
    }

    /// `kv_c` and rotated `k_pe` of a slot, side by side.
    pub fn slot(&self, layer: usize, slot: usize) -> &[f32] {
        let width = self.spec.latent_width();
        &self.layers[layer][slot * width..][..width]
    }

    /// As [`ReferenceCache::slot`], to be written: how a planted fault spoils what is cached.
    pub fn slot_mut(&mut self, layer: usize, slot: usize) -> &mut [f32] {
        let width = self.spec.latent_width();
        &mut self.layers[layer][slot * width..][..width]
    }

    /// Replaces a slot's values by what will be read back of them.
    fn store(&mut self, numerics: Numerics, layer: usize, slot: usize) {
        let CacheSpec { format, kv_lora_rank, .. } = self.spec;
        let (kv_c, k_pe) = self.slot_mut(layer, slot).split_at_mut(kv_lora_rank);
        match format {
            CacheFormat::Native => {}
            CacheFormat::Fp8 => {
                act::fp8_round_trip(kv_c, false);
                numerics.round(kv_c);
                k_pe.iter_mut().for_each(|v| *v = bf16::from_f32(*v).to_f32());
            }
        }
    }
}

/// Queries of a step: per token and head the part that meets `kv_c` (width Lkv when absorbed) or `k_nope` (width P
/// when not), and the rotated part of width R.
#[derive(Debug, Clone, Default)]
pub struct ReferenceQueries {
    nope: Vec<f32>,
    pe: Vec<f32>,
}

impl ReferenceMla {
    pub(super) fn new(spec: &MlaSpec, weights: MlaWeights) -> Self {
        let q = match weights.q {
            QueryProjection::Direct(weight) => Projection::Direct(ReferenceLinear::new(weight)),
            QueryProjection::LowRank { a, norm, b } => Projection::LowRank {
                a: ReferenceLinear::new(a),
                norm: ReferenceNorm::new(&norm, spec.rms_norm_eps),
                b: ReferenceLinear::new(b),
            },
        };
        Self {
            q,
            kv_a: ReferenceLinear::new(weights.kv_a),
            kv_a_norm: ReferenceNorm::new(&weights.kv_a_norm, spec.rms_norm_eps),
            kv_b: ReferenceLinear::new(weights.kv_b),
            spec: spec.clone(),
        }
    }

    pub(super) fn prolog(
        &self,
        numerics: Numerics,
        step: LayerStep<'_, HostBuffer>,
        io: MlaPrologIo<'_, ReferenceBackend>,
    ) {
        let layout = step.meta.host();
        self.write_cache(numerics, step, io.x.as_slice(), io.cache);
        let dims = &self.spec.dims;
        let q = self.project_queries(numerics, io.x.as_slice());
        let queries = io.queries;
        queries.nope.clear();
        queries.pe.clear();
        for (row, head) in q.chunks(dims.qk_head_dim()).enumerate() {
            let position = layout.positions[row / dims.num_attention_heads] as usize;
            let (nope, pe) = head.split_at(dims.qk_nope_head_dim);
            queries.nope.extend_from_slice(nope);
            let start = queries.pe.len();
            queries.pe.extend_from_slice(pe);
            rope(&mut queries.pe[start..], self.spec.rope.cos(position), self.spec.rope.sin(position));
        }
        numerics.round(&mut queries.pe);
        if numerics.mla_form == MlaForm::Absorbed {
            queries.nope = self.absorb(&queries.nope);
            numerics.round(&mut queries.nope);
        }
    }

    /// `[T, N (P + R)]`, before rope.
    fn project_queries(&self, numerics: Numerics, x: &[f32]) -> Vec<f32> {
        let dims = &self.spec.dims;
        let num_tokens = x.len() / self.spec.hidden_size;
        let mut q = vec![0.0; num_tokens * dims.num_attention_heads * dims.qk_head_dim()];
        match &self.q {
            Projection::Direct(weight) => weight.forward(numerics, x, &mut q),
            Projection::LowRank { a, norm, b } => {
                let rank = a.weight().shape().out_features;
                let mut low = vec![0.0; num_tokens * rank];
                a.forward(numerics, x, &mut low);
                let mut normed = low.clone();
                for (low, normed) in low.chunks(rank).zip(normed.chunks_mut(rank)) {
                    norm.forward(numerics, low, normed);
                }
                b.forward(numerics, &normed, &mut q);
            }
        }
        q
    }

    /// `kv_c` is normalised, `k_pe` is rotated and not normalised; then both are rounded to the cache's format.
    fn write_cache(
        &self,
        numerics: Numerics,
        step: LayerStep<'_, HostBuffer>,
        x: &[f32],
        cache: &mut super::ReferenceCache,
    ) {
        let layout = step.meta.host();
        let (rank, width) = (self.spec.dims.kv_lora_rank, self.spec.dims.latent_width());
        let mut kv_a = vec![0.0; layout.num_tokens() * width];
        self.kv_a.forward(numerics, x, &mut kv_a);
        for (t, row) in kv_a.chunks(width).enumerate() {
            if layout.slot_mapping[t] == PAD_SLOT {
                continue;
            }
            let (position, slot) = (layout.positions[t] as usize, layout.slot_mapping[t] as usize);
            let (kv_c, k_pe) = cache.slot_mut(step.layer, slot).split_at_mut(rank);
            self.kv_a_norm.forward(numerics, &row[..rank], kv_c);
            k_pe.copy_from_slice(&row[rank..]);
            rope(k_pe, self.spec.rope.cos(position), self.spec.rope.sin(position));
            numerics.round(k_pe);
            cache.store(numerics, step.layer, slot);
        }
    }

    /// First row of head `head` in `kv_b`: P rows of W_UK, then V rows of W_UV.
    fn head_row(&self, head: usize) -> usize {
        head * (self.spec.dims.qk_nope_head_dim + self.spec.dims.v_head_dim)
    }

    /// `q̃_h = q_nope,h · W_UK,h`: `[T, N, P]` to `[T, N, Lkv]`.
    fn absorb(&self, nope: &[f32]) -> Vec<f32> {
        let dims = &self.spec.dims;
        let (heads, p, rank) = (dims.num_attention_heads, dims.qk_nope_head_dim, dims.kv_lora_rank);
        let mut out = vec![0.0f64; nope.len() / p * rank];
        let mut row = vec![0.0; rank];
        for head in 0..heads {
            for i in 0..p {
                self.kv_b.weight().row_f32(self.head_row(head) + i, &mut row);
                for (q, out) in nope.chunks(heads * p).zip(out.chunks_mut(heads * rank)) {
                    axpy(q[head * p + i], &row, &mut out[head * rank..][..rank]);
                }
            }
        }
        out.into_iter().map(|v| v as f32).collect()
    }

    pub(super) fn attention(
        &self,
        numerics: Numerics,
        step: LayerStep<'_, HostBuffer>,
        queries: &ReferenceQueries,
        cache: &ReferenceCache,
        out: &mut [f32],
    ) {
        let layout = step.meta.host();
        for seq in 0..layout.num_seqs() {
            let latents: Vec<&[f32]> = (0..layout.seq_lens[seq] as usize)
                .map(|position| cache.slot(step.layer, layout.slot(seq, position)))
                .collect();
            match numerics.mla_form {
                MlaForm::Absorbed => self.attend_absorbed(numerics, layout, seq, queries, &latents, out),
                MlaForm::NonAbsorbed => self.attend_expanded(numerics, layout, seq, queries, &latents, out),
            }
        }
        numerics.round(out);
    }

    /// Attention on the latents; the value up-projection follows at the end.
    fn attend_absorbed(
        &self,
        numerics: Numerics,
        layout: &StepLayout,
        seq: usize,
        queries: &ReferenceQueries,
        latents: &[&[f32]],
        out: &mut [f32],
    ) {
        let dims = &self.spec.dims;
        let (heads, rank, v) = (dims.num_attention_heads, dims.kv_lora_rank, dims.v_head_dim);
        let tokens = layout.query_range(seq);
        let mut attended = Vec::with_capacity(tokens.len() * heads * rank);
        for t in tokens.clone() {
            let visible = &latents[..=layout.positions[t] as usize];
            for head in 0..heads {
                let q_latent = &queries.nope[(t * heads + head) * rank..][..rank];
                let probabilities =
                    self.probabilities(queries, t * heads + head, visible, |i| dot(q_latent, &visible[i][..rank]));
                let mut sum = vec![0.0f64; rank];
                for (p, latent) in probabilities.iter().zip(visible) {
                    axpy(*p, &latent[..rank], &mut sum);
                }
                attended.extend(sum.into_iter().map(|s| s as f32));
            }
        }
        numerics.round(&mut attended);
        let mut row = vec![0.0; rank];
        for head in 0..heads {
            for j in 0..v {
                self.kv_b.weight().row_f32(self.head_row(head) + dims.qk_nope_head_dim + j, &mut row);
                for (i, t) in tokens.clone().enumerate() {
                    out[(t * heads + head) * v + j] = dot(&row, &attended[(i * heads + head) * rank..][..rank]);
                }
            }
        }
    }

    /// Attention on keys and values expanded from the latents by `kv_b`.
    fn attend_expanded(
        &self,
        numerics: Numerics,
        layout: &StepLayout,
        seq: usize,
        queries: &ReferenceQueries,
        latents: &[&[f32]],
        out: &mut [f32],
    ) {
        let dims = &self.spec.dims;
        let (heads, rank, p, v) = (dims.num_attention_heads, dims.kv_lora_rank, dims.qk_nope_head_dim, dims.v_head_dim);
        let kv_c: Vec<f32> = latents.iter().flat_map(|latent| &latent[..rank]).copied().collect();
        let mut kv = vec![0.0; latents.len() * heads * (p + v)];
        self.kv_b.forward(numerics, &kv_c, &mut kv);
        let kv = |position: usize, head: usize| &kv[(position * heads + head) * (p + v)..][..p + v];
        for t in layout.query_range(seq) {
            let visible = &latents[..=layout.positions[t] as usize];
            for head in 0..heads {
                let q_nope = &queries.nope[(t * heads + head) * p..][..p];
                let probabilities =
                    self.probabilities(queries, t * heads + head, visible, |i| dot(q_nope, &kv(i, head)[..p]));
                let mut sum = vec![0.0f64; v];
                for (i, probability) in probabilities.iter().enumerate() {
                    axpy(*probability, &kv(i, head)[p..], &mut sum);
                }
                for (o, s) in out[(t * heads + head) * v..][..v].iter_mut().zip(sum) {
                    *o = s as f32;
                }
            }
        }
    }

    /// `softmax(σ (nope score + q_pe · k_pe))` over the visible positions.
    fn probabilities(
        &self,
        queries: &ReferenceQueries,
        query: usize,
        visible: &[&[f32]],
        nope_score: impl Fn(usize) -> f32,
    ) -> Vec<f32> {
        let (rank, r) = (self.spec.dims.kv_lora_rank, self.spec.dims.qk_rope_head_dim);
        let q_pe = &queries.pe[query * r..][..r];
        let mut scores: Vec<f32> = visible
            .iter()
            .enumerate()
            .map(|(i, latent)| self.spec.softmax_scale * (nope_score(i) + dot(q_pe, &latent[rank..])))
            .collect();
        softmax(&mut scores);
        scores
    }
}
