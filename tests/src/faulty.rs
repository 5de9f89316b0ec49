//! A backend with one fault in one op: shows that the suite and [`Checked`](engine_core::backend::Checked) find it.

use engine_core::backend::{
    ActTensor, Backend, CacheSpec, Capabilities, Element, ExpertsWeights, FfnWeights, GateSpec, GateWeights, LayerStep,
    MlaPrologIo, MlaSpec, MlaWeights, PrepareError, Routing, StepError, Tensor,
};
use engine_core::quant::HostWeight;

/// What goes wrong after the op has run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The last live element is wrong by more than its size.
    WrongElement,
    /// The last live element is NaN.
    NotANumber,
    /// The row after the last live one is written.
    GuardRow,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Fault; 3] = [Fault::WrongElement, Fault::NotANumber, Fault::GuardRow];
}

/// `B` with a [`Fault`] in the op named.
#[derive(Debug, Clone)]
pub struct Faulty<B> {
    inner: B,
    op: &'static str,
    fault: Fault,
}

/// The ops that a fault can be put into.
pub const OPS: [&str; 13] = [
    "embed",
    "rms_norm",
    "add",
    "add_rms_norm",
    "concat",
    "gather_rows",
    "linear",
    "logits",
    "ffn",
    "mla_prolog",
    "mla_attention",
    "moe_gate",
    "moe_experts",
];

impl<B: Backend> Faulty<B> {
    /// Puts `fault` into `op`, a name of the trait's methods.
    pub fn new(inner: B, op: &'static str, fault: Fault) -> Self {
        Self { inner, op, fault }
    }

    /// Spoils the output of `op` if it is the faulty one.
    fn spoil<E: Element>(
        &self,
        op: &str,
        stream: &mut B::Stream,
        out: &mut Tensor<B::Buffer, E>,
    ) -> Result<(), StepError> {
        if op != self.op {
            return Ok(());
        }
        let live = out.rows() * out.cols();
        let (at, value) = match self.fault {
            Fault::WrongElement => {
                let mut values = Vec::new();
                out.read(&self.inner, stream, &mut values)?;
                (live - 1, E::from_f32(2.0 * values[live - 1].to_f32() + 1.0))
            }
            Fault::NotANumber => (live - 1, E::from_f32(f32::NAN)),
            Fault::GuardRow => (live, E::from_f32(0.0)),
        };
        self.inner.write(stream, out.buffer_mut(), at * size_of::<E>(), bytemuck::bytes_of(&value))
    }
}

impl<B: Backend> Backend for Faulty<B> {
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

    fn write(&self, stream: &mut B::Stream, buffer: &mut B::Buffer, at: usize, data: &[u8]) -> Result<(), StepError> {
        self.inner.write(stream, buffer, at, data)
    }

    fn read(&self, stream: &mut B::Stream, buffer: &B::Buffer, at: usize, data: &mut [u8]) -> Result<(), StepError> {
        self.inner.read(stream, buffer, at, data)
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
        self.inner.embed(stream, table, tokens, out)?;
        self.spoil("embed", stream, out)
    }

    fn rms_norm(
        &self,
        stream: &mut B::Stream,
        norm: &B::Norm,
        x: &ActTensor<B>,
        out: &mut ActTensor<B>,
    ) -> Result<(), StepError> {
        self.inner.rms_norm(stream, norm, x, out)?;
        self.spoil("rms_norm", stream, out)
    }

    fn add(&self, stream: &mut B::Stream, x: &ActTensor<B>, out: &mut ActTensor<B>) -> Result<(), StepError> {
        self.inner.add(stream, x, out)?;
        self.spoil("add", stream, out)
    }

    fn concat(
        &self,
        stream: &mut B::Stream,
        a: &ActTensor<B>,
        b: &ActTensor<B>,
        out: &mut ActTensor<B>,
    ) -> Result<(), StepError> {
        self.inner.concat(stream, a, b, out)?;
        self.spoil("concat", stream, out)
    }

    fn gather_rows(
        &self,
        stream: &mut B::Stream,
        x: &ActTensor<B>,
        rows: &Tensor<B::Buffer, u32>,
        out: &mut ActTensor<B>,
    ) -> Result<(), StepError> {
        self.inner.gather_rows(stream, x, rows, out)?;
        self.spoil("gather_rows", stream, out)
    }

    fn linear(
        &self,
        stream: &mut B::Stream,
        weight: &B::Linear,
        x: &ActTensor<B>,
        out: &mut ActTensor<B>,
    ) -> Result<(), StepError> {
        self.inner.linear(stream, weight, x, out)?;
        self.spoil("linear", stream, out)
    }

    fn logits(
        &self,
        stream: &mut B::Stream,
        head: &B::Linear,
        x: &ActTensor<B>,
        out: &mut Tensor<B::Buffer, f32>,
    ) -> Result<(), StepError> {
        self.inner.logits(stream, head, x, out)?;
        self.spoil("logits", stream, out)
    }

    fn ffn(
        &self,
        stream: &mut B::Stream,
        weights: &B::Ffn,
        x: &ActTensor<B>,
        out: &mut ActTensor<B>,
    ) -> Result<(), StepError> {
        self.inner.ffn(stream, weights, x, out)?;
        self.spoil("ffn", stream, out)
    }

    /// Its outputs are opaque: the fault goes into a copy of the input.
    fn mla_prolog(
        &self,
        stream: &mut B::Stream,
        mla: &B::Mla,
        step: LayerStep<'_, B::Buffer>,
        io: MlaPrologIo<'_, Self>,
    ) -> Result<(), StepError> {
        let mut values = Vec::new();
        io.x.read(&self.inner, stream, &mut values)?;
        // A row to spare, for the fault that writes past the end.
        let mut x = Tensor::alloc(&self.inner, io.x.rows() + 1, io.x.cols())?;
        x.write(&self.inner, stream, &values)?;
        self.spoil("mla_prolog", stream, &mut x)?;
        let io = MlaPrologIo::<B> { x: &x, cache: io.cache, queries: io.queries };
        self.inner.mla_prolog(stream, mla, step, io)
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
        self.inner.mla_attention(stream, mla, step, queries, cache, out)?;
        self.spoil("mla_attention", stream, out)
    }

    fn moe_gate(
        &self,
        stream: &mut B::Stream,
        gate: &B::Gate,
        x: &ActTensor<B>,
        routing: &mut Routing<B::Buffer>,
    ) -> Result<(), StepError> {
        self.inner.moe_gate(stream, gate, x, routing)?;
        self.spoil("moe_gate", stream, &mut routing.weights)
    }

    fn moe_experts(
        &self,
        stream: &mut B::Stream,
        experts: &B::Experts,
        x: &ActTensor<B>,
        routing: &Routing<B::Buffer>,
        out: &mut ActTensor<B>,
    ) -> Result<(), StepError> {
        self.inner.moe_experts(stream, experts, x, routing, out)?;
        self.spoil("moe_experts", stream, out)
    }

    fn add_rms_norm(
        &self,
        stream: &mut B::Stream,
        norm: &B::Norm,
        delta: &ActTensor<B>,
        residual: &mut ActTensor<B>,
        out: &mut ActTensor<B>,
    ) -> Result<(), StepError> {
        self.inner.add_rms_norm(stream, norm, delta, residual, out)?;
        self.spoil("add_rms_norm", stream, out)
    }
}
