//! Parameters and bytes of every class of weight.

use serde::{Serialize, Serializer};

use super::PlanRequest;
use crate::config::{ModelConfig, QuantizationConfig};
use crate::quant::{
    FP8_BLOCK, INT4_GROUP, Int4GroupWeight, MatrixShape, PrecisionPolicy, WeightClass, WeightFormat, target_format,
};
use crate::weights::layout::{TensorKind, TensorSpec, checkpoint_tensors};
use crate::weights::shares::Share;

/// The lines of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanClass {
    /// The embedding matrix.
    Embedding,
    /// The head; absent when it is the embedding.
    Head,
    /// `q_a`, `q_b`/`q`, `kv_a` and `o` projections.
    Attention,
    /// `kv_b_proj`.
    KvB,
    /// FFN of the dense layers.
    DenseFfn,
    /// Routed experts.
    Experts,
    /// Shared experts.
    SharedExperts,
    /// Router matrices and biases, and every norm.
    RouterAndNorms,
    /// All of the MTP module but the embedding and head, which are those of the main model.
    Mtp,
}

impl PlanClass {
    /// Every class, in the order of the table.
    pub const ALL: [PlanClass; 9] = [
        PlanClass::Embedding,
        PlanClass::Head,
        PlanClass::Attention,
        PlanClass::KvB,
        PlanClass::DenseFfn,
        PlanClass::Experts,
        PlanClass::SharedExperts,
        PlanClass::RouterAndNorms,
        PlanClass::Mtp,
    ];

    /// Name in tables: that of a precision policy where there is one.
    pub fn name(self) -> &'static str {
        match self {
            PlanClass::Embedding => "embedding",
            PlanClass::Head => "head",
            PlanClass::Attention => WeightClass::Attention.name(),
            PlanClass::KvB => WeightClass::KvB.name(),
            PlanClass::DenseFfn => WeightClass::DenseFfn.name(),
            PlanClass::Experts => WeightClass::Experts.name(),
            PlanClass::SharedExperts => WeightClass::SharedExperts.name(),
            PlanClass::RouterAndNorms => "router, norms",
            PlanClass::Mtp => "mtp",
        }
    }
}

/// One class of weight in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WeightLine {
    /// Which weights.
    pub class: PlanClass,
    /// Their format; `None` where a class mixes several.
    #[serde(serialize_with = "format_name")]
    pub format: Option<WeightFormat>,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes in memory of a device, scales included.
    pub bytes: u64,
}

fn format_name<S: Serializer>(format: &Option<WeightFormat>, serializer: S) -> Result<S::Ok, S::Error> {
    format.map(|f| f.to_string()).serialize(serializer)
}

pub(super) struct Parameters {
    pub(super) total: u64,
    pub(super) active: u64,
    pub(super) mtp: u64,
}

/// Every tensor that is loaded, with its line of the plan.
pub(super) struct PlannedTensors {
    tensors: Vec<(PlanClass, TensorSpec)>,
    int4_group_stored: usize,
    share: Share,
}

impl PlannedTensors {
    pub(super) fn new(config: &ModelConfig, request: &PlanRequest) -> Self {
        let specs = checkpoint_tensors(config, request.with_mtp);
        let tensors = specs.into_iter().filter_map(|spec| Some((class_of(config, &spec)?, spec))).collect();
        let int4_group_stored = match config.quantization {
            Some(QuantizationConfig::Int4Group { group_size }) => group_size,
            Some(QuantizationConfig::Fp8Block { .. } | QuantizationConfig::Int8Channel) | None => INT4_GROUP,
        };
        Self { tensors, int4_group_stored, share: Share::largest(request.tensor_parallel_size) }
    }

    /// One line per class that has weights.
    pub(super) fn lines(&self, request: &PlanRequest) -> Vec<WeightLine> {
        let line = |class| {
            let mut line = WeightLine { class, format: class_format(class, request), parameters: 0, bytes: 0 };
            for (_, tensor) in self.tensors.iter().filter(|(c, _)| *c == class) {
                line.parameters += tensor.num_elements() as u64;
                line.bytes += self.tensor_bytes(tensor, &request.policy, request.stored);
            }
            line
        };
        PlanClass::ALL.into_iter().map(line).filter(|line| line.parameters > 0).collect()
    }

    /// Bytes of all weights with `policy`.
    pub(super) fn bytes(&self, policy: &PrecisionPolicy, stored: WeightFormat) -> u64 {
        self.tensors.iter().map(|(_, tensor)| self.tensor_bytes(tensor, policy, stored)).sum()
    }

    pub(super) fn parameters(&self, config: &ModelConfig) -> Parameters {
        let sum = |wanted: &dyn Fn(PlanClass) -> bool| {
            let chosen = self.tensors.iter().filter(|(class, _)| wanted(*class));
            chosen.map(|(_, tensor)| tensor.num_elements() as u64).sum::<u64>()
        };
        let experts = sum(&|class| class == PlanClass::Experts);
        let mtp = sum(&|class| class == PlanClass::Mtp);
        let total = sum(&|class| class != PlanClass::Mtp);
        let looked_up = if config.tie_word_embeddings { 0 } else { sum(&|class| class == PlanClass::Embedding) };
        let active_experts =
            config.moe.as_ref().map_or(0, |moe| experts / moe.n_routed_experts as u64 * moe.num_experts_per_tok as u64);
        Parameters { total, active: total - looked_up - experts + active_experts, mtp }
    }

    fn tensor_bytes(&self, tensor: &TensorSpec, policy: &PrecisionPolicy, stored: WeightFormat) -> u64 {
        match tensor.kind {
            TensorKind::Linear(class, shape) => {
                let format = target_format(policy.get(class), stored);
                let group = if format == stored { self.int4_group_stored } else { INT4_GROUP };
                matrix_bytes(self.share.part(tensor.prefix(), shape).shape(shape), format, group)
            }
            TensorKind::Plain(shape) => {
                matrix_bytes(self.share.plain_shape(tensor.prefix(), shape), plain_format(stored), INT4_GROUP)
            }
            // The router's bias is f32 by nature; norms are what the checkpoint's floats are.
            TensorKind::Vector(len) if tensor.name.ends_with("e_score_correction_bias") => len as u64 * 4,
            TensorKind::Vector(len) => matrix_bytes(MatrixShape::new(1, len), plain_format(stored), INT4_GROUP),
        }
    }
}

/// Format of what is never quantised.
fn plain_format(stored: WeightFormat) -> WeightFormat {
    match stored {
        WeightFormat::F32 => WeightFormat::F32,
        WeightFormat::Bf16 | WeightFormat::Fp8Block | WeightFormat::Int8Channel | WeightFormat::Int4Group => {
            WeightFormat::Bf16
        }
    }
}

fn class_format(class: PlanClass, request: &PlanRequest) -> Option<WeightFormat> {
    let linear = |class| Some(target_format(request.policy.get(class), request.stored));
    match class {
        PlanClass::Embedding | PlanClass::Head => Some(plain_format(request.stored)),
        PlanClass::Attention => linear(WeightClass::Attention),
        PlanClass::KvB => linear(WeightClass::KvB),
        PlanClass::DenseFfn => linear(WeightClass::DenseFfn),
        PlanClass::Experts => linear(WeightClass::Experts),
        PlanClass::SharedExperts => linear(WeightClass::SharedExperts),
        PlanClass::RouterAndNorms | PlanClass::Mtp => None,
    }
}

/// The line a tensor belongs to; `None` for the MTP modules' copies of embedding and head, which are loaded once.
fn class_of(config: &ModelConfig, tensor: &TensorSpec) -> Option<PlanClass> {
    if layer_of(tensor).is_some_and(|layer| layer >= config.num_hidden_layers) {
        let is_copy = tensor.prefix().ends_with(".embed_tokens") || tensor.prefix().ends_with(".shared_head.head");
        return (!is_copy).then_some(PlanClass::Mtp);
    }
    Some(match tensor.kind {
        TensorKind::Linear(WeightClass::Attention, _) => PlanClass::Attention,
        TensorKind::Linear(WeightClass::KvB, _) => PlanClass::KvB,
        TensorKind::Linear(WeightClass::DenseFfn, _) => PlanClass::DenseFfn,
        TensorKind::Linear(WeightClass::Experts, _) => PlanClass::Experts,
        TensorKind::Linear(WeightClass::SharedExperts, _) => PlanClass::SharedExperts,
        TensorKind::Plain(_) if tensor.prefix() == "model.embed_tokens" => PlanClass::Embedding,
        TensorKind::Plain(_) if tensor.prefix() == "lm_head" => PlanClass::Head,
        TensorKind::Plain(_) | TensorKind::Vector(_) => PlanClass::RouterAndNorms,
    })
}

fn layer_of(tensor: &TensorSpec) -> Option<usize> {
    tensor.name.strip_prefix("model.layers.")?.split('.').next()?.parse().ok()
}

/// Bytes of a matrix with its scales, as the weight types of [`crate::quant`] store them.
fn matrix_bytes(shape: MatrixShape, format: WeightFormat, int4_group: usize) -> u64 {
    let MatrixShape { out_features, in_features } = shape;
    let bytes = match format {
        WeightFormat::F32 => shape.num_elements() * 4,
        WeightFormat::Bf16 => shape.num_elements() * 2,
        WeightFormat::Fp8Block => {
            shape.num_elements() + out_features.div_ceil(FP8_BLOCK) * in_features.div_ceil(FP8_BLOCK) * 4
        }
        WeightFormat::Int8Channel => shape.num_elements() + out_features * 4,
        WeightFormat::Int4Group => {
            out_features * (Int4GroupWeight::row_bytes(in_features) + in_features.div_ceil(int4_group) * 4)
        }
    };
    bytes as u64
}
