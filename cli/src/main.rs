//! The `bathysphere` command: parses the arguments, runs one command, and turns its outcome into an exit code.

mod args;
mod bandwidth;
mod batch_input;
mod commands;
mod error;
mod generation;
mod interrupt;
mod logits_file;
mod model;
mod output;
mod output_file;
mod prompt;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    tracing_subscriber::fmt()
        .with_max_level(cli.log)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .init();
    match commands::run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}
