//! What a user may choose.

use engine_core::reference::MlaForm;

use crate::simd::SimdLevel;

/// How a [`CpuBackend`](crate::CpuBackend) runs. The default suits the machine it is on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuOptions {
    /// Threads; `None` is as many as the process may use. Results do not depend on it.
    pub threads: Option<usize>,
    /// Form of attention. Both agree up to rounding.
    pub mla_form: MlaForm,
    /// Instruction set; `None` is the best one the processor has.
    pub simd: Option<SimdLevel>,
}
