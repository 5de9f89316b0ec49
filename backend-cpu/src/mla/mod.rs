//! Multi-head latent attention (spec 3.2).
//!
//! The cache holds, per layer and slot, `kv_c` and the rotated `k_pe`, each in whole chunks. Queries keep their two
//! parts the same way, so that a score is one dot product over both. The form of attention is decided in
//! [`Mla::attention`]: [absorbed](absorbed) scores queries against the latents themselves, [expanded](expanded) widens
//! the latents to keys and values first. Both go through the positions of a sequence in [tiles](online) that start at
//! multiples of a constant, so the order of every sum follows from positions alone.

mod absorbed;
mod expanded;
mod online;
mod prolog;

use engine_core::backend::{
    CacheSpec, HostBuffer, LayerStep, MlaSpec, MlaWeights, PrepareError, QueryProjection, StepError, StepLayout,
    Unsupported,
};
use engine_core::reference::MlaForm;

use crate::gemm::Machine;
use crate::kernels::{Rows, padded};
use crate::matrix::Matrix;
use crate::norm::Norm;
use crate::scratch::{CpuStream, zeroed};

/// A layer's attention weights.
#[derive(Debug, Clone)]
pub struct Mla {
    spec: MlaSpec,
    q: Projection,
    kv_a: Matrix,
    kv_a_norm: Norm,
    kv_b: Matrix,
}

#[derive(Debug, Clone)]
enum Projection {
    Direct(Matrix),
    LowRank { a: Matrix, norm: Norm, b: Matrix },
}

/// Widths in whole chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Widths {
    /// N.
    heads: usize,
    /// P.
    nope: usize,
    /// R.
    rope: usize,
    /// Lkv.
    latent: usize,
    /// V.
    value: usize,
}

impl Widths {
    fn new(spec: &MlaSpec) -> Self {
        let dims = &spec.dims;
        Self {
            heads: dims.num_attention_heads,
            nope: padded(dims.qk_nope_head_dim),
            rope: padded(dims.qk_rope_head_dim),
            latent: padded(dims.kv_lora_rank),
            value: padded(dims.v_head_dim),
        }
    }

    /// A query as the prolog leaves it.
    fn query(self) -> usize {
        self.nope + self.rope
    }

    /// A slot of the cache, and an absorbed query.
    fn slot(self) -> usize {
        self.latent + self.rope
    }
}

/// Queries of a step after rope, `[T, N]` of `q_nope` and `q_pe` in whole chunks.
#[derive(Debug)]
pub struct Queries {
    values: Vec<f32>,
}

impl Queries {
    pub(crate) fn new(spec: &MlaSpec, max_num_tokens: usize) -> Result<Self, StepError> {
        let widths = Widths::new(spec);
        let len = max_num_tokens.saturating_mul(widths.heads * widths.query());
        Ok(Self { values: zeroed(len, "the queries of a step")? })
    }
}

/// Latent KV of all layers, `[layer][slot]` of `kv_c` and `k_pe` in whole chunks.
#[derive(Debug)]
pub struct LatentCache {
    width: usize,
    layers: Vec<Vec<f32>>,
}

impl LatentCache {
    pub(crate) fn new(spec: &CacheSpec) -> Result<Self, StepError> {
        let width = padded(spec.kv_lora_rank) + padded(spec.qk_rope_head_dim);
        let len = spec.num_slots().saturating_mul(width);
        let layers =
            (0..spec.num_layers).map(|_| zeroed(len, "the latent cache of a layer")).collect::<Result<_, _>>()?;
        Ok(Self { width, layers })
    }

    fn slot_mut(&mut self, layer: usize, slot: usize) -> &mut [f32] {
        &mut self.layers[layer][slot * self.width..][..self.width]
    }

    /// All slots of a layer, the first `cols` values of each.
    fn rows(&self, layer: usize, cols: usize) -> Rows<'_> {
        Rows::new(&self.layers[layer], self.width, cols)
    }
}

/// A token's place: its sequence and its position there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    seq: usize,
    position: usize,
}

/// The place of every token that belongs to a sequence.
fn fill_places(layout: &StepLayout, places: &mut Vec<Place>) {
    places.clear();
    for seq in 0..layout.num_seqs() {
        let positions = layout.query_range(seq).map(|token| layout.positions[token] as usize);
        places.extend(positions.map(|position| Place { seq, position }));
    }
}

impl Mla {
    /// Takes a layer's attention.
    ///
    /// # Errors
    /// [`PrepareError::Unsupported`] as from [`Matrix::new`], and for a rope table of another width.
    pub(crate) fn new(spec: &MlaSpec, weights: MlaWeights) -> Result<Self, PrepareError> {
        let rope_dim = spec.dims.qk_rope_head_dim;
        if spec.rope.max_len() > 0 && 2 * spec.rope.cos(0).len() != rope_dim {
            return Err(PrepareError::Unsupported(Unsupported {
                backend: "cpu".into(),
                what: format!("attention with {rope_dim} rotated values per head"),
                reason: format!("the rope table has {}", 2 * spec.rope.cos(0).len()),
                action: "build the table with qk_rope_head_dim of the same configuration".into(),
            }));
        }
        let eps = spec.rms_norm_eps;
        let q = match weights.q {
            QueryProjection::Direct(weight) => Projection::Direct(Matrix::new(weight)?),
            QueryProjection::LowRank { a, norm, b } => {
                Projection::LowRank { a: Matrix::new(a)?, norm: Norm::new(&norm, eps), b: Matrix::new(b)? }
            }
        };
        Ok(Self {
            spec: spec.clone(),
            q,
            kv_a: Matrix::new(weights.kv_a)?,
            kv_a_norm: Norm::new(&weights.kv_a_norm, eps),
            kv_b: Matrix::new(weights.kv_b)?,
        })
    }

    /// First row of head `head` in `kv_b`: P rows of W_UK, then V rows of W_UV.
    fn head_row(&self, head: usize) -> usize {
        head * (self.spec.dims.qk_nope_head_dim + self.spec.dims.v_head_dim)
    }

    /// Causal attention over the cache, `out [T, N · V]`.
    pub(crate) fn attention(
        &self,
        (machine, form): (Machine<'_>, MlaForm),
        stream: &mut CpuStream,
        step: LayerStep<'_, HostBuffer>,
        (queries, cache): (&Queries, &LatentCache),
        out: &mut [f32],
    ) -> Result<(), StepError> {
        let layout = step.meta.host();
        let heads = Widths::new(&self.spec);
        let queries = &queries.values[..layout.num_tokens() * heads.heads * heads.query()];
        match form {
            MlaForm::Absorbed => self.attend_absorbed(machine, stream, layout, (queries, cache, step.layer), out),
            MlaForm::NonAbsorbed => {
                self.attend_expanded(machine, stream, layout, (queries, cache, step.layer), out);
                Ok(())
            }
        }
    }
}
