//! A backend that watches another: a span per op, and on demand a table of where the time goes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{
    ActTensor, Backend, CacheSpec, Capabilities, ExpertsWeights, FfnWeights, GateSpec, GateWeights, LayerStep,
    MlaPrologIo, MlaSpec, MlaWeights, PrepareError, Routing, StepError, Tensor,
};
use crate::quant::HostWeight;

/// Time of one op over all its calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpTiming {
    /// Calls.
    pub count: u64,
    /// Their time together.
    pub total: Duration,
}

/// Time per op name; [`Display`](std::fmt::Display) draws a table, the costliest op first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpTimings {
    ops: BTreeMap<&'static str, OpTiming>,
}

impl OpTimings {
    /// The timing of one op, if it was called.
    pub fn get(&self, op: &str) -> Option<OpTiming> {
        self.ops.get(op).copied()
    }

    /// Every op that was called, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, OpTiming)> + '_ {
        self.ops.iter().map(|(op, timing)| (*op, *timing))
    }

    /// Time of all ops together.
    pub fn total(&self) -> Duration {
        self.ops.values().map(|timing| timing.total).sum()
    }

    fn add(&mut self, op: &'static str, elapsed: Duration) {
        let timing = self.ops.entry(op).or_default();
        timing.count += 1;
        timing.total += elapsed;
    }
}

impl std::fmt::Display for OpTimings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = self.total().as_secs_f64().max(f64::MIN_POSITIVE);
        let mut rows: Vec<_> = self.iter().collect();
        rows.sort_by_key(|(_, timing)| std::cmp::Reverse(timing.total));
        writeln!(f, "{:<14} {:>9} {:>12} {:>12} {:>7}", "op", "calls", "total ms", "mean us", "share")?;
        for (op, timing) in rows {
            let seconds = timing.total.as_secs_f64();
            let mean = seconds * 1e6 / timing.count as f64;
            let share = 100.0 * seconds / all;
            writeln!(f, "{op:<14} {:>9} {:>12.3} {mean:>12.2} {share:>6.1}%", timing.count, seconds * 1e3)?;
        }
        Ok(())
    }
}

/// An ordinary backend around `B` with the same tensors, weights and results.
///
/// Each op runs inside a `tracing` span named `op` at trace level. With [`Traced::timed`] the stream is also
/// synchronised before and after each op, so that its time is its own; that makes steps slower.
#[derive(Debug, Clone)]
pub struct Traced<B> {
    inner: B,
    timings: Option<Arc<Mutex<OpTimings>>>,
}

impl<B: Backend> Traced<B> {
    /// Spans only.
    pub fn new(inner: B) -> Self {
        Self { inner, timings: None }
    }

    /// Spans and timings.
    pub fn timed(inner: B) -> Self {
        Self { inner, timings: Some(Arc::default()) }
    }

    /// Times so far; empty unless made by [`Traced::timed`].
    pub fn report(&self) -> OpTimings {
        let Some(timings) = &self.timings else { return OpTimings::default() };
        timings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs one op that yields `[rows, cols]`.
    fn op(
        &self,
        name: &'static str,
        (rows, cols): (usize, usize),
        stream: &mut B::Stream,
        run: impl FnOnce(&B, &mut B::Stream) -> Result<(), StepError>,
    ) -> Result<(), StepError> {
        let _span = tracing::trace_span!("op", name, rows, cols).entered();
        let Some(timings) = &self.timings else { return run(&self.inner, stream) };
        self.inner.synchronize(stream)?;
        let start = Instant::now();
        run(&self.inner, stream)?;
        self.inner.synchronize(stream)?;
        let elapsed = start.elapsed();
        timings.lock().unwrap_or_else(PoisonError::into_inner).add(name, elapsed);
        Ok(())
    }
}

fn size<Buf, E: super::Element>(tensor: &Tensor<Buf, E>) -> (usize, usize) {
    (tensor.rows(), tensor.cols())
}

impl<B: Backend> Backend for Traced<B> {
    type Act = B::Act;
    type Buffer = B::Buffer;
    type Stream = B::Stream;
    type Embedding = B::Embedding;
    type Norm = B::Norm;
    type Linear = B::Linear;
    type Ffn = B::Ffn;
    type Mla = B::Mla;
    type Gate = B::Gate;
    type Experts = B::Experts;
    type Queries = B::Queries;
    type LatentCache = B::LatentCache;

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn stream(&self) -> Result<B::Stream, StepError> {
        self.inner.stream()
    }

    fn alloc(&self, num_bytes: usize) -> Result<B::Buffer, StepError> {
        self.inner.alloc(num_bytes)
    }

    fn write(
        &self,
        stream: &mut B::Stream,
        buffer: &mut B::Buffer,
        offset: usize,
        data: &[u8],
    ) -> Result<(), StepError> {
        self.inner.write(stream, buffer, offset, data)
    }

    fn read(
        &self,
        stream: &mut B::Stream,
        buffer: &B::Buffer,
        offset: usize,
        data: &mut [u8],
    ) -> Result<(), StepError> {
        self.inner.read(stream, buffer, offset, data)
    }

    fn synchronize(&self, stream: &mut B::Stream) -> Result<(), StepError> {
        self.inner.synchronize(stream)
    }

    fn prepare_embedding(&self, table: HostWeight) -> Result<B::Embedding, PrepareError> {
        self.inner.prepare_embedding(table)
    }

    fn prepare_norm(&self, weight: &[f32], eps: f32) -> Result<B::Norm, PrepareError> {
        self.inner.prepare_norm(weight, eps)
    }

    fn prepare_linear(&self, weight: HostWeight) -> Result<B::Linear, PrepareError> {
        self.inner.prepare_linear(weight)
    }

    fn prepare_ffn(&self, weights: FfnWeights) -> Result<B::Ffn, PrepareError> {
        self.inner.prepare_ffn(weights)
    }

    fn prepare_mla(&self, spec: &MlaSpec, weights: MlaWeights) -> Result<B::Mla, PrepareError> {
        self.inner.prepare_mla(spec, weights)
    }

    fn prepare_gate(&self, spec: &GateSpec, weights: GateWeights) -> Result<B::Gate, PrepareError> {
        self.inner.prepare_gate(spec, weights)
    }

    fn prepare_experts(&self, weights: ExpertsWeights) -> Result<B::Experts, PrepareError> {
        self.inner.prepare_experts(weights)
    }

    fn latent_cache(&self, spec: &CacheSpec) -> Result<B::LatentCache, PrepareError> {
        self.inner.latent_cache(spec)
    }

    fn queries(&self, spec: &MlaSpec, max_num_tokens: usize) -> Result<B::Queries, PrepareError> {
        self.inner.queries(spec, max_num_tokens)
    }

    fn embed(
        &self,
        stream: &mut B::Stream,
        table: &B::Embedding,
        tokens: &Tensor<B::Buffer, u32>,
        out: &mut ActTensor<B>,
    ) -> Result<(), StepError> {
        self.op("embed", size(out), stream, |b, stream| b.embed(stream, table, tokens, out))
    }

    fn rms_norm(
        &self,
        stream: &mut B::Stream,
        norm: &B::Norm,
        x: &ActTensor<B>,
        out: &mut ActTensor<B>,
    ) -> Result<(), StepError> {
        self.op("rms_norm", size(out), stream, |b, stream| b.rms_norm(stream, norm, x, out))
    }

    fn add(&self, stream: &mut B::Stream, x: &ActTensor<B>, out: &mut ActTensor<B>) -> Result<(), StepError> {
        self.op("add", size(out), stream, |b, stream| b.add(stream, x, out))
    }

    fn concat(
        &self,
        stream: &mut B::Stream,
        left: &ActTensor<B>,
        right: &ActTensor<B>,
        out: &mut ActTensor<B>,
    ) -> Result<(), StepError> {
        self.op("concat", size(out), stream, |b, stream| b.concat(stream, left, right, out))
    }

    fn gather_rows(
        &self,
        stream: &mut B::Stream,
        x: &ActTensor<B>,
        rows: &Tensor<B::Buffer, u32>,
        out: &mut ActTensor<B>,
    ) -> Result<(), StepError> {
        self.op("gather_rows", size(out), stream, |b, stream| b.gather_rows(stream, x, rows, out))
    }

    fn linear(
        &self,
        stream: &mut B::Stream,
        weight: &B::Linear,
        x: &ActTensor<B>,
        out: &mut ActTensor<B>,
    ) -> Result<(), StepError> {
        self.op("linear", size(out), stream, |b, stream| b.linear(stream, weight, x, out))
    }

    fn logits(
        &self,
        stream: &mut B::Stream,
        head: &B::Linear,
        x: &ActTensor<B>,
        out: &mut Tensor<B::Buffer, f32>,
    ) -> Result<(), StepError> {
        self.op("logits", size(out), stream, |b, stream| b.logits(stream, head, x, out))
    }

    fn ffn(
        &self,
        stream: &mut B::Stream,
        weights: &B::Ffn,
        x: &ActTensor<B>,
        out: &mut ActTensor<B>,
    ) -> Result<(), StepError> {
        self.op("ffn", size(out), stream, |b, stream| b.ffn(stream, weights, x, out))
    }

    fn mla_prolog(
        &self,
        stream: &mut B::Stream,
        mla: &B::Mla,
        step: LayerStep<'_, B::Buffer>,
        io: MlaPrologIo<'_, Self>,
    ) -> Result<(), StepError> {
        let io = MlaPrologIo::<B> { x: io.x, cache: io.cache, queries: io.queries };
        self.op("mla_prolog", size(io.x), stream, |b, stream| b.mla_prolog(stream, mla, step, io))
    }

    fn mla_attention(
        &self,
        stream: &mut B::Stream,
        mla: &B::Mla,
        step: LayerStep<'_, B::Buffer>,
        queries: &B::Queries,
        cache: &B::LatentCache,
        out: &mut ActTensor<B>,
    ) -> Result<(), StepError> {
        let size = size(out);
        let run = |b: &B, stream: &mut B::Stream| b.mla_attention(stream, mla, step, queries, cache, out);
        self.op("mla_attention", size, stream, run)
    }

    fn moe_gate(
        &self,
        stream: &mut B::Stream,
        gate: &B::Gate,
        x: &ActTensor<B>,
        routing: &mut Routing<B::Buffer>,
    ) -> Result<(), StepError> {
        self.op("moe_gate", size(&routing.ids), stream, |b, stream| b.moe_gate(stream, gate, x, routing))
    }

    fn moe_experts(
        &self,
        stream: &mut B::Stream,
        experts: &B::Experts,
        x: &ActTensor<B>,
        routing: &Routing<B::Buffer>,
        out: &mut ActTensor<B>,
    ) -> Result<(), StepError> {
        self.op("moe_experts", size(out), stream, |b, stream| b.moe_experts(stream, experts, x, routing, out))
    }

    fn add_rms_norm(
        &self,
        stream: &mut B::Stream,
        norm: &B::Norm,
        delta: &ActTensor<B>,
        residual: &mut ActTensor<B>,
        out: &mut ActTensor<B>,
    ) -> Result<(), StepError> {
        let run = |b: &B, stream: &mut B::Stream| b.add_rms_norm(stream, norm, delta, residual, out);
        self.op("add_rms_norm", size(delta), stream, run)
    }
}
