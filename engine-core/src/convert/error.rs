//! What can go wrong while a checkpoint is written.

use std::io;
use std::path::{Path, PathBuf};

/// Why a converted or synthetic checkpoint was not written. Nothing is left behind at the output path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The output directory already holds something.
    #[error("{} exists and is not an empty directory: choose another output directory or empty this one", path.display())]
    OutputExists {
        /// Output path.
        path: PathBuf,
    },
    /// The output directory would replace the input.
    #[error("input and output are the same directory, {}: choose another output directory", path.display())]
    OutputIsInput {
        /// The directory.
        path: PathBuf,
    },
    /// The output path has no existing directory above it.
    #[error("cannot create {}: {} is not an existing directory; create it first", path.display(), parent.display())]
    NoParent {
        /// Output path.
        path: PathBuf,
        /// Directory that should hold it.
        parent: PathBuf,
    },
    /// The file system has less room than the checkpoint needs.
    #[error(
        "{} needs {} but the file system has {} for it: free some space or choose another output directory",
        path.display(), Gib(*need_bytes), Gib(*have_bytes)
    )]
    DiskFull {
        /// Output path.
        path: PathBuf,
        /// Bytes of the whole checkpoint.
        need_bytes: u64,
        /// Bytes available, or written until the file system was full.
        have_bytes: u64,
    },
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// Verb: "create", "write", …
        action: &'static str,
        /// File or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// `config.json` is not a JSON object.
    #[error("{}: {source}; a checkpoint's config.json is one JSON object", path.display())]
    Json {
        /// File.
        path: PathBuf,
        /// Place and reason.
        source: serde_json::Error,
    },
    /// A safetensors header cannot describe the tensors of a file.
    #[error("{}: {source}; a tensor's shape does not fit its size", path.display())]
    Header {
        /// File.
        path: PathBuf,
        /// The format's reason.
        source: safetensors::SafeTensorError,
    },
    /// The policy leads to weight formats that one `config.json` cannot describe.
    #[error(
        "precision policy {policy} leaves a checkpoint of {found}, which one config.json cannot describe: \
         use one of fp8, int8 or int4 (with one group size), alone or together with bf16"
    )]
    MixedFormats {
        /// The policy.
        policy: String,
        /// Quantised formats that would be in the checkpoint.
        found: String,
    },
    /// A tensor got another number of bytes than its shape needs: a defect of this library or of a data source.
    #[error("tensor {tensor}: {found_bytes} bytes written, its shape needs {expected_bytes}; please report this")]
    TensorSize {
        /// Tensor name.
        tensor: String,
        /// Bytes given.
        found_bytes: u64,
        /// Bytes of its shape and type.
        expected_bytes: u64,
    },
}

impl ConvertError {
    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> ConvertError + 'a {
        move |source| ConvertError::Io { action, path: path.to_owned(), source }
    }
}

/// A byte count for people.
struct Gib(u64);

impl std::fmt::Display for Gib {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const MIB: f64 = 1_048_576.0;
        let mib = self.0 as f64 / MIB;
        if mib < 1024.0 { write!(f, "{mib:.1} MiB") } else { write!(f, "{:.1} GiB", mib / 1024.0) }
    }
}
