//! `impl Backend`: thin, everything is done elsewhere.

use std::convert::Infallible;
use std::sync::Arc;

use engine_core::backend::{
    ActTensor, Backend, CacheFormat, CacheSpec, Capabilities, DType, ExpertsWeights, FfnWeights, GateSpec, GateWeights,
    LayerStep, MlaPrologIo, MlaSpec, MlaWeights, PrepareError, Rank, Replayed, Requirement, Routing, StepError, Tensor,
    Unavailable,
};
use engine_core::quant::{HostWeight, QuantisedInputs, WeightFormat};
use engine_core::rope::{DeviceRopeTables, RopeTable};

use crate::adapter::{self, AdapterDescription};
use crate::ffn::{Experts, Ffn, Routed};
use crate::gate::Gate;
use crate::gpu::{Gpu, WgpuBuffer, WgpuCounts};
use crate::matmul::{Matmul, Product};
use crate::mla::{LatentCache, Mla, Queries};
use crate::options::WgpuOptions;
use crate::pipeline_cache::PipelineCache;
use crate::pipelines::Pipelines;
use crate::rows::{Embedding, Norm, RowKernels};
use crate::stream::WgpuStream;

/// Any GPU that speaks Vulkan, Metal or DirectX 12.
#[derive(Debug)]
pub struct WgpuBackend {
    gpu: Arc<Gpu>,
    pipelines: Pipelines,
    rows: RowKernels,
    /// Tables of rope that are in use, so that layers share theirs.
    rope_tables: DeviceRopeTables<WgpuBuffer>,
    rank: Rank,
    capabilities: Capabilities,
}

impl WgpuBackend {
    /// Opens an adapter.
    ///
    /// # Errors
    /// [`Unavailable`]: there is no adapter, or not that one, or it lacks what every kernel needs.
    pub fn new(options: &WgpuOptions) -> Result<Self, Unavailable> {
        let (gpu, description) = adapter::open(options)?;
        let keeps = gpu.device.features().contains(wgpu::Features::PIPELINE_CACHE);
        let file = options.pipeline_cache.as_deref().filter(|_| keeps);
        let pipelines = Pipelines::new(file.map(|file| PipelineCache::open(&gpu.device, file)));
        let rows = RowKernels::new(&gpu, &pipelines)
            .map_err(|error| Unavailable { device: gpu.name().to_owned(), reason: error.to_string() })?;
        let capabilities = capabilities(&gpu, &description, options);
        Ok(Self { gpu, pipelines, rows, rope_tables: DeviceRopeTables::default(), rank: Rank::alone(), capabilities })
    }

    /// As one of a group. What the ranks exchange goes through the host's memory.
    #[must_use]
    pub fn with_rank(self, rank: Rank) -> Self {
        Self { rank, ..self }
    }

    /// Adapters of this machine, best first: discrete, integrated, virtual, other, software.
    pub fn adapters() -> Vec<AdapterDescription> {
        adapter::describe_all()
    }

    /// Bytes of all live buffers.
    pub fn allocated_bytes(&self) -> u64 {
        self.gpu.allocated_bytes()
    }

    /// What was made on the device so far, by everything that uses this backend.
    pub fn counts(&self) -> WgpuCounts {
        self.gpu.counts()
    }

    /// The device, for programs that share it. Destroying it makes every step fail with
    /// [`StepError::DeviceLost`].
    pub fn device(&self) -> &wgpu::Device {
        &self.gpu.device
    }
}

/// cos and sin side by side, `[position, R / 2, 2]`.
fn rope_table(gpu: &Arc<Gpu>, rope: &RopeTable) -> Result<WgpuBuffer, StepError> {
    let (cos, sin) = rope.as_slices();
    let turns: Vec<[f32; 2]> = cos.iter().zip(sin).map(|(cos, sin)| [*cos, *sin]).collect();
    gpu.constant(bytemuck::cast_slice(&turns), "the rope table; lower max_model_len")
}

fn capabilities(gpu: &Gpu, description: &AdapterDescription, options: &WgpuOptions) -> Capabilities {
    let AdapterDescription { name, api, driver, kind, max_buffer_bytes, max_workgroup_bytes, subgroups, .. } =
        description;
    let subgroups = subgroups.map_or("none".to_owned(), |(min, max)| format!("{min} to {max} lanes"));
    Capabilities {
        backend: "wgpu".into(),
        device: name.clone(),
        weight_formats: vec![
            WeightFormat::Fp8Block,
            WeightFormat::Int8Channel,
            WeightFormat::Bf16,
            WeightFormat::Int4Group,
            WeightFormat::F32,
        ],
        quantised_inputs: QuantisedInputs::NONE,
        activation: DType::F32,
        cache_element_bytes: size_of::<f32>(),
        cache_formats: vec![CacheFormat::Native],
        memory_bytes: options.memory_limit_bytes,
        max_cache_layer_bytes: Some(gpu.max_binding_bytes()),
        notes: vec![
            format!("{kind}, {api}, {driver}"),
            format!("binds {} MiB at once, buffers of {} MiB", gpu.max_binding_bytes() >> 20, max_buffer_bytes >> 20),
            format!("workgroup memory {} KiB, subgroups {subgroups}", max_workgroup_bytes >> 10),
        ],
    }
}

impl Backend for WgpuBackend {
    type Act = f32;
    type Buffer = WgpuBuffer;
    type Stream = WgpuStream;
    type Embedding = Embedding;
    type Norm = Norm;
    type Linear = Matmul;
    type Ffn = Ffn;
    type Mla = Mla;
    type Gate = Gate;
    type Experts = Experts;
    type Queries = Queries;
    type LatentCache = LatentCache;
    type Graph = Infallible;

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn rank(&self) -> &Rank {
        &self.rank
    }

    fn stream(&self) -> Result<WgpuStream, StepError> {
        // Streams are made when weights are prepared, and with them all kernels.
        self.pipelines.save();
        WgpuStream::new(&self.gpu)
    }

    fn alloc(&self, num_bytes: usize) -> Result<WgpuBuffer, StepError> {
        self.gpu.storage(num_bytes as u64, "a tensor")
    }

    fn write(
        &self,
        stream: &mut WgpuStream,
        buffer: &mut WgpuBuffer,
        offset: usize,
        data: &[u8],
    ) -> Result<(), StepError> {
        stream.write(buffer, offset, data)
    }

    fn read(
        &self,
        stream: &mut WgpuStream,
        buffer: &WgpuBuffer,
        offset: usize,
        data: &mut [u8],
    ) -> Result<(), StepError> {
        stream.read(buffer, offset, data)
    }

    fn synchronize(&self, stream: &mut WgpuStream) -> Result<(), StepError> {
        stream.synchronize()
    }

    fn replay(&self, _: &mut WgpuStream, graph: &Infallible) -> Result<Replayed, StepError> {
        match *graph {}
    }

    fn prepare_embedding(&self, table: HostWeight) -> Result<Embedding, PrepareError> {
        Embedding::new(&self.gpu, &self.pipelines, table)
    }

    fn prepare_norm(&self, weight: &[f32], eps: f32) -> Result<Norm, PrepareError> {
        Norm::new(&self.gpu, &self.pipelines, weight, eps)
    }

    fn prepare_linear(&self, weight: HostWeight) -> Result<Matmul, PrepareError> {
        Matmul::dense(&self.gpu, &self.pipelines, weight)
    }

    fn prepare_ffn(&self, weights: FfnWeights) -> Result<Ffn, PrepareError> {
        Ffn::new(&self.gpu, &self.pipelines, weights)
    }

    fn prepare_mla(&self, spec: &MlaSpec, weights: MlaWeights) -> Result<Mla, PrepareError> {
        let rope = self.rope_tables.get(&spec.rope, || rope_table(&self.gpu, &spec.rope))?;
        Mla::new(&self.gpu, &self.pipelines, spec, weights, rope)
    }

    fn prepare_gate(&self, spec: &GateSpec, weights: GateWeights) -> Result<Gate, PrepareError> {
        Gate::new(&self.gpu, &self.pipelines, spec, weights)
    }

    fn prepare_experts(&self, weights: ExpertsWeights) -> Result<Experts, PrepareError> {
        Experts::new(&self.gpu, &self.pipelines, weights)
    }

    fn latent_cache(&self, spec: &CacheSpec) -> Result<LatentCache, PrepareError> {
        self.capabilities.check(Requirement::CacheFormat(spec.format))?;
        LatentCache::new(&self.gpu, spec)
    }

    fn queries(&self, spec: &MlaSpec, max_num_tokens: usize) -> Result<Queries, PrepareError> {
        Queries::new(&self.gpu, spec, max_num_tokens)
    }

    fn embed(
        &self,
        stream: &mut WgpuStream,
        table: &Embedding,
        tokens: &Tensor<WgpuBuffer, u32>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        table.run(stream, tokens.rows(), tokens.buffer(), out.buffer())
    }

    fn rms_norm(
        &self,
        stream: &mut WgpuStream,
        norm: &Norm,
        x: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        norm.run(stream, x.rows(), x.buffer(), out.buffer())
    }

    fn add(&self, stream: &mut WgpuStream, x: &ActTensor<Self>, out: &mut ActTensor<Self>) -> Result<(), StepError> {
        self.rows.add(stream, (x.rows(), x.cols()), x.buffer(), out.buffer())
    }

    fn concat(
        &self,
        stream: &mut WgpuStream,
        a: &ActTensor<Self>,
        b: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        let sizes = (a.rows(), a.cols() + b.cols(), a.cols());
        self.rows.concat(stream, sizes, [a.buffer(), b.buffer(), out.buffer()])
    }

    fn gather_rows(
        &self,
        stream: &mut WgpuStream,
        x: &ActTensor<Self>,
        rows: &Tensor<WgpuBuffer, u32>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        self.rows.gather_rows(stream, (rows.rows(), x.cols()), [x.buffer(), rows.buffer(), out.buffer()])
    }

    fn linear(
        &self,
        stream: &mut WgpuStream,
        weight: &Matmul,
        x: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        weight.run(stream, Product { x: x.buffer(), y: out.buffer(), num_rows: x.rows() })
    }

    fn logits(
        &self,
        stream: &mut WgpuStream,
        head: &Matmul,
        x: &ActTensor<Self>,
        out: &mut Tensor<WgpuBuffer, f32>,
    ) -> Result<(), StepError> {
        head.run(stream, Product { x: x.buffer(), y: out.buffer(), num_rows: x.rows() })
    }

    fn argmax(
        &self,
        stream: &mut WgpuStream,
        logits: &Tensor<WgpuBuffer, f32>,
        num_ids: usize,
        out: &mut Tensor<WgpuBuffer, u32>,
    ) -> Result<(), StepError> {
        self.rows.argmax(stream, (logits.rows(), logits.cols(), num_ids), logits.buffer(), out.buffer())
    }

    fn ffn(
        &self,
        stream: &mut WgpuStream,
        weights: &Ffn,
        x: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        weights.run(stream, Product { x: x.buffer(), y: out.buffer(), num_rows: x.rows() }, x.capacity())
    }

    fn mla_prolog(
        &self,
        stream: &mut WgpuStream,
        mla: &Mla,
        step: LayerStep<'_, WgpuBuffer>,
        io: MlaPrologIo<'_, Self>,
    ) -> Result<(), StepError> {
        mla.prolog(stream, step, (io.x.buffer(), io.x.rows()), io.cache, io.queries)
    }

    fn mla_attention(
        &self,
        stream: &mut WgpuStream,
        mla: &Mla,
        step: LayerStep<'_, WgpuBuffer>,
        queries: &Queries,
        cache: &LatentCache,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        mla.attend(stream, step, queries, cache, out.buffer())
    }

    fn moe_gate(
        &self,
        stream: &mut WgpuStream,
        gate: &Gate,
        x: &ActTensor<Self>,
        routing: &mut Routing<WgpuBuffer>,
    ) -> Result<(), StepError> {
        let input = (x.buffer(), x.rows(), x.capacity());
        gate.run(stream, input, routing.ids.buffer(), routing.weights.buffer())
    }

    fn moe_experts(
        &self,
        stream: &mut WgpuStream,
        experts: &Experts,
        x: &ActTensor<Self>,
        routing: &Routing<WgpuBuffer>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        let routed = Routed { ids: routing.ids.buffer(), weights: routing.weights.buffer(), top_k: routing.ids.cols() };
        let product = Product { x: x.buffer(), y: out.buffer(), num_rows: x.rows() };
        experts.run(stream, product, &routed, x.capacity())
    }

    fn add_rms_norm(
        &self,
        stream: &mut WgpuStream,
        norm: &Norm,
        delta: &ActTensor<Self>,
        residual: &mut ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        norm.run_with_residual(stream, delta.rows(), [delta.buffer(), residual.buffer(), out.buffer()])
    }
}
