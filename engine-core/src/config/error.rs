//! What can be wrong with a configuration.

use std::path::PathBuf;

/// A configuration that cannot be run: the file and key at fault, what was found and what would be accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file is missing or cannot be read.
    #[error("{}: cannot be read ({cause}); the model directory must hold a readable config.json", file.display())]
    Read {
        /// File at fault.
        file: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A file is not JSON.
    #[error("{}: not valid JSON ({cause}); download the file again", file.display())]
    Json {
        /// File at fault.
        file: PathBuf,
        /// What the parser said, with line and column.
        cause: serde_json::Error,
    },
    /// A key that must be there is not.
    #[error("{}: {key} is missing; it must be {accepted}", file.display())]
    Missing {
        /// File at fault.
        file: PathBuf,
        /// Key, with the keys that enclose it.
        key: String,
        /// What it may be.
        accepted: String,
    },
    /// A key holds a value that cannot be run.
    #[error("{}: {key} is {found}; it must be {accepted}", file.display())]
    Value {
        /// File at fault.
        file: PathBuf,
        /// Key, with the keys that enclose it.
        key: String,
        /// Value found, as JSON.
        found: String,
        /// What it may be.
        accepted: String,
    },
    /// Two keys say different things about one property.
    #[error("{}: {first} and {second} disagree ({first_value} against {second_value}); remove one of them", file.display())]
    Conflict {
        /// File at fault.
        file: PathBuf,
        /// One key.
        first: String,
        /// What it says.
        first_value: String,
        /// The other key.
        second: String,
        /// What that says.
        second_value: String,
    },
    /// The checkpoint is of a family this library does not run.
    #[error("{}: model_type {found:?} is not supported: {reason}; supported are {accepted}", file.display())]
    ModelType {
        /// File at fault.
        file: PathBuf,
        /// Value found.
        found: String,
        /// Why.
        reason: &'static str,
        /// The values accepted.
        accepted: &'static str,
    },
}
