//! Finding and opening an adapter.

use std::sync::Arc;

use engine_core::backend::Unavailable;
use wgpu::{Backends, DeviceType, Features};

use crate::gpu::{Gpu, GpuFacts};
use crate::kernels::Tuning;
use crate::options::{MatmulStyle, WgpuOptions};

/// Size of subgroup for which kernels share loads by broadcast.
const SHARED_SUBGROUP: u32 = 8;

/// An adapter of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterDescription {
    /// As its maker calls it.
    pub name: String,
    /// Graphics API: `vulkan`, `metal`, `dx12`.
    pub api: String,
    /// Driver and its version.
    pub driver: String,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub kind: &'static str,
    /// Largest buffer a kernel can see at once, in bytes.
    pub max_binding_bytes: u64,
    /// Largest buffer, in bytes.
    pub max_buffer_bytes: u64,
    /// Workgroup memory, in bytes.
    pub max_workgroup_bytes: u32,
    /// Sizes of a subgroup, where the adapter has subgroup operations.
    pub subgroups: Option<(u32, u32)>,
}

impl AdapterDescription {
    /// True for a driver that computes on the CPU.
    pub fn is_software(&self) -> bool {
        self.kind == kind(DeviceType::Cpu)
    }

    fn new(adapter: &wgpu::Adapter) -> Self {
        let (info, limits) = (adapter.get_info(), adapter.limits());
        let driver = format!("{} {}", info.driver, info.driver_info).trim().to_owned();
        let subgroups = adapter.features().contains(Features::SUBGROUP);
        Self {
            name: info.name,
            api: info.backend.to_str().to_owned(),
            driver,
            kind: kind(info.device_type),
            max_binding_bytes: limits.max_storage_buffer_binding_size,
            max_buffer_bytes: limits.max_buffer_size,
            max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
            subgroups: subgroups.then_some((info.subgroup_min_size, info.subgroup_max_size)),
        }
    }
}

fn kind(device: DeviceType) -> &'static str {
    match device {
        DeviceType::DiscreteGpu => "discrete",
        DeviceType::IntegratedGpu => "integrated",
        DeviceType::VirtualGpu => "virtual",
        DeviceType::Cpu => "software",
        DeviceType::Other => "other",
    }
}

/// Order of preference.
fn rank(device: DeviceType) -> usize {
    match device {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    }
}

/// Adapters of this machine, best first.
fn enumerate() -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = Backends::PRIMARY;
    // Neither validation layers nor names of objects: the kernels are validated by wgpu itself.
    descriptor.flags = wgpu::InstanceFlags::empty();
    let instance = wgpu::Instance::new(descriptor);
    let mut adapters = pollster::block_on(instance.enumerate_adapters(Backends::PRIMARY));
    adapters.sort_by_key(|adapter| rank(adapter.get_info().device_type));
    adapters
}

/// Adapters of this machine, best first.
pub(crate) fn describe_all() -> Vec<AdapterDescription> {
    enumerate().iter().map(AdapterDescription::new).collect()
}

/// Opens the adapter that the options ask for.
pub(crate) fn open(options: &WgpuOptions) -> Result<(Arc<Gpu>, AdapterDescription), Unavailable> {
    let device = options.adapter.map_or("wgpu".to_owned(), |index| format!("wgpu:{index}"));
    let unavailable = |reason: String| Unavailable { device: device.clone(), reason };
    let mut adapters = enumerate();
    let index = options.adapter.unwrap_or(0);
    if adapters.is_empty() {
        return Err(unavailable(
            "no adapter found: install a driver for Vulkan, Metal or DirectX 12 (on Linux without a GPU, \
             mesa-vulkan-drivers brings a software one)"
                .into(),
        ));
    }
    if index >= adapters.len() {
        let last = adapters.len() - 1;
        return Err(unavailable(format!("there is no adapter {index}, they are numbered 0 to {last}")));
    }
    let adapter = adapters.swap_remove(index);
    let description = AdapterDescription::new(&adapter);
    check(&adapter).map_err(unavailable)?;
    let wanted = if options.subgroups == Some(false) { Features::empty() } else { Features::SUBGROUP };
    let cache = if options.pipeline_cache.is_some() { Features::PIPELINE_CACHE } else { Features::empty() };
    let features = adapter.features() & (wanted | cache);
    let request = wgpu::DeviceDescriptor {
        label: None,
        required_features: features,
        required_limits: adapter.limits(),
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        ..Default::default()
    };
    let (raw, queue) =
        pollster::block_on(adapter.request_device(&request)).map_err(|error| unavailable(error.to_string()))?;
    let has_subgroups = features.contains(Features::SUBGROUP);
    let shares = description.subgroups == Some((SHARED_SUBGROUP, SHARED_SUBGROUP)) && has_subgroups;
    let best = if description.is_software() { MatmulStyle::Lanes } else { MatmulStyle::Tiles };
    let tuning = Tuning {
        matmul: options.matmul.unwrap_or(best),
        subgroups: has_subgroups,
        share: if shares { SHARED_SUBGROUP } else { 0 },
    };
    let adapter_limit = description.max_binding_bytes.min(description.max_buffer_bytes);
    let facts = GpuFacts {
        name: format!("wgpu ({})", description.name),
        tuning,
        max_binding_bytes: options.max_binding_bytes.unwrap_or(u64::MAX).min(adapter_limit),
        memory_limit_bytes: options.memory_limit_bytes,
    };
    Ok((Gpu::new(raw, queue, facts), description))
}

/// What every kernel relies on.
fn check(adapter: &wgpu::Adapter) -> Result<(), String> {
    let limits = adapter.limits();
    for (limit, has, needed) in [
        ("max_compute_invocations_per_workgroup", limits.max_compute_invocations_per_workgroup, 256),
        ("max_compute_workgroup_size_x", limits.max_compute_workgroup_size_x, 256),
        ("max_compute_workgroup_storage_size", limits.max_compute_workgroup_storage_size, 16 << 10),
        ("max_storage_buffers_per_shader_stage", limits.max_storage_buffers_per_shader_stage, 8),
        ("max_compute_workgroups_per_dimension", limits.max_compute_workgroups_per_dimension, 65_535),
    ] {
        if has < needed {
            return Err(format!("its {limit} is {has}, {needed} is needed: choose another adapter"));
        }
    }
    Ok(())
}
