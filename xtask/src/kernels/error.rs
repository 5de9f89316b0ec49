//! Why kernels could not be compiled, or are not what is committed.

use std::io;
use std::path::PathBuf;

use super::{amd, nvidia};

#[derive(Debug, thiserror::Error)]
pub(crate) enum KernelsError {
    #[error("no NVRTC in {}; run: {}", .0.display(), nvidia::INSTALL)]
    NoNvrtc(PathBuf),
    #[error("{}: {reason}", path.display())]
    Library { path: PathBuf, reason: String },
    #[error("NVRTC is {}.{}, the images are made with {}.{}; run: {}", .0.0, .0.1, nvidia::VERSION.0, nvidia::VERSION.1, nvidia::INSTALL)]
    NvrtcVersion((i32, i32)),
    #[error("no nvdisasm in {}; run: {}", .0.display(), nvidia::INSTALL_DISASSEMBLER)]
    NoDisassembler(PathBuf),
    #[error("no zig in {}; run: {}", .0.display(), amd::INSTALL)]
    NoZig(PathBuf),
    #[error("{} is not of version {wanted}; run: {install}", program.display())]
    ProgramVersion { program: PathBuf, wanted: &'static str, install: &'static str },
    #[error("{} failed: {reason}", program.display())]
    Program { program: PathBuf, reason: String },
    #[error("{function} failed with status {status}")]
    Status { function: &'static str, status: i32 },
    #[error("a zero byte in source or option {text:?}")]
    ZeroByte { text: String },
    #[error("{file} does not compile with {options}:\n{log}")]
    Compile { file: String, options: String, log: String },
    #[error("{file} for {architecture}: {reason}")]
    Image { file: String, architecture: &'static str, reason: String },
    #[error("{file} includes {included:?}, which is not in gpu-common/kernels")]
    Include { file: String, included: String },
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("the manifest cannot be read or written: {0}")]
    Manifest(#[from] serde_json::Error),
    #[error("{} compilations failed, the images of the others are as good as new:\n{}", .0.len(), .0.join("\n"))]
    Failed(Vec<String>),
    #[error("{} breaches:\n{}", .0.len(), .0.join("\n"))]
    Breaches(Vec<String>),
    #[error("{} files are not what the sources give:\n{}\nrun `cargo xtask kernels` and commit what it writes", .0.len(), .0.join("\n"))]
    Stale(Vec<String>),
}
