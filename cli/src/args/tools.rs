//! The flags of the commands that make, measure and plan for checkpoints.

use std::path::PathBuf;

use bathysphere::PrecisionPolicy;
use clap::{Args, ValueEnum};

use super::ModelArgs;

/// Write a checkpoint in another precision.
///
/// Linear weights are converted, everything else is copied. INT8 and INT4 are written in compressed-tensors' format.
/// The output appears when it is complete.
///
/// Example:
///   bathysphere convert --input DIR --output DIR-int8 --precision int8
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ConvertArgs {
    /// Checkpoint directory to read.
    #[arg(long, value_name = "DIR")]
    pub(crate) input: PathBuf,
    /// Directory to write; must not exist or be empty.
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// bf16, fp8, int8 or int4; or by class, e.g. `bf16,experts=int4`.
    #[arg(long, value_name = "PRECISION")]
    pub(crate) precision: PrecisionPolicy,
}

/// Tell how much memory a model needs and whether it fits, without loading it.
///
/// Needs config.json only. The cache of one sequence at full length must fit; more sequences share what is left.
///
/// Examples:
///   bathysphere plan --model DIR
///   bathysphere plan --model DIR --precision int4 --max-model-len 32768 --json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Sequences that run together.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) max_num_seqs: usize,
    /// With the MTP module.
    #[arg(long)]
    pub(crate) mtp: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Measure prefill and decode speed.
///
/// Random prompts, greedy, end of sentence ignored; works without a tokenizer. Prefill and decode are measured apart,
/// decode only while the whole batch decodes; medians of --runs runs. On host devices decode is also held against the
/// memory bandwidth, measured in the same run by reading a buffer larger than the caches: bytes per step are all
/// weights but the embedding, the experts that are not chosen, and the MTP module, plus the latent cache. A batch of B
/// tokens chooses between K and min(E, B x K) of E experts, so for B > 1 the figures are a range. A model that fits the
/// caches can exceed 100 %.
///
/// Example:
///   bathysphere bench --model DIR --prompt-len 512 --gen-len 128 --batch 8
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Tokens of each prompt.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = at_least::<1>)]
    pub(crate) prompt_len: usize,
    /// Tokens generated after each prompt, at least 2.
    #[arg(long, value_name = "M", default_value_t = 128, value_parser = at_least::<2>)]
    pub(crate) gen_len: usize,
    /// Sequences that run together.
    #[arg(long, value_name = "B", default_value_t = 1, value_parser = at_least::<1>)]
    pub(crate) batch: usize,
    /// Runs, of which the median counts; one more before them warms up.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least::<1>)]
    pub(crate) runs: usize,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

impl BenchArgs {
    /// Tokens of one step: the engine's default, or more when half of it would not hold the batch.
    pub(crate) fn step_tokens(&self) -> usize {
        self.batch.saturating_mul(2).max(512)
    }
}

fn at_least<const MIN: usize>(text: &str) -> Result<usize, String> {
    match text.parse::<u32>() {
        Ok(value) if value as usize >= MIN => Ok(value as usize),
        Ok(_) => Err(format!("accepted are {MIN} and more")),
        Err(error) => Err(error.to_string()),
    }
}

/// Write a checkpoint with random weights, for benchmarks and tests.
///
/// The architecture is that of a config.json, kept with all its keys; the weights keep activations at their size, the
/// model talks nonsense. There is no tokenizer: use --tokens-file. The same configuration, precision and seed give the
/// same bytes.
///
/// Example:
///   bathysphere synth --config config.json --layers 4 --dense-layers 1 --output DIR
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct SynthArgs {
    /// The configuration; `-` reads stdin.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Directory to write; must not exist or be empty.
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Format of the linear weights.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) precision: StoredPrecision,
    /// Layers, instead of the configuration's.
    #[arg(long, value_name = "N")]
    pub(crate) layers: Option<usize>,
    /// Dense layers before the MoE layers, instead of the configuration's.
    #[arg(long, value_name = "N")]
    pub(crate) dense_layers: Option<usize>,
    /// Another seed, other weights.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// With the MTP modules of the configuration.
    #[arg(long)]
    pub(crate) mtp: bool,
}

/// A format that synthetic checkpoints can have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoredPrecision {
    /// FP8 blocks, as DeepSeek-V3.
    #[default]
    Fp8,
    /// bf16 throughout.
    Bf16,
}
