//! Whether a device can be used, and if not, why.

use engine_core::backend::Unavailable;

use crate::driver::{self, Absence, Device, DriverError};
use crate::images;

/// First version of CUDA whose driver loads the images: 12.0, drivers 525 and later.
const MIN_VERSION: i32 = 12_000;
/// First version that knows Blackwell: 12.8, drivers 570 and later.
const MIN_VERSION_BLACKWELL: i32 = 12_080;

/// Why a device cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// There is no driver.
    NoDriver,
    /// The driver lacks a function that drivers new enough have.
    MissingFunction(&'static str),
    /// The driver is older than the images; versions as CUDA counts them (12090 is 12.9).
    OldDriver {
        /// What it implements.
        found: i32,
        /// What is needed at least.
        needed: i32,
    },
    /// The driver sees no device.
    NoDevice,
    /// There are fewer devices.
    NoSuchDevice {
        /// How many there are.
        count: u32,
    },
    /// There are no images for this generation.
    UnknownGeneration {
        /// Compute capability.
        major: u32,
        /// Compute capability.
        minor: u32,
    },
    /// The driver does not do what it should; its words.
    Failed(String),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version = |version: i32| format!("{}.{}", version / 1000, version % 1000 / 10);
        match self {
            Reason::NoDriver => {
                write!(f, "no NVIDIA driver: libcuda.so.1 cannot be loaded; install one of version 525 or later")
            }
            Reason::MissingFunction(name) => {
                write!(f, "the NVIDIA driver has no function {name}; install one of version 525 or later")
            }
            Reason::OldDriver { found, needed } => write!(
                f,
                "the NVIDIA driver implements CUDA {}, needed is {} or later; install a newer driver",
                version(*found),
                version(*needed)
            ),
            Reason::NoDevice => {
                write!(f, "the NVIDIA driver sees no device; check `nvidia-smi` and CUDA_VISIBLE_DEVICES")
            }
            Reason::NoSuchDevice { count } => {
                write!(f, "the NVIDIA driver sees {count} device{}, counted from 0", if *count == 1 { "" } else { "s" })
            }
            Reason::UnknownGeneration { major, minor } => {
                write!(f, "its compute capability is {major}.{minor}; there is device code for 8.x, 9.0, 10.0 and 12.0")
            }
            Reason::Failed(words) => write!(f, "the NVIDIA driver fails: {words}; check `nvidia-smi`"),
        }
    }
}

impl From<DriverError> for Reason {
    fn from(error: DriverError) -> Self {
        if error.is_no_device() { Reason::NoDevice } else { Reason::Failed(error.to_string()) }
    }
}

/// A device that can be used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usable {
    pub(crate) device: Device,
    pub(crate) compute_capability: (u32, u32),
    pub(crate) architecture: &'static str,
}

/// How many devices the driver sees.
///
/// # Errors
/// Why there is none that could be used.
pub fn num_devices() -> Result<u32, Reason> {
    driver::initialise().map_err(|absence| match absence {
        Absence::Library => Reason::NoDriver,
        Absence::Symbol(name) => Reason::MissingFunction(name),
        Absence::Failed(error) => error.into(),
    })?;
    let found = driver::version()?;
    if found < MIN_VERSION {
        return Err(Reason::OldDriver { found, needed: MIN_VERSION });
    }
    match Device::count()? {
        0 => Err(Reason::NoDevice),
        count => Ok(count),
    }
}

/// Checks that a device can be used, without allocating anything on it.
pub(crate) fn find(ordinal: u32) -> Result<Usable, Reason> {
    let count = num_devices()?;
    if ordinal >= count {
        return Err(Reason::NoSuchDevice { count });
    }
    let device = Device::get(ordinal)?;
    let compute_capability @ (major, minor) = device.compute_capability()?;
    let architecture = images::architecture(compute_capability).ok_or(Reason::UnknownGeneration { major, minor })?;
    let found = driver::version()?;
    if major >= 10 && found < MIN_VERSION_BLACKWELL {
        return Err(Reason::OldDriver { found, needed: MIN_VERSION_BLACKWELL });
    }
    Ok(Usable { device, compute_capability, architecture })
}

/// A reason, for users.
pub(crate) fn unavailable(ordinal: u32, reason: &Reason) -> Unavailable {
    Unavailable { device: format!("cuda:{ordinal}"), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_names_the_values_and_what_to_do() {
        for (reason, words) in [
            (Reason::NoDriver, ["libcuda.so.1", "525"]),
            (Reason::MissingFunction("cuGraphLaunch"), ["cuGraphLaunch", "525"]),
            (Reason::OldDriver { found: 11_080, needed: 12_000 }, ["11.8", "12.0"]),
            (Reason::NoDevice, ["no device", "CUDA_VISIBLE_DEVICES"]),
            (Reason::NoSuchDevice { count: 2 }, ["2 devices", "from 0"]),
            (Reason::UnknownGeneration { major: 7, minor: 5 }, ["7.5", "9.0"]),
            (Reason::Failed("cuInit answered X".into()), ["cuInit answered X", "nvidia-smi"]),
        ] {
            let text = unavailable(3, &reason).to_string();
            assert!(text.contains("cuda:3") && words.iter().all(|word| text.contains(word)), "{text}");
        }
    }
}
