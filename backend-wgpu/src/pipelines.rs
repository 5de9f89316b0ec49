//! Compiled kernels. Made while loading, shared by whoever asks for the same one.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use engine_core::backend::PrepareError;

use crate::gpu::Gpu;
use crate::kernels::Kernel;
use crate::pipeline_cache::PipelineCache;

/// Bytes of parameters a kernel may take.
pub(crate) const PARAMS_BYTES: usize = 128;

/// A compiled kernel.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) raw: wgpu::ComputePipeline,
    pub(crate) layout: Arc<Layout>,
    /// Bytes of the kernel's `Params`.
    pub(crate) params_bytes: usize,
}

/// The bindings of a kernel; kernels that bind alike share it.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) raw: wgpu::BindGroupLayout,
    pub(crate) id: u64,
}

/// All compiled kernels of a device.
#[derive(Debug, Default)]
pub(crate) struct Pipelines {
    made: Mutex<Made>,
    cache: Option<PipelineCache>,
}

#[derive(Debug, Default)]
struct Made {
    pipelines: HashMap<Kernel, Arc<Pipeline>>,
    layouts: HashMap<&'static str, Arc<Layout>>,
    /// Kernels made since the cache was last saved.
    num_unsaved: usize,
}

impl Pipelines {
    /// None yet; they will go through `cache`.
    pub(crate) fn new(cache: Option<PipelineCache>) -> Self {
        Self { made: Mutex::default(), cache }
    }

    /// Saves the cache if kernels were added to it. A cache that cannot be saved costs time at the next start, no more.
    pub(crate) fn save(&self) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(cache) = self.cache.as_ref().filter(|_| made.num_unsaved > 0) else { return };
        made.num_unsaved = 0;
        if let Err(error) = cache.save() {
            tracing::warn!(%error, "compiled kernels could not be saved");
        }
    }

    /// The compiled form of `kernel`, compiled now if it is the first time.
    ///
    /// # Errors
    /// [`PrepareError::Unsupported`] with the compiler's message; [`PrepareError::Device`] if the device is lost.
    pub(crate) fn get(&self, gpu: &Gpu, kernel: Kernel) -> Result<Arc<Pipeline>, PrepareError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = made.pipelines.get(&kernel) {
            return Ok(pipeline.clone());
        }
        gpu.check()?;
        let refuse = |reason: String| {
            gpu.unsupported(format!("the kernel {kernel:?}"), reason, "report it with the adapter's name and driver")
        };
        let source = kernel.wgsl(gpu.tuning).map_err(|error| refuse(error.to_string()))?;
        let layout = made.layout(gpu, kernel.bindings());
        let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let raw = compile(&gpu.device, &layout, source, self.cache.as_ref());
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(refuse(error.to_string()));
        }
        let pipeline = Arc::new(Pipeline { raw, layout, params_bytes: 4 * kernel.params().len() });
        gpu.counters.pipelines.fetch_add(1, Ordering::Relaxed);
        made.pipelines.insert(kernel, pipeline.clone());
        made.num_unsaved += 1;
        Ok(pipeline)
    }
}

impl Made {
    fn layout(&mut self, gpu: &Gpu, bindings: &'static str) -> Arc<Layout> {
        let id = self.layouts.len() as u64;
        self.layouts
            .entry(bindings)
            .or_insert_with(|| Arc::new(Layout { raw: bind_group_layout(&gpu.device, bindings), id }))
            .clone()
    }
}

fn bind_group_layout(device: &wgpu::Device, bindings: &str) -> wgpu::BindGroupLayout {
    let entry = |binding: usize, ty: wgpu::BufferBindingType, has_dynamic_offset: bool| wgpu::BindGroupLayoutEntry {
        binding: binding as u32,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None },
        count: None,
    };
    let storage = |read_only: bool| wgpu::BufferBindingType::Storage { read_only };
    let mut entries: Vec<_> =
        bindings.chars().enumerate().map(|(i, access)| entry(i, storage(access == 'r'), false)).collect();
    entries.push(entry(entries.len(), wgpu::BufferBindingType::Uniform, true));
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries })
}

fn compile(
    device: &wgpu::Device,
    layout: &Layout,
    source: String,
    cache: Option<&PipelineCache>,
) -> wgpu::ComputePipeline {
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(source.into()),
    });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&layout.raw)],
        immediate_size: 0,
    });
    let compilation_options = wgpu::PipelineCompilationOptions {
        // Every kernel writes workgroup memory before it reads it.
        zero_initialize_workgroup_memory: false,
        ..Default::default()
    };
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options,
        cache: cache.map(PipelineCache::raw),
    })
}
