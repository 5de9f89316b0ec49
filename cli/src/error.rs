//! What ends a command before its result.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::batch_input::LineError;
use crate::output;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The library's reason.
    #[error(transparent)]
    Engine(#[from] bathysphere::Error),
    /// No `--model` was given and the repository's own model is not near.
    #[error("no --model given and models/{name} was not found in or above {}", list(tried))]
    NoModel { name: &'static str, tried: Vec<PathBuf> },
    /// A file or directory operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    /// A text file is not UTF-8.
    #[error("{} is not UTF-8: the first invalid byte is at offset {offset}", path.display())]
    NotUtf8 { path: PathBuf, offset: usize },
    /// A tokens file is not a JSON array of ids.
    #[error("{}: {reason}; a tokens file is one JSON array of token ids, e.g. [0, 706, 2772]", path.display())]
    Tokens { path: PathBuf, reason: serde_json::Error },
    /// A text without a character.
    #[error("{origin} is empty: give some text, or --tokens-file with e.g. the begin-of-sentence id alone")]
    EmptyText { origin: String },
    /// A line of a batch cannot be run.
    #[error("input {}, line {line}: {error}", path.display())]
    BatchLine { path: PathBuf, line: usize, error: LineError },
    /// Nothing is predicted.
    #[error("the text has {num_tokens} token(s); scoring predicts each from those before it, so give at least 2")]
    NothingToScore { num_tokens: usize },
    /// The benchmark needs a longer window.
    #[error(
        "the benchmark needs a window of {need} tokens (prompt, generation, and what the first sequences generate \
         while the last is prefilled), this model has {have}: lower --prompt-len, --gen-len or --batch"
    )]
    BenchTooLong { need: usize, have: usize },
    /// Stdout or stdin failed; a reader that left early is not an error to report.
    #[error("cannot use the standard streams: {0}")]
    Stream(#[source] io::Error),
    /// Ctrl-C, after what was there has been printed.
    #[error("interrupted")]
    Interrupted,
}

impl CliError {
    pub(crate) fn file<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> CliError + 'a {
        move |source| CliError::File { action, path: path.to_owned(), source }
    }

    /// Prints what there is to say, and gives the exit code: 130 for an interruption, as shells have it, else 1. A
    /// closed pipe (`| head`) is no failure.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            CliError::Interrupted => return ExitCode::from(130),
            CliError::Stream(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            _ => {}
        }
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let reason = error.to_string();
            // Many messages already hold their cause.
            if !text.contains(&reason) {
                text.push_str(": caused by: ");
                text.push_str(&reason);
            }
            cause = error.source();
        }
        output::note(&format!("error: {text}"));
        ExitCode::FAILURE
    }
}

fn list(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}
