//! A backend of your own, outside this repository: `cargo run --release --example custom_backend`.
//!
//! This one does an operation differently and leaves the others to the reference: its router counts the tokens that
//! each expert is given. The graph, the scheduler and the engine do not notice.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::sync::{Arc, Mutex};

use bathysphere::backend::*;
use bathysphere::quant::HostWeight;
use bathysphere::reference::{Numerics, ReferenceBackend};
use bathysphere::{Engine, SamplingParams};

/// Tokens per expert, over all layers and steps.
type Load = Arc<Mutex<Vec<u64>>>;

struct CountingBackend {
    inner: ReferenceBackend,
    load: Load,
}

/// Methods that are the inner backend's.
macro_rules! inner {
    ($(fn $name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> $result { self.inner.$name($($arg),*) })*
    };
}

type R = ReferenceBackend;
type Stream = <R as Backend>::Stream;
type Buffer = <R as Backend>::Buffer;
type Step = Result<(), StepError>;

impl Backend for CountingBackend {
    type Act = <R as Backend>::Act;
    type Buffer = Buffer;
    type Stream = Stream;
    type Embedding = <R as Backend>::Embedding;
    type Norm = <R as Backend>::Norm;
    type Linear = <R as Backend>::Linear;
    type Ffn = <R as Backend>::Ffn;
    type Mla = <R as Backend>::Mla;
    type Gate = <R as Backend>::Gate;
    type Experts = <R as Backend>::Experts;
    type Queries = <R as Backend>::Queries;
    type LatentCache = <R as Backend>::LatentCache;

    /// The operation that differs.
    fn moe_gate(&self, s: &mut Stream, gate: &Self::Gate, x: &ActTensor<R>, routing: &mut Routing<Buffer>) -> Step {
        self.inner.moe_gate(s, gate, x, routing)?;
        let mut ids = Vec::new();
        routing.ids.read(&self.inner, s, &mut ids)?;
        if let Ok(mut load) = self.load.lock() {
            for id in ids {
                let expert = id as usize;
                if load.len() <= expert {
                    load.resize(expert + 1, 0);
                }
                load[expert] += 1;
            }
        }
        Ok(())
    }

    fn mla_prolog(
        &self,
        s: &mut Stream,
        mla: &Self::Mla,
        step: LayerStep<'_, Buffer>,
        io: MlaPrologIo<'_, Self>,
    ) -> Step {
        let MlaPrologIo { x, cache, queries } = io;
        self.inner.mla_prolog(s, mla, step, MlaPrologIo { x, cache, queries })
    }

    inner! {
        fn capabilities() -> &Capabilities;
        fn stream() -> Result<Stream, StepError>;
        fn alloc(num_bytes: usize) -> Result<Buffer, StepError>;
        fn write(s: &mut Stream, buffer: &mut Buffer, offset: usize, data: &[u8]) -> Step;
        fn read(s: &mut Stream, buffer: &Buffer, offset: usize, data: &mut [u8]) -> Step;
        fn synchronize(s: &mut Stream) -> Step;
        fn prepare_embedding(table: HostWeight) -> Result<Self::Embedding, PrepareError>;
        fn prepare_norm(weight: &[f32], eps: f32) -> Result<Self::Norm, PrepareError>;
        fn prepare_linear(weight: HostWeight) -> Result<Self::Linear, PrepareError>;
        fn prepare_ffn(weights: FfnWeights) -> Result<Self::Ffn, PrepareError>;
        fn prepare_mla(spec: &MlaSpec, weights: MlaWeights) -> Result<Self::Mla, PrepareError>;
        fn prepare_gate(spec: &GateSpec, weights: GateWeights) -> Result<Self::Gate, PrepareError>;
        fn prepare_experts(weights: ExpertsWeights) -> Result<Self::Experts, PrepareError>;
        fn latent_cache(spec: &CacheSpec) -> Result<Self::LatentCache, PrepareError>;
        fn queries(spec: &MlaSpec, max_num_tokens: usize) -> Result<Self::Queries, PrepareError>;
        fn embed(s: &mut Stream, table: &Self::Embedding, ids: &Tensor<Buffer, u32>, out: &mut ActTensor<R>) -> Step;
        fn rms_norm(s: &mut Stream, norm: &Self::Norm, x: &ActTensor<R>, out: &mut ActTensor<R>) -> Step;
        fn add(s: &mut Stream, x: &ActTensor<R>, out: &mut ActTensor<R>) -> Step;
        fn concat(s: &mut Stream, a: &ActTensor<R>, b: &ActTensor<R>, out: &mut ActTensor<R>) -> Step;
        fn gather_rows(s: &mut Stream, x: &ActTensor<R>, rows: &Tensor<Buffer, u32>, out: &mut ActTensor<R>) -> Step;
        fn linear(s: &mut Stream, weight: &Self::Linear, x: &ActTensor<R>, out: &mut ActTensor<R>) -> Step;
        fn logits(s: &mut Stream, head: &Self::Linear, x: &ActTensor<R>, out: &mut Tensor<Buffer, f32>) -> Step;
        fn ffn(s: &mut Stream, weights: &Self::Ffn, x: &ActTensor<R>, out: &mut ActTensor<R>) -> Step;
        fn mla_attention(s: &mut Stream, mla: &Self::Mla, step: LayerStep<'_, Buffer>, queries: &Self::Queries, cache: &Self::LatentCache, out: &mut ActTensor<R>) -> Step;
        fn moe_experts(s: &mut Stream, experts: &Self::Experts, x: &ActTensor<R>, routing: &Routing<Buffer>, out: &mut ActTensor<R>) -> Step;
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let load = Load::default();
    let backend = CountingBackend { inner: ReferenceBackend::new(Numerics::default()), load: load.clone() };
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-deepseek-v3-fp8");
    let engine = Engine::builder(model).build_with(backend)?;
    let params = SamplingParams { max_tokens: Some(32), ..SamplingParams::greedy() };
    println!("{}\n", engine.generate("The LORD is my", params)?.text.unwrap_or_default());

    let load = load.lock().map_err(|_| "the engine's thread panicked")?;
    let most = load.iter().max().copied().unwrap_or(1);
    for (expert, num_tokens) in load.iter().enumerate() {
        println!("expert {expert:>2}  {num_tokens:>4}  {}", "#".repeat((40 * num_tokens / most) as usize));
    }
    Ok(())
}
