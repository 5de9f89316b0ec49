//! A backend that watches another: a span per op, and on demand a table of where the time goes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{ActTensor, Backend, Element, LayerStep, MlaPrologIo, Routing, StepError, Tensor, delegate_backend};

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

    /// Runs one op that yields `out`.
    fn op_on<E: Element>(
        &self,
        name: &'static str,
        stream: &mut B::Stream,
        out: &mut Tensor<B::Buffer, E>,
        run: impl FnOnce(&B, &mut B::Stream, &mut Tensor<B::Buffer, E>) -> Result<(), StepError>,
    ) -> Result<(), StepError> {
        self.op(name, size(out), stream, |b, stream| run(b, stream, out))
    }
}

fn size<Buf, E: Element>(tensor: &Tensor<Buf, E>) -> (usize, usize) {
    (tensor.rows(), tensor.cols())
}

impl<B: Backend> Backend for Traced<B> {
    delegate_backend!(inner: B; types, device, uncaptured, prepare, ops through op_on);

    fn mla_prolog(
        &self,
        stream: &mut B::Stream,
        mla: &B::Mla,
        step: LayerStep<'_, B::Buffer>,
        io: MlaPrologIo<'_, Self>,
    ) -> Result<(), StepError> {
        self.op("mla_prolog", size(io.x), stream, |b, stream| b.mla_prolog(stream, mla, step, io.for_backend()))
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
}
