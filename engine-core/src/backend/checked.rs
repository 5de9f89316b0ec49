//! A backend that holds another against the reference, op by op: the debugging tool for new kernels.
//!
//! Each op runs on `B` and on the reference with the inputs that `B` had, so errors do not accumulate and the first op
//! over tolerance is the culprit. Queries and latent cache are opaque: the reference keeps shadows of both, made from
//! `B`'s inputs, and a faulty `mla_prolog` shows in the result of `mla_attention`.

mod record;

use std::sync::{Arc, Mutex, PoisonError};

use super::{
    ActTensor, Backend, CacheSpec, Capabilities, DType, Element, ExpertsWeights, FfnWeights, GateSpec, GateWeights,
    HostBuffer, LayerStep, MlaPrologIo, MlaSpec, MlaWeights, NO_TOKEN, PrepareError, Rank, Routing, StepError,
    StepMeta, Tensor, TopLogits, delegate_backend,
};
use crate::quant::HostWeight;
use crate::reference::{
    ActivationRounding, Numerics, ReferenceBackend, ReferenceCache, ReferenceExperts, ReferenceFfn, ReferenceGate,
    ReferenceLinear, ReferenceMla, ReferenceNorm, ReferenceQueries, ReferenceStream,
};
use record::Record;
pub use record::{CheckedTolerance, Mismatch};

/// An ordinary backend that computes with `B` and compares every result with the reference; see the module's text.
///
/// Slow: every op copies its tensors to the host and runs twice.
#[derive(Debug, Clone)]
pub struct Checked<B> {
    inner: B,
    reference: ReferenceBackend,
    tolerance: CheckedTolerance,
    record: Arc<Mutex<Record>>,
}

/// The same thing prepared by `B` and by the reference.
pub struct Both<T, R> {
    inner: T,
    reference: R,
}

impl<T, R> std::fmt::Debug for Both<T, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Both").finish_non_exhaustive()
    }
}

/// A router and the number of its experts.
pub struct CheckedGate<G> {
    gate: Both<G, ReferenceGate>,
    num_experts: usize,
}

impl<G> std::fmt::Debug for CheckedGate<G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckedGate").field("num_experts", &self.num_experts).finish_non_exhaustive()
    }
}

/// `B`'s stream, and the layer that the last MLA op on it named.
pub struct CheckedStream<S> {
    inner: S,
    layer: Option<usize>,
}

impl<S> std::fmt::Debug for CheckedStream<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckedStream").field("layer", &self.layer).finish_non_exhaustive()
    }
}

type HostTensor = Tensor<HostBuffer, f32>;
type HostIds = Tensor<HostBuffer, u32>;

impl<B: Backend> Checked<B> {
    /// Checks against a reference that rounds as `inner`'s capabilities say, with the tolerance that goes with it.
    pub fn new(inner: B) -> Self {
        let capabilities = inner.capabilities();
        let numerics = Numerics {
            activations: match capabilities.activation {
                DType::Bf16 => ActivationRounding::Bf16,
                DType::F32 | DType::U32 => ActivationRounding::F32,
            },
            linears: capabilities.quantised_inputs,
            ..Numerics::default()
        };
        Self::with(inner, numerics, CheckedTolerance::of(numerics))
    }

    /// Checks against a reference that rounds as `numerics` says.
    pub fn with(inner: B, numerics: Numerics, tolerance: CheckedTolerance) -> Self {
        let reference = ReferenceBackend::new(numerics).with_rank(inner.rank().clone());
        Self { inner, reference, tolerance, record: Arc::default() }
    }

    /// The first op that was over tolerance since this backend was made; clones share the record.
    pub fn first_mismatch(&self) -> Option<Mismatch> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).first.clone()
    }

    /// How many op calls were over tolerance.
    pub fn num_mismatches(&self) -> usize {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).num_mismatches
    }

    /// How many results were compared.
    pub fn num_compared(&self) -> usize {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).num_compared
    }

    /// The live rows of a tensor of `B` as a tensor of the reference.
    fn fetch<E: Element>(
        &self,
        stream: &mut CheckedStream<B::Stream>,
        tensor: &Tensor<B::Buffer, E>,
    ) -> Result<HostTensor, StepError> {
        let mut values = Vec::new();
        tensor.read(&self.inner, &mut stream.inner, &mut values)?;
        let values: Vec<f32> = values.into_iter().map(E::to_f32).collect();
        Tensor::from_slice(&self.reference, &mut ReferenceStream, tensor.cols(), &values)
    }

    fn fetch_ids(
        &self,
        stream: &mut CheckedStream<B::Stream>,
        tensor: &Tensor<B::Buffer, u32>,
    ) -> Result<HostIds, StepError> {
        let mut ids = Vec::new();
        tensor.read(&self.inner, &mut stream.inner, &mut ids)?;
        Tensor::from_slice(&self.reference, &mut ReferenceStream, tensor.cols(), &ids)
    }

    fn fetch_routing(
        &self,
        stream: &mut CheckedStream<B::Stream>,
        routing: &Routing<B::Buffer>,
    ) -> Result<Routing<HostBuffer>, StepError> {
        Ok(Routing { ids: self.fetch_ids(stream, &routing.ids)?, weights: self.fetch(stream, &routing.weights)? })
    }

    /// A place for the reference's version of `out`.
    fn place_for<E: Element>(&self, out: &Tensor<B::Buffer, E>) -> Result<HostTensor, StepError> {
        Tensor::alloc(&self.reference, out.rows(), out.cols())
    }

    fn host_meta(&self, step: LayerStep<'_, B::Buffer>) -> Result<StepMeta<HostBuffer>, StepError> {
        StepMeta::from_layout(&self.reference, &mut ReferenceStream, step.meta.host())
    }

    fn compare<E: Element>(
        &self,
        op: &'static str,
        stream: &mut CheckedStream<B::Stream>,
        expected: &HostTensor,
        found: &Tensor<B::Buffer, E>,
    ) -> Result<(), StepError> {
        let found = self.fetch(stream, found)?;
        self.judge(op, stream.layer, found.cols(), (expected.as_slice(), found.as_slice()));
        Ok(())
    }

    /// An id is right or wrong, and no nearer to its neighbour than to any other.
    fn judge_ids(&self, op: &'static str, layer: Option<usize>, expected: &HostIds, found: &HostIds) {
        let values = |ids: &HostIds| -> Vec<f32> { ids.as_slice().iter().map(|id| id.to_f32()).collect() };
        let exact = CheckedTolerance { nmse: 0.0, max_error: 0.0 };
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.judge(exact, (op, layer, found.cols()), &values(expected), &values(found));
    }

    fn judge(&self, op: &'static str, layer: Option<usize>, cols: usize, (expected, found): (&[f32], &[f32])) {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.judge(self.tolerance, (op, layer, cols), expected, found);
    }
}

/// Combine weights by expert, `[T, num_experts + 1]`; the last column is infinite where an id is no expert's.
fn dense_routing(routing: &Routing<HostBuffer>, num_experts: usize) -> Vec<f32> {
    let cols = num_experts + 1;
    let mut dense = vec![0.0; routing.ids.rows() * cols];
    for (t, row) in dense.chunks_mut(cols).enumerate() {
        for (id, weight) in routing.ids.row(t).iter().zip(routing.weights.row(t)) {
            match row[..num_experts].get_mut(*id as usize) {
                Some(place) => *place = *weight,
                None => row[num_experts] = f32::INFINITY,
            }
        }
    }
    dense
}

/// Top logits by id, `[M, num_ids + 1]`, 0 for others; the last column is the row's weight, infinite where an id is none.
fn dense_top(top: &HostIds, num_ids: usize) -> Vec<f32> {
    let cols = num_ids + 1;
    let mut dense = vec![0.0; top.rows() * cols];
    for (t, row) in dense.chunks_mut(cols).enumerate() {
        let top = TopLogits::from_words(top.row(t));
        row[num_ids] = top.total;
        for (id, logit) in top.ids.iter().zip(top.logits).filter(|(id, _)| **id != NO_TOKEN) {
            match row[..num_ids].get_mut(*id as usize) {
                Some(place) => *place = *logit,
                None => row[num_ids] = f32::INFINITY,
            }
        }
    }
    dense
}

impl<B: Backend> Backend for Checked<B> {
    type Act = B::Act;
    type Buffer = B::Buffer;
    type Stream = CheckedStream<B::Stream>;
    type Embedding = Both<B::Embedding, ReferenceLinear>;
    type Norm = Both<B::Norm, ReferenceNorm>;
    type Linear = Both<B::Linear, ReferenceLinear>;
    type Ffn = Both<B::Ffn, ReferenceFfn>;
    type Mla = Both<B::Mla, ReferenceMla>;
    type Gate = CheckedGate<B::Gate>;
    type Experts = Both<B::Experts, ReferenceExperts>;
    type Queries = Both<B::Queries, ReferenceQueries>;
    type LatentCache = Both<B::LatentCache, ReferenceCache>;

    delegate_backend!(inner: B; uncaptured);

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn rank(&self) -> &Rank {
        self.inner.rank()
    }

    fn stream(&self) -> Result<Self::Stream, StepError> {
        Ok(CheckedStream { inner: self.inner.stream()?, layer: None })
    }

    fn alloc(&self, num_bytes: usize) -> Result<B::Buffer, StepError> {
        self.inner.alloc(num_bytes)
    }

    fn write(
        &self,
        stream: &mut Self::Stream,
        buffer: &mut B::Buffer,
        offset: usize,
        data: &[u8],
    ) -> Result<(), StepError> {
        self.inner.write(&mut stream.inner, buffer, offset, data)
    }

    fn read(
        &self,
        stream: &mut Self::Stream,
        buffer: &B::Buffer,
        offset: usize,
        data: &mut [u8],
    ) -> Result<(), StepError> {
        self.inner.read(&mut stream.inner, buffer, offset, data)
    }

    fn synchronize(&self, stream: &mut Self::Stream) -> Result<(), StepError> {
        self.inner.synchronize(&mut stream.inner)
    }

    fn prepare_embedding(&self, table: HostWeight) -> Result<Self::Embedding, PrepareError> {
        let reference = self.reference.prepare_embedding(table.clone())?;
        Ok(Both { inner: self.inner.prepare_embedding(table)?, reference })
    }

    fn prepare_norm(&self, weight: &[f32], eps: f32) -> Result<Self::Norm, PrepareError> {
        let reference = self.reference.prepare_norm(weight, eps)?;
        Ok(Both { inner: self.inner.prepare_norm(weight, eps)?, reference })
    }

    fn prepare_linear(&self, weight: HostWeight) -> Result<Self::Linear, PrepareError> {
        let reference = self.reference.prepare_linear(weight.clone())?;
        Ok(Both { inner: self.inner.prepare_linear(weight)?, reference })
    }

    fn prepare_ffn(&self, weights: FfnWeights) -> Result<Self::Ffn, PrepareError> {
        let reference = self.reference.prepare_ffn(weights.clone())?;
        Ok(Both { inner: self.inner.prepare_ffn(weights)?, reference })
    }

    fn prepare_mla(&self, spec: &MlaSpec, weights: MlaWeights) -> Result<Self::Mla, PrepareError> {
        let reference = self.reference.prepare_mla(spec, weights.clone())?;
        Ok(Both { inner: self.inner.prepare_mla(spec, weights)?, reference })
    }

    fn prepare_gate(&self, spec: &GateSpec, weights: GateWeights) -> Result<Self::Gate, PrepareError> {
        let reference = self.reference.prepare_gate(spec, weights.clone())?;
        let gate = Both { inner: self.inner.prepare_gate(spec, weights)?, reference };
        Ok(CheckedGate { gate, num_experts: spec.n_routed_experts })
    }

    fn prepare_experts(&self, weights: ExpertsWeights) -> Result<Self::Experts, PrepareError> {
        let reference = self.reference.prepare_experts(weights.clone())?;
        Ok(Both { inner: self.inner.prepare_experts(weights)?, reference })
    }

    fn latent_cache(&self, spec: &CacheSpec) -> Result<Self::LatentCache, PrepareError> {
        Ok(Both { inner: self.inner.latent_cache(spec)?, reference: self.reference.latent_cache(spec)? })
    }

    fn queries(&self, spec: &MlaSpec, max_num_tokens: usize) -> Result<Self::Queries, PrepareError> {
        let reference = self.reference.queries(spec, max_num_tokens)?;
        Ok(Both { inner: self.inner.queries(spec, max_num_tokens)?, reference })
    }

    fn embed(
        &self,
        stream: &mut Self::Stream,
        table: &Self::Embedding,
        tokens: &Tensor<B::Buffer, u32>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        self.inner.embed(&mut stream.inner, &table.inner, tokens, out)?;
        let (tokens, mut expected) = (self.fetch_ids(stream, tokens)?, self.place_for(out)?);
        self.reference.embed(&mut ReferenceStream, &table.reference, &tokens, &mut expected)?;
        self.compare("embed", stream, &expected, out)
    }

    fn rms_norm(
        &self,
        stream: &mut Self::Stream,
        norm: &Self::Norm,
        x: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        self.inner.rms_norm(&mut stream.inner, &norm.inner, x, out)?;
        let (x, mut expected) = (self.fetch(stream, x)?, self.place_for(out)?);
        self.reference.rms_norm(&mut ReferenceStream, &norm.reference, &x, &mut expected)?;
        self.compare("rms_norm", stream, &expected, out)
    }

    fn add(&self, stream: &mut Self::Stream, x: &ActTensor<Self>, out: &mut ActTensor<Self>) -> Result<(), StepError> {
        let mut expected = self.fetch(stream, out)?;
        self.inner.add(&mut stream.inner, x, out)?;
        self.reference.add(&mut ReferenceStream, &self.fetch(stream, x)?, &mut expected)?;
        self.compare("add", stream, &expected, out)
    }

    fn concat(
        &self,
        stream: &mut Self::Stream,
        a: &ActTensor<Self>,
        b: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        self.inner.concat(&mut stream.inner, a, b, out)?;
        let (a, b, mut expected) = (self.fetch(stream, a)?, self.fetch(stream, b)?, self.place_for(out)?);
        self.reference.concat(&mut ReferenceStream, &a, &b, &mut expected)?;
        self.compare("concat", stream, &expected, out)
    }

    fn gather_rows(
        &self,
        stream: &mut Self::Stream,
        x: &ActTensor<Self>,
        rows: &Tensor<B::Buffer, u32>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        self.inner.gather_rows(&mut stream.inner, x, rows, out)?;
        let (x, rows, mut expected) = (self.fetch(stream, x)?, self.fetch_ids(stream, rows)?, self.place_for(out)?);
        self.reference.gather_rows(&mut ReferenceStream, &x, &rows, &mut expected)?;
        self.compare("gather_rows", stream, &expected, out)
    }

    fn linear(
        &self,
        stream: &mut Self::Stream,
        weight: &Self::Linear,
        x: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        self.inner.linear(&mut stream.inner, &weight.inner, x, out)?;
        let (x, mut expected) = (self.fetch(stream, x)?, self.place_for(out)?);
        self.reference.linear(&mut ReferenceStream, &weight.reference, &x, &mut expected)?;
        self.compare("linear", stream, &expected, out)
    }

    fn logits(
        &self,
        stream: &mut Self::Stream,
        head: &Self::Linear,
        x: &ActTensor<Self>,
        out: &mut Tensor<B::Buffer, f32>,
    ) -> Result<(), StepError> {
        self.inner.logits(&mut stream.inner, &head.inner, x, out)?;
        let (x, mut expected) = (self.fetch(stream, x)?, self.place_for(out)?);
        self.reference.logits(&mut ReferenceStream, &head.reference, &x, &mut expected)?;
        self.compare("logits", stream, &expected, out)
    }

    fn argmax(
        &self,
        stream: &mut Self::Stream,
        logits: &Tensor<B::Buffer, f32>,
        num_ids: usize,
        out: &mut Tensor<B::Buffer, u32>,
    ) -> Result<(), StepError> {
        self.inner.argmax(&mut stream.inner, logits, num_ids, out)?;
        let (logits, found) = (self.fetch(stream, logits)?, self.fetch_ids(stream, out)?);
        let mut expected = Tensor::alloc(&self.reference, found.rows(), found.cols())?;
        self.reference.argmax(&mut ReferenceStream, &logits, num_ids, &mut expected)?;
        self.judge_ids("argmax", stream.layer, &expected, &found);
        Ok(())
    }

    fn finds_top_logits(&self) -> bool {
        self.inner.finds_top_logits()
    }

    fn top_logits(
        &self,
        stream: &mut Self::Stream,
        logits: &Tensor<B::Buffer, f32>,
        inverse_temperatures: &Tensor<B::Buffer, f32>,
        num_ids: usize,
        out: &mut Tensor<B::Buffer, u32>,
    ) -> Result<(), StepError> {
        self.inner.top_logits(&mut stream.inner, logits, inverse_temperatures, num_ids, out)?;
        let (logits, found) = (self.fetch(stream, logits)?, self.fetch_ids(stream, out)?);
        let inverse_temperatures = self.fetch(stream, inverse_temperatures)?;
        let mut expected = Tensor::alloc(&self.reference, found.rows(), found.cols())?;
        self.reference.top_logits(&mut ReferenceStream, &logits, &inverse_temperatures, num_ids, &mut expected)?;
        let dense = |top: &HostIds| dense_top(top, num_ids);
        self.judge("top_logits", stream.layer, num_ids + 1, (&dense(&expected), &dense(&found)));
        Ok(())
    }

    fn ffn(
        &self,
        stream: &mut Self::Stream,
        weights: &Self::Ffn,
        x: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        self.inner.ffn(&mut stream.inner, &weights.inner, x, out)?;
        let (x, mut expected) = (self.fetch(stream, x)?, self.place_for(out)?);
        self.reference.ffn(&mut ReferenceStream, &weights.reference, &x, &mut expected)?;
        self.compare("ffn", stream, &expected, out)
    }

    fn mla_prolog(
        &self,
        stream: &mut Self::Stream,
        mla: &Self::Mla,
        step: LayerStep<'_, B::Buffer>,
        io: MlaPrologIo<'_, Self>,
    ) -> Result<(), StepError> {
        stream.layer = Some(step.layer);
        let inner = MlaPrologIo::<B> { x: io.x, cache: &mut io.cache.inner, queries: &mut io.queries.inner };
        self.inner.mla_prolog(&mut stream.inner, &mla.inner, step, inner)?;
        let (x, meta) = (self.fetch(stream, io.x)?, self.host_meta(step)?);
        let step = LayerStep { layer: step.layer, meta: &meta };
        let shadow = MlaPrologIo { x: &x, cache: &mut io.cache.reference, queries: &mut io.queries.reference };
        self.reference.mla_prolog(&mut ReferenceStream, &mla.reference, step, shadow)
    }

    fn mla_attention(
        &self,
        stream: &mut Self::Stream,
        mla: &Self::Mla,
        step: LayerStep<'_, B::Buffer>,
        queries: &Self::Queries,
        cache: &Self::LatentCache,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        stream.layer = Some(step.layer);
        self.inner.mla_attention(&mut stream.inner, &mla.inner, step, &queries.inner, &cache.inner, out)?;
        // Rows of padding tokens are unspecified: the reference leaves what B wrote there.
        let (meta, mut expected) = (self.host_meta(step)?, self.fetch(stream, out)?);
        let step = LayerStep { layer: step.layer, meta: &meta };
        let (queries, cache) = (&queries.reference, &cache.reference);
        self.reference.mla_attention(&mut ReferenceStream, &mla.reference, step, queries, cache, &mut expected)?;
        self.compare("mla_attention", stream, &expected, out)
    }

    fn moe_gate(
        &self,
        stream: &mut Self::Stream,
        gate: &Self::Gate,
        x: &ActTensor<Self>,
        routing: &mut Routing<B::Buffer>,
    ) -> Result<(), StepError> {
        self.inner.moe_gate(&mut stream.inner, &gate.gate.inner, x, routing)?;
        let (x, found) = (self.fetch(stream, x)?, self.fetch_routing(stream, routing)?);
        let mut expected = Routing::alloc(&self.reference, found.ids.rows(), found.ids.cols())?;
        self.reference.moe_gate(&mut ReferenceStream, &gate.gate.reference, &x, &mut expected)?;
        let dense = |routing| dense_routing(routing, gate.num_experts);
        self.judge("moe_gate", stream.layer, gate.num_experts + 1, (&dense(&expected), &dense(&found)));
        Ok(())
    }

    fn moe_experts(
        &self,
        stream: &mut Self::Stream,
        experts: &Self::Experts,
        x: &ActTensor<Self>,
        routing: &Routing<B::Buffer>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        self.inner.moe_experts(&mut stream.inner, &experts.inner, x, routing, out)?;
        let (x, routing) = (self.fetch(stream, x)?, self.fetch_routing(stream, routing)?);
        let mut expected = self.place_for(out)?;
        self.reference.moe_experts(&mut ReferenceStream, &experts.reference, &x, &routing, &mut expected)?;
        self.compare("moe_experts", stream, &expected, out)
    }

    fn all_reduce(&self, stream: &mut Self::Stream, x: &mut ActTensor<Self>) -> Result<(), StepError> {
        let mut expected = self.fetch(stream, x)?;
        self.inner.all_reduce(&mut stream.inner, x)?;
        self.reference.all_reduce(&mut ReferenceStream, &mut expected)?;
        self.compare("all_reduce", stream, &expected, x)
    }

    fn add_rms_norm(
        &self,
        stream: &mut Self::Stream,
        norm: &Self::Norm,
        delta: &ActTensor<Self>,
        residual: &mut ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        let (mut sum, mut normed) = (self.fetch(stream, residual)?, self.place_for(out)?);
        self.inner.add_rms_norm(&mut stream.inner, &norm.inner, delta, residual, out)?;
        let delta = self.fetch(stream, delta)?;
        self.reference.add_rms_norm(&mut ReferenceStream, &norm.reference, &delta, &mut sum, &mut normed)?;
        self.compare("add_rms_norm", stream, &sum, residual)?;
        self.compare("add_rms_norm", stream, &normed, out)
    }
}
