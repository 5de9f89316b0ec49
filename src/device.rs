//! Which device: the only place, besides the conformance crate, that names the vendors' features.

use std::str::FromStr;

use engine_core::Error;
use engine_core::backend::{Backend, Capabilities, PrepareError, Rank, Unavailable};
use engine_core::engine::{Loader, OpenDevice};
use engine_core::reference::{Numerics, ReferenceBackend};
use engine_core::runner::StepRunner;
use serde::Serialize;

/// A device to run on. Variants of vendors that were not compiled in still exist as names ([`Device::from_str`] says
/// so), so that configuration files stay portable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Device {
    /// The best device there is.
    #[default]
    Auto,
    /// The CPU.
    #[cfg(feature = "cpu")]
    Cpu,
    /// An NVIDIA GPU, by its number.
    #[cfg(feature = "cuda")]
    Cuda(u32),
    /// An AMD GPU, by its number.
    #[cfg(feature = "rocm")]
    Rocm(u32),
    /// A Huawei Ascend NPU, by its number.
    #[cfg(feature = "ascend")]
    Ascend(u32),
    /// A GPU through Vulkan, Metal or DirectX 12: the best adapter, or the one of this number.
    #[cfg(feature = "wgpu")]
    Wgpu(Option<usize>),
    /// The scalar specification: slow, for comparison.
    Reference,
}

/// A device and whether it can be used.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceInfo {
    /// Name for `--device`.
    pub name: String,
    /// What it can do, or why it cannot be used.
    #[serde(flatten)]
    pub status: DeviceStatus,
}

/// Whether a device can be used.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum DeviceStatus {
    /// It can.
    Available(Capabilities),
    /// It cannot.
    Unavailable {
        /// Why, and what to do.
        reason: String,
    },
}

impl Device {
    /// Every device this build knows, usable or not, best first.
    pub fn available() -> Vec<DeviceInfo> {
        Self::known()
            .into_iter()
            .map(|device| DeviceInfo {
                name: device.to_string(),
                status: match device.capabilities(1) {
                    Ok(capabilities) => DeviceStatus::Available(capabilities),
                    Err(error) => DeviceStatus::Unavailable { reason: error.to_string() },
                },
            })
            .collect()
    }

    /// Devices of this build, best first: a software adapter is slower than the CPU it runs on.
    fn known() -> Vec<Device> {
        #[cfg(feature = "wgpu")]
        let (gpus, software) = adapters();
        let mut known = Vec::new();
        // Where none can be used, the first one says why: after the CPU.
        #[cfg(feature = "cuda")]
        let num_cuda = backend_cuda::num_devices().unwrap_or(0);
        #[cfg(feature = "cuda")]
        known.extend((0..num_cuda).map(Device::Cuda));
        #[cfg(feature = "rocm")]
        let num_rocm = backend_rocm::num_devices(None).unwrap_or(0);
        #[cfg(feature = "rocm")]
        known.extend((0..num_rocm).map(Device::Rocm));
        #[cfg(feature = "ascend")]
        let num_ascend = backend_ascend::num_devices().unwrap_or(0);
        #[cfg(feature = "ascend")]
        known.extend((0..num_ascend).map(Device::Ascend));
        #[cfg(feature = "wgpu")]
        known.extend(gpus);
        #[cfg(feature = "cpu")]
        known.push(Device::Cpu);
        #[cfg(feature = "wgpu")]
        known.extend(software);
        #[cfg(feature = "cuda")]
        known.extend((num_cuda == 0).then_some(Device::Cuda(0)));
        #[cfg(feature = "rocm")]
        known.extend((num_rocm == 0).then_some(Device::Rocm(0)));
        #[cfg(feature = "ascend")]
        known.extend((num_ascend == 0).then_some(Device::Ascend(0)));
        known.push(Device::Reference);
        known
    }

    fn resolve(self) -> Device {
        match self {
            Device::Auto => {
                Self::known().into_iter().find(|device| device.capabilities(1).is_ok()).unwrap_or(Device::Reference)
            }
            chosen => chosen,
        }
    }
}

/// Adapters that are GPUs and adapters that are not; without any, the device that says why.
#[cfg(feature = "wgpu")]
fn adapters() -> (Vec<Device>, Vec<Device>) {
    let adapters = backend_wgpu::WgpuBackend::adapters();
    if adapters.is_empty() {
        return (Vec::new(), vec![Device::Wgpu(None)]);
    }
    let device = |(index, _)| Device::Wgpu(Some(index));
    let (software, gpus): (Vec<_>, Vec<_>) =
        adapters.iter().enumerate().partition(|(_, adapter)| adapter.is_software());
    (gpus.into_iter().map(device).collect(), software.into_iter().map(device).collect())
}

/// Does something with the backends of a group of devices, whatever their type.
trait WithBackends {
    type Output;
    fn with<B: Backend>(self, backends: Vec<B>) -> Result<Self::Output, Error>;
}

/// Opens `world_size` devices of a kind: this one and those that follow it.
fn with_backends<W: WithBackends>(device: Device, world_size: usize, action: W) -> Result<W::Output, Error> {
    match device.resolve() {
        #[cfg(feature = "cpu")]
        Device::Cpu => action.with(backend_cpu::CpuBackend::group(world_size, &backend_cpu::CpuOptions::default())?),
        #[cfg(feature = "cuda")]
        Device::Cuda(ordinal) => {
            let ordinals = ordinals(ordinal, world_size);
            action.with(backend_cuda::open_group(&ordinals, backend_cuda::CudaOptions::default())?)
        }
        #[cfg(feature = "rocm")]
        Device::Rocm(ordinal) => {
            let ordinals = ordinals(ordinal, world_size);
            action.with(backend_rocm::open_group(&ordinals, &backend_rocm::RocmOptions::default())?)
        }
        #[cfg(feature = "ascend")]
        Device::Ascend(ordinal) => {
            action.with(backend_ascend::AscendBackend::open_group(&ordinals(ordinal, world_size))?)
        }
        #[cfg(feature = "wgpu")]
        Device::Wgpu(adapter) => action.with(wgpu_group(adapter, world_size)?),
        Device::Auto | Device::Reference => {
            let backend = |rank| ReferenceBackend::new(Numerics::default()).with_rank(rank);
            action.with(Rank::group(world_size).into_iter().map(backend).collect())
        }
    }
}

/// A device's number and those that follow it.
#[cfg(any(feature = "ascend", feature = "cuda", feature = "rocm"))]
fn ordinals(first: u32, world_size: usize) -> Vec<u32> {
    (first..).take(world_size).collect()
}

/// The adapter of this number, or the best one, and those that follow it.
#[cfg(feature = "wgpu")]
fn wgpu_group(adapter: Option<usize>, world_size: usize) -> Result<Vec<backend_wgpu::WgpuBackend>, Error> {
    use backend_wgpu::{WgpuBackend, WgpuOptions};
    let open = |(index, rank): (usize, Rank)| {
        // Alone, the backend chooses.
        let adapter = if world_size == 1 { adapter } else { Some(adapter.unwrap_or(0) + index) };
        Ok(WgpuBackend::new(&WgpuOptions { adapter, ..Default::default() })?.with_rank(rank))
    };
    Rank::group(world_size).into_iter().enumerate().map(open).collect()
}

impl WithBackends for Loader<'_> {
    type Output = Box<dyn StepRunner>;
    fn with<B: Backend>(self, backends: Vec<B>) -> Result<Self::Output, Error> {
        self.load(backends)
    }
}

struct ReadCapabilities;

impl WithBackends for ReadCapabilities {
    type Output = Capabilities;
    fn with<B: Backend>(self, backends: Vec<B>) -> Result<Capabilities, Error> {
        let capabilities: Vec<_> = backends.iter().map(Backend::capabilities).collect();
        Ok(Capabilities::of_group(&capabilities).map_err(PrepareError::from)?)
    }
}

impl OpenDevice for Device {
    fn open(&self, loader: Loader<'_>) -> Result<Box<dyn StepRunner>, Error> {
        let world_size = loader.tensor_parallel_size();
        with_backends(*self, world_size, loader)
    }

    fn capabilities(&self, world_size: usize) -> Result<Capabilities, Error> {
        with_backends(*self, world_size, ReadCapabilities)
    }

    fn num_devices(&self) -> usize {
        match *self {
            // The best one that is listed, without opening any.
            Device::Auto => Self::known().first().map_or(1, Self::num_devices),
            #[cfg(feature = "cuda")]
            Device::Cuda(first) => backend_cuda::num_devices().unwrap_or(0).saturating_sub(first) as usize,
            #[cfg(feature = "rocm")]
            Device::Rocm(first) => backend_rocm::num_devices(None).unwrap_or(0).saturating_sub(first) as usize,
            #[cfg(feature = "ascend")]
            Device::Ascend(first) => backend_ascend::num_devices().unwrap_or(0).saturating_sub(first) as usize,
            #[cfg(feature = "wgpu")]
            Device::Wgpu(_) => 1,
            // Ranks on the CPU and of the reference share its memory.
            #[cfg(feature = "cpu")]
            Device::Cpu => 1,
            Device::Reference => 1,
        }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Device::Auto => f.pad("auto"),
            #[cfg(feature = "cpu")]
            Device::Cpu => f.pad("cpu"),
            #[cfg(feature = "cuda")]
            Device::Cuda(ordinal) => f.pad(&format!("cuda:{ordinal}")),
            #[cfg(feature = "rocm")]
            Device::Rocm(ordinal) => f.pad(&format!("rocm:{ordinal}")),
            #[cfg(feature = "ascend")]
            Device::Ascend(ordinal) => f.pad(&format!("ascend:{ordinal}")),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(None) => f.pad("wgpu"),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(Some(index)) => f.pad(&format!("wgpu:{index}")),
            Device::Reference => f.pad("reference"),
        }
    }
}

impl FromStr for Device {
    type Err = Unavailable;

    /// `auto`, or a name of [`Device::available`]; devices with a number also go by their name alone.
    fn from_str(name: &str) -> Result<Self, Unavailable> {
        #[cfg(feature = "cuda")]
        if let Some(ordinal) = number_after("cuda", name)? {
            return Ok(Device::Cuda(ordinal));
        }
        #[cfg(feature = "rocm")]
        if let Some(ordinal) = number_after("rocm", name)? {
            return Ok(Device::Rocm(ordinal));
        }
        #[cfg(feature = "ascend")]
        if let Some(ordinal) = number_after("ascend", name)? {
            return Ok(Device::Ascend(ordinal));
        }
        #[cfg(feature = "wgpu")]
        if let Some(index) = number_after("wgpu", name)? {
            return Ok(Device::Wgpu(Some(index)));
        }
        let named = [
            Device::Auto,
            #[cfg(feature = "cpu")]
            Device::Cpu,
            #[cfg(feature = "cuda")]
            Device::Cuda(0),
            #[cfg(feature = "rocm")]
            Device::Rocm(0),
            #[cfg(feature = "ascend")]
            Device::Ascend(0),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(None),
            Device::Reference,
        ];
        let is_named = |device: &Device| device.to_string().trim_end_matches(":0") == name;
        if let Some(device) = named.into_iter().find(is_named) {
            return Ok(device);
        }
        let names = named.map(|device| device.to_string()).join(", ");
        let reason = format!("this build knows {names}; other vendors are cargo features");
        Err(Unavailable { device: name.to_owned(), reason })
    }
}

/// The number in `VENDOR:NUMBER`.
#[cfg(any(feature = "ascend", feature = "cuda", feature = "rocm", feature = "wgpu"))]
fn number_after<N: FromStr>(vendor: &str, name: &str) -> Result<Option<N>, Unavailable> {
    let Some(number) = name.strip_prefix(vendor).and_then(|rest| rest.strip_prefix(':')) else { return Ok(None) };
    let reason = format!("{number:?} is no device's number; `bathysphere devices` lists them");
    number.parse().map(Some).map_err(|_| Unavailable { device: name.to_owned(), reason })
}
