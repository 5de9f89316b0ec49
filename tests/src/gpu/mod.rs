//! Checks of a GPU backend that any vendor's runtime, real or emulated, runs: `device-check cuda:0 …`, `rocm:0 …`.

#[cfg(feature = "cuda")]
pub mod cublaslt;
mod goldens;

pub use goldens::goldens;

use engine_core::Error;
use engine_core::backend::{Backend, Unavailable};
use engine_core::quant::Precision;
use engine_core::reference::{ActivationRounding, Numerics};
use gpu_common::{CollectiveLibrary, GpuBackend, GpuOptions, GpuRuntime};

use crate::golden::MAX_PERPLEXITY_ERROR;
use crate::group::check_group;
use crate::harness::Profile;

/// A vendor's crate, as far as checks need it.
pub trait Vendor {
    /// What it does for [`GpuBackend`].
    type Runtime: GpuRuntime;

    /// As in `--device`.
    const NAME: &'static str;

    /// What groups of its devices add up with.
    const COLLECTIVES: CollectiveLibrary;

    /// Opens a device below the ops.
    ///
    /// # Errors
    /// Why it cannot be used.
    fn runtime(ordinal: u32) -> Result<Self::Runtime, Unavailable>;

    /// Opens a device.
    ///
    /// # Errors
    /// Why it cannot be used.
    fn open(ordinal: u32, options: GpuOptions) -> Result<GpuBackend<Self::Runtime>, Unavailable>;

    /// Opens devices as the ranks of one group.
    ///
    /// # Errors
    /// Why there is no such group.
    fn open_group(ordinals: &[u32]) -> Result<Vec<GpuBackend<Self::Runtime>>, Unavailable>;
}

/// NVIDIA.
#[cfg(feature = "cuda")]
#[derive(Debug)]
pub enum Cuda {}

#[cfg(feature = "cuda")]
impl Vendor for Cuda {
    type Runtime = backend_cuda::CudaRuntime;
    const NAME: &'static str = "cuda";
    const COLLECTIVES: CollectiveLibrary = backend_cuda::NCCL;

    fn runtime(ordinal: u32) -> Result<Self::Runtime, Unavailable> {
        backend_cuda::CudaRuntime::open(ordinal, backend_cuda::PromptProducts::Own)
    }

    fn open(ordinal: u32, gpu: GpuOptions) -> Result<GpuBackend<Self::Runtime>, Unavailable> {
        backend_cuda::open(ordinal, backend_cuda::CudaOptions { gpu, ..Default::default() })
    }

    fn open_group(ordinals: &[u32]) -> Result<Vec<GpuBackend<Self::Runtime>>, Unavailable> {
        backend_cuda::open_group(ordinals, backend_cuda::CudaOptions::default())
    }
}

/// AMD. The file of HIP's runtime can be named in the environment (`HIP_LIB`).
#[cfg(feature = "rocm")]
#[derive(Debug)]
pub enum Rocm {}

#[cfg(feature = "rocm")]
impl Rocm {
    fn library() -> Option<std::path::PathBuf> {
        std::env::var_os("HIP_LIB").map(Into::into)
    }
}

#[cfg(feature = "rocm")]
impl Vendor for Rocm {
    type Runtime = backend_rocm::RocmRuntime;
    const NAME: &'static str = "rocm";
    const COLLECTIVES: CollectiveLibrary = backend_rocm::RCCL;

    fn runtime(ordinal: u32) -> Result<Self::Runtime, Unavailable> {
        backend_rocm::RocmRuntime::open(ordinal, Self::library().as_deref())
    }

    fn open(ordinal: u32, gpu: GpuOptions) -> Result<GpuBackend<Self::Runtime>, Unavailable> {
        backend_rocm::open(ordinal, &backend_rocm::RocmOptions { gpu, library: Self::library() })
    }

    fn open_group(ordinals: &[u32]) -> Result<Vec<GpuBackend<Self::Runtime>>, Unavailable> {
        let options = backend_rocm::RocmOptions { library: Self::library(), ..Default::default() };
        backend_rocm::open_group(ordinals, &options)
    }
}

/// Several GPUs that run the tiny model together: whether all is right, and the figures.
///
/// # Errors
/// As [`check_group`].
///
/// # Panics
/// When a GPU fails.
pub fn group<V: Vendor>(ordinals: &[u32]) -> Result<(bool, serde_json::Value), Error> {
    check_group(|| V::open_group(ordinals), &[(Precision::Auto, MAX_PERPLEXITY_ERROR)])
}

/// What a backend rounds: activations and the cache to bf16, and inputs of linears as it says.
pub fn profile<R: GpuRuntime>(backend: &GpuBackend<R>) -> Profile {
    let capabilities = backend.capabilities();
    let linears = capabilities.quantised_inputs;
    let numerics = Numerics { activations: ActivationRounding::Bf16, linears, ..Numerics::default() };
    Profile::new(format!("{}, {}, {numerics}", capabilities.backend, capabilities.device), numerics)
}
