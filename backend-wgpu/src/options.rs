//! What a user may choose.

use std::path::PathBuf;

/// How a [`WgpuBackend`](crate::WgpuBackend) runs. The default takes the best adapter and all it can do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WgpuOptions {
    /// Place in [`WgpuBackend::adapters`](crate::WgpuBackend::adapters); `None` is the first.
    pub adapter: Option<usize>,
    /// How matrix products are cut; `None` is what suits the adapter.
    pub matmul: Option<MatmulStyle>,
    /// Subgroup operations: `None` uses them where the adapter has them, `Some(false)` never.
    pub subgroups: Option<bool>,
    /// Bytes this backend may allocate; more is [`OutOfMemory`](engine_core::backend::StepError::OutOfMemory). Graphics
    /// APIs do not say how much memory is free, so a plan knows a limit only if it is given here.
    pub memory_limit_bytes: Option<u64>,
    /// File to keep compiled kernels in, so that the next start need not compile them. Vulkan only, ignored elsewhere;
    /// drivers that keep a cache of their own gain little.
    pub pipeline_cache: Option<PathBuf>,
    /// Largest binding in bytes, if less than the adapter's; weights are split to fit.
    pub max_binding_bytes: Option<u64>,
}

/// How matrix products are cut into workgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MatmulStyle {
    /// For GPUs: few rows go along the lanes with a reduction, many go through tiles in workgroup memory.
    Tiles,
    /// For software rasterisers, where every lane pays for its own loads: all in registers, inputs shared by broadcast.
    Lanes,
}
