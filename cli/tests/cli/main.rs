//! The command as its users run it: arguments in, stdout and exit codes out.
#![allow(clippy::unwrap_used)]

mod batch;
mod chat;
mod errors;
mod generate;
mod score;
#[cfg(unix)]
mod signals;
mod support;
mod tools;
