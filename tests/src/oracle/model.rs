//! A whole model in f64, read from its checkpoint by the published tensor names (spec section 2).
//!
//! Neither the loader nor the graph of `engine_core` takes part: the files are read with the `safetensors` crate, every
//! layer is written out here, sequences run whole. Only `config.json` is parsed by the library.

use std::path::Path;

use engine_core::backend::CacheFormat;
use engine_core::backend::GateSpec;
use engine_core::config::{ModelConfig, MoeConfig};
use engine_core::reference::Numerics;
use half::bf16;
use safetensors::{Dtype, SafeTensors};

use super::{GateOracle, InputQuantisation, Linear, Matrix, MlaOracle, Oracle, Queries, experts, ffn, rms_norm};
use crate::harness::e4m3;

/// A checkpoint and what its configuration says.
#[derive(Debug)]
pub struct ModelOracle {
    config: ModelConfig,
    shards: Vec<Vec<u8>>,
}

/// A tensor as real values.
struct Real {
    shape: Vec<usize>,
    values: Vec<f64>,
}

/// Weights are used as they are; nothing is rounded.
fn exact() -> Oracle {
    Oracle { numerics: Numerics::default() }
}

fn add(x: &mut Matrix, y: &Matrix) {
    x.data.iter_mut().zip(&y.data).for_each(|(x, y)| *x += y);
}

impl ModelOracle {
    /// Reads every safetensors file of `dir`.
    ///
    /// # Panics
    /// If that is no checkpoint: the test that made it is wrong.
    pub fn open(dir: &Path) -> Self {
        let config = ModelConfig::from_dir(dir).unwrap_or_else(|e| panic!("{e}"));
        let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        let shards = paths.filter(|path| path.extension().is_some_and(|e| e == "safetensors"));
        let shards = shards.map(|path| std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
        Self { config, shards: shards.collect() }
    }

    /// Hidden states after the final norm, `[T, H]`, of a whole sequence.
    pub fn hidden(&self, tokens: &[u32]) -> Matrix {
        let mut x = self.embed(tokens);
        for layer in 0..self.config.num_hidden_layers {
            self.layer(layer, &mut x);
        }
        self.norm(&x, "model.norm")
    }

    /// Logits, `[T, vocab]`, of the hidden states.
    pub fn logits(&self, hidden: &Matrix) -> Matrix {
        let head = if self.config.tie_word_embeddings { "model.embed_tokens" } else { "lm_head" };
        self.linear(head).apply_exact(hidden)
    }

    /// Logits of the MTP module (spec section 5): row t knows `next_tokens[t]`.
    pub fn draft_logits(&self, hidden: &Matrix, next_tokens: &[u32]) -> Matrix {
        let layer = self.config.num_hidden_layers;
        let own = |name: &str| format!("model.layers.{layer}.{name}");
        let embedded = self.norm(&self.embed(next_tokens), &own("enorm"));
        let hidden = self.norm(hidden, &own("hnorm"));
        let mut pair = Matrix::zeros(hidden.rows(), 2 * hidden.cols);
        for t in 0..hidden.rows() {
            let (left, right) = pair.row_mut(t).split_at_mut(hidden.cols);
            left.copy_from_slice(embedded.row(t));
            right.copy_from_slice(hidden.row(t));
        }
        let mut x = self.linear(&own("eh_proj")).apply_exact(&pair);
        self.layer(layer, &mut x);
        self.linear(&own("shared_head.head")).apply_exact(&self.norm(&x, &own("shared_head.norm")))
    }

    fn embed(&self, tokens: &[u32]) -> Matrix {
        let table = self.linear("model.embed_tokens");
        let rows = tokens.iter().flat_map(|token| table.row(*token as usize));
        Matrix { cols: self.config.hidden_size, data: rows.copied().collect() }
    }

    fn layer(&self, layer: usize, x: &mut Matrix) {
        let own = |name: &str| format!("model.layers.{layer}.{name}");
        let normed = self.norm(x, &own("input_layernorm"));
        let heads = self.attention(&own("self_attn")).run(exact(), &normed);
        add(x, &self.linear(&own("self_attn.o_proj")).apply_exact(&heads));
        let normed = self.norm(x, &own("post_attention_layernorm"));
        let is_dense = |moe: &&MoeConfig| {
            let main = layer < self.config.num_hidden_layers;
            main && (layer < moe.first_k_dense_replace || !layer.is_multiple_of(moe.moe_layer_freq))
        };
        let result = match self.config.moe.as_ref().filter(|moe| !is_dense(moe)) {
            None => ffn(exact(), self.ffn(&own("mlp")).each_ref(), &normed),
            Some(moe) => self.experts(&own("mlp"), moe, &normed),
        };
        add(x, &result);
    }

    fn attention(&self, prefix: &str) -> MlaOracle {
        let own = |name: &str| format!("{prefix}.{name}");
        let queries = match self.config.attention.q_lora_rank {
            None => Queries::Direct(self.linear(&own("q_proj"))),
            Some(_) => Queries::LowRank {
                a: self.linear(&own("q_a_proj")),
                norm: self.vector(&own("q_a_layernorm.weight")),
                b: self.linear(&own("q_b_proj")),
            },
        };
        MlaOracle {
            dims: self.config.attention,
            rope: self.config.rope,
            eps: self.config.rms_norm_eps,
            queries,
            kv_a: self.linear(&own("kv_a_proj_with_mqa")),
            kv_a_norm: self.vector(&own("kv_a_layernorm.weight")),
            kv_b: self.linear(&own("kv_b_proj")),
            cache: CacheFormat::Native,
        }
    }

    fn ffn(&self, prefix: &str) -> [Linear; 3] {
        ["gate_proj", "up_proj", "down_proj"].map(|name| self.linear(&format!("{prefix}.{name}")))
    }

    fn experts(&self, prefix: &str, moe: &MoeConfig, x: &Matrix) -> Matrix {
        let MoeConfig { n_routed_experts, num_experts_per_tok, router, norm_topk_prob, .. } = *moe;
        let spec = GateSpec {
            hidden_size: self.config.hidden_size,
            n_routed_experts,
            num_experts_per_tok,
            router,
            norm_topk_prob,
            routed_scaling_factor: moe.routed_scaling_factor,
        };
        let bias = match router.has_correction_bias() {
            true => self.vector(&format!("{prefix}.gate.e_score_correction_bias")),
            false => vec![0.0; n_routed_experts],
        };
        let gate = GateOracle { spec, weight: self.linear(&format!("{prefix}.gate")), bias };
        let routing: Vec<Vec<(usize, f32)>> = (0..x.rows())
            .map(|t| {
                let token: Vec<f32> = x.row(t).iter().map(|v| *v as f32).collect();
                let choice = gate.route(&token);
                assert!(choice.margin > 1e-5, "{prefix}: token {t} is near a tie; choose another seed");
                choice.ids.into_iter().zip(choice.weights.iter().map(|w| *w as f32)).collect()
            })
            .collect();
        let routed: Vec<[Linear; 3]> =
            (0..n_routed_experts).map(|e| self.ffn(&format!("{prefix}.experts.{e}"))).collect();
        let routed: Vec<[&Linear; 3]> = routed.iter().map(|linears| linears.each_ref()).collect();
        // All shared experts together are one FFN of their common width.
        let shared = (moe.n_shared_experts > 0).then(|| self.ffn(&format!("{prefix}.shared_experts")));
        experts(exact(), &routed, shared.as_ref().map(|linears| linears.each_ref()), x, &routing)
    }

    fn norm(&self, x: &Matrix, prefix: &str) -> Matrix {
        rms_norm(exact(), x, &self.vector(&format!("{prefix}.weight")), self.config.rms_norm_eps)
    }

    fn vector(&self, name: &str) -> Vec<f32> {
        self.tensor(name).values.into_iter().map(|v| v as f32).collect()
    }

    /// `prefix.weight`, times its block scales where it has some.
    fn linear(&self, prefix: &str) -> Linear {
        let Real { shape, mut values } = self.tensor(&format!("{prefix}.weight"));
        let (out, inp) = (shape[0], shape[1]);
        if let Some(scales) = self.find(&format!("{prefix}.weight_scale_inv")) {
            let blocks = inp.div_ceil(128);
            assert_eq!(scales.shape, [out.div_ceil(128), blocks], "{prefix}");
            for (i, value) in values.iter_mut().enumerate() {
                *value *= scales.values[i / inp / 128 * blocks + i % inp / 128];
            }
        }
        Linear::new(out, inp, values, InputQuantisation::None)
    }

    fn tensor(&self, name: &str) -> Real {
        self.find(name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    fn find(&self, name: &str) -> Option<Real> {
        self.shards.iter().find_map(|shard| {
            let tensors = SafeTensors::deserialize(shard).unwrap_or_else(|e| panic!("a shard: {e}"));
            let view = tensors.tensor(name).ok()?;
            let data = view.data();
            let values = match view.dtype() {
                Dtype::F32 => data.chunks_exact(4).map(|b| f64::from(bytemuck::pod_read_unaligned::<f32>(b))).collect(),
                Dtype::BF16 => data.chunks_exact(2).map(|b| bytemuck::pod_read_unaligned::<bf16>(b).to_f64()).collect(),
                Dtype::F8_E4M3 => data.iter().map(|byte| e4m3(*byte)).collect(),
                other => panic!("{name} has type {other:?}"),
            };
            Some(Real { shape: view.shape().to_vec(), values })
        })
    }
}
