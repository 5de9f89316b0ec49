//! Both MLA ops: scripts of steps over a paged cache, held against attention over whole sequences.

use std::sync::Arc;

use engine_core::backend::{
    Backend, CacheFormat, CacheSpec, LayerStep, MlaPrologIo, MlaSpec, MlaWeights, QueryProjection, SequenceStep,
    StepLimits, StepMeta,
};
use engine_core::config::{AttentionConfig, RopeConfig, YarnConfig};
use engine_core::reference::Numerics;
use engine_core::rope::{RopeTable, softmax_scale};

use super::script::{self, Blocks, Script, Step};
use crate::harness::{Format, Guarded, Output, Profile, Rig, Rng, Stage, Stop, TestWeight, Tolerance};
use crate::oracle::{Matrix, MlaOracle, Oracle, Queries};

/// Layers of the cache, and the one under test; the others get decoys.
const NUM_LAYERS: usize = 3;
const LAYER: usize = 1;

/// One attention, one script, one block size.
#[derive(Debug, Clone)]
pub struct MlaCase {
    dims: AttentionConfig,
    hidden: usize,
    rope: RopeConfig,
    eps: f32,
    format: Format,
    script: Script,
    block_size: usize,
    cache: CacheFormat,
}

const PLAIN: RopeConfig = RopeConfig { theta: 10_000.0, yarn: None };
/// The YaRN of DeepSeek-V3, with a window so short that the test's positions lie beyond it.
const YARN: RopeConfig = RopeConfig {
    theta: 10_000.0,
    yarn: Some(YarnConfig {
        factor: 40.0,
        original_max_position_embeddings: 8,
        beta_fast: 32.0,
        beta_slow: 1.0,
        mscale: Some(1.0),
        mscale_all_dim: Some(1.0),
        attention_factor: None,
    }),
};
/// Kimi-K2's step instead of a ramp, and V2's mscale.
const YARN_STEP: RopeConfig = RopeConfig {
    theta: 50_000.0,
    yarn: Some(YarnConfig {
        factor: 32.0,
        original_max_position_embeddings: 4096,
        beta_fast: 1.0,
        beta_slow: 1.0,
        mscale: Some(0.707),
        mscale_all_dim: Some(0.707),
        attention_factor: None,
    }),
};

/// P, R, V and Lkv of DeepSeek and of GLM-4.7-Flash.
const DEEPSEEK: [usize; 4] = [128, 64, 128, 512];
const GLM: [usize; 4] = [192, 64, 256, 512];
const SMALL: [usize; 4] = [16, 8, 16, 32];
/// No width but R a multiple of 8, V and P different, Lkv more than one 128-block of which the last is ragged.
const RAGGED: [usize; 4] = [20, 12, 28, 140];

fn dims(heads: usize, q_lora_rank: Option<usize>, [p, r, v, rank]: [usize; 4]) -> AttentionConfig {
    AttentionConfig {
        num_attention_heads: heads,
        q_lora_rank,
        kv_lora_rank: rank,
        qk_nope_head_dim: p,
        qk_rope_head_dim: r,
        v_head_dim: v,
    }
}

pub(super) fn cases() -> Vec<MlaCase> {
    let base = MlaCase {
        dims: dims(4, Some(24), SMALL),
        hidden: 48,
        rope: YARN,
        eps: 1e-6,
        format: Format::Bf16,
        script: script::BATCH,
        block_size: 4,
        cache: CacheFormat::Native,
    };
    let mut cases = Vec::new();
    for script in script::ALL {
        for q_lora_rank in [Some(24), None] {
            cases.push(MlaCase { dims: dims(4, q_lora_rank, SMALL), script, ..base });
        }
    }
    cases.push(MlaCase { script: script::MIXED, ..base });
    for block_size in [1, 3, 16, 64] {
        cases.extend([script::CHUNKED, script::VERIFY].map(|script| MlaCase { script, block_size, ..base }));
    }
    for format in Format::ALL {
        for q_lora_rank in [Some(40), None] {
            let dims = dims(3, q_lora_rank, RAGGED);
            cases.push(MlaCase { dims, hidden: 136, format, script: script::VERIFY, ..base });
        }
    }
    for rope in [PLAIN, YARN_STEP] {
        cases.push(MlaCase { rope, eps: 1e-5, script: script::CHUNKED, ..base });
    }
    for (heads, q_lora_rank, widths, format) in [
        (4, Some(96), DEEPSEEK, Format::Fp8),
        (16, None, DEEPSEEK, Format::Bf16),
        (16, None, DEEPSEEK, Format::Int8),
        (20, Some(64), GLM, Format::Bf16),
    ] {
        let dims = dims(heads, q_lora_rank, widths);
        cases.push(MlaCase { dims, hidden: 128, format, block_size: 16, script: script::BATCH, ..base });
    }
    // Sizes that operators of whole halves take.
    for format in [Format::Bf16, Format::Int8] {
        let dims = dims(2, Some(1536), DEEPSEEK);
        cases.push(MlaCase { dims, hidden: 1024, format, block_size: 16, script: script::VERIFY, ..base });
    }
    for (heads, format, script) in [
        (4, Format::Bf16, script::LONG),
        (4, Format::Int8, script::LONG_CHUNKS),
        (3, Format::Bf16, script::LONG_CHUNKS),
        (3, Format::Bf16, script::MIXED),
    ] {
        let dims = dims(heads, None, DEEPSEEK);
        cases.push(MlaCase { dims, hidden: 64, format, block_size: 16, script, ..base });
    }
    cases.extend(fp8_cache_cases(&base));
    cases
}

/// Every script over an FP8 cache; a short last group, blocks of a slot and of many, the widths of models.
fn fp8_cache_cases(base: &MlaCase) -> Vec<MlaCase> {
    let base = MlaCase { cache: CacheFormat::Fp8, ..*base };
    let mut cases = script::ALL.map(|script| MlaCase { script, ..base }).to_vec();
    cases.push(MlaCase { script: script::MIXED, ..base });
    cases.extend([1, 16].map(|block_size| MlaCase { script: script::VERIFY, block_size, ..base }));
    for (format, script) in [(Format::Bf16, script::CHUNKED), (Format::Fp8, script::VERIFY)] {
        cases.push(MlaCase { dims: dims(3, None, RAGGED), hidden: 136, format, script, ..base });
    }
    for (heads, widths, script) in
        [(16, DEEPSEEK, script::BATCH), (4, DEEPSEEK, script::LONG), (20, GLM, script::VERIFY)]
    {
        cases.push(MlaCase { dims: dims(heads, None, widths), hidden: 128, block_size: 16, script, ..base });
    }
    cases
}

struct Inputs {
    oracle: MlaOracle,
    weights: MlaWeights,
    /// `[len, H]` of each sequence.
    sequences: Vec<Vec<f32>>,
    /// Rows for padding tokens and for the decoys in other layers.
    noise: Vec<f32>,
    blocks: Blocks,
}

/// What a run keeps from step to step.
struct Run<B: Backend> {
    mla: B::Mla,
    cache: B::LatentCache,
    queries: B::Queries,
    decoy_queries: B::Queries,
    meta: StepMeta<B::Buffer>,
}

impl MlaCase {
    pub(super) fn name(&self) -> String {
        let AttentionConfig { num_attention_heads, qk_nope_head_dim, qk_rope_head_dim, v_head_dim, .. } = self.dims;
        let q = if self.dims.q_lora_rank.is_some() { "q_lora" } else { "direct q" };
        let rope = match self.rope {
            r if r == PLAIN => ", plain rope",
            r if r == YARN_STEP => ", step yarn",
            _ => "",
        };
        let cache = match self.cache {
            CacheFormat::Native => "",
            CacheFormat::Fp8 => "fp8-cache/",
        };
        format!(
            "mla/{cache}{}/{}/{q}, {num_attention_heads} heads {qk_nope_head_dim}/{qk_rope_head_dim}/{v_head_dim}{rope}/blocks \
             of {}",
            self.format.name(),
            self.script.name,
            self.block_size
        )
    }

    pub(super) fn tolerance(&self, profile: &Profile) -> Tolerance {
        let AttentionConfig { q_lora_rank, kv_lora_rank, .. } = self.dims;
        let mut stages = vec![Stage::linear(self.format, self.hidden); 2];
        stages.extend(q_lora_rank.map(|rank| Stage::linear(self.format, rank)));
        stages.extend([Stage::sum(kv_lora_rank), Stage::linear(self.format, kv_lora_rank)]);
        stages.push(Stage::sum(self.dims.qk_head_dim()));
        if self.cache == CacheFormat::Fp8 {
            stages.push(Stage::stored_in_fp8(kv_lora_rank * self.script.min_cached_positions()));
        }
        // A probability's relative error is its score's absolute one, and scores exceed one.
        Tolerance::of_stages(profile, &stages, 2.0)
    }

    fn inputs(&self, numerics: Numerics) -> Inputs {
        let mut rng = Rng::from_name(&self.name());
        let AttentionConfig { num_attention_heads: heads, kv_lora_rank: rank, .. } = self.dims;
        let mut random = |out, inp| TestWeight::random(&mut rng, self.format, out, inp);
        let kv_a = random(self.dims.latent_width(), self.hidden);
        let kv_b = random(heads * (self.dims.qk_nope_head_dim + self.dims.v_head_dim), rank);
        let q_out = heads * self.dims.qk_head_dim();
        let low_rank = self.dims.q_lora_rank.map(|rank| (random(rank, self.hidden), random(q_out, rank)));
        let direct = random(q_out, self.hidden);
        let mut norm = |len: usize| -> Vec<f32> { (0..len).map(|_| 1.0 + 0.3 * rng.normal()).collect() };
        let mut kv_a_norm = norm(rank);
        if self.cache == CacheFormat::Fp8 {
            // Groups of different size, so that another group's scale shows.
            kv_a_norm.iter_mut().enumerate().for_each(|(i, weight)| *weight *= 0.5f32.powi((i / 128) as i32));
        }
        let (q, queries) = match low_rank {
            Some((a, b)) => {
                let norm = norm(a.linear.out);
                (
                    QueryProjection::LowRank { a: a.host, norm: norm.clone(), b: b.host },
                    Queries::LowRank { a: a.linear, norm, b: b.linear },
                )
            }
            None => (QueryProjection::Direct(direct.host), Queries::Direct(direct.linear)),
        };
        let lengths = self.script.lengths();
        let sequences = lengths.iter().map(|len| rng.activations(numerics, len * self.hidden)).collect();
        let noise = rng.activations(numerics, self.script.max_num_tokens() * self.hidden);
        let blocks = Blocks::deal(&mut rng, &self.script, self.block_size);
        let weights = MlaWeights { q, kv_a: kv_a.host, kv_a_norm: kv_a_norm.clone(), kv_b: kv_b.host };
        let (kv_a, kv_b) = (kv_a.linear, kv_b.linear);
        let oracle = MlaOracle {
            dims: self.dims,
            rope: self.rope,
            eps: self.eps,
            queries,
            kv_a,
            kv_a_norm,
            kv_b,
            cache: self.cache,
        };
        Inputs { oracle, weights, sequences, noise, blocks }
    }

    pub(super) fn run_on<B: Backend>(&self, rig: &mut Rig<'_, B>) -> Result<Vec<Output>, Stop> {
        let mut inputs = self.inputs(rig.numerics());
        let mut run = self.prepare(rig, &inputs)?;
        self.poison_cache(rig, &mut run, &inputs.blocks)?;
        let mut outputs = Vec::new();
        for (i, step) in self.script.steps.iter().enumerate() {
            let mut output = self.step(rig, &mut run, &inputs, step)?;
            output.name = format!("step {i}");
            outputs.push(output);
            inputs.blocks.advance(step);
        }
        Ok(outputs)
    }

    fn prepare<B: Backend>(&self, rig: &mut Rig<'_, B>, inputs: &Inputs) -> Result<Run<B>, Stop> {
        let num_slots = inputs.blocks.num_blocks * self.block_size;
        let spec = MlaSpec {
            dims: self.dims,
            hidden_size: self.hidden,
            softmax_scale: softmax_scale(&self.dims, &self.rope),
            rope: Arc::new(RopeTable::new(&self.rope, self.dims.qk_rope_head_dim, num_slots)),
            rms_norm_eps: self.eps,
        };
        let cache = CacheSpec {
            num_layers: NUM_LAYERS,
            num_blocks: inputs.blocks.num_blocks,
            block_size: self.block_size,
            kv_lora_rank: self.dims.kv_lora_rank,
            qk_rope_head_dim: self.dims.qk_rope_head_dim,
            format: self.cache,
        };
        let max_num_batched_tokens = num_slots.max(self.script.max_num_tokens());
        let limits = StepLimits {
            max_num_batched_tokens,
            max_num_seqs: inputs.sequences.len() + self.script.max_padding(),
            max_model_len: num_slots,
            block_size: self.block_size,
        };
        Ok(Run {
            mla: rig.backend.prepare_mla(&spec, inputs.weights.clone())?,
            cache: rig.backend.latent_cache(&cache)?,
            queries: rig.backend.queries(&spec, max_num_batched_tokens)?,
            decoy_queries: rig.backend.queries(&spec, max_num_batched_tokens)?,
            meta: StepMeta::alloc(rig.backend, &limits)?,
        })
    }

    /// Fills every slot of the layer with what comes of NaN inputs: a slot that is read before it is written shows.
    fn poison_cache<B: Backend>(&self, rig: &mut Rig<'_, B>, run: &mut Run<B>, blocks: &Blocks) -> Result<(), Stop> {
        let block_table: Vec<u32> = (0..blocks.num_blocks as u32).collect();
        let num_slots = blocks.num_blocks * self.block_size;
        let tokens = vec![0; num_slots];
        let everything = [SequenceStep { tokens: &tokens, context_len: 0, block_table: &block_table }];
        run.meta.fill(rig.backend, &mut rig.stream, &everything)?;
        self.prolog(rig, run, LAYER, &vec![f32::NAN; num_slots * self.hidden])
    }

    fn prolog<B: Backend>(&self, rig: &mut Rig<'_, B>, run: &mut Run<B>, layer: usize, x: &[f32]) -> Result<(), Stop> {
        let x = rig.act_input("x", self.hidden, x)?;
        let io = MlaPrologIo::<B> { x: &x.tensor, cache: &mut run.cache, queries: &mut run.queries };
        rig.backend.mla_prolog(&mut rig.stream, &run.mla, LayerStep { layer, meta: &run.meta }, io)?;
        rig.expect_unchanged(&x)
    }

    fn step<B: Backend>(
        &self,
        rig: &mut Rig<'_, B>,
        run: &mut Run<B>,
        inputs: &Inputs,
        step: &Step,
    ) -> Result<Output, Stop> {
        let sequences = inputs.blocks.sequences(step);
        match step.padding {
            0 => run.meta.fill(rig.backend, &mut rig.stream, &sequences)?,
            padding => {
                let padded = (sequences.len() + padding, inputs.blocks.num_blocks * self.block_size);
                run.meta.fill_padded(rig.backend, &mut rig.stream, &sequences, padded)?;
            }
        }
        let noise = |rows: usize| &inputs.noise[..rows * self.hidden];
        let rows = inputs.blocks.positions(step).into_iter();
        let mut x: Vec<f32> = rows
            .flat_map(|(seq, position)| &inputs.sequences[seq][position * self.hidden..][..self.hidden])
            .copied()
            .collect();
        x.extend(noise(step.padding));
        self.prolog(rig, run, LAYER, &x)?;
        // The neighbours write the same slots of their own layers, and other queries.
        std::mem::swap(&mut run.queries, &mut run.decoy_queries);
        self.prolog(rig, run, LAYER - 1, noise(step.num_tokens()))?;
        self.prolog(rig, run, LAYER + 1, noise(step.num_tokens()))?;
        std::mem::swap(&mut run.queries, &mut run.decoy_queries);
        let cols = self.dims.num_attention_heads * self.dims.v_head_dim;
        let mut out: Guarded<B::Buffer, B::Act> = rig.output("out", step.num_tokens(), cols)?;
        let layer = LayerStep { layer: LAYER, meta: &run.meta };
        rig.backend.mla_attention(&mut rig.stream, &run.mla, layer, &run.queries, &run.cache, &mut out.tensor)?;
        let mut output = rig.read(&out)?;
        // Padding is given noise, so that it would show in the cache; nothing is asked of its rows.
        output.values.truncate(step.num_live() * cols);
        Ok(output)
    }

    pub(super) fn oracle(&self, oracle: Oracle) -> Vec<Output> {
        let mut inputs = self.inputs(oracle.numerics);
        let attend = |x: &Vec<f32>| inputs.oracle.run(oracle, &Matrix::from_f32(self.hidden, x));
        let attended: Vec<Matrix> = inputs.sequences.iter().map(attend).collect();
        let mut outputs = Vec::new();
        for (i, step) in self.script.steps.iter().enumerate() {
            let positions = inputs.blocks.positions(step).into_iter();
            let values = positions.flat_map(|(seq, position)| attended[seq].row(position)).map(|v| *v as f32).collect();
            outputs.push(Output::new(format!("step {i}"), attended[0].cols, values));
            inputs.blocks.advance(step);
        }
        outputs
    }
}
