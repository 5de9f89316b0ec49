//! The specification: every operation in plain, safe, scalar Rust.
//!
//! Sums run in f64, so the reference's own rounding never explains a difference; what a device rounds is a parameter
//! ([`Numerics`]), so that each device's arithmetic has a specification to be held against. Slow on purpose: nothing
//! here is clever.

mod attention;
mod dense;
mod experts;
mod gate;
mod math;
mod numerics;

pub use attention::{ReferenceCache, ReferenceMla, ReferenceQueries};
pub use dense::{ReferenceFfn, ReferenceLinear, ReferenceNorm};
pub use experts::ReferenceExperts;
pub use gate::ReferenceGate;
pub use numerics::{ActivationRounding, MlaForm, Numerics};

use std::convert::Infallible;

use crate::backend::{
    ActTensor, Backend, CacheFormat, CacheSpec, Capabilities, DType, ExpertsWeights, FfnWeights, GateSpec, GateWeights,
    HostBuffer, LayerStep, MlaPrologIo, MlaSpec, MlaWeights, PrepareError, Rank, Replayed, Routing, StepError, Tensor,
};
use crate::quant::{HostWeight, WeightFormat};
use math::{highest, write_top};

/// The reference as an ordinary backend.
#[derive(Debug, Clone)]
pub struct ReferenceBackend {
    numerics: Numerics,
    rank: Rank,
    capabilities: Capabilities,
}

impl ReferenceBackend {
    /// A reference that rounds as `numerics` says.
    pub fn new(numerics: Numerics) -> Self {
        let capabilities = Capabilities {
            backend: "reference".into(),
            device: format!("scalar specification, {numerics}"),
            weight_formats: vec![
                WeightFormat::F32,
                WeightFormat::Bf16,
                WeightFormat::Fp8Block,
                WeightFormat::Int8Channel,
                WeightFormat::Int4Group,
            ],
            quantised_inputs: numerics.linears,
            activation: DType::F32,
            cache_element_bytes: size_of::<f32>(),
            cache_formats: CacheFormat::ALL.into(),
            memory_bytes: None,
            max_cache_layer_bytes: None,
            notes: vec!["slow on purpose: for comparison, not for use".into()],
        };
        Self { numerics, rank: Rank::alone(), capabilities }
    }

    /// As one of a group.
    #[must_use]
    pub fn with_rank(self, rank: Rank) -> Self {
        Self { rank, ..self }
    }

    /// How this reference rounds.
    pub fn numerics(&self) -> Numerics {
        self.numerics
    }
}

/// The reference runs at once; its stream carries nothing.
#[derive(Debug, Default)]
pub struct ReferenceStream;

impl Backend for ReferenceBackend {
    type Act = f32;
    type Buffer = HostBuffer;
    type Stream = ReferenceStream;
    type Embedding = ReferenceLinear;
    type Norm = ReferenceNorm;
    type Linear = ReferenceLinear;
    type Ffn = ReferenceFfn;
    type Mla = ReferenceMla;
    type Gate = ReferenceGate;
    type Experts = ReferenceExperts;
    type Queries = ReferenceQueries;
    type LatentCache = ReferenceCache;
    type Graph = Infallible;

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn rank(&self) -> &Rank {
        &self.rank
    }

    fn stream(&self) -> Result<ReferenceStream, StepError> {
        Ok(ReferenceStream)
    }

    fn alloc(&self, num_bytes: usize) -> Result<HostBuffer, StepError> {
        HostBuffer::new(num_bytes, "reference")
    }

    fn write(
        &self,
        _: &mut ReferenceStream,
        buffer: &mut HostBuffer,
        offset: usize,
        data: &[u8],
    ) -> Result<(), StepError> {
        buffer.bytes_mut()[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn read(
        &self,
        _: &mut ReferenceStream,
        buffer: &HostBuffer,
        offset: usize,
        data: &mut [u8],
    ) -> Result<(), StepError> {
        data.copy_from_slice(&buffer.bytes()[offset..offset + data.len()]);
        Ok(())
    }

    fn synchronize(&self, _: &mut ReferenceStream) -> Result<(), StepError> {
        Ok(())
    }

    fn replay(&self, _: &mut ReferenceStream, graph: &Infallible) -> Result<Replayed, StepError> {
        match *graph {}
    }

    fn prepare_embedding(&self, table: HostWeight) -> Result<ReferenceLinear, PrepareError> {
        Ok(ReferenceLinear::new(table))
    }

    fn prepare_norm(&self, weight: &[f32], eps: f32) -> Result<ReferenceNorm, PrepareError> {
        Ok(ReferenceNorm::new(weight, eps))
    }

    fn prepare_linear(&self, weight: HostWeight) -> Result<ReferenceLinear, PrepareError> {
        Ok(ReferenceLinear::new(weight))
    }

    fn prepare_ffn(&self, weights: FfnWeights) -> Result<ReferenceFfn, PrepareError> {
        Ok(ReferenceFfn::new(weights))
    }

    fn prepare_mla(&self, spec: &MlaSpec, weights: MlaWeights) -> Result<ReferenceMla, PrepareError> {
        Ok(ReferenceMla::new(spec, weights))
    }

    fn prepare_gate(&self, spec: &GateSpec, weights: GateWeights) -> Result<ReferenceGate, PrepareError> {
        Ok(ReferenceGate::new(spec, weights))
    }

    fn prepare_experts(&self, weights: ExpertsWeights) -> Result<ReferenceExperts, PrepareError> {
        Ok(ReferenceExperts::new(weights))
    }

    fn latent_cache(&self, spec: &CacheSpec) -> Result<ReferenceCache, PrepareError> {
        Ok(ReferenceCache::new(spec)?)
    }

    fn queries(&self, _: &MlaSpec, _: usize) -> Result<ReferenceQueries, PrepareError> {
        Ok(ReferenceQueries::default())
    }

    fn embed(
        &self,
        _: &mut ReferenceStream,
        table: &ReferenceLinear,
        tokens: &Tensor<HostBuffer, u32>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        let cols = out.cols();
        for (row, token) in out.as_mut_slice().chunks_mut(cols).zip(tokens.as_slice()) {
            table.weight().row_f32(*token as usize, row);
            self.numerics.round(row);
        }
        Ok(())
    }

    fn rms_norm(
        &self,
        _: &mut ReferenceStream,
        norm: &ReferenceNorm,
        x: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        let cols = x.cols();
        for (x, out) in x.as_slice().chunks(cols).zip(out.as_mut_slice().chunks_mut(cols)) {
            norm.forward(self.numerics, x, out);
        }
        Ok(())
    }

    fn add(&self, _: &mut ReferenceStream, x: &ActTensor<Self>, out: &mut ActTensor<Self>) -> Result<(), StepError> {
        for (o, x) in out.as_mut_slice().iter_mut().zip(x.as_slice()) {
            *o += x;
        }
        self.numerics.round(out.as_mut_slice());
        Ok(())
    }

    fn concat(
        &self,
        _: &mut ReferenceStream,
        a: &ActTensor<Self>,
        b: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        let cols = out.cols();
        for (t, row) in out.as_mut_slice().chunks_mut(cols).enumerate() {
            let (left, right) = row.split_at_mut(a.cols());
            left.copy_from_slice(a.row(t));
            right.copy_from_slice(b.row(t));
        }
        Ok(())
    }

    fn gather_rows(
        &self,
        _: &mut ReferenceStream,
        x: &ActTensor<Self>,
        rows: &Tensor<HostBuffer, u32>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        let cols = out.cols();
        for (out, row) in out.as_mut_slice().chunks_mut(cols).zip(rows.as_slice()) {
            out.copy_from_slice(x.row(*row as usize));
        }
        Ok(())
    }

    fn linear(
        &self,
        _: &mut ReferenceStream,
        weight: &ReferenceLinear,
        x: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        weight.forward(self.numerics, x.as_slice(), out.as_mut_slice());
        Ok(())
    }

    fn logits(
        &self,
        _: &mut ReferenceStream,
        head: &ReferenceLinear,
        x: &ActTensor<Self>,
        out: &mut Tensor<HostBuffer, f32>,
    ) -> Result<(), StepError> {
        head.forward_float(x.as_slice(), out.as_mut_slice());
        Ok(())
    }

    fn argmax(
        &self,
        _: &mut ReferenceStream,
        logits: &Tensor<HostBuffer, f32>,
        num_ids: usize,
        out: &mut Tensor<HostBuffer, u32>,
    ) -> Result<(), StepError> {
        for (row, out) in out.as_mut_slice().iter_mut().enumerate() {
            *out = highest(&logits.row(row)[..num_ids]);
        }
        Ok(())
    }

    fn finds_top_logits(&self) -> bool {
        true
    }

    fn top_logits(
        &self,
        _: &mut ReferenceStream,
        logits: &Tensor<HostBuffer, f32>,
        inverse_temperatures: &Tensor<HostBuffer, f32>,
        num_ids: usize,
        out: &mut Tensor<HostBuffer, u32>,
    ) -> Result<(), StepError> {
        let cols = out.cols();
        for (row, words) in out.as_mut_slice().chunks_mut(cols).enumerate() {
            write_top(&logits.row(row)[..num_ids], inverse_temperatures.row(row)[0], words);
        }
        Ok(())
    }

    fn ffn(
        &self,
        _: &mut ReferenceStream,
        weights: &ReferenceFfn,
        x: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        weights.forward(self.numerics, x.as_slice(), out.as_mut_slice());
        Ok(())
    }

    fn mla_prolog(
        &self,
        _: &mut ReferenceStream,
        mla: &ReferenceMla,
        step: LayerStep<'_, HostBuffer>,
        io: MlaPrologIo<'_, Self>,
    ) -> Result<(), StepError> {
        mla.prolog(self.numerics, step, io);
        Ok(())
    }

    fn mla_attention(
        &self,
        _: &mut ReferenceStream,
        mla: &ReferenceMla,
        step: LayerStep<'_, HostBuffer>,
        queries: &ReferenceQueries,
        cache: &ReferenceCache,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        mla.attention(self.numerics, step, queries, cache, out.as_mut_slice());
        Ok(())
    }

    fn moe_gate(
        &self,
        _: &mut ReferenceStream,
        gate: &ReferenceGate,
        x: &ActTensor<Self>,
        routing: &mut Routing<HostBuffer>,
    ) -> Result<(), StepError> {
        gate.forward(x.as_slice(), routing.ids.as_mut_slice(), routing.weights.as_mut_slice());
        Ok(())
    }

    fn moe_experts(
        &self,
        _: &mut ReferenceStream,
        experts: &ReferenceExperts,
        x: &ActTensor<Self>,
        routing: &Routing<HostBuffer>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        experts.forward(self.numerics, x, routing, out.as_mut_slice());
        Ok(())
    }

    fn all_reduce(&self, _: &mut ReferenceStream, x: &mut ActTensor<Self>) -> Result<(), StepError> {
        self.rank.all_reduce(x.as_mut_slice())?;
        self.numerics.round(x.as_mut_slice());
        Ok(())
    }
}
