//! Which device: the only place, besides the conformance crate, that names the vendors' features.

use std::str::FromStr;

use engine_core::Error;
use engine_core::backend::{Backend, Capabilities, Unavailable};
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
                status: match device.capabilities() {
                    Ok(capabilities) => DeviceStatus::Available(capabilities),
                    Err(error) => DeviceStatus::Unavailable { reason: error.to_string() },
                },
            })
            .collect()
    }

    /// Devices of this build, best first.
    fn known() -> Vec<Device> {
        vec![
            #[cfg(feature = "cpu")]
            Device::Cpu,
            Device::Reference,
        ]
    }

    fn resolve(self) -> Device {
        match self {
            Device::Auto => {
                Self::known().into_iter().find(|device| device.capabilities().is_ok()).unwrap_or(Device::Reference)
            }
            chosen => chosen,
        }
    }
}

/// Does something with the backend of a device, whatever its type.
trait WithBackend {
    type Output;
    fn with<B: Backend>(self, backend: B) -> Result<Self::Output, Error>;
}

fn with_backend<W: WithBackend>(device: Device, action: W) -> Result<W::Output, Error> {
    match device.resolve() {
        #[cfg(feature = "cpu")]
        Device::Cpu => action.with(backend_cpu::CpuBackend::new(backend_cpu::CpuOptions::default())?),
        Device::Auto | Device::Reference => action.with(ReferenceBackend::new(Numerics::default())),
    }
}

impl WithBackend for Loader<'_> {
    type Output = Box<dyn StepRunner>;
    fn with<B: Backend>(self, backend: B) -> Result<Self::Output, Error> {
        self.load(backend)
    }
}

struct ReadCapabilities;

impl WithBackend for ReadCapabilities {
    type Output = Capabilities;
    fn with<B: Backend>(self, backend: B) -> Result<Capabilities, Error> {
        Ok(backend.capabilities().clone())
    }
}

impl OpenDevice for Device {
    fn open(&self, loader: Loader<'_>) -> Result<Box<dyn StepRunner>, Error> {
        with_backend(*self, loader)
    }

    fn capabilities(&self) -> Result<Capabilities, Error> {
        with_backend(*self, ReadCapabilities)
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Device::Auto => "auto",
            #[cfg(feature = "cpu")]
            Device::Cpu => "cpu",
            Device::Reference => "reference",
        })
    }
}

impl FromStr for Device {
    type Err = Unavailable;

    /// `auto`, or a name of [`Device::available`].
    fn from_str(name: &str) -> Result<Self, Unavailable> {
        let known = [Device::Auto].into_iter().chain(Device::known());
        if let Some(device) = known.clone().find(|device| device.to_string() == name) {
            return Ok(device);
        }
        let names: Vec<String> = known.map(|device| device.to_string()).collect();
        Err(Unavailable {
            device: name.to_owned(),
            reason: format!("this build knows {}; other vendors are cargo features", names.join(", ")),
        })
    }
}
