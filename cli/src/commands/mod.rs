//! One file per command.

mod batch;
mod bench;
mod chat;
mod convert;
mod devices;
mod generate;
mod plan;
mod score;
mod synth;

use crate::args::Command;
use crate::error::CliError;

pub(crate) fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::Devices(args) => devices::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Batch(args) => batch::run(&args),
        Command::Score(args) => score::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Synth(args) => synth::run(&args),
    }
}
