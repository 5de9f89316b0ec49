//! What is emulated: the device, its driver, and the faults to inject.

use std::collections::BTreeMap;

/// Environment variables that this library reads. Nothing else of the project does.
pub const VARIABLES: [&str; 5] = [PROFILE, DEVICES, DRIVER, MEMORY, FAULT];
/// `sm_80`, `sm_89` or `sm_90`.
pub const PROFILE: &str = "CUDA_EMULATOR_PROFILE";
/// Number of devices, 0 to 2.
pub const DEVICES: &str = "CUDA_EMULATOR_DEVICES";
/// What `cuDriverGetVersion` says: 12090 is 12.9.
pub const DRIVER: &str = "CUDA_EMULATOR_DRIVER";
/// Device memory in bytes.
pub const MEMORY: &str = "CUDA_EMULATOR_MEMORY";
/// `alloc:N`, `launch:N` or `lost:N`: the N-th allocation or launch fails, the device is gone from the N-th call on.
/// `kernel:NAME`: every launch of a kernel whose name begins so fails, which shows who uses it.
pub const FAULT: &str = "CUDA_EMULATOR_FAULT";

/// Limits of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) name: &'static str,
    /// Times ten.
    pub(crate) compute_capability: u32,
    pub(crate) num_multiprocessors: u32,
    /// Shared memory per block that a kernel may be allowed, static and dynamic, in bytes.
    pub(crate) max_shared_bytes: u32,
}

/// From the compute capability table of NVIDIA's programming guide; multiprocessors of A100, L40S and H100 SXM.
pub(crate) const PROFILES: [Profile; 3] = [
    Profile { name: "sm_80", compute_capability: 80, num_multiprocessors: 108, max_shared_bytes: 163 << 10 },
    Profile { name: "sm_89", compute_capability: 89, num_multiprocessors: 142, max_shared_bytes: 99 << 10 },
    Profile { name: "sm_90", compute_capability: 90, num_multiprocessors: 132, max_shared_bytes: 227 << 10 },
];

/// Limits that all generations share.
pub(crate) const MAX_THREADS: u32 = 1024;
pub(crate) const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];
pub(crate) const MAX_GRID: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];
pub(crate) const MAX_REGISTERS: u32 = 65_536;
/// Shared memory per block that needs no permission, in bytes.
pub(crate) const DEFAULT_SHARED_BYTES: u32 = 48 << 10;

/// What goes wrong on purpose. Counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Allocation(u64),
    Launch(u64),
    DeviceLost(u64),
    Kernel(&'static str),
}

/// One emulated machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) profile: Profile,
    pub(crate) num_devices: u32,
    pub(crate) driver_version: i32,
    pub(crate) memory_bytes: u64,
    pub(crate) fault: Option<Fault>,
}

impl Default for Config {
    fn default() -> Self {
        Self { profile: PROFILES[2], num_devices: 1, driver_version: 12_090, memory_bytes: 4 << 30, fault: None }
    }
}

impl Config {
    /// From the environment.
    pub(crate) fn from_environment() -> Result<Self, String> {
        let set = VARIABLES.into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?)));
        Self::parse(&set.collect())
    }

    fn parse(variables: &BTreeMap<&str, String>) -> Result<Self, String> {
        let mut config = Self::default();
        for (&name, value) in variables {
            let wrong = |wanted: &str| format!("{name}={value}: not {wanted}");
            match name {
                PROFILE => {
                    config.profile = *PROFILES
                        .iter()
                        .find(|profile| profile.name == value)
                        .ok_or_else(|| wrong("sm_80, sm_89 or sm_90"))?;
                }
                DEVICES => {
                    config.num_devices =
                        value.parse().ok().filter(|count| *count <= 2).ok_or_else(|| wrong("0, 1 or 2"))?;
                }
                DRIVER => config.driver_version = value.parse().map_err(|_| wrong("a version such as 12090"))?,
                MEMORY => config.memory_bytes = value.parse().map_err(|_| wrong("a number of bytes"))?,
                FAULT => {
                    config.fault =
                        Some(Fault::parse(value).ok_or_else(|| wrong("alloc:N, launch:N, lost:N or kernel:NAME"))?)
                }
                _ => {}
            }
        }
        Ok(config)
    }
}

impl Fault {
    fn parse(text: &str) -> Option<Self> {
        let (kind, count) = text.split_once(':')?;
        if kind == "kernel" {
            // There is one configuration per process, which holds it to its end.
            return (!count.is_empty()).then(|| Self::Kernel(String::leak(count.to_owned())));
        }
        let count = count.parse().ok().filter(|count| *count > 0)?;
        Some(match kind {
            "alloc" => Self::Allocation(count),
            "launch" => Self::Launch(count),
            "lost" => Self::DeviceLost(count),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parse(variables: &[(&'static str, &str)]) -> Result<Config, String> {
        Config::parse(&variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
    }

    #[test]
    fn variables_choose_the_machine() {
        let config = parse(&[(PROFILE, "sm_89"), (DEVICES, "2"), (MEMORY, "1000"), (FAULT, "launch:3")]).unwrap();
        assert_eq!(config.profile.compute_capability, 89);
        assert_eq!((config.num_devices, config.memory_bytes), (2, 1000));
        assert_eq!(config.fault, Some(Fault::Launch(3)));
        assert_eq!(parse(&[]).unwrap(), Config::default());
    }

    #[test]
    fn what_it_does_not_understand_it_refuses() {
        for variable in [(PROFILE, "sm_75"), (DEVICES, "3"), (DRIVER, "new"), (FAULT, "alloc"), (FAULT, "alloc:0")] {
            let error = parse(&[variable]).unwrap_err();
            assert!(error.contains(variable.0) && error.contains(variable.1), "{error}");
        }
    }
}
