//! `config.json` of the DeepSeek-V2/V3 family as checked plain data.
//!
//! Nothing is hard-coded: every number comes from the file, every rejected value is named with its accepted range
//! (spec section 1).

mod description;
mod error;
#[cfg(test)]
pub(crate) mod fixtures;
mod keys;
mod moe;
mod parse;
mod quantization;
mod rope;
#[cfg(test)]
mod tests;

use std::path::Path;

pub(crate) use description::DESCRIPTION_FILE;
pub use error::ConfigError;

/// The `model_type` values this library runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ModelType {
    /// `deepseek_v2`: DeepSeek-V2 and V2-Lite.
    DeepseekV2,
    /// `deepseek_v3`: DeepSeek-V3, R1, V3.1, Moonlight.
    DeepseekV3,
    /// `kimi_k2`: Kimi-K2.
    KimiK2,
    /// `glm4_moe_lite`: GLM-4.7-Flash.
    Glm4MoeLite,
}

/// A checkpoint's architecture, checked. Field names are those of `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// `model_type`.
    pub model_type: ModelType,
    /// Rows of the embedding and of the head.
    pub vocab_size: usize,
    /// H, the width of the residual stream.
    pub hidden_size: usize,
    /// Width of the dense FFN (layers without experts).
    pub intermediate_size: usize,
    /// Layers of the main model; MTP modules follow with ids from here on.
    pub num_hidden_layers: usize,
    /// MTP modules in the checkpoint (0 or more).
    pub num_nextn_predict_layers: usize,
    /// Multi-head latent attention.
    pub attention: AttentionConfig,
    /// Rotary embedding.
    pub rope: RopeConfig,
    /// Experts; `None` when every layer is dense.
    pub moe: Option<MoeConfig>,
    /// Epsilon of every RMS norm.
    pub rms_norm_eps: f32,
    /// Longest window the checkpoint was made for, in tokens.
    pub max_position_embeddings: usize,
    /// True when the head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Begin-of-sentence id, if any.
    pub bos_token_id: Option<u32>,
    /// End-of-sentence ids (config may give one or a list; `generation_config.json` wins when it names them).
    pub eos_token_ids: Vec<u32>,
    /// How the checkpoint's linear weights are stored; `None` means plain bf16/f32.
    pub quantization: Option<QuantizationConfig>,
}

/// MLA dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionConfig {
    /// N, attention heads.
    pub num_attention_heads: usize,
    /// Lq; `None` means a direct `q_proj`.
    pub q_lora_rank: Option<usize>,
    /// Lkv.
    pub kv_lora_rank: usize,
    /// P.
    pub qk_nope_head_dim: usize,
    /// R (even).
    pub qk_rope_head_dim: usize,
    /// V; may differ from P.
    pub v_head_dim: usize,
}

impl AttentionConfig {
    /// P + R, the width of one query head.
    pub fn qk_head_dim(&self) -> usize {
        self.qk_nope_head_dim + self.qk_rope_head_dim
    }

    /// Lkv + R, the values cached per token and layer.
    pub fn latent_width(&self) -> usize {
        self.kv_lora_rank + self.qk_rope_head_dim
    }
}

/// Rotary embedding: base and, where given, YaRN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeConfig {
    /// `rope_theta`.
    pub theta: f64,
    /// YaRN parameters; `None` is plain rope.
    pub yarn: Option<YarnConfig>,
}

/// `rope_scaling` of type `yarn` (spec 3.4).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct YarnConfig {
    /// Extension factor, at least 1.
    pub factor: f64,
    /// L0, the window before extension.
    pub original_max_position_embeddings: usize,
    /// Rotations above which a dimension is left as it is.
    pub beta_fast: f64,
    /// Rotations below which a dimension is divided by `factor`.
    pub beta_slow: f64,
    /// Numerator's mscale of the cos/sin multiplier, if given.
    pub mscale: Option<f64>,
    /// Denominator's mscale, and the one that enters the softmax scale, if given.
    pub mscale_all_dim: Option<f64>,
    /// Explicit cos/sin multiplier, used when both mscales are absent.
    pub attention_factor: Option<f64>,
}

/// Mixture of experts.
#[derive(Debug, Clone, PartialEq)]
pub struct MoeConfig {
    /// E.
    pub n_routed_experts: usize,
    /// Shared experts, evaluated as one FFN of width `n_shared_experts * moe_intermediate_size`; may be 0.
    pub n_shared_experts: usize,
    /// K.
    pub num_experts_per_tok: usize,
    /// Width of one expert.
    pub moe_intermediate_size: usize,
    /// The first layers that are dense.
    pub first_k_dense_replace: usize,
    /// Layer L has experts iff `L >= first_k_dense_replace` and `L % moe_layer_freq == 0`.
    pub moe_layer_freq: usize,
    /// How experts are chosen.
    pub router: Router,
    /// Divide the chosen weights by their sum.
    pub norm_topk_prob: bool,
    /// Factor on the chosen weights.
    pub routed_scaling_factor: f32,
}

/// The routers of the family (spec 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Router {
    /// `sigmoid` + `noaux_tc`: selection by score + bias, group score = sum of the two best, rejected groups −∞.
    SigmoidNoAuxTc {
        /// Groups of consecutive experts.
        n_group: usize,
        /// Groups kept.
        topk_group: usize,
    },
    /// `softmax` + `greedy`.
    SoftmaxGreedy,
    /// `softmax` + `group_limited_greedy`: group score = maximum.
    SoftmaxGroupLimited {
        /// Groups of consecutive experts.
        n_group: usize,
        /// Groups kept.
        topk_group: usize,
    },
}

/// How a checkpoint is quantised: by `quantization_config`, or by `quant_model_description.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuantizationConfig {
    /// `quant_method: fp8`, e4m3, one scale per `block` (out, in); `ue8m0` when `scale_fmt` says so.
    Fp8Block {
        /// Rows and columns of a scale block; 128 x 128 in every published checkpoint, and the only accepted value.
        block: (usize, usize),
        /// Activation scales are rounded up to powers of two.
        ue8m0: bool,
    },
    /// compressed-tensors `int-quantized`, or `W8A8_DYNAMIC` of a description: i8 per output channel, dynamic per-token i8
    /// activations.
    Int8Channel,
    /// compressed-tensors `pack-quantized`: 4-bit groups along the input, weight only.
    Int4Group {
        /// Inputs per scale.
        group_size: usize,
    },
}

impl ModelConfig {
    /// Reads `dir/config.json` and, where present, `dir/generation_config.json` (for `eos_token_id`) and
    /// `dir/quant_model_description.json` (for the format of the weights).
    ///
    /// # Errors
    /// [`ConfigError`] naming file, key, value found and range accepted.
    pub fn from_dir(dir: &Path) -> Result<Self, ConfigError> {
        parse::from_dir(dir)
    }

    /// Parses the text of a `config.json`.
    ///
    /// # Errors
    /// As [`ModelConfig::from_dir`].
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        parse::from_json(text)
    }

    /// True when `layer` has experts. MTP modules (`layer >= num_hidden_layers`) always do when the model has any.
    pub fn is_moe_layer(&self, layer: usize) -> bool {
        self.moe.as_ref().is_some_and(|m| {
            layer >= self.num_hidden_layers
                || (layer >= m.first_k_dense_replace && layer.is_multiple_of(m.moe_layer_freq))
        })
    }
}

impl Router {
    /// True for routers whose selection adds `e_score_correction_bias`.
    pub fn has_correction_bias(self) -> bool {
        match self {
            Router::SigmoidNoAuxTc { .. } => true,
            Router::SoftmaxGreedy | Router::SoftmaxGroupLimited { .. } => false,
        }
    }
}
