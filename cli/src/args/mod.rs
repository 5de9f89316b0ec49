//! The command line, and its manual: every text here is what `--help` prints.

mod commands;
mod common;
mod tools;

use clap::{Parser, Subcommand};
use tracing_subscriber::filter::LevelFilter;

pub(crate) use commands::{BatchArgs, ChatArgs, DevicesArgs, GenerateArgs, ScoreArgs};
pub(crate) use common::{ModelArgs, PromptArgs, PromptSource, SamplingArgs};
pub(crate) use tools::{BenchArgs, ConvertArgs, PlanArgs, StoredPrecision, SynthArgs};
/// Runs DeepSeek-V3-family models on any vendor's hardware.
///
/// Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
#[derive(Debug, Parser)]
#[command(
    name = "bathysphere",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    /// What to log on stderr: off, error, warn, info, debug or trace.
    #[arg(long, global = true, value_name = "LEVEL", default_value = "warn")]
    pub(crate) log: LevelFilter,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Devices(DevicesArgs),
    Generate(GenerateArgs),
    Chat(ChatArgs),
    Batch(BatchArgs),
    Score(ScoreArgs),
    Convert(ConvertArgs),
    Plan(PlanArgs),
    Bench(BenchArgs),
    Synth(SynthArgs),
}
