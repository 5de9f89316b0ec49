//! One file per command.

mod chat;
mod devices;
mod generate;
mod score;

use crate::args::Command;
use crate::error::CliError;

pub(crate) fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::Devices(args) => devices::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Score(args) => score::run(&args),
    }
}
