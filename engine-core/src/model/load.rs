//! From a checkpoint to a prepared model.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::Model;
use super::layer::{FeedForward, Layer};
use super::mtp::Mtp;
use crate::Error;
use crate::backend::{
    Backend, ExpertsWeights, FfnWeights, GateSpec, GateWeights, MlaSpec, MlaWeights, PrepareError, QueryProjection,
    Requirement,
};
use crate::config::{AttentionConfig, ModelConfig, MoeConfig};
use crate::quant::{
    HostWeight, MatrixShape, Precision, PrecisionPolicy, WeightClass, WeightError, WeightFormat, target_format,
};
use crate::rope::{RopeTable, softmax_scale};
use crate::weights::Checkpoint;
use crate::weights::layout::layer_prefix;
use crate::weights::shares::Share;

/// How to load.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadOptions {
    /// Format of each class of weights.
    pub precision: PrecisionPolicy,
    /// Load the MTP module when the checkpoint has one.
    pub with_mtp: bool,
    /// Longest window in tokens: positions the rope table covers.
    pub max_model_len: usize,
}

/// How far loading has come; one call per layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadProgress {
    /// Layers prepared.
    pub done: usize,
    /// Layers in all, MTP module included.
    pub total: usize,
}

impl<B: Backend> Model<B> {
    /// Reads, converts and prepares every weight. One layer at a time is in flight, so host memory holds no second copy
    /// of the checkpoint.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for what is wrong in the files, [`Error::Prepare`] for what the device refuses.
    pub fn load(
        backend: &B,
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        options: &LoadOptions,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, Error> {
        let loader = Loader {
            backend,
            checkpoint,
            config,
            options,
            share: Share::of(backend.rank()),
            mla: mla_spec(config, backend.rank().world_size(), options.max_model_len),
            formats: RefCell::default(),
        };
        let with_mtp = options.with_mtp && config.num_nextn_predict_layers > 0;
        let total = config.num_hidden_layers + usize::from(with_mtp);
        let embedding_shape = MatrixShape::new(config.vocab_size, config.hidden_size);
        let table = checkpoint.plain("model.embed_tokens", embedding_shape)?;
        let head =
            if config.tie_word_embeddings { table.clone() } else { checkpoint.plain("lm_head", embedding_shape)? };
        let head = head.rows(loader.share.token_ids(config.vocab_size)).map_err(|e| e.named("lm_head"))?;
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        progress(LoadProgress { done: 0, total });
        for layer in 0..config.num_hidden_layers {
            layers.push(loader.layer(layer)?);
            progress(LoadProgress { done: layer + 1, total });
        }
        let mtp = with_mtp.then(|| loader.mtp()).transpose()?;
        if with_mtp {
            progress(LoadProgress { done: total, total });
        }
        Ok(Self {
            embedding: backend.prepare_embedding(table).map_err(|e| e.named("model.embed_tokens"))?,
            layers,
            norm: loader.norm("model.norm.weight", config.hidden_size)?,
            head: backend.prepare_linear(head).map_err(|e| e.named("lm_head"))?,
            mtp,
            config: config.clone(),
            formats: loader.formats.into_inner(),
        })
    }
}

/// What all layers' attention has in common on each of `world_size` ranks, with a rope table of `max_model_len` positions.
pub(crate) fn mla_spec(config: &ModelConfig, world_size: usize, max_model_len: usize) -> MlaSpec {
    let num_attention_heads = Share::largest(world_size).num_heads(config.attention.num_attention_heads);
    MlaSpec {
        dims: AttentionConfig { num_attention_heads, ..config.attention },
        hidden_size: config.hidden_size,
        softmax_scale: softmax_scale(&config.attention, &config.rope),
        rope: Arc::new(RopeTable::new(&config.rope, config.attention.qk_rope_head_dim, max_model_len)),
        rms_norm_eps: config.rms_norm_eps,
    }
}

struct Loader<'a, B: Backend> {
    backend: &'a B,
    checkpoint: &'a Checkpoint,
    config: &'a ModelConfig,
    options: &'a LoadOptions,
    /// What of each weight this rank holds.
    share: Share,
    mla: MlaSpec,
    /// What was chosen for each class of weight.
    formats: RefCell<BTreeMap<WeightClass, WeightFormat>>,
}

impl<B: Backend> Loader<'_, B> {
    fn norm(&self, name: &str, len: usize) -> Result<B::Norm, Error> {
        let weight = self.checkpoint.vector_f32(name, len)?;
        Ok(self.backend.prepare_norm(&weight, self.config.rms_norm_eps).map_err(|e| e.named(name))?)
    }

    /// This rank's part of a linear of this shape, in the format the policy asks for.
    fn weight(
        &self,
        prefix: &str,
        class: WeightClass,
        out_features: usize,
        in_features: usize,
    ) -> Result<HostWeight, Error> {
        let shape = MatrixShape::new(out_features, in_features);
        let weight = self.checkpoint.linear(prefix, shape, self.config.quantization.as_ref())?;
        let target = self.choose_format(class, weight.format())?;
        let part = self.share.part(prefix, shape);
        // A part is converted with less work than the whole, unless only the target format can be cut there.
        let converted = match part.of(&weight) {
            Ok(part) => part.convert(target),
            Err(WeightError::Cut { .. }) if target != weight.format() => {
                weight.convert(target).and_then(|w| part.of(&w))
            }
            Err(error) => Err(error),
        };
        Ok(converted.map_err(|e| e.named(&format!("{prefix}.weight")))?)
    }

    /// What the policy asks for; `Auto` falls back to the device's best format where it cannot run the stored one.
    fn choose_format(&self, class: WeightClass, stored: WeightFormat) -> Result<WeightFormat, PrepareError> {
        let capabilities = self.backend.capabilities();
        let precision = self.options.precision.get(class);
        let mut target = target_format(precision, stored);
        if let Err(unsupported) = capabilities.check(Requirement::WeightFormat(target)) {
            // Quantising further is a choice for the user to make: only unquantised formats stand in.
            let unquantised = |format: &&WeightFormat| matches!(format, WeightFormat::Bf16 | WeightFormat::F32);
            match capabilities.weight_formats.iter().find(unquantised) {
                Some(fallback) if precision == Precision::Auto => target = *fallback,
                _ => return Err(unsupported.into()),
            }
        }
        self.formats.borrow_mut().insert(class, target);
        Ok(target)
    }

    fn layer(&self, layer: usize) -> Result<Layer<B>, Error> {
        let prefix = layer_prefix(layer);
        let (config, hidden) = (self.config, self.config.hidden_size);
        let heads_width = config.attention.num_attention_heads * config.attention.v_head_dim;
        let (attention, mlp) = (format!("{prefix}.self_attn"), format!("{prefix}.mlp"));
        let o_proj = self.weight(&format!("{attention}.o_proj"), WeightClass::Attention, hidden, heads_width)?;
        let feed_forward = match &config.moe {
            Some(moe) if config.is_moe_layer(layer) => self.experts(&mlp, moe)?,
            _ => {
                let ffn = self.ffn(&mlp, WeightClass::DenseFfn, config.intermediate_size)?;
                FeedForward::Dense(self.backend.prepare_ffn(ffn).map_err(|e| e.named(&mlp))?)
            }
        };
        let mla = self.backend.prepare_mla(&self.mla, self.attention(&attention)?);
        Ok(Layer {
            input_norm: self.norm(&format!("{prefix}.input_layernorm.weight"), hidden)?,
            mla: mla.map_err(|e| e.named(&attention))?,
            o_proj: self.backend.prepare_linear(o_proj).map_err(|e| e.named(&format!("{attention}.o_proj")))?,
            post_attention_norm: self.norm(&format!("{prefix}.post_attention_layernorm.weight"), hidden)?,
            feed_forward,
        })
    }

    fn attention(&self, prefix: &str) -> Result<MlaWeights, Error> {
        let dims = &self.config.attention;
        let hidden = self.config.hidden_size;
        let heads = dims.num_attention_heads;
        let class = WeightClass::Attention;
        let query_width = heads * dims.qk_head_dim();
        let q = match dims.q_lora_rank {
            None => QueryProjection::Direct(self.weight(&format!("{prefix}.q_proj"), class, query_width, hidden)?),
            Some(rank) => QueryProjection::LowRank {
                a: self.weight(&format!("{prefix}.q_a_proj"), class, rank, hidden)?,
                norm: self.checkpoint.vector_f32(&format!("{prefix}.q_a_layernorm.weight"), rank)?,
                b: self.weight(&format!("{prefix}.q_b_proj"), class, query_width, rank)?,
            },
        };
        let rank = dims.kv_lora_rank;
        let kv_b_rows = heads * (dims.qk_nope_head_dim + dims.v_head_dim);
        Ok(MlaWeights {
            q,
            kv_a: self.weight(&format!("{prefix}.kv_a_proj_with_mqa"), class, dims.latent_width(), hidden)?,
            kv_a_norm: self.checkpoint.vector_f32(&format!("{prefix}.kv_a_layernorm.weight"), rank)?,
            kv_b: self.weight(&format!("{prefix}.kv_b_proj"), WeightClass::KvB, kv_b_rows, rank)?,
        })
    }

    fn ffn(&self, prefix: &str, class: WeightClass, width: usize) -> Result<FfnWeights, Error> {
        let hidden = self.config.hidden_size;
        Ok(FfnWeights {
            gate: self.weight(&format!("{prefix}.gate_proj"), class, width, hidden)?,
            up: self.weight(&format!("{prefix}.up_proj"), class, width, hidden)?,
            down: self.weight(&format!("{prefix}.down_proj"), class, hidden, width)?,
        })
    }

    fn experts(&self, prefix: &str, moe: &MoeConfig) -> Result<FeedForward<B>, Error> {
        let hidden = self.config.hidden_size;
        let spec = GateSpec {
            hidden_size: hidden,
            n_routed_experts: moe.n_routed_experts,
            num_experts_per_tok: moe.num_experts_per_tok,
            router: moe.router,
            norm_topk_prob: moe.norm_topk_prob,
            routed_scaling_factor: moe.routed_scaling_factor,
        };
        let bias = format!("{prefix}.gate.e_score_correction_bias");
        let gate = GateWeights {
            weight: self.checkpoint.plain(&format!("{prefix}.gate"), MatrixShape::new(moe.n_routed_experts, hidden))?,
            correction_bias: moe
                .router
                .has_correction_bias()
                .then(|| self.checkpoint.vector_f32(&bias, moe.n_routed_experts))
                .transpose()?,
        };
        let routed = (0..moe.n_routed_experts)
            .map(|e| self.ffn(&format!("{prefix}.experts.{e}"), WeightClass::Experts, moe.moe_intermediate_size))
            .collect::<Result<_, _>>()?;
        let shared_width = moe.n_shared_experts * moe.moe_intermediate_size;
        let shared = (moe.n_shared_experts > 0)
            .then(|| self.ffn(&format!("{prefix}.shared_experts"), WeightClass::SharedExperts, shared_width))
            .transpose()?;
        Ok(FeedForward::Moe {
            gate: self.backend.prepare_gate(&spec, gate).map_err(|e| e.named(&format!("{prefix}.gate")))?,
            experts: self
                .backend
                .prepare_experts(ExpertsWeights { routed, shared })
                .map_err(|e| e.named(&format!("{prefix}.experts")))?,
        })
    }

    fn mtp(&self) -> Result<Mtp<B>, Error> {
        let layer = self.config.num_hidden_layers;
        let prefix = layer_prefix(layer);
        let hidden = self.config.hidden_size;
        let joining = self.checkpoint.plain(&format!("{prefix}.eh_proj"), MatrixShape::new(hidden, 2 * hidden))?;
        Ok(Mtp {
            embedding_norm: self.norm(&format!("{prefix}.enorm.weight"), hidden)?,
            hidden_norm: self.norm(&format!("{prefix}.hnorm.weight"), hidden)?,
            joining: self.backend.prepare_linear(joining).map_err(|e| e.named(&format!("{prefix}.eh_proj")))?,
            layer: self.layer(layer)?,
            head_norm: self.norm(&format!("{prefix}.shared_head.norm.weight"), hidden)?,
        })
    }
}
