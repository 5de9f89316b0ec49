//! The smallest legal backend: records which ops are called, computes nothing, reads as zeros.
//!
//! A test instrument. It shows what the graph asks of a device, lets the scheduler and the engine be tested without
//! arithmetic, and is the shortest complete example of the [`Backend`] contract.

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use crate::backend::{
    ActTensor, Backend, CacheFormat, CacheSpec, Capabilities, DType, ExpertsWeights, FfnWeights, GateSpec, GateWeights,
    LayerStep, MlaPrologIo, MlaSpec, MlaWeights, PrepareError, Rank, Replayed, Requirement, Routing, StepError, Tensor,
};
use crate::quant::{HostWeight, QuantisedInputs, WeightFormat};

/// One recorded op call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpCall {
    /// Name of the trait's method.
    pub op: &'static str,
    /// Layer of the latent cache, for the MLA ops.
    pub layer: Option<usize>,
    /// Live rows of the output (of the input for `mla_prolog`, whose outputs are opaque).
    pub rows: usize,
    /// Columns of the same tensor.
    pub cols: usize,
}

/// A backend without arithmetic; see the [module](self).
#[derive(Debug, Clone)]
pub struct NoopBackend {
    capabilities: Capabilities,
    rank: Rank,
    calls: Arc<Mutex<Vec<OpCall>>>,
}

/// Memory that remembers nothing: writes are dropped, reads give zeros.
#[derive(Debug)]
pub struct NoopBuffer;

/// Stands for every prepared weight.
#[derive(Debug, Clone, Copy)]
pub struct NoopWeight;

impl Default for NoopBackend {
    fn default() -> Self {
        let capabilities = Capabilities {
            backend: "noop".into(),
            device: "records op calls".into(),
            weight_formats: vec![
                WeightFormat::F32,
                WeightFormat::Bf16,
                WeightFormat::Fp8Block,
                WeightFormat::Int8Channel,
                WeightFormat::Int4Group,
            ],
            quantised_inputs: QuantisedInputs::NONE,
            activation: DType::F32,
            cache_element_bytes: size_of::<f32>(),
            cache_formats: vec![CacheFormat::Native],
            memory_bytes: None,
            max_cache_layer_bytes: None,
            notes: vec!["a test instrument: computes nothing".into()],
        };
        Self { capabilities, rank: Rank::alone(), calls: Arc::default() }
    }
}

impl NoopBackend {
    /// A backend with an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// As one of a group.
    #[must_use]
    pub fn with_rank(self, rank: Rank) -> Self {
        Self { rank, ..self }
    }

    /// The log, shared with every clone: keep it before a runner takes the backend.
    pub fn calls(&self) -> Arc<Mutex<Vec<OpCall>>> {
        Arc::clone(&self.calls)
    }

    fn record(&self, op: &'static str, layer: Option<usize>, (rows, cols): (usize, usize)) -> Result<(), StepError> {
        // A test that failed while it held the log leaves a readable log behind.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(OpCall { op, layer, rows, cols });
        Ok(())
    }
}

fn size<E: crate::backend::Element>(tensor: &Tensor<NoopBuffer, E>) -> (usize, usize) {
    (tensor.rows(), tensor.cols())
}

type Act = ActTensor<NoopBackend>;
type Ids = Tensor<NoopBuffer, u32>;

impl Backend for NoopBackend {
    type Act = f32;
    type Buffer = NoopBuffer;
    type Stream = ();
    type Embedding = NoopWeight;
    type Norm = NoopWeight;
    type Linear = NoopWeight;
    type Ffn = NoopWeight;
    type Mla = NoopWeight;
    type Gate = NoopWeight;
    type Experts = NoopWeight;
    type Queries = ();
    type LatentCache = ();
    type Graph = Infallible;

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn rank(&self) -> &Rank {
        &self.rank
    }

    fn stream(&self) -> Result<(), StepError> {
        Ok(())
    }

    fn alloc(&self, _: usize) -> Result<NoopBuffer, StepError> {
        Ok(NoopBuffer)
    }

    fn write(&self, (): &mut (), _: &mut NoopBuffer, _: usize, _: &[u8]) -> Result<(), StepError> {
        Ok(())
    }

    fn read(&self, (): &mut (), _: &NoopBuffer, _: usize, data: &mut [u8]) -> Result<(), StepError> {
        data.fill(0);
        Ok(())
    }

    fn synchronize(&self, (): &mut ()) -> Result<(), StepError> {
        Ok(())
    }

    fn replay(&self, (): &mut (), graph: &Infallible) -> Result<Replayed, StepError> {
        match *graph {}
    }

    fn prepare_embedding(&self, _: HostWeight) -> Result<NoopWeight, PrepareError> {
        Ok(NoopWeight)
    }

    fn prepare_norm(&self, _: &[f32], _: f32) -> Result<NoopWeight, PrepareError> {
        Ok(NoopWeight)
    }

    fn prepare_linear(&self, _: HostWeight) -> Result<NoopWeight, PrepareError> {
        Ok(NoopWeight)
    }

    fn prepare_ffn(&self, _: FfnWeights) -> Result<NoopWeight, PrepareError> {
        Ok(NoopWeight)
    }

    fn prepare_mla(&self, _: &MlaSpec, _: MlaWeights) -> Result<NoopWeight, PrepareError> {
        Ok(NoopWeight)
    }

    fn prepare_gate(&self, _: &GateSpec, _: GateWeights) -> Result<NoopWeight, PrepareError> {
        Ok(NoopWeight)
    }

    fn prepare_experts(&self, _: ExpertsWeights) -> Result<NoopWeight, PrepareError> {
        Ok(NoopWeight)
    }

    fn latent_cache(&self, spec: &CacheSpec) -> Result<(), PrepareError> {
        Ok(self.capabilities.check(Requirement::CacheFormat(spec.format))?)
    }

    fn queries(&self, _: &MlaSpec, _: usize) -> Result<(), PrepareError> {
        Ok(())
    }

    fn embed(&self, (): &mut (), _: &NoopWeight, _: &Ids, out: &mut Act) -> Result<(), StepError> {
        self.record("embed", None, size(out))
    }

    fn rms_norm(&self, (): &mut (), _: &NoopWeight, _: &Act, out: &mut Act) -> Result<(), StepError> {
        self.record("rms_norm", None, size(out))
    }

    fn add(&self, (): &mut (), _: &Act, out: &mut Act) -> Result<(), StepError> {
        self.record("add", None, size(out))
    }

    fn concat(&self, (): &mut (), _: &Act, _: &Act, out: &mut Act) -> Result<(), StepError> {
        self.record("concat", None, size(out))
    }

    fn gather_rows(&self, (): &mut (), _: &Act, _: &Ids, out: &mut Act) -> Result<(), StepError> {
        self.record("gather_rows", None, size(out))
    }

    fn linear(&self, (): &mut (), _: &NoopWeight, _: &Act, out: &mut Act) -> Result<(), StepError> {
        self.record("linear", None, size(out))
    }

    fn logits(&self, (): &mut (), _: &NoopWeight, _: &Act, out: &mut Tensor<NoopBuffer, f32>) -> Result<(), StepError> {
        self.record("logits", None, size(out))
    }

    fn argmax(&self, (): &mut (), _: &Tensor<NoopBuffer, f32>, _: usize, out: &mut Ids) -> Result<(), StepError> {
        self.record("argmax", None, size(out))
    }

    fn ffn(&self, (): &mut (), _: &NoopWeight, _: &Act, out: &mut Act) -> Result<(), StepError> {
        self.record("ffn", None, size(out))
    }

    fn mla_prolog(
        &self,
        (): &mut (),
        _: &NoopWeight,
        step: LayerStep<'_, NoopBuffer>,
        io: MlaPrologIo<'_, Self>,
    ) -> Result<(), StepError> {
        self.record("mla_prolog", Some(step.layer), size(io.x))
    }

    fn mla_attention(
        &self,
        (): &mut (),
        _: &NoopWeight,
        step: LayerStep<'_, NoopBuffer>,
        (): &(),
        (): &(),
        out: &mut Act,
    ) -> Result<(), StepError> {
        self.record("mla_attention", Some(step.layer), size(out))
    }

    fn moe_gate(
        &self,
        (): &mut (),
        _: &NoopWeight,
        _: &Act,
        routing: &mut Routing<NoopBuffer>,
    ) -> Result<(), StepError> {
        self.record("moe_gate", None, size(&routing.ids))
    }

    fn moe_experts(
        &self,
        (): &mut (),
        _: &NoopWeight,
        _: &Act,
        _: &Routing<NoopBuffer>,
        out: &mut Act,
    ) -> Result<(), StepError> {
        self.record("moe_experts", None, size(out))
    }

    fn all_reduce(&self, (): &mut (), x: &mut Act) -> Result<(), StepError> {
        self.record("all_reduce", None, size(x))
    }
}
