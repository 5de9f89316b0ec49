//! [`Backend`] for Ascend: unpacks tensors and hands views of them to the ops.

use engine_core::backend::{
    ActTensor, Backend, CacheFormat, CacheSpec, Capabilities, DType, Element, ExpertsWeights, FfnWeights, GateSpec,
    GateWeights, LayerStep, MlaPrologIo, MlaSpec, MlaWeights, NO_TOKEN, PrepareError, Rank, Replayed, Requirement,
    Routing, StepError, StepLayout, Tensor, Unavailable,
};
use engine_core::quant::{HostWeight, QuantisedInputs, WeightFormat};
use half::bf16;

use crate::capture::AscendGraph;
use crate::device::{AscendBuffer, Device, Matrix};
use crate::driver::{AscendCounts, DataType, View};
use crate::experts::{AscendExperts, Choice};
use crate::ffn::AscendFfn;
use crate::gate::AscendGate;
use crate::group;
use crate::linear::{AscendEmbedding, AscendLinear, Input};
use crate::mla::{AscendLatentCache, AscendMla, AscendQueries, Tables};
use crate::norm::AscendNorm;
use crate::scratch::{AscendStream, Slot};

/// An Ascend NPU as a device.
#[derive(Debug)]
pub struct AscendBackend {
    tables: Tables,
    /// [`NO_TOKEN`] on the device.
    no_token: Matrix,
    capabilities: Capabilities,
    device: Device,
}

impl AscendBackend {
    /// Opens device number `ordinal`.
    ///
    /// # Errors
    /// Why it cannot be used: no CANN, one that lacks operators, no such device …
    pub fn open(ordinal: u32) -> Result<Self, Unavailable> {
        let opened = Self::on(Device::open(ordinal)?);
        opened.map_err(|error| Unavailable { device: format!("ascend:{ordinal}"), reason: error.to_string() })
    }

    /// Opens devices as the ranks of one group, in this order, with HCCL between them; one alone needs none.
    ///
    /// HCCL has nothing that ends a sum to which a rank never comes. When a rank fails, the work of all its group's streams
    /// is discarded (`aclrtStreamAbort`); what HCCL has queued on streams of its own waits for HCCL's timeout
    /// (`HCCL_EXEC_TIMEOUT`).
    ///
    /// # Errors
    /// Why there is no such group: a device that cannot be used or is named twice, no HCCL, or one that does not sum right.
    pub fn open_group(ordinals: &[u32]) -> Result<Vec<Self>, Unavailable> {
        group::open(ordinals)
    }

    pub(crate) fn on(device: Device) -> Result<Self, StepError> {
        let free_bytes = device.context.free_bytes().map_err(|error| device.lost(&error))?;
        let no_token = device.tensor(DataType::I32, [1], &[NO_TOKEN as i32], "a constant")?;
        Ok(Self { tables: Tables::default(), no_token, capabilities: capabilities(&device, free_bytes), device })
    }

    /// What it has asked CANN for since it was opened.
    pub fn counts(&self) -> AscendCounts {
        self.device.context.counted()
    }

    fn rows<E: Element>(tensor: &Tensor<AscendBuffer, E>) -> View {
        let data_type = match E::DTYPE {
            DType::F32 => DataType::F32,
            DType::Bf16 => DataType::Bf16,
            // Ids, positions and slots are below 2³¹, or all ones where they stand for none.
            DType::U32 => DataType::I32,
        };
        View::new(tensor.buffer().0.address(), data_type, [tensor.rows(), tensor.cols()])
    }

    /// A tensor of one column.
    fn column(tensor: &Tensor<AscendBuffer, u32>) -> View {
        Self::rows(tensor).reshaped([tensor.rows()])
    }
}

fn capabilities(device: &Device, free_bytes: u64) -> Capabilities {
    let mut weight_formats = vec![WeightFormat::Bf16];
    weight_formats.extend(device.has_int8.then_some(WeightFormat::Int8Channel));
    let attention = match device.has_fused_attention {
        true => "fused attention over the paged cache, where sizes allow",
        false => "no fused attention: this CANN lacks aclnnFusedInferAttentionScoreV4",
    };
    Capabilities {
        backend: "ascend".into(),
        device: device.chip.clone(),
        weight_formats,
        quantised_inputs: QuantisedInputs { fp8: false, int8: device.has_int8 },
        activation: DType::Bf16,
        cache_element_bytes: size_of::<bf16>(),
        cache_formats: vec![CacheFormat::Native],
        memory_bytes: Some(free_bytes),
        max_cache_layer_bytes: None,
        notes: vec![device.product.into(), "absorbed MLA".into(), attention.into()],
    }
}

impl Backend for AscendBackend {
    type Act = bf16;
    type Buffer = AscendBuffer;
    type Stream = AscendStream;
    type Embedding = AscendEmbedding;
    type Norm = AscendNorm;
    type Linear = AscendLinear;
    type Ffn = AscendFfn;
    type Mla = AscendMla;
    type Gate = AscendGate;
    type Experts = AscendExperts;
    type Queries = AscendQueries;
    type LatentCache = AscendLatentCache;
    type Graph = AscendGraph;

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn rank(&self) -> &Rank {
        &self.device.rank
    }

    fn stream(&self) -> Result<AscendStream, StepError> {
        AscendStream::new(&self.device)
    }

    fn alloc(&self, num_bytes: usize) -> Result<AscendBuffer, StepError> {
        self.device.alloc(num_bytes, "a tensor").map(AscendBuffer)
    }

    fn write(
        &self,
        stream: &mut AscendStream,
        buffer: &mut AscendBuffer,
        offset: usize,
        data: &[u8],
    ) -> Result<(), StepError> {
        stream.queue.write(&buffer.0, offset, data).map_err(|error| self.device.lost(&error))
    }

    fn read(
        &self,
        stream: &mut AscendStream,
        buffer: &AscendBuffer,
        offset: usize,
        data: &mut [u8],
    ) -> Result<(), StepError> {
        stream.queue.read(&buffer.0, offset, data).map_err(|error| self.device.lost(&error))
    }

    fn synchronize(&self, stream: &mut AscendStream) -> Result<(), StepError> {
        stream.queue.synchronize().map_err(|error| self.device.lost(&error))
    }

    fn captures(&self) -> bool {
        self.device.captures
    }

    fn capture(
        &self,
        stream: &mut AscendStream,
        run: &mut dyn FnMut(&mut AscendStream) -> Result<(), StepError>,
    ) -> Result<Option<AscendGraph>, StepError> {
        if self.captures() { stream.capture(&self.device, run).map(Some) } else { Ok(None) }
    }

    fn prepare_replay(
        &self,
        stream: &mut AscendStream,
        graph: &AscendGraph,
        layout: &StepLayout,
    ) -> Result<(), StepError> {
        stream.prepare_replay(&self.device, graph, layout)
    }

    fn replay(&self, stream: &mut AscendStream, graph: &AscendGraph) -> Result<Replayed, StepError> {
        stream.replay(&self.device, graph)
    }

    fn prepare_embedding(&self, table: HostWeight) -> Result<AscendEmbedding, PrepareError> {
        AscendEmbedding::new(&self.device, &table)
    }

    fn prepare_norm(&self, weight: &[f32], eps: f32) -> Result<AscendNorm, PrepareError> {
        Ok(AscendNorm::new(&self.device, weight, eps)?)
    }

    fn prepare_linear(&self, weight: HostWeight) -> Result<AscendLinear, PrepareError> {
        AscendLinear::new(&self.device, &weight)
    }

    fn prepare_ffn(&self, weights: FfnWeights) -> Result<AscendFfn, PrepareError> {
        AscendFfn::new(&self.device, &weights)
    }

    fn prepare_mla(&self, spec: &MlaSpec, weights: MlaWeights) -> Result<AscendMla, PrepareError> {
        AscendMla::new(&self.device, &self.tables, spec, &weights)
    }

    fn prepare_gate(&self, spec: &GateSpec, weights: GateWeights) -> Result<AscendGate, PrepareError> {
        AscendGate::new(&self.device, spec, &weights)
    }

    fn prepare_experts(&self, weights: ExpertsWeights) -> Result<AscendExperts, PrepareError> {
        AscendExperts::new(&self.device, &weights)
    }

    fn latent_cache(&self, spec: &CacheSpec) -> Result<AscendLatentCache, PrepareError> {
        self.capabilities.check(Requirement::CacheFormat(spec.format))?;
        AscendLatentCache::new(&self.device, spec)
    }

    fn queries(&self, spec: &MlaSpec, max_num_tokens: usize) -> Result<AscendQueries, PrepareError> {
        AscendQueries::new(&self.device, spec, max_num_tokens)
    }

    fn embed(
        &self,
        stream: &mut AscendStream,
        table: &AscendEmbedding,
        tokens: &Tensor<AscendBuffer, u32>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        table.forward(&self.device, stream, Self::column(tokens), Self::rows(out))
    }

    fn rms_norm(
        &self,
        stream: &mut AscendStream,
        norm: &AscendNorm,
        x: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        norm.forward(&self.device, stream, Self::rows(x), Self::rows(out))
    }

    fn add(&self, stream: &mut AscendStream, x: &ActTensor<Self>, out: &mut ActTensor<Self>) -> Result<(), StepError> {
        self.device.check(stream.queue.add(Self::rows(out), Self::rows(x)))
    }

    fn add_rms_norm(
        &self,
        stream: &mut AscendStream,
        norm: &AscendNorm,
        delta: &ActTensor<Self>,
        residual: &mut ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        norm.forward_sum(&self.device, stream, (Self::rows(delta), Self::rows(residual)), Self::rows(out))
    }

    fn concat(
        &self,
        stream: &mut AscendStream,
        a: &ActTensor<Self>,
        b: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        self.device.check(stream.queue.concatenate(Self::rows(a), Self::rows(b), Self::rows(out)))
    }

    fn gather_rows(
        &self,
        stream: &mut AscendStream,
        x: &ActTensor<Self>,
        rows: &Tensor<AscendBuffer, u32>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        self.device.check(stream.queue.select_rows(Self::rows(x), Self::column(rows), Self::rows(out)))
    }

    fn all_reduce(&self, stream: &mut AscendStream, x: &mut ActTensor<Self>) -> Result<(), StepError> {
        self.device.check(stream.queue.all_reduce(&x.buffer().0, x.rows() * x.cols()))
    }

    fn linear(
        &self,
        stream: &mut AscendStream,
        weight: &AscendLinear,
        x: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        weight.forward(&self.device, stream, &mut Input::outer(Self::rows(x)), Self::rows(out))
    }

    fn logits(
        &self,
        stream: &mut AscendStream,
        head: &AscendLinear,
        x: &ActTensor<Self>,
        out: &mut Tensor<AscendBuffer, f32>,
    ) -> Result<(), StepError> {
        head.forward_wide(&self.device, stream, Self::rows(x), Self::rows(out))
    }

    fn argmax(
        &self,
        stream: &mut AscendStream,
        logits: &Tensor<AscendBuffer, f32>,
        num_ids: usize,
        out: &mut Tensor<AscendBuffer, u32>,
    ) -> Result<(), StepError> {
        let (device, num_rows) = (&self.device, logits.rows());
        let clean = stream.scratch(device, Slot::CleanLogits, DataType::F32, [num_rows, num_ids])?;
        let highest = stream.scratch(device, Slot::Highest, DataType::F32, [num_rows])?;
        let ids = stream.scratch(device, Slot::HighestIds, DataType::I32, [num_rows])?;
        let is_none = stream.scratch(device, Slot::IsNone, DataType::Bool, [num_rows])?;
        let queue = &mut stream.queue;
        device.check(queue.replace_nan(Self::rows(logits).narrowed(1, 0, num_ids), clean))?;
        device.check(queue.highest(clean, highest, ids))?;
        device.check(queue.equals(highest, f32::NEG_INFINITY, is_none))?;
        device.check(queue.choose(is_none, self.no_token.view, ids, Self::column(out)))
    }

    fn ffn(
        &self,
        stream: &mut AscendStream,
        weights: &AscendFfn,
        x: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        weights.forward(&self.device, stream, &mut Input::outer(Self::rows(x)), Self::rows(out))
    }

    fn mla_prolog(
        &self,
        stream: &mut AscendStream,
        mla: &AscendMla,
        step: LayerStep<'_, AscendBuffer>,
        io: MlaPrologIo<'_, Self>,
    ) -> Result<(), StepError> {
        mla.prolog(&self.device, stream, step, Self::rows(io.x), (io.cache, io.queries))
    }

    fn mla_attention(
        &self,
        stream: &mut AscendStream,
        mla: &AscendMla,
        step: LayerStep<'_, AscendBuffer>,
        queries: &AscendQueries,
        cache: &AscendLatentCache,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        mla.attention(&self.device, stream, step, (queries, cache), Self::rows(out))
    }

    fn moe_gate(
        &self,
        stream: &mut AscendStream,
        gate: &AscendGate,
        x: &ActTensor<Self>,
        routing: &mut Routing<AscendBuffer>,
    ) -> Result<(), StepError> {
        let chosen = (Self::rows(&routing.ids), Self::rows(&routing.weights));
        gate.forward(&self.device, stream, Self::rows(x), chosen)
    }

    fn moe_experts(
        &self,
        stream: &mut AscendStream,
        experts: &AscendExperts,
        x: &ActTensor<Self>,
        routing: &Routing<AscendBuffer>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        let choice = Choice { ids: Self::rows(&routing.ids), weights: Self::rows(&routing.weights) };
        experts.forward(&self.device, stream, Self::rows(x), choice, Self::rows(out))
    }
}
