//! [`Backend`] for the CPU: unpacks tensors and hands them to the ops.

use std::convert::Infallible;

use engine_core::backend::{
    ActTensor, Backend, CacheFormat, CacheSpec, Capabilities, DType, ExpertsWeights, FfnWeights, GateSpec, GateWeights,
    HostBuffer, LayerStep, MlaPrologIo, MlaSpec, MlaWeights, NO_TOKEN, PrepareError, Rank, Replayed, Requirement,
    Routing, StepError, Tensor, Unsupported,
};
use engine_core::quant::{HostWeight, QuantisedInputs, WeightFormat};
use engine_core::reference::MlaForm;
use engine_core::sampling::argmax;

use crate::device;
use crate::experts::{Choice, Experts};
use crate::ffn::Ffn;
use crate::gate::Gate;
use crate::gemm::{Machine, chunked, linear};
use crate::grid::for_each_row;
use crate::matrix::Matrix;
use crate::mla::{LatentCache, Mla, Queries};
use crate::norm::Norm;
use crate::options::CpuOptions;
use crate::scratch::CpuStream;
use crate::simd::{Isa, SimdLevel};
use crate::threads::Threads;

/// The CPU as a device.
#[derive(Debug)]
pub struct CpuBackend {
    isa: Isa,
    threads: Threads,
    mla_form: MlaForm,
    rank: Rank,
    capabilities: Capabilities,
}

impl CpuBackend {
    /// Starts the threads and chooses the instruction set.
    ///
    /// # Errors
    /// [`PrepareError::Unsupported`] for an instruction set this processor lacks and for a number of threads that
    /// cannot be started.
    pub fn new(options: CpuOptions) -> Result<Self, PrepareError> {
        let CpuOptions { threads, mla_form, simd } = options;
        let level = simd.unwrap_or_else(SimdLevel::detect);
        let device = device::cpu_name();
        let isa = Isa::new(level).ok_or_else(|| Unsupported {
            backend: format!("cpu ({device})"),
            what: format!("the {level} kernels"),
            reason: format!("the best instruction set of this processor is {}", SimdLevel::detect()),
            action: "leave the choice of the instruction set to the backend".into(),
        })?;
        let threads = Threads::new(threads.unwrap_or_else(available_threads))?;
        let form = match mla_form {
            MlaForm::Absorbed => "absorbed",
            MlaForm::NonAbsorbed => "non-absorbed",
        };
        let capabilities = Capabilities {
            backend: "cpu".into(),
            device,
            weight_formats: vec![
                WeightFormat::Fp8Block,
                WeightFormat::Bf16,
                WeightFormat::Int8Channel,
                WeightFormat::Int4Group,
                WeightFormat::F32,
            ],
            quantised_inputs: QuantisedInputs::NONE,
            activation: DType::F32,
            cache_element_bytes: size_of::<f32>(),
            cache_formats: vec![CacheFormat::Native],
            memory_bytes: device::available_memory(),
            max_cache_layer_bytes: None,
            notes: vec![
                format!("{level} kernels"),
                format!("{} threads", threads.len()),
                format!("{form} MLA"),
                "weight-only: weights are expanded to f32 in registers, activations stay f32".into(),
            ],
        };
        Ok(Self { isa, threads, mla_form, rank: Rank::alone(), capabilities })
    }

    /// A group of `world_size` backends that share the machine: threads and memory are divided among them.
    ///
    /// # Errors
    /// As [`CpuBackend::new`].
    pub fn group(world_size: usize, options: &CpuOptions) -> Result<Vec<Self>, PrepareError> {
        let threads = options.threads.unwrap_or_else(available_threads);
        let options = CpuOptions { threads: Some((threads / world_size.max(1)).max(1)), ..options.clone() };
        let backend = |rank: Rank| {
            let mut backend = Self::new(options.clone())?;
            backend.rank = rank;
            backend.capabilities.memory_bytes =
                backend.capabilities.memory_bytes.map(|bytes| bytes / world_size as u64);
            Ok(backend)
        };
        Rank::group(world_size).into_iter().map(backend).collect()
    }

    fn machine(&self) -> Machine<'_> {
        Machine { isa: self.isa, threads: &self.threads }
    }

    fn linear_f32(
        &self,
        stream: &mut CpuStream,
        weight: &Matrix,
        x: &ActTensor<Self>,
        out: &mut Tensor<HostBuffer, f32>,
    ) -> Result<(), StepError> {
        let x = chunked(x.as_slice(), x.cols(), &mut stream.padded)?;
        linear(self.machine(), weight, x, out.as_mut_slice());
        Ok(())
    }
}

fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Backend for CpuBackend {
    type Act = f32;
    type Buffer = HostBuffer;
    type Stream = CpuStream;
    type Embedding = Matrix;
    type Norm = Norm;
    type Linear = Matrix;
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

    fn stream(&self) -> Result<CpuStream, StepError> {
        Ok(CpuStream::default())
    }

    fn alloc(&self, num_bytes: usize) -> Result<HostBuffer, StepError> {
        HostBuffer::new(num_bytes, "cpu")
    }

    fn write(&self, _: &mut CpuStream, buffer: &mut HostBuffer, offset: usize, data: &[u8]) -> Result<(), StepError> {
        buffer.bytes_mut()[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn read(&self, _: &mut CpuStream, buffer: &HostBuffer, offset: usize, data: &mut [u8]) -> Result<(), StepError> {
        data.copy_from_slice(&buffer.bytes()[offset..offset + data.len()]);
        Ok(())
    }

    fn synchronize(&self, _: &mut CpuStream) -> Result<(), StepError> {
        Ok(())
    }

    fn replay(&self, _: &mut CpuStream, graph: &Infallible) -> Result<Replayed, StepError> {
        match *graph {}
    }

    fn prepare_embedding(&self, table: HostWeight) -> Result<Matrix, PrepareError> {
        Matrix::new(table)
    }

    fn prepare_norm(&self, weight: &[f32], eps: f32) -> Result<Norm, PrepareError> {
        Ok(Norm::new(weight, eps))
    }

    fn prepare_linear(&self, weight: HostWeight) -> Result<Matrix, PrepareError> {
        Matrix::new(weight)
    }

    fn prepare_ffn(&self, weights: FfnWeights) -> Result<Ffn, PrepareError> {
        Ffn::new(weights)
    }

    fn prepare_mla(&self, spec: &MlaSpec, weights: MlaWeights) -> Result<Mla, PrepareError> {
        Mla::new(spec, weights)
    }

    fn prepare_gate(&self, spec: &GateSpec, weights: GateWeights) -> Result<Gate, PrepareError> {
        Gate::new(spec, weights)
    }

    fn prepare_experts(&self, weights: ExpertsWeights) -> Result<Experts, PrepareError> {
        Experts::new(weights)
    }

    fn latent_cache(&self, spec: &CacheSpec) -> Result<LatentCache, PrepareError> {
        self.capabilities.check(Requirement::CacheFormat(spec.format))?;
        Ok(LatentCache::new(spec)?)
    }

    fn queries(&self, spec: &MlaSpec, max_num_tokens: usize) -> Result<Queries, PrepareError> {
        Ok(Queries::new(spec, max_num_tokens)?)
    }

    fn embed(
        &self,
        _: &mut CpuStream,
        table: &Matrix,
        tokens: &Tensor<HostBuffer, u32>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        let (tokens, cols) = (tokens.as_slice(), out.cols());
        for_each_row(&self.threads, out.as_mut_slice(), cols, |row, out| {
            table.host().row_f32(tokens[row] as usize, out)
        });
        Ok(())
    }

    fn rms_norm(
        &self,
        _: &mut CpuStream,
        norm: &Norm,
        x: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        norm.rows(self.machine(), x.as_slice(), out.as_mut_slice());
        Ok(())
    }

    fn add(&self, _: &mut CpuStream, x: &ActTensor<Self>, out: &mut ActTensor<Self>) -> Result<(), StepError> {
        let cols = x.cols();
        for_each_row(&self.threads, out.as_mut_slice(), cols, |row, out| {
            for (out, x) in out.iter_mut().zip(x.row(row)) {
                *out += x;
            }
        });
        Ok(())
    }

    fn concat(
        &self,
        _: &mut CpuStream,
        a: &ActTensor<Self>,
        b: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        let cols = out.cols();
        for_each_row(&self.threads, out.as_mut_slice(), cols, |row, out| {
            let (left, right) = out.split_at_mut(a.cols());
            left.copy_from_slice(a.row(row));
            right.copy_from_slice(b.row(row));
        });
        Ok(())
    }

    fn gather_rows(
        &self,
        _: &mut CpuStream,
        x: &ActTensor<Self>,
        rows: &Tensor<HostBuffer, u32>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        let (rows, cols) = (rows.as_slice(), out.cols());
        for_each_row(&self.threads, out.as_mut_slice(), cols, |i, out| out.copy_from_slice(x.row(rows[i] as usize)));
        Ok(())
    }

    fn linear(
        &self,
        stream: &mut CpuStream,
        weight: &Matrix,
        x: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        self.linear_f32(stream, weight, x, out)
    }

    fn logits(
        &self,
        stream: &mut CpuStream,
        head: &Matrix,
        x: &ActTensor<Self>,
        out: &mut Tensor<HostBuffer, f32>,
    ) -> Result<(), StepError> {
        self.linear_f32(stream, head, x, out)
    }

    fn argmax(
        &self,
        _: &mut CpuStream,
        logits: &Tensor<HostBuffer, f32>,
        num_ids: usize,
        out: &mut Tensor<HostBuffer, u32>,
    ) -> Result<(), StepError> {
        for (row, out) in out.as_mut_slice().iter_mut().enumerate() {
            *out = argmax(&logits.row(row)[..num_ids]).unwrap_or(NO_TOKEN);
        }
        Ok(())
    }

    fn ffn(
        &self,
        stream: &mut CpuStream,
        weights: &Ffn,
        x: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        weights.forward(self.machine(), stream, x.as_slice(), out.as_mut_slice())
    }

    fn mla_prolog(
        &self,
        stream: &mut CpuStream,
        mla: &Mla,
        step: LayerStep<'_, HostBuffer>,
        io: MlaPrologIo<'_, Self>,
    ) -> Result<(), StepError> {
        mla.prolog(self.machine(), stream, step, io.x.as_slice(), (io.queries, io.cache))
    }

    fn mla_attention(
        &self,
        stream: &mut CpuStream,
        mla: &Mla,
        step: LayerStep<'_, HostBuffer>,
        queries: &Queries,
        cache: &LatentCache,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        mla.attention((self.machine(), self.mla_form), stream, step, (queries, cache), out.as_mut_slice())
    }

    fn moe_gate(
        &self,
        stream: &mut CpuStream,
        gate: &Gate,
        x: &ActTensor<Self>,
        routing: &mut Routing<HostBuffer>,
    ) -> Result<(), StepError> {
        let choice = (routing.ids.as_mut_slice(), routing.weights.as_mut_slice());
        gate.forward(self.machine(), stream, x.as_slice(), choice)
    }

    fn moe_experts(
        &self,
        stream: &mut CpuStream,
        experts: &Experts,
        x: &ActTensor<Self>,
        routing: &Routing<HostBuffer>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        let choice =
            Choice { ids: routing.ids.as_slice(), weights: routing.weights.as_slice(), top_k: routing.ids.cols() };
        experts.forward(self.machine(), stream, (x.as_slice(), x.cols()), choice, out.as_mut_slice())
    }

    fn all_reduce(&self, _: &mut CpuStream, x: &mut ActTensor<Self>) -> Result<(), StepError> {
        self.rank.all_reduce(x.as_mut_slice())
    }
}
