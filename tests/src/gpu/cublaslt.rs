//! Our products of FP8 blocks and cuBLASLt's, on one Hopper.

use backend_cuda::{CudaBackend, CudaOptions, PromptProducts};
use engine_core::backend::Unavailable;

/// Our own products, and cuBLASLt's.
#[derive(Debug)]
pub struct Pair {
    /// The backend as it is.
    pub ours: CudaBackend,
    /// The one that was told to take cuBLASLt.
    pub theirs: CudaBackend,
}

impl Pair {
    /// Opens a device twice.
    ///
    /// # Errors
    /// Why it cannot be used. That cuBLASLt cannot is no error here: [`Pair::version`] says so.
    pub fn open(ordinal: u32) -> Result<Self, Unavailable> {
        let open = |prompt_products| backend_cuda::open(ordinal, CudaOptions { prompt_products, ..Default::default() });
        Ok(Self { ours: open(PromptProducts::Own)?, theirs: open(PromptProducts::CublasLt)? })
    }

    /// The library's version.
    ///
    /// # Errors
    /// Why it is not used.
    pub fn version(&self) -> Result<String, String> {
        let library = self.theirs.runtime().cublaslt();
        library.map(backend_cuda::CublasLt::version).map_err(ToString::to_string)
    }

    /// Products that the library was given.
    pub fn num_products(&self) -> u64 {
        self.theirs.runtime().cublaslt().map_or(0, backend_cuda::CublasLt::num_products)
    }
}
