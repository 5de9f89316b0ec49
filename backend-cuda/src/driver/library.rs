//! The driver's library: is it there, and does it have what is needed?

use std::ffi::c_void;

use cudarc::driver::sys;

use super::{DriverError, check};

/// Every function that this crate calls. A test compares the list with the sources.
const SYMBOLS: [&str; 34] = [
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDeviceTotalMem_v2",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDriverGetVersion",
    "cuFuncGetAttribute",
    "cuFuncSetAttribute",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamSynchronize",
    "cuTensorMapEncodeTiled",
];

/// What of the driver is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Absence {
    /// The library.
    Library,
    /// A function of it.
    Symbol(&'static str),
    /// It is all there and does not start.
    Failed(DriverError),
}

/// Opens the library, looks every function up, and initialises the driver. Can be repeated; only then may anything else
/// in this module's siblings be called.
pub(crate) fn initialise() -> Result<(), Absence> {
    // SAFETY: opens and closes the driver's library, whose initialisers are made to run in any process.
    if !unsafe { sys::is_culib_present() } {
        return Err(Absence::Library);
    }
    // SAFETY: the library is there, as the line before found; opening it again has the same effects.
    let library = unsafe { sys::culib() };
    for symbol in SYMBOLS {
        // SAFETY: the address is compared with nothing and never called under this type.
        let found = unsafe { library.get::<*const c_void>(symbol.as_bytes()) };
        if found.is_err() {
            return Err(Absence::Symbol(symbol));
        }
    }
    // SAFETY: the function exists and takes flags that must be 0.
    check("cuInit", unsafe { sys::cuInit(0) }).map_err(Absence::Failed)
}

/// The version of CUDA that the driver implements: 12090 is 12.9.
pub(crate) fn version() -> Result<i32, DriverError> {
    let mut version = 0;
    // SAFETY: the result goes to an integer that outlives the call.
    check("cuDriverGetVersion", unsafe { sys::cuDriverGetVersion(&raw mut version) })?;
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names in `sys::cuName(…)` calls of all files beside this one, and of this one above its tests.
    fn called() -> Vec<&'static str> {
        let sources = [
            include_str!("context.rs"),
            include_str!("graph.rs"),
            include_str!("library.rs").split("#[cfg(test)]").next().unwrap_or_default(),
            include_str!("memory.rs"),
            include_str!("mod.rs"),
            include_str!("module.rs"),
            include_str!("stream.rs"),
            include_str!("tensor_map.rs"),
        ];
        let mut names: Vec<&str> = sources
            .into_iter()
            .flat_map(|source| source.split("sys::").skip(1))
            .filter_map(|rest| Some(rest.split_once('(')?.0))
            .filter(|name| name.starts_with("cu") && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
            .filter(|name| *name != "culib")
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    #[test]
    fn every_function_that_is_called_is_looked_up_first() {
        let mut symbols = SYMBOLS;
        symbols.sort_unstable();
        assert_eq!(called(), symbols);
    }
}
