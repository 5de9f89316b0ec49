//! Deterministic random weights, activations and steps.

use std::sync::Arc;

use engine_core::backend::{
    ActTensor, Backend, CacheFormat, CacheSpec, FfnWeights, HostBuffer, LayerStep, MlaPrologIo, MlaSpec, MlaWeights,
    QueryProjection, SequenceStep, StepLimits, StepMeta, Tensor,
};
use engine_core::config::{AttentionConfig, RopeConfig};
use engine_core::quant::{
    Bf16Weight, F32Weight, FP8_BLOCK, Fp8BlockWeight, HostWeight, Int4GroupWeight, Int8ChannelWeight, MatrixShape,
    ScaleFormat, WeightFormat,
};
use engine_core::rope::RopeTable;
use half::bf16;

use crate::{CpuBackend, CpuOptions, MlaForm, SimdLevel};

/// The formats, ragged where they can be.
pub(super) const FORMATS: [WeightFormat; 5] =
    [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Fp8Block, WeightFormat::Int8Channel, WeightFormat::Int4Group];

/// A backend with three threads, so that tasks really run beside each other.
pub(super) fn cpu(level: SimdLevel, mla_form: MlaForm) -> CpuBackend {
    CpuBackend::new(CpuOptions { threads: Some(3), mla_form, simd: Some(level) }).unwrap()
}

/// Numbers from a seed.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Uniform in −1..1.
    pub(super) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end
    }

    pub(super) fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.unit()).collect()
    }

    /// A weight with real values of about ±1/√in.
    pub(super) fn weight(&mut self, format: WeightFormat, out_features: usize, in_features: usize) -> HostWeight {
        let shape = MatrixShape::new(out_features, in_features);
        let size = (in_features as f32).sqrt().recip();
        let len = shape.num_elements();
        let mut scales = |count: usize, largest: f32| -> Vec<f32> {
            (0..count).map(|_| size * (0.6 + 0.4 * self.unit()) / largest).collect()
        };
        match format {
            WeightFormat::F32 => {
                let values: Vec<f32> = self.values(len).into_iter().map(|v| v * size).collect();
                HostWeight::F32(F32Weight::new(shape, values.into()).unwrap())
            }
            WeightFormat::Bf16 => {
                let values: Vec<bf16> = self.values(len).into_iter().map(|v| bf16::from_f32(v * size)).collect();
                HostWeight::Bf16(Bf16Weight::new(shape, values.into()).unwrap())
            }
            WeightFormat::Fp8Block => {
                let blocks = out_features.div_ceil(FP8_BLOCK) * in_features.div_ceil(FP8_BLOCK);
                let scales = scales(blocks, 64.0);
                // Every byte but the two NaNs, subnormals included.
                let byte = |random: u64| if random & 0x7F == 0x7F { 0x3A } else { random as u8 };
                let values: Vec<u8> = (0..len).map(|_| byte(self.next() >> 32)).collect();
                let weight = Fp8BlockWeight::new(shape, values.into(), scales.into(), ScaleFormat::F32);
                HostWeight::Fp8Block(weight.unwrap())
            }
            WeightFormat::Int8Channel => {
                let scales = scales(out_features, 127.0);
                let values: Vec<i8> = (0..len).map(|_| (self.next() >> 32) as i8).collect();
                HostWeight::Int8Channel(Int8ChannelWeight::new(shape, values.into(), scales.into()).unwrap())
            }
            WeightFormat::Int4Group => {
                let group = 32;
                let scales = scales(out_features * in_features.div_ceil(group), 8.0);
                let bytes = out_features * Int4GroupWeight::row_bytes(in_features);
                let packed: Vec<u8> = (0..bytes).map(|_| (self.next() >> 32) as u8).collect();
                HostWeight::Int4Group(Int4GroupWeight::new(shape, group, packed.into(), scales.into()).unwrap())
            }
        }
    }

    pub(super) fn ffn(&mut self, format: WeightFormat, hidden: usize, width: usize) -> FfnWeights {
        FfnWeights {
            gate: self.weight(format, width, hidden),
            up: self.weight(format, width, hidden),
            down: self.weight(format, hidden, width),
        }
    }

    /// Attention of a small model; `q_lora_rank` decides how queries are made.
    pub(super) fn mla(&mut self, format: WeightFormat, dims: AttentionConfig, hidden: usize) -> (MlaSpec, MlaWeights) {
        let q_width = dims.num_attention_heads * dims.qk_head_dim();
        let norm = |random: &mut Self, len| random.values(len).into_iter().map(|v| 1.0 + 0.1 * v).collect();
        let q = match dims.q_lora_rank {
            None => QueryProjection::Direct(self.weight(format, q_width, hidden)),
            Some(rank) => QueryProjection::LowRank {
                a: self.weight(format, rank, hidden),
                norm: norm(self, rank),
                b: self.weight(format, q_width, rank),
            },
        };
        let kv_b_rows = dims.num_attention_heads * (dims.qk_nope_head_dim + dims.v_head_dim);
        let weights = MlaWeights {
            q,
            kv_a: self.weight(format, dims.latent_width(), hidden),
            kv_a_norm: norm(self, dims.kv_lora_rank),
            kv_b: self.weight(format, kv_b_rows, dims.kv_lora_rank),
        };
        let rope = RopeTable::new(&RopeConfig { theta: 1e4, yarn: None }, dims.qk_rope_head_dim, 1024);
        let spec = MlaSpec {
            dims,
            hidden_size: hidden,
            softmax_scale: (dims.qk_head_dim() as f32).sqrt().recip(),
            rope: Arc::new(rope),
            rms_norm_eps: 1e-6,
        };
        (spec, weights)
    }
}

/// An activation tensor of `data`.
pub(super) fn tensor<B: Backend<Act = f32, Buffer = HostBuffer>>(
    backend: &B,
    cols: usize,
    data: &[f32],
) -> ActTensor<B> {
    Tensor::from_slice(backend, &mut backend.stream().unwrap(), cols, data).unwrap()
}

/// Asserts that `found` is within `tolerance` of `expected`, relative to the largest expected value.
#[track_caller]
pub(super) fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    assert!(largest > 0.0 && largest.is_finite(), "{what}: nothing to compare with");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs() / largest;
        assert!(error <= tolerance, "{what}: value {i} is {found}, expected {expected}, error {error:e}");
    }
}

/// One layer's attention over growing sequences, on any backend.
pub(super) struct Attention<'a, B: Backend> {
    pub(super) backend: &'a B,
    mla: B::Mla,
    cache: B::LatentCache,
    queries: B::Queries,
    meta: StepMeta<B::Buffer>,
    hidden: usize,
    out_width: usize,
}

/// The part of one sequence that a step runs.
pub(super) struct Part<'a> {
    /// Hidden states of the whole sequence, `[len, H]`.
    pub(super) x: &'a [f32],
    /// Positions to run now.
    pub(super) positions: std::ops::Range<usize>,
    pub(super) blocks: &'a [u32],
}

pub(super) const BLOCK_SIZE: usize = 16;

impl<'a, B: Backend<Act = f32, Buffer = HostBuffer>> Attention<'a, B> {
    pub(super) fn new(backend: &'a B, spec: &MlaSpec, weights: &MlaWeights, num_blocks: usize) -> Self {
        let cache = CacheSpec {
            num_layers: 2,
            num_blocks,
            block_size: BLOCK_SIZE,
            kv_lora_rank: spec.dims.kv_lora_rank,
            qk_rope_head_dim: spec.dims.qk_rope_head_dim,
            format: CacheFormat::Native,
        };
        let limits =
            StepLimits { max_num_batched_tokens: 512, max_num_seqs: 8, max_model_len: 512, block_size: BLOCK_SIZE };
        Self {
            mla: backend.prepare_mla(spec, weights.clone()).unwrap(),
            cache: backend.latent_cache(&cache).unwrap(),
            queries: backend.queries(spec, 512).unwrap(),
            meta: StepMeta::alloc(backend, &limits).unwrap(),
            hidden: spec.hidden_size,
            out_width: spec.dims.num_attention_heads * spec.dims.v_head_dim,
            backend,
        }
    }

    /// Runs a step; returns `[T, N · V]`.
    pub(super) fn step(&mut self, parts: &[Part<'_>]) -> Vec<f32> {
        let mut stream = self.backend.stream().unwrap();
        let tokens = [0; 512];
        let sequences: Vec<SequenceStep<'_>> = parts
            .iter()
            .map(|part| SequenceStep {
                tokens: &tokens[..part.positions.len()],
                context_len: part.positions.start,
                block_table: part.blocks,
            })
            .collect();
        self.meta.fill(self.backend, &mut stream, &sequences).unwrap();
        let x: Vec<f32> = parts
            .iter()
            .flat_map(|p| &p.x[p.positions.start * self.hidden..p.positions.end * self.hidden])
            .copied()
            .collect();
        let x = tensor(self.backend, self.hidden, &x);
        let step = LayerStep { layer: 1, meta: &self.meta };
        let io = MlaPrologIo { x: &x, cache: &mut self.cache, queries: &mut self.queries };
        self.backend.mla_prolog(&mut stream, &self.mla, step, io).unwrap();
        let mut out = Tensor::alloc(self.backend, x.rows(), self.out_width).unwrap();
        self.backend.mla_attention(&mut stream, &self.mla, step, &self.queries, &self.cache, &mut out).unwrap();
        out.as_slice().to_vec()
    }
}
