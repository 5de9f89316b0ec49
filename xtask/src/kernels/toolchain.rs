//! What the build asks of a vendor's compiler.

use super::KernelsError;
use super::instructions::Instructions;
use super::manifest::{Compiler, KernelEntry};
use super::sources::Family;

/// A pinned compiler, found and of the right version.
pub(super) trait Toolchain: Sync {
    /// Which one it is, for the manifest.
    fn compiler(&self) -> &Compiler;

    /// Options of every compilation, beside the architecture.
    fn options(&self) -> Vec<String>;

    /// Compiles a family for one architecture, and says what came out.
    fn compile(&self, family: &Family, architecture: &'static str) -> Result<Compiled, KernelsError>;
}

/// What a compilation gave.
pub(super) struct Compiled {
    /// The device image.
    pub(super) image: Vec<u8>,
    /// In order of names.
    pub(super) kernels: Vec<KernelEntry>,
    pub(super) instructions: Instructions,
    /// To be printed.
    pub(super) warnings: Vec<String>,
    /// Notes of the compiler that no image may have.
    pub(super) performance_losses: Vec<String>,
}
