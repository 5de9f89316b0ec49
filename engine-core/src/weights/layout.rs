//! Which tensors a checkpoint of a given configuration holds (spec section 2): the one list that loading, planning,
//! converting and synthesising share.

use crate::config::ModelConfig;
use crate::quant::{MatrixShape, WeightClass};

/// One weight of the checkpoint, without its scales.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Full tensor name, e.g. `model.layers.0.self_attn.o_proj.weight`.
    pub name: String,
    /// What it is and its shape.
    pub kind: TensorKind,
}

/// The roles a tensor can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorKind {
    /// A linear weight `[out, in]` that may be quantised.
    Linear(WeightClass, MatrixShape),
    /// A matrix that is never quantised: embedding, head, router, `eh_proj`.
    Plain(MatrixShape),
    /// A vector of this length: norm weights and the router's correction bias.
    Vector(usize),
}

impl TensorSpec {
    /// Name without `.weight`: the prefix under which a linear's scales are found.
    pub fn prefix(&self) -> &str {
        self.name.strip_suffix(".weight").unwrap_or(&self.name)
    }

    /// Number of values.
    pub fn num_elements(&self) -> usize {
        match self.kind {
            TensorKind::Linear(_, shape) | TensorKind::Plain(shape) => shape.num_elements(),
            TensorKind::Vector(len) => len,
        }
    }
}

/// Prefix of a layer's tensors, `model.layers.L`.
pub fn layer_prefix(layer: usize) -> String {
    format!("model.layers.{layer}")
}

/// Every tensor of the main model, and of the MTP modules when `with_mtp`, in layer order.
pub fn checkpoint_tensors(config: &ModelConfig, with_mtp: bool) -> Vec<TensorSpec> {
    let mut list = TensorList { tensors: Vec::new() };
    let embedding = MatrixShape::new(config.vocab_size, config.hidden_size);
    list.plain("model.embed_tokens", embedding);
    for layer in 0..config.num_hidden_layers {
        list.layer(config, layer);
    }
    list.vector("model.norm.weight", config.hidden_size);
    if !config.tie_word_embeddings {
        list.plain("lm_head", embedding);
    }
    if with_mtp {
        for layer in config.num_hidden_layers..config.num_hidden_layers + config.num_nextn_predict_layers {
            list.mtp(config, layer);
        }
    }
    list.tensors
}

struct TensorList {
    tensors: Vec<TensorSpec>,
}

impl TensorList {
    fn push(&mut self, name: String, kind: TensorKind) {
        self.tensors.push(TensorSpec { name, kind });
    }

    fn plain(&mut self, prefix: &str, shape: MatrixShape) {
        self.push(format!("{prefix}.weight"), TensorKind::Plain(shape));
    }

    fn vector(&mut self, name: &str, len: usize) {
        self.push(name.to_owned(), TensorKind::Vector(len));
    }

    fn linear(&mut self, prefix: String, class: WeightClass, out_features: usize, in_features: usize) {
        let shape = MatrixShape::new(out_features, in_features);
        self.push(format!("{prefix}.weight"), TensorKind::Linear(class, shape));
    }

    fn ffn(&mut self, prefix: &str, class: WeightClass, hidden: usize, width: usize) {
        self.linear(format!("{prefix}.gate_proj"), class, width, hidden);
        self.linear(format!("{prefix}.up_proj"), class, width, hidden);
        self.linear(format!("{prefix}.down_proj"), class, hidden, width);
    }

    /// A decoder layer: attention, then a dense FFN or experts.
    fn layer(&mut self, config: &ModelConfig, layer: usize) {
        let prefix = layer_prefix(layer);
        let hidden = config.hidden_size;
        self.vector(&format!("{prefix}.input_layernorm.weight"), hidden);
        self.attention(config, &format!("{prefix}.self_attn"));
        self.vector(&format!("{prefix}.post_attention_layernorm.weight"), hidden);
        match &config.moe {
            Some(moe) if config.is_moe_layer(layer) => {
                self.plain(&format!("{prefix}.mlp.gate"), MatrixShape::new(moe.n_routed_experts, hidden));
                if moe.router.has_correction_bias() {
                    self.vector(&format!("{prefix}.mlp.gate.e_score_correction_bias"), moe.n_routed_experts);
                }
                for expert in 0..moe.n_routed_experts {
                    let expert = format!("{prefix}.mlp.experts.{expert}");
                    self.ffn(&expert, WeightClass::Experts, hidden, moe.moe_intermediate_size);
                }
                if moe.n_shared_experts > 0 {
                    let width = moe.n_shared_experts * moe.moe_intermediate_size;
                    self.ffn(&format!("{prefix}.mlp.shared_experts"), WeightClass::SharedExperts, hidden, width);
                }
            }
            _ => self.ffn(&format!("{prefix}.mlp"), WeightClass::DenseFfn, hidden, config.intermediate_size),
        }
    }

    fn attention(&mut self, config: &ModelConfig, prefix: &str) {
        let a = &config.attention;
        let hidden = config.hidden_size;
        let query_width = a.num_attention_heads * a.qk_head_dim();
        let attention = WeightClass::Attention;
        match a.q_lora_rank {
            Some(rank) => {
                self.linear(format!("{prefix}.q_a_proj"), attention, rank, hidden);
                self.vector(&format!("{prefix}.q_a_layernorm.weight"), rank);
                self.linear(format!("{prefix}.q_b_proj"), attention, query_width, rank);
            }
            None => self.linear(format!("{prefix}.q_proj"), attention, query_width, hidden),
        }
        self.linear(format!("{prefix}.kv_a_proj_with_mqa"), attention, a.latent_width(), hidden);
        self.vector(&format!("{prefix}.kv_a_layernorm.weight"), a.kv_lora_rank);
        let kv_width = a.num_attention_heads * (a.qk_nope_head_dim + a.v_head_dim);
        self.linear(format!("{prefix}.kv_b_proj"), WeightClass::KvB, kv_width, a.kv_lora_rank);
        self.linear(format!("{prefix}.o_proj"), attention, hidden, a.num_attention_heads * a.v_head_dim);
    }

    /// An MTP module: two norms, the joining projection, a decoder layer, a head with its norm (spec 2.2).
    fn mtp(&mut self, config: &ModelConfig, layer: usize) {
        let prefix = layer_prefix(layer);
        let hidden = config.hidden_size;
        let embedding = MatrixShape::new(config.vocab_size, hidden);
        self.plain(&format!("{prefix}.embed_tokens"), embedding);
        self.vector(&format!("{prefix}.enorm.weight"), hidden);
        self.vector(&format!("{prefix}.hnorm.weight"), hidden);
        self.plain(&format!("{prefix}.eh_proj"), MatrixShape::new(hidden, 2 * hidden));
        self.layer(config, layer);
        self.vector(&format!("{prefix}.shared_head.norm.weight"), hidden);
        self.plain(&format!("{prefix}.shared_head.head"), embedding);
    }
}
