//! What a conversion does with every tensor, known before anything is written.

use std::collections::{BTreeSet, HashSet};

use super::ConvertError;
use super::config_json::StoredQuantization;
use super::shards::OutputTensor;
use super::stored::{LINEAR_SUFFIXES, linear_tensors};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::quant::{HostWeight, INT4_GROUP, MatrixShape, PrecisionPolicy, ScaleFormat, WeightFormat, target_format};
use crate::weights::Checkpoint;
use crate::weights::layout::{TensorKind, TensorSpec, checkpoint_tensors};

/// Every step, in the order of layers.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// What `config.json` must say; `None` when no weight changes and it stays as it is.
    pub(super) quantization: Option<StoredQuantization>,
}

/// One step of a conversion.
#[derive(Debug)]
pub(super) enum Step {
    /// A tensor that stays bit for bit.
    Copy(OutputTensor),
    /// A linear weight that changes its format.
    Convert {
        /// Name without `.weight`.
        prefix: String,
        /// `[out, in]`.
        shape: MatrixShape,
        /// New format.
        target: WeightFormat,
        /// The tensors that store it.
        tensors: Vec<OutputTensor>,
    },
}

impl Step {
    /// Name for progress messages.
    pub(super) fn name(&self) -> &str {
        match self {
            Step::Copy(tensor) => &tensor.name,
            Step::Convert { prefix, .. } => prefix,
        }
    }
}

/// Quantised formats as `config.json` tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scheme {
    Fp8Block,
    Int8Channel,
    Int4Group(usize),
}

impl std::fmt::Display for Scheme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scheme::Fp8Block => f.write_str("fp8"),
            Scheme::Int8Channel => f.write_str("int8"),
            Scheme::Int4Group(size) => write!(f, "int4 in groups of {size}"),
        }
    }
}

impl Plan {
    /// # Errors
    /// What [`Checkpoint::check`] and [`Checkpoint::linear`] find; [`ConvertError::MixedFormats`].
    pub(super) fn new(checkpoint: &Checkpoint, config: &ModelConfig, policy: &PrecisionPolicy) -> Result<Self> {
        let has_mtp = checkpoint.check(config)?.has_mtp;
        let mut draft = Draft::new(checkpoint);
        for spec in checkpoint_tensors(config, has_mtp) {
            match spec.kind {
                TensorKind::Linear(class, shape) => {
                    let stored = checkpoint.linear(spec.prefix(), shape, config.quantization.as_ref())?;
                    let target = target_format(policy.get(class), stored.format());
                    draft.linear(&spec, &stored, target);
                }
                TensorKind::Plain(_) => draft.plain(&spec),
                TensorKind::Vector(_) => draft.copy(&spec.name),
            }
        }
        for name in checkpoint.names() {
            draft.copy(name);
        }
        Ok(draft.finish(policy)?)
    }

    /// The tensors of the output.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &OutputTensor> {
        self.steps.iter().flat_map(|step| match step {
            Step::Copy(tensor) => std::slice::from_ref(tensor),
            Step::Convert { tensors, .. } => tensors.as_slice(),
        })
    }
}

/// A plan being made.
struct Draft<'a> {
    checkpoint: &'a Checkpoint,
    steps: Vec<Step>,
    /// Names of stored tensors that already have their step.
    done: HashSet<String>,
    schemes: BTreeSet<Scheme>,
    /// True while every FP8 weight keeps power-of-two scales.
    ue8m0: bool,
    converts: bool,
    /// Prefixes of linear weights left in floating point.
    float_linears: Vec<String>,
    /// Prefixes of matrices that are linear modules to other software and are never quantised.
    other_linears: Vec<String>,
}

impl<'a> Draft<'a> {
    fn new(checkpoint: &'a Checkpoint) -> Self {
        Self {
            checkpoint,
            steps: Vec::new(),
            done: HashSet::new(),
            schemes: BTreeSet::new(),
            ue8m0: true,
            converts: false,
            float_linears: Vec::new(),
            other_linears: Vec::new(),
        }
    }

    /// A copy of a stored tensor that has no step yet.
    fn copy(&mut self, name: &str) {
        let Some(info) = self.checkpoint.tensor_info(name) else { return };
        if self.done.insert(name.to_owned()) {
            self.steps.push(Step::Copy(OutputTensor {
                name: name.to_owned(),
                dtype: info.dtype,
                shape: info.shape,
                num_bytes: info.num_bytes as u64,
            }));
        }
    }

    fn plain(&mut self, spec: &TensorSpec) {
        if !spec.prefix().ends_with("embed_tokens") {
            self.other_linears.push(spec.prefix().to_owned());
        }
        self.copy(&spec.name);
    }

    fn linear(&mut self, spec: &TensorSpec, stored: &HostWeight, target: WeightFormat) {
        let prefix = spec.prefix();
        let keeps_format = stored.format() == target;
        match target {
            WeightFormat::F32 | WeightFormat::Bf16 => self.float_linears.push(prefix.to_owned()),
            WeightFormat::Fp8Block => {
                self.ue8m0 &= matches!(stored, HostWeight::Fp8Block(w) if w.scale_format() == ScaleFormat::Ue8m0);
                self.schemes.insert(Scheme::Fp8Block);
            }
            WeightFormat::Int8Channel => {
                self.schemes.insert(Scheme::Int8Channel);
            }
            WeightFormat::Int4Group => {
                let group_size = if let HostWeight::Int4Group(w) = stored { w.group_size() } else { INT4_GROUP };
                self.schemes.insert(Scheme::Int4Group(group_size));
            }
        }
        let stored_names = LINEAR_SUFFIXES.map(|suffix| format!("{prefix}{suffix}"));
        if keeps_format {
            stored_names.iter().for_each(|name| self.copy(name));
        } else {
            self.done.extend(stored_names);
            self.converts = true;
            let (prefix, shape) = (prefix.to_owned(), stored.shape());
            let tensors = linear_tensors(&prefix, shape, target);
            self.steps.push(Step::Convert { prefix, shape, target, tensors });
        }
    }

    fn finish(self, policy: &PrecisionPolicy) -> Result<Plan, ConvertError> {
        let unquantized = || [self.float_linears.as_slice(), &self.other_linears].concat();
        let mut schemes = self.schemes.iter();
        let quantization = match (schemes.next(), schemes.next()) {
            (None, _) => StoredQuantization::None,
            (Some(Scheme::Fp8Block), None) => {
                StoredQuantization::Fp8Block { ue8m0: self.ue8m0, unquantized: self.float_linears.clone() }
            }
            (Some(Scheme::Int8Channel), None) => StoredQuantization::Int8Channel { unquantized: unquantized() },
            (Some(&Scheme::Int4Group(group_size)), None) => {
                StoredQuantization::Int4Group { group_size, unquantized: unquantized() }
            }
            (Some(_), Some(_)) => {
                let found: Vec<String> = self.schemes.iter().map(Scheme::to_string).collect();
                return Err(ConvertError::MixedFormats { policy: policy.to_string(), found: found.join(" and ") });
            }
        };
        Ok(Plan { steps: self.steps, quantization: self.converts.then_some(quantization) })
    }
}
