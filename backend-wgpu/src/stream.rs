//! An ordered queue of work: kernels are recorded and submitted together, at the latest when something is read.
//!
//! A step is one submission. Parameters of all its kernels go up in one write; bind groups and scratch memory are kept,
//! so that a step like the one before makes nothing new.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;

use engine_core::backend::StepError;

use crate::gpu::{Gpu, WgpuBuffer};
use crate::pipelines::{PARAMS_BYTES, Pipeline};
use crate::scratch::Scratch;

/// Distance of parameter blocks: no device asks for a larger alignment of uniform offsets.
const PARAMS_STRIDE: usize = 256;
/// Kernels recorded before they are submitted in any case.
const MAX_KERNELS: usize = 4096;
/// Small writes between kernels of one submission, in bytes.
const STAGING_BYTES: usize = 1 << 20;
/// Most that is read back at once, in bytes.
const READ_BACK_BYTES: usize = 32 << 20;
/// Storage bindings of a kernel at most.
const MAX_BINDINGS: usize = 8;

/// Layout and buffers of a bind group.
type BindKey = (u64, [u64; MAX_BINDINGS]);

/// One kernel with everything it works on.
pub(crate) struct Dispatch<'a> {
    pub(crate) pipeline: &'a Pipeline,
    pub(crate) buffers: &'a [&'a WgpuBuffer],
    /// Bytes of the kernel's `Params`.
    pub(crate) params: &'a [u8],
    pub(crate) groups: [u32; 3],
}

/// A queue of work on one device, with the scratch memory its kernels share.
#[derive(Debug)]
pub struct WgpuStream {
    gpu: Arc<Gpu>,
    encoder: Option<wgpu::CommandEncoder>,
    pass: Option<wgpu::ComputePass<'static>>,
    params: Vec<u8>,
    params_buffer: WgpuBuffer,
    staging: WgpuBuffer,
    staged_bytes: usize,
    read_back: Option<WgpuBuffer>,
    bind_groups: HashMap<BindKey, wgpu::BindGroup>,
    drops_seen: u64,
    pub(crate) scratch: Scratch,
}

impl WgpuStream {
    pub(crate) fn new(gpu: &Arc<Gpu>) -> Result<Self, StepError> {
        use wgpu::BufferUsages as Usage;
        let params_bytes = (MAX_KERNELS * PARAMS_STRIDE) as u64;
        Ok(Self {
            encoder: None,
            pass: None,
            params: Vec::with_capacity(MAX_KERNELS * PARAMS_STRIDE),
            params_buffer: gpu.buffer(params_bytes, Usage::UNIFORM | Usage::COPY_DST, "kernel parameters")?,
            staging: gpu.buffer(STAGING_BYTES as u64, Usage::COPY_SRC | Usage::COPY_DST, "staging memory")?,
            staged_bytes: 0,
            read_back: None,
            bind_groups: HashMap::new(),
            drops_seen: gpu.num_drops(),
            scratch: Scratch::default(),
            gpu: gpu.clone(),
        })
    }

    /// The device.
    pub(crate) fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Records a kernel.
    pub(crate) fn dispatch(&mut self, dispatch: Dispatch<'_>) -> Result<(), StepError> {
        self.gpu.check()?;
        let Dispatch { pipeline, buffers, params, groups } = dispatch;
        debug_assert_eq!(params.len(), pipeline.params_bytes, "a kernel with another kernel's parameters");
        if self.params.len() == MAX_KERNELS * PARAMS_STRIDE {
            self.submit();
        }
        self.forget_dropped();
        let offset = self.params.len();
        self.params.extend_from_slice(params);
        self.params.resize(offset + PARAMS_STRIDE, 0);
        let key = bind_key(pipeline, buffers);
        let bind_group = self
            .bind_groups
            .entry(key)
            .or_insert_with(|| make_bind_group(&self.gpu, pipeline, buffers, &self.params_buffer));
        if self.pass.is_none() {
            let encoder = self.encoder.get_or_insert_with(|| new_encoder(&self.gpu.device));
            self.pass = Some(encoder.begin_compute_pass(&Default::default()).forget_lifetime());
        }
        if let Some(pass) = &mut self.pass {
            pass.set_pipeline(&pipeline.raw);
            pass.set_bind_group(0, &*bind_group, &[offset as u32]);
            pass.dispatch_workgroups(groups[0], groups[1], groups[2]);
        }
        Ok(())
    }

    /// Bind groups keep their buffers alive; those of freed buffers must go.
    fn forget_dropped(&mut self) {
        let drops = self.gpu.num_drops();
        if drops != self.drops_seen {
            self.drops_seen = drops;
            self.bind_groups.clear();
        }
    }

    /// Queues a copy of host bytes, ordered with the kernels.
    pub(crate) fn write(&mut self, buffer: &WgpuBuffer, offset: usize, data: &[u8]) -> Result<(), StepError> {
        self.gpu.check()?;
        if data.is_empty() {
            return Ok(());
        }
        if self.encoder.is_some() {
            if data.len() <= STAGING_BYTES - self.staged_bytes {
                // Kernels recorded before must still see the old bytes: the copy happens in their order.
                self.gpu.queue.write_buffer(&self.staging.raw, self.staged_bytes as u64, data);
                self.copy((self.staged_bytes, data.len()), buffer, offset);
                self.staged_bytes += data.len().next_multiple_of(4);
                return Ok(());
            }
            self.submit();
        }
        self.gpu.queue.write_buffer(&buffer.raw, offset as u64, data);
        Ok(())
    }

    fn copy(&mut self, (from, num_bytes): (usize, usize), to: &WgpuBuffer, offset: usize) {
        self.pass = None;
        let encoder = self.encoder.get_or_insert_with(|| new_encoder(&self.gpu.device));
        encoder.copy_buffer_to_buffer(&self.staging.raw, from as u64, &to.raw, offset as u64, num_bytes as u64);
    }

    /// Hands everything recorded to the device.
    pub(crate) fn submit(&mut self) {
        self.pass = None;
        let Some(encoder) = self.encoder.take() else { return };
        if !self.params.is_empty() {
            self.gpu.queue.write_buffer(&self.params_buffer.raw, 0, &self.params);
        }
        self.gpu.queue.submit([encoder.finish()]);
        self.gpu.counters.submissions.fetch_add(1, Ordering::Relaxed);
        self.params.clear();
        self.staged_bytes = 0;
    }

    /// Waits for everything queued.
    pub(crate) fn synchronize(&mut self) -> Result<(), StepError> {
        self.submit();
        self.gpu.drain()
    }

    /// Copies device bytes to the host, after everything queued before.
    pub(crate) fn read(&mut self, buffer: &WgpuBuffer, offset: usize, data: &mut [u8]) -> Result<(), StepError> {
        for (i, part) in data.chunks_mut(READ_BACK_BYTES).enumerate() {
            self.read_part(buffer, offset + i * READ_BACK_BYTES, part)?;
        }
        Ok(())
    }

    fn read_part(&mut self, buffer: &WgpuBuffer, offset: usize, data: &mut [u8]) -> Result<(), StepError> {
        use wgpu::BufferUsages as Usage;
        self.gpu.check()?;
        let num_bytes = data.len() as u64;
        let read_back = match self.read_back.take() {
            Some(memory) if memory.size >= num_bytes => memory,
            _ => {
                self.gpu.buffer(num_bytes.next_power_of_two(), Usage::MAP_READ | Usage::COPY_DST, "read-back memory")?
            }
        };
        self.pass = None;
        let encoder = self.encoder.get_or_insert_with(|| new_encoder(&self.gpu.device));
        encoder.copy_buffer_to_buffer(&buffer.raw, offset as u64, &read_back.raw, 0, num_bytes);
        self.submit();
        let slice = read_back.raw.slice(..num_bytes);
        let (sender, receiver) = channel();
        slice.map_async(wgpu::MapMode::Read, move |result| {
            // The receiver waits below; it is gone only if the wait has failed.
            let _ = sender.send(result);
        });
        self.gpu.wait()?;
        self.gpu.check()?;
        let lost = |reason: String| StepError::DeviceLost { device: self.gpu.name().to_owned(), reason };
        match receiver.try_recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(lost(error.to_string())),
            Err(error) => return Err(lost(format!("nothing came back: {error}"))),
        }
        let mapped = slice.get_mapped_range().map_err(|error| lost(error.to_string()))?;
        data.copy_from_slice(&mapped);
        drop(mapped);
        read_back.raw.unmap();
        self.read_back = Some(read_back);
        Ok(())
    }
}

fn new_encoder(device: &wgpu::Device) -> wgpu::CommandEncoder {
    device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None })
}

fn bind_key(pipeline: &Pipeline, buffers: &[&WgpuBuffer]) -> BindKey {
    let mut ids = [u64::MAX; MAX_BINDINGS];
    for (id, buffer) in ids.iter_mut().zip(buffers) {
        *id = buffer.id;
    }
    (pipeline.layout.id, ids)
}

fn make_bind_group(gpu: &Gpu, pipeline: &Pipeline, buffers: &[&WgpuBuffer], params: &WgpuBuffer) -> wgpu::BindGroup {
    let mut entries: Vec<_> = buffers
        .iter()
        .enumerate()
        .map(|(i, buffer)| wgpu::BindGroupEntry { binding: i as u32, resource: buffer.raw.as_entire_binding() })
        .collect();
    let params =
        wgpu::BufferBinding { buffer: &params.raw, offset: 0, size: wgpu::BufferSize::new(PARAMS_BYTES as u64) };
    let binding = entries.len() as u32;
    entries.push(wgpu::BindGroupEntry { binding, resource: wgpu::BindingResource::Buffer(params) });
    gpu.counters.bind_groups.fetch_add(1, Ordering::Relaxed);
    gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.layout.raw,
        entries: &entries,
    })
}
