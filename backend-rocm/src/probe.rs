//! Whether a device can be used, and if not, why.

use std::path::Path;

use engine_core::backend::Unavailable;

use crate::driver::{Absence, Device, HipError, Properties, PropertiesError, Runtime};
use crate::images::{self, ARCHITECTURES, Architecture};

/// First version of HIP that loads the images: ROCm 6.0.
const MIN_VERSION: i32 = 60_000_000;

/// Why a device cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// There is no runtime.
    NoLibrary {
        /// The names and files that were tried.
        tried: Vec<String>,
    },
    /// The runtime lacks a function that versions new enough have.
    MissingFunction(&'static str),
    /// The runtime is older than the images; as HIP counts versions (60_342_131 is 6.3).
    OldRuntime {
        /// What is installed.
        found: i32,
        /// What it answers where it sees no device either.
        without_device: Option<u32>,
    },
    /// The runtime sees no device.
    NoDevice {
        /// What HIP answered: 100, or 0 and no devices.
        status: u32,
    },
    /// There are fewer devices.
    NoSuchDevice {
        /// How many there are.
        count: u32,
    },
    /// There are no images for this architecture.
    UnknownArchitecture(String),
    /// The runtime does not do what it should; its words.
    Failed(String),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reason::NoLibrary { tried } => {
                write!(f, "no HIP runtime: none of {} can be loaded; install ROCm 6.0 or later", tried.join(", "))
            }
            Reason::MissingFunction(name) => {
                write!(f, "the HIP runtime has no function {name}; install ROCm 6.0 or later")
            }
            Reason::OldRuntime { found, without_device } => {
                let (major, minor) = (found / 10_000_000, found / 100_000 % 100);
                let devices = match without_device {
                    Some(status) => format!(", and it sees no device (it answered {status})"),
                    None => String::new(),
                };
                write!(
                    f,
                    "the HIP runtime is version {major}.{minor}, needed is 6.0 or later{devices}; install a newer ROCm"
                )
            }
            Reason::NoDevice { status } => write!(
                f,
                "the HIP runtime sees no device (it answered {status}); check `rocminfo`, HIP_VISIBLE_DEVICES, and that \
                 this user may open /dev/kfd"
            ),
            Reason::NoSuchDevice { count } => {
                write!(f, "the HIP runtime sees {count} device{}, counted from 0", if *count == 1 { "" } else { "s" })
            }
            Reason::UnknownArchitecture(name) => {
                let known = ARCHITECTURES.map(|architecture| architecture.name).join(", ");
                write!(f, "its architecture is {name}; there is device code for {known}")
            }
            Reason::Failed(words) => write!(f, "the HIP runtime fails: {words}; check `rocminfo`"),
        }
    }
}

impl From<HipError> for Reason {
    fn from(error: HipError) -> Self {
        if error.is_no_device() {
            Reason::NoDevice { status: error.status() }
        } else {
            Reason::Failed(error.to_string())
        }
    }
}

impl From<PropertiesError> for Reason {
    fn from(error: PropertiesError) -> Self {
        match error {
            PropertiesError::Failed(error) => error.into(),
            PropertiesError::Contradiction { what, in_structure, by_function } => Reason::Failed(format!(
                "its structure of properties is laid out in another way: {what} is {in_structure:?} in it, and \
                 {by_function:?} by function"
            )),
        }
    }
}

/// A device that can be used.
#[derive(Debug, Clone)]
pub(crate) struct Usable {
    pub(crate) runtime: Runtime,
    pub(crate) device: Device,
    pub(crate) properties: Properties,
    pub(crate) architecture: Architecture,
}

/// How many devices the runtime sees.
///
/// # Errors
/// Why there is none that could be used.
pub fn num_devices(library: Option<&Path>) -> Result<u32, Reason> {
    Ok(open(library)?.1)
}

/// The runtime, and how many devices it sees.
fn open(library: Option<&Path>) -> Result<(Runtime, u32), Reason> {
    let runtime = Runtime::open(library).map_err(|absence| match absence {
        Absence::Library(tried) => Reason::NoLibrary { tried },
        Absence::Old(found, error) => Reason::OldRuntime { found, without_device: error.map(|error| error.status()) },
        Absence::Symbol(name) => Reason::MissingFunction(name),
        Absence::Failed(error) => error.into(),
    })?;
    let found = runtime.version();
    if found < MIN_VERSION {
        return Err(Reason::OldRuntime { found, without_device: None });
    }
    match Device::count(&runtime)? {
        0 => Err(Reason::NoDevice { status: 0 }),
        count => Ok((runtime, count)),
    }
}

/// Checks that a device can be used, without allocating anything on it.
pub(crate) fn find(ordinal: u32, library: Option<&Path>) -> Result<Usable, Reason> {
    let (runtime, count) = open(library)?;
    if ordinal >= count {
        return Err(Reason::NoSuchDevice { count });
    }
    let device = Device::get(&runtime, ordinal);
    let properties = Properties::read(&device)?;
    let name = &properties.gcn_arch_name;
    let architecture = images::architecture(name).ok_or_else(|| Reason::UnknownArchitecture(name.clone()))?;
    if architecture.wave_size != properties.wave_size {
        let (needed, found) = (architecture.wave_size, properties.wave_size);
        return Err(Reason::Failed(format!("waves of {name} have {needed} threads, the runtime says {found}")));
    }
    Ok(Usable { runtime, device, properties, architecture })
}

/// A reason, for users.
pub(crate) fn unavailable(ordinal: u32, reason: &Reason) -> Unavailable {
    Unavailable { device: format!("rocm:{ordinal}"), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_names_the_values_and_what_to_do() {
        let tried = ["libamdhip64.so.7", "libamdhip64.so.6"].map(str::to_owned).to_vec();
        for (reason, words) in [
            (Reason::NoLibrary { tried }, ["libamdhip64.so.7, libamdhip64.so.6", "ROCm 6.0"]),
            (Reason::MissingFunction("hipMalloc"), ["hipMalloc", "ROCm 6.0"]),
            (Reason::OldRuntime { found: 50_221_153, without_device: None }, ["5.2", "6.0"]),
            (Reason::OldRuntime { found: 50_221_153, without_device: Some(100) }, ["5.2", "answered 100"]),
            (Reason::NoDevice { status: 100 }, ["answered 100", "HIP_VISIBLE_DEVICES"]),
            (Reason::NoSuchDevice { count: 2 }, ["2 devices", "from 0"]),
            (Reason::UnknownArchitecture("gfx906:xnack-".into()), ["gfx906:xnack-", "gfx942"]),
            (Reason::Failed("hipInit answered 3".into()), ["hipInit answered 3", "rocminfo"]),
        ] {
            let text = unavailable(3, &reason).to_string();
            assert!(text.contains("rocm:3") && words.iter().all(|word| text.contains(word)), "{text}");
        }
    }
}
