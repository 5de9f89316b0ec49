//! A device of wgpu with its limits, its memory account, and what went wrong on it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine_core::backend::{PrepareError, StepError, Unsupported};

use crate::kernels::Tuning;

/// What an error on the device leaves behind.
#[derive(Debug, Default)]
struct Failure {
    happened: AtomicBool,
    error: Mutex<Option<StepError>>,
}

impl Failure {
    fn lock(&self) -> MutexGuard<'_, Option<StepError>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first error that is fatal stays; one that is not gives way to it.
    fn record(&self, error: StepError) {
        let mut slot = self.lock();
        if !slot.as_ref().is_some_and(StepError::is_fatal) {
            *slot = Some(error);
        }
        self.happened.store(true, Ordering::Release);
    }

    /// The error, if any; one that is not fatal is reported once.
    fn check(&self) -> Result<(), StepError> {
        if !self.happened.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut slot = self.lock();
        let Some(error) = slot.clone() else { return Ok(()) };
        if !error.is_fatal() {
            *slot = None;
            self.happened.store(false, Ordering::Release);
        }
        Err(error)
    }
}

/// What was made on a device, and handed to it, since it was opened. A step like the one before makes nothing and is
/// one submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WgpuCounts {
    /// Buffers made, freed ones included.
    pub buffers: u64,
    /// Bind groups made, freed ones included.
    pub bind_groups: u64,
    /// Kernels compiled.
    pub pipelines: u64,
    /// Submissions of recorded kernels.
    pub submissions: u64,
}

/// Behind [`WgpuCounts`]; buffers are counted by their ids.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) bind_groups: AtomicU64,
    pub(crate) pipelines: AtomicU64,
    pub(crate) submissions: AtomicU64,
}

/// An open device.
#[derive(Debug)]
pub(crate) struct Gpu {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) tuning: Tuning,
    pub(crate) counters: Counters,
    name: String,
    max_binding_bytes: u64,
    memory_limit_bytes: Option<u64>,
    allocated_bytes: AtomicU64,
    next_id: AtomicU64,
    num_drops: AtomicU64,
    failure: Arc<Failure>,
}

/// What [`Gpu::new`] takes beside the device.
pub(crate) struct GpuFacts {
    pub(crate) name: String,
    pub(crate) tuning: Tuning,
    pub(crate) max_binding_bytes: u64,
    pub(crate) memory_limit_bytes: Option<u64>,
}

impl Gpu {
    pub(crate) fn new(device: wgpu::Device, queue: wgpu::Queue, facts: GpuFacts) -> Arc<Self> {
        let failure = Arc::new(Failure::default());
        let GpuFacts { name, tuning, max_binding_bytes, memory_limit_bytes } = facts;
        let (on_loss, lost_name) = (failure.clone(), name.clone());
        device.set_device_lost_callback(move |reason, message| {
            let reason = format!("{reason:?}: {message}");
            on_loss.record(StepError::DeviceLost { device: lost_name.clone(), reason });
        });
        let (on_error, error_name) = (failure.clone(), name.clone());
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            on_error.record(step_error(&error_name, "the work of a step", 0, &error));
        }));
        Arc::new(Self {
            device,
            queue,
            tuning,
            counters: Counters::default(),
            name,
            max_binding_bytes,
            memory_limit_bytes,
            allocated_bytes: AtomicU64::new(0),
            next_id: AtomicU64::new(0),
            num_drops: AtomicU64::new(0),
            failure,
        })
    }

    /// Name for messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Largest buffer that one binding can show to a kernel, in bytes.
    pub(crate) fn max_binding_bytes(&self) -> u64 {
        self.max_binding_bytes
    }

    /// Bytes of all live buffers.
    pub(crate) fn allocated_bytes(&self) -> u64 {
        self.allocated_bytes.load(Ordering::Relaxed)
    }

    /// What was made and submitted so far.
    pub(crate) fn counts(&self) -> WgpuCounts {
        let Counters { bind_groups, pipelines, submissions } = &self.counters;
        WgpuCounts {
            buffers: self.next_id.load(Ordering::Relaxed),
            bind_groups: bind_groups.load(Ordering::Relaxed),
            pipelines: pipelines.load(Ordering::Relaxed),
            submissions: submissions.load(Ordering::Relaxed),
        }
    }

    /// Changes whenever a buffer is freed.
    pub(crate) fn num_drops(&self) -> u64 {
        self.num_drops.load(Ordering::Acquire)
    }

    /// What went wrong on the device since the last look.
    pub(crate) fn check(&self) -> Result<(), StepError> {
        self.failure.check()
    }

    /// Waits for everything submitted.
    pub(crate) fn wait(&self) -> Result<(), StepError> {
        self.device.poll(wgpu::PollType::wait_indefinitely()).map(|_| ()).map_err(|error| {
            let lost = StepError::DeviceLost { device: self.name.clone(), reason: error.to_string() };
            self.record(lost.clone());
            lost
        })
    }

    /// Submits queued writes and waits for them.
    pub(crate) fn drain(&self) -> Result<(), StepError> {
        self.queue.submit([]);
        self.wait()?;
        self.check()
    }

    fn record(&self, error: StepError) {
        self.failure.record(error);
    }

    /// Memory that kernels read and write.
    pub(crate) fn storage(self: &Arc<Self>, num_bytes: u64, what: &str) -> Result<WgpuBuffer, StepError> {
        use wgpu::BufferUsages as Usage;
        if num_bytes > self.max_binding_bytes {
            let what = format!("{what} (this device binds at most {} bytes at once)", self.max_binding_bytes);
            return Err(StepError::OutOfMemory { device: self.name.clone(), what, requested_bytes: num_bytes });
        }
        self.buffer(num_bytes, Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST, what)
    }

    /// Memory for `usage`; never empty, so that it can be bound.
    pub(crate) fn buffer(
        self: &Arc<Self>,
        num_bytes: u64,
        usage: wgpu::BufferUsages,
        what: &str,
    ) -> Result<WgpuBuffer, StepError> {
        self.check()?;
        let size = num_bytes.max(16).next_multiple_of(4);
        let before = self.allocated_bytes.fetch_add(size, Ordering::Relaxed);
        let free = |error| {
            self.allocated_bytes.fetch_sub(size, Ordering::Relaxed);
            Err(error)
        };
        if self.memory_limit_bytes.is_some_and(|limit| before + size > limit) {
            let limit = self.memory_limit_bytes.unwrap_or_default();
            let what = format!("{what} ({before} of at most {limit} bytes are taken)");
            return free(StepError::OutOfMemory { device: self.name.clone(), what, requested_bytes: size });
        }
        let full = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let invalid = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let raw =
            self.device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false });
        let invalid = pollster::block_on(invalid.pop());
        let full = pollster::block_on(full.pop());
        if let Some(error) = full.or(invalid) {
            return free(step_error(&self.name, what, size, &error));
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        Ok(WgpuBuffer { raw, id, size, gpu: self.clone() })
    }

    /// Memory that holds `data`.
    pub(crate) fn constant(self: &Arc<Self>, data: &[u8], what: &str) -> Result<WgpuBuffer, StepError> {
        let buffer = self.storage(data.len() as u64, what)?;
        self.queue.write_buffer(&buffer.raw, 0, data);
        Ok(buffer)
    }

    /// A refusal in this device's name.
    pub(crate) fn unsupported(&self, what: String, reason: String, action: &str) -> PrepareError {
        let action = action.to_owned();
        PrepareError::Unsupported(Unsupported { backend: self.name.clone(), what, reason, action })
    }
}

fn step_error(device: &str, what: &str, requested_bytes: u64, error: &wgpu::Error) -> StepError {
    let device = device.to_owned();
    match error {
        // A buffer larger than any the device makes is a validation error while it is made.
        wgpu::Error::Validation { .. } if requested_bytes == 0 => {
            StepError::DeviceLost { device, reason: error.to_string() }
        }
        wgpu::Error::OutOfMemory { .. } | wgpu::Error::Validation { .. } => {
            StepError::OutOfMemory { device, what: what.to_owned(), requested_bytes }
        }
        wgpu::Error::Internal { .. } => StepError::DeviceLost { device, reason: error.to_string() },
    }
}

/// Device memory; freed when dropped.
#[derive(Debug)]
pub struct WgpuBuffer {
    pub(crate) raw: wgpu::Buffer,
    /// Unique on its device.
    pub(crate) id: u64,
    pub(crate) size: u64,
    pub(crate) gpu: Arc<Gpu>,
}

impl Drop for WgpuBuffer {
    fn drop(&mut self) {
        self.gpu.allocated_bytes.fetch_sub(self.size, Ordering::Relaxed);
        self.gpu.num_drops.fetch_add(1, Ordering::Release);
    }
}
