//! Memory: of the device, pinned on the host, and copies between them.

use emulator_common::{Failure, Outcome, memory};

use crate::config::Gpu;
use crate::driver::{Context, Driver};
use crate::status;
use crate::stream::Op;

impl Context {
    /// Device addresses `address..address + num_bytes` must lie in one live allocation.
    ///
    /// # Errors
    /// Where they do not.
    pub fn check_device_range(&self, what: &str, address: u64, num_bytes: usize) -> Outcome<()> {
        if self.memory.holder(address..address.saturating_add(num_bytes as u64)).is_some() {
            return Ok(());
        }
        let place = self.memory.describe(address);
        Err(Failure::new(status::INVALID_VALUE, format!("{what}: {num_bytes} bytes at {address:#x}, {place}")))
    }

    fn is_pinned(&self, address: u64, num_bytes: usize) -> bool {
        self.pinned.holder(address..address.saturating_add(num_bytes as u64)).is_some()
    }
}

fn invalid(message: String) -> Failure {
    Failure::new(status::INVALID_VALUE, message)
}

#[allow(missing_docs, clippy::missing_errors_doc, reason = "the functions of the drivers' references")]
impl<G: Gpu> Driver<G> {
    pub fn alloc(&mut self, num_bytes: usize) -> Outcome<u64> {
        self.context()?.check_no_capture("an allocation")?;
        if num_bytes == 0 {
            return Err(Failure::new(status::INVALID_VALUE, "an allocation of 0 bytes"));
        }
        if let Some(message) = self.injection.allocation() {
            return Err(Failure::new(status::OUT_OF_MEMORY, message));
        }
        let limit = self.config.common.memory_bytes;
        let memory = &mut self.context()?.memory;
        if memory.used_bytes().saturating_add(num_bytes as u64) > limit {
            return Err(Failure::new(status::OUT_OF_MEMORY, ""));
        }
        memory.alloc(num_bytes).ok_or_else(|| Failure::new(status::OUT_OF_MEMORY, "the host has no memory left"))
    }

    /// After everything that was queued.
    pub fn free(&mut self, address: u64) -> Outcome<()> {
        self.context()?.check_no_capture("a free")?;
        self.run_all()?;
        self.context()?.memory.free(address).map_err(invalid)
    }

    /// When the stream comes to it.
    pub fn free_async(&mut self, address: u64, stream: u64) -> Outcome<()> {
        self.context()?.check_no_capture("a free")?;
        self.context()?.check_device_range("free", address, 1)?;
        self.push(stream, Op::Free(address))
    }

    /// An allocation that belongs to a stream's order.
    pub fn alloc_async(&mut self, num_bytes: usize, stream: u64) -> Outcome<u64> {
        self.context()?.stream(stream)?;
        self.alloc(num_bytes)
    }

    /// Bytes not in use, and all.
    pub fn memory_info(&mut self) -> Outcome<[usize; 2]> {
        let (used, all) = (self.context()?.memory.used_bytes(), self.config.common.memory_bytes);
        Ok([all.saturating_sub(used), all].map(|bytes| bytes as usize))
    }

    pub fn alloc_pinned(&mut self, num_bytes: usize) -> Outcome<u64> {
        self.context()?.check_no_capture("an allocation of pinned memory")?;
        let message = || format!("{num_bytes} bytes of pinned memory");
        if num_bytes == 0 {
            return Err(invalid(message()));
        }
        let allocated = self.context()?.pinned.alloc(num_bytes);
        allocated.ok_or_else(|| Failure::new(status::OUT_OF_MEMORY, message()))
    }

    pub fn free_pinned(&mut self, address: u64) -> Outcome<()> {
        self.run_all()?;
        self.context()?.pinned.free(address).map_err(invalid)
    }

    /// From the host. Pageable memory is copied at once, as the references say.
    pub fn copy_to_device(&mut self, to: u64, from: u64, num_bytes: usize, stream: u64) -> Outcome<()> {
        self.context()?.check_device_range("copy to", to, num_bytes)?;
        if self.context()?.is_pinned(from, num_bytes) {
            return self.push(stream, Op::Copy { from, to, num_bytes });
        }
        self.check_not_captured(stream)?;
        self.push(stream, Op::Write { to, bytes: memory::read(from, num_bytes) })
    }

    /// To the host. A copy to pageable memory is done when the call returns, as the references say.
    pub fn copy_to_host(&mut self, to: u64, from: u64, num_bytes: usize, stream: u64) -> Outcome<()> {
        self.context()?.check_device_range("copy from", from, num_bytes)?;
        if self.context()?.is_pinned(to, num_bytes) {
            return self.push(stream, Op::Copy { from, to, num_bytes });
        }
        self.check_not_captured(stream)?;
        self.run_stream(stream)?;
        memory::copy(from, to, num_bytes);
        Ok(())
    }

    pub fn copy_on_device(&mut self, to: u64, from: u64, num_bytes: usize, stream: u64) -> Outcome<()> {
        self.context()?.check_device_range("copy to", to, num_bytes)?;
        self.context()?.check_device_range("copy from", from, num_bytes)?;
        self.push(stream, Op::Copy { from, to, num_bytes })
    }

    pub fn fill(&mut self, to: u64, value: u8, num_bytes: usize, stream: u64) -> Outcome<()> {
        self.context()?.check_device_range("fill", to, num_bytes)?;
        self.push(stream, Op::Fill { to, value, num_bytes })
    }

    /// Before something that does not go through a stream: everything queued runs.
    pub fn run_before(&mut self, what: &str, address: u64, num_bytes: usize) -> Outcome<()> {
        let context = self.context()?;
        context.check_no_capture("a synchronous operation")?;
        context.check_device_range(what, address, num_bytes)?;
        self.run_all()
    }

    /// A graph would read or write pageable memory at every replay, long after the call.
    fn check_not_captured(&mut self, stream: u64) -> Outcome<()> {
        let context = self.context()?;
        if context.stream(stream)?.capture.is_some() {
            return context.check_no_capture("a copy between the device and pageable memory");
        }
        Ok(())
    }
}
