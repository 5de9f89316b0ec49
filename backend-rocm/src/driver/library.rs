//! The runtime's library: is it there, and does it have what is needed?

use std::ffi::{OsString, c_int};
use std::path::Path;
use std::sync::Arc;

use libloading::Library;

use super::sys::{Api, FOR_CAPTURE};
use super::{Device, HipError};

/// Names and places of the library, in the order in which they are tried: versions 7 and 6 where the loader finds them, what
/// a development package adds, and where AMD's packages install it.
const PLACES: [&str; 4] = ["libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so", "/opt/rocm/lib/libamdhip64.so"];

/// What ROCm 6 brought, and all later versions have.
const SINCE_ROCM_6: &str = "hipGetDevicePropertiesR0600";

/// What is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Absence {
    /// The library: none of these could be loaded.
    Library(Vec<String>),
    /// The library is older than ROCm 6; its version, and what it says of devices if it sees none.
    Old(i32, Option<HipError>),
    /// A function of it.
    Symbol(&'static str),
    /// It is all there and does not start.
    Failed(HipError),
}

/// HIP's runtime, loaded and initialised.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    pub(super) api: Arc<Api>,
    version: i32,
}

impl Runtime {
    /// Opens the library, the usual one if no file is given, looks every function up, and initialises the runtime. Can be
    /// repeated.
    pub(crate) fn open(file: Option<&Path>) -> Result<Self, Absence> {
        let places: Vec<OsString> = match file {
            Some(file) => vec![file.into()],
            None => PLACES.iter().map(OsString::from).collect(),
        };
        // SAFETY: the library is HIP's runtime, whose initialisers are made to run in any process.
        let library = places.iter().find_map(|place| unsafe { Library::new(place) }.ok());
        let tried = || places.iter().map(|place| place.to_string_lossy().into_owned()).collect();
        let api = Arc::new(Api::new(library.ok_or_else(|| Absence::Library(tried()))?));
        let mut version: c_int = 0;
        // SAFETY: the result goes to an integer that outlives the call.
        let answered = unsafe { api.hipRuntimeGetVersion(&raw mut version) };
        if !api.has(SINCE_ROCM_6) {
            let without_device = Device::count(&Self { api, version }).err().filter(|error| error.is_no_device());
            return Err(Absence::Old(version, without_device));
        }
        let needed = |name: &&&str| !FOR_CAPTURE.contains(name);
        if let Some(missing) = Api::NAMES.iter().filter(needed).find(|name| !api.has(name)) {
            return Err(Absence::Symbol(missing));
        }
        answered.map_err(Absence::Failed)?;
        let runtime = Self { api, version };
        // SAFETY: takes flags that must be 0.
        if let Err(error) = unsafe { runtime.api.hipInit(0) } {
            // Without a device HIP answers 101 here, and says which of many things that stands for when it counts them.
            return Err(Absence::Failed(Device::count(&runtime).err().unwrap_or(error)));
        }
        Ok(runtime)
    }

    /// As HIP counts versions: 60_342_131 is 6.3, build 42131.
    pub(crate) fn version(&self) -> i32 {
        self.version
    }

    /// True where the library has all functions that recording launches takes.
    pub(crate) fn can_capture(&self) -> bool {
        FOR_CAPTURE.iter().all(|name| self.api.has(name))
    }
}
