//! Streams of callers that hold handles of `hip-sys`.

use std::sync::Arc;

use hip_sys::hiprt::hipStream_t;

use super::Stream;
use crate::runtime::{RocmRuntime, RocmStream};

impl RocmStream {
    /// A stream that the caller made and destroys.
    ///
    /// # Safety
    /// It belongs to the runtime's device, is alive as long as this value, and nobody else records into it meanwhile.
    pub unsafe fn from_hip(runtime: &RocmRuntime, stream: hipStream_t) -> Self {
        Self::over(Stream::borrowed(&Arc::clone(runtime.context()), stream.cast()))
    }

    /// The handle of this stream, alive as long as this value.
    pub fn as_hip(&self) -> hipStream_t {
        self.queue().handle().cast()
    }
}
