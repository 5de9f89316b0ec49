//! Tasks for people who work on bathysphere; its users never need them.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to who started it")]

mod kernels;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks for people who work on bathysphere")]
struct Command {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Compiles the device kernels for NVIDIA and AMD ahead of time, into backend-cuda/images and backend-rocm/images.
    Kernels(kernels::Options),
}

fn main() -> ExitCode {
    let Command { task: Task::Kernels(options) } = Command::parse();
    match kernels::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
