//! [`Backend`] for GPUs: unpacks tensors and hands their addresses to the ops.

use engine_core::backend::{
    ActTensor, Backend, CacheFormat, CacheSpec, Capabilities, DType, Element, ExpertsWeights, FfnWeights, GateSpec,
    GateWeights, LayerStep, MlaPrologIo, MlaSpec, MlaWeights, PrepareError, Rank, Replayed, Routing, StepError, Tensor,
};
use engine_core::quant::{HostWeight, WeightFormat};
use half::bf16;

use crate::collective::{CollectiveError, Member};
use crate::device::Device;
use crate::experts::{Choice, GpuExperts};
use crate::ffn::GpuFfn;
use crate::gate::GpuGate;
use crate::linear::{GpuEmbedding, GpuLinear};
use crate::mla::{GpuLatentCache, GpuMla, GpuQueries, RopeTables};
use crate::norm::GpuNorm;
use crate::options::GpuOptions;
use crate::product::{Input, Kernels, Output, Rows};
use crate::runtime::{Arg, Fp8, GpuRuntime, LaunchShape};
use crate::scratch::{GpuGraph, GpuStream, Slot};
use crate::top::{Logits, top_logits};

/// A GPU as a device, through its vendor's runtime.
#[derive(Debug)]
pub struct GpuBackend<R: GpuRuntime> {
    /// Given back before the device.
    communicator: Option<Member>,
    rank: Rank,
    device: Device<R>,
    kernels: Kernels<R::Kernel>,
    rope_tables: RopeTables<R>,
    capabilities: Capabilities,
}

impl<R: GpuRuntime> GpuBackend<R> {
    /// Takes an opened device.
    ///
    /// # Errors
    /// [`PrepareError::Unsupported`] where the device's images lack a kernel; errors of the driver.
    pub fn new(runtime: R, options: GpuOptions) -> Result<Self, PrepareError> {
        Self::in_group(runtime, options, (Rank::alone(), None))
    }

    /// Takes an opened device and its place in a group, with a communicator unless it is alone.
    pub(crate) fn in_group(
        runtime: R,
        options: GpuOptions,
        (rank, communicator): (Rank, Option<Member>),
    ) -> Result<Self, PrepareError> {
        let kernels = Kernels::new(&runtime)?;
        let device = Device::new(runtime, options)?;
        let capabilities = capabilities(&device);
        Ok(Self { communicator, rank, device, kernels, rope_tables: RopeTables::default(), capabilities })
    }

    /// The runtime below.
    pub fn runtime(&self) -> &R {
        self.device.runtime()
    }

    fn address<E: Element>(&self, tensor: &Tensor<R::Buffer, E>) -> u64 {
        self.device.runtime().address(tensor.buffer())
    }

    /// Address, rows and columns of a tensor.
    fn rows<E: Element>(&self, tensor: &Tensor<R::Buffer, E>) -> (u64, u32, u32) {
        (self.address(tensor), tensor.rows() as u32, tensor.cols() as u32)
    }

    fn input(&self, stream: &mut GpuStream<R>, x: &ActTensor<Self>) -> Result<Input, StepError> {
        self.device.input(&self.kernels, stream, self.rows(x))
    }

    fn context(&self) -> (&Device<R>, &Kernels<R::Kernel>) {
        (&self.device, &self.kernels)
    }

    /// What a failed collective breaks; whoever failed first is named.
    fn broken(&self, error: &CollectiveError) -> StepError {
        self.rank.fail(error.to_string())
    }

    /// After a wait: sums that did not come about leave no other trace.
    fn check_sums(&self) -> Result<(), StepError> {
        let Some(communicator) = &self.communicator else { return Ok(()) };
        communicator.check().map_err(|error| self.broken(&error))
    }

    /// One block per row.
    fn by_rows(&self, num_rows: usize) -> LaunchShape {
        LaunchShape::linear(num_rows as u32, self.device.threads())
    }
}

fn capabilities<R: GpuRuntime>(device: &Device<R>) -> Capabilities {
    let info = device.info();
    let fp8 = match info.fp8 {
        Fp8::None => "FP8 is widened by integer operations",
        Fp8::Ocp => "FP8 is e4m3fn",
        Fp8::Fnuz => "FP8 is e4m3fnuz: weights are encoded anew when they are loaded",
    };
    let mut notes = vec![
        format!("{}, {} multiprocessors, waves of {}", info.architecture, info.num_multiprocessors, info.wave_size),
        fp8.into(),
        "MLA is absorbed, but for prompts".into(),
    ];
    notes.extend_from_slice(&info.notes);
    Capabilities {
        backend: info.backend.clone(),
        device: info.name.clone(),
        weight_formats: vec![
            WeightFormat::Fp8Block,
            WeightFormat::Bf16,
            WeightFormat::Int8Channel,
            WeightFormat::Int4Group,
            WeightFormat::F32,
        ],
        quantised_inputs: device.quantised_inputs(),
        activation: DType::Bf16,
        cache_element_bytes: size_of::<bf16>(),
        cache_formats: CacheFormat::ALL.into(),
        memory_bytes: Some(info.free_bytes.saturating_sub(device.options().expanded_bytes)),
        max_cache_layer_bytes: None,
        notes,
    }
}

impl<R: GpuRuntime> Backend for GpuBackend<R> {
    type Act = bf16;
    type Buffer = R::Buffer;
    type Stream = GpuStream<R>;
    type Embedding = GpuEmbedding<R>;
    type Norm = GpuNorm<R>;
    type Linear = GpuLinear<R>;
    type Ffn = GpuFfn<R>;
    type Mla = GpuMla<R>;
    type Gate = GpuGate<R>;
    type Experts = GpuExperts<R>;
    type Queries = GpuQueries<R>;
    type LatentCache = GpuLatentCache<R>;
    type Graph = GpuGraph<R>;

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn rank(&self) -> &Rank {
        &self.rank
    }

    fn stream(&self) -> Result<GpuStream<R>, StepError> {
        GpuStream::new(&self.device)
    }

    fn alloc(&self, num_bytes: usize) -> Result<R::Buffer, StepError> {
        self.device.runtime().alloc(num_bytes.max(1), "a tensor")
    }

    fn write(
        &self,
        stream: &mut GpuStream<R>,
        buffer: &mut R::Buffer,
        offset: usize,
        data: &[u8],
    ) -> Result<(), StepError> {
        self.device.runtime().upload(&mut stream.queue, buffer, offset, data)
    }

    fn read(
        &self,
        stream: &mut GpuStream<R>,
        buffer: &R::Buffer,
        offset: usize,
        data: &mut [u8],
    ) -> Result<(), StepError> {
        self.device.runtime().download(&mut stream.queue, buffer, offset, data)?;
        self.check_sums()
    }

    fn synchronize(&self, stream: &mut GpuStream<R>) -> Result<(), StepError> {
        self.device.runtime().synchronize(&mut stream.queue)?;
        self.check_sums()
    }

    fn captures(&self) -> bool {
        self.device.options().captures_steps && self.device.runtime().captures()
    }

    fn capture(
        &self,
        stream: &mut GpuStream<R>,
        run: &mut dyn FnMut(&mut GpuStream<R>) -> Result<(), StepError>,
    ) -> Result<Option<GpuGraph<R>>, StepError> {
        if self.captures() { stream.capture(&self.device, self.communicator.as_ref(), run) } else { Ok(None) }
    }

    fn replay(&self, stream: &mut GpuStream<R>, graph: &GpuGraph<R>) -> Result<Replayed, StepError> {
        let mut replay = || stream.replay(&self.device, graph);
        let Some(communicator) = &self.communicator else { return replay() };
        // What a graph holds of a communicator is gone when that is aborted.
        communicator.while_alive(replay).unwrap_or_else(|error| Err(self.broken(&error)))
    }

    fn prepare_embedding(&self, table: HostWeight) -> Result<GpuEmbedding<R>, PrepareError> {
        GpuEmbedding::new(&self.device, &table)
    }

    fn prepare_norm(&self, weight: &[f32], eps: f32) -> Result<GpuNorm<R>, PrepareError> {
        GpuNorm::new(&self.device, weight, eps)
    }

    fn prepare_linear(&self, weight: HostWeight) -> Result<GpuLinear<R>, PrepareError> {
        GpuLinear::new(&self.device, &weight)
    }

    fn prepare_ffn(&self, weights: FfnWeights) -> Result<GpuFfn<R>, PrepareError> {
        let FfnWeights { gate, up, down } = weights;
        GpuFfn::new(&self.device, &[gate], &[up], &[down])
    }

    fn prepare_mla(&self, spec: &MlaSpec, weights: MlaWeights) -> Result<GpuMla<R>, PrepareError> {
        GpuMla::new(&self.device, &self.rope_tables, spec, &weights)
    }

    fn prepare_gate(&self, spec: &GateSpec, weights: GateWeights) -> Result<GpuGate<R>, PrepareError> {
        GpuGate::new(&self.device, spec, &weights)
    }

    fn prepare_experts(&self, weights: ExpertsWeights) -> Result<GpuExperts<R>, PrepareError> {
        GpuExperts::new(&self.device, &weights)
    }

    fn latent_cache(&self, spec: &CacheSpec) -> Result<GpuLatentCache<R>, PrepareError> {
        GpuLatentCache::new(&self.device, spec)
    }

    fn queries(&self, spec: &MlaSpec, max_num_tokens: usize) -> Result<GpuQueries<R>, PrepareError> {
        GpuQueries::new(&self.device, spec, max_num_tokens)
    }

    fn embed(
        &self,
        stream: &mut GpuStream<R>,
        table: &GpuEmbedding<R>,
        tokens: &Tensor<R::Buffer, u32>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        let ids = (self.address(tokens), tokens.rows() as u32);
        table.forward(&self.device, stream, ids, self.address(out))
    }

    fn rms_norm(
        &self,
        stream: &mut GpuStream<R>,
        norm: &GpuNorm<R>,
        x: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        let (address, num_rows, cols) = self.rows(x);
        norm.forward(&self.device, stream, (num_rows, cols), (address, cols), (self.address(out), cols))
    }

    fn add(&self, stream: &mut GpuStream<R>, x: &ActTensor<Self>, out: &mut ActTensor<Self>) -> Result<(), StepError> {
        let num_elements = (x.rows() * x.cols()) as u32;
        // A thread takes a few elements; the grid goes through all of them however many there are.
        let num_blocks = num_elements.div_ceil(4 * self.device.threads());
        let args = [Arg::Ptr(self.address(x)), Arg::Ptr(self.address(out)), Arg::U32(num_elements)];
        let shape = LaunchShape::linear(num_blocks, self.device.threads());
        self.device.launch(&mut stream.queue, &self.kernels.add, shape, &args)
    }

    fn concat(
        &self,
        stream: &mut GpuStream<R>,
        a: &ActTensor<Self>,
        b: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        let [a_address, b_address, out_address] = [self.address(a), self.address(b), self.address(out)].map(Arg::Ptr);
        let args = [a_address, b_address, out_address, Arg::U32(a.cols() as u32), Arg::U32(b.cols() as u32)];
        self.device.launch(&mut stream.queue, &self.kernels.concat, self.by_rows(out.rows()), &args)
    }

    fn gather_rows(
        &self,
        stream: &mut GpuStream<R>,
        x: &ActTensor<Self>,
        rows: &Tensor<R::Buffer, u32>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        let [x_address, rows_address, out_address] =
            [self.address(x), self.address(rows), self.address(out)].map(Arg::Ptr);
        let args = [x_address, rows_address, out_address, Arg::U32(x.cols() as u32)];
        self.device.launch(&mut stream.queue, &self.kernels.gather_rows, self.by_rows(rows.rows()), &args)
    }

    fn linear(
        &self,
        stream: &mut GpuStream<R>,
        weight: &GpuLinear<R>,
        x: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        let input = self.input(stream, x)?;
        let input = weight.quantised(self.context(), stream, input, [Slot::Codes, Slot::CodeScales])?;
        weight.forward(&self.device, stream, input, weight.output(self.address(out)), Rows::All)
    }

    fn logits(
        &self,
        stream: &mut GpuStream<R>,
        head: &GpuLinear<R>,
        x: &ActTensor<Self>,
        out: &mut Tensor<R::Buffer, f32>,
    ) -> Result<(), StepError> {
        let input = self.input(stream, x)?;
        let output = Output { is_f32: true, ..head.output(self.address(out)) };
        head.forward(&self.device, stream, input, output, Rows::All)
    }

    fn argmax(
        &self,
        stream: &mut GpuStream<R>,
        logits: &Tensor<R::Buffer, f32>,
        num_ids: usize,
        out: &mut Tensor<R::Buffer, u32>,
    ) -> Result<(), StepError> {
        let (address, _, cols) = self.rows(logits);
        let args = [Arg::Ptr(address), Arg::Ptr(self.address(out)), Arg::U32(num_ids as u32), Arg::U32(cols)];
        let shape = self.by_rows(logits.rows()).with_shared(self.device.wave_floats(2));
        self.device.launch(&mut stream.queue, &self.kernels.argmax, shape, &args)
    }

    fn finds_top_logits(&self) -> bool {
        true
    }

    fn top_logits(
        &self,
        stream: &mut GpuStream<R>,
        logits: &Tensor<R::Buffer, f32>,
        inverse_temperatures: &Tensor<R::Buffer, f32>,
        num_ids: usize,
        out: &mut Tensor<R::Buffer, u32>,
    ) -> Result<(), StepError> {
        let from = Logits {
            address: self.address(logits),
            inverse_temperatures: self.address(inverse_temperatures),
            num_rows: logits.rows(),
            cols: logits.cols(),
            num_ids,
        };
        top_logits(self.context(), stream, from, (self.address(out), out.cols()))
    }

    fn ffn(
        &self,
        stream: &mut GpuStream<R>,
        weights: &GpuFfn<R>,
        x: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        let input = self.input(stream, x)?;
        let input = weights.quantised(self.context(), stream, input)?;
        weights.forward(self.context(), stream, (input, input.num_rows), self.address(out), [Rows::All; 2])
    }

    fn mla_prolog(
        &self,
        stream: &mut GpuStream<R>,
        mla: &GpuMla<R>,
        step: LayerStep<'_, R::Buffer>,
        io: MlaPrologIo<'_, Self>,
    ) -> Result<(), StepError> {
        let input = self.input(stream, io.x)?;
        mla.prolog(self.context(), stream, step, input, (io.cache, io.queries))
    }

    fn mla_attention(
        &self,
        stream: &mut GpuStream<R>,
        mla: &GpuMla<R>,
        step: LayerStep<'_, R::Buffer>,
        queries: &GpuQueries<R>,
        cache: &GpuLatentCache<R>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        mla.attention(&self.device, stream, step, (queries, cache), self.address(out))
    }

    fn moe_gate(
        &self,
        stream: &mut GpuStream<R>,
        gate: &GpuGate<R>,
        x: &ActTensor<Self>,
        routing: &mut Routing<R::Buffer>,
    ) -> Result<(), StepError> {
        let input = self.input(stream, x)?;
        gate.forward(&self.device, stream, input, [self.address(&routing.ids), self.address(&routing.weights)])
    }

    fn moe_experts(
        &self,
        stream: &mut GpuStream<R>,
        experts: &GpuExperts<R>,
        x: &ActTensor<Self>,
        routing: &Routing<R::Buffer>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        let input = self.input(stream, x)?;
        let choice = Choice {
            ids: self.address(&routing.ids),
            weights: self.address(&routing.weights),
            top_k: routing.ids.cols() as u32,
        };
        experts.forward(self.context(), stream, input, choice, self.address(out))
    }

    fn add_rms_norm(
        &self,
        stream: &mut GpuStream<R>,
        norm: &GpuNorm<R>,
        delta: &ActTensor<Self>,
        residual: &mut ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        let (delta, num_rows, cols) = self.rows(delta);
        let addresses = [delta, self.address(residual), self.address(out)];
        norm.forward_sum(&self.device, stream, (num_rows, cols), addresses)
    }

    fn all_reduce(&self, stream: &mut GpuStream<R>, x: &mut ActTensor<Self>) -> Result<(), StepError> {
        let count = x.rows() * x.cols();
        // Alone there is nothing to add.
        let Some(communicator) = self.communicator.as_ref().filter(|_| count > 0) else { return Ok(()) };
        let queue = self.device.runtime().native_queue(&mut stream.queue)?;
        let queued = communicator.all_reduce(queue, self.address(x), count);
        queued.map_err(|error| self.broken(&error))
    }
}
