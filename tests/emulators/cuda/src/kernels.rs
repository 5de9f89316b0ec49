//! Kernels that run: the sources of the device, compiled for the host.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use gpu_host::{ArgValue, KernelInfo, launch_kernel, registered_kernels};

use crate::module::Launch;

/// Threads that run in lockstep on every NVIDIA device.
const WAVE_SIZE: u32 = 32;

/// Finds a kernel by name: the kernel build refuses names that two families use.
fn find(name: &str) -> Option<&'static KernelInfo> {
    static KERNELS: OnceLock<BTreeMap<String, KernelInfo>> = OnceLock::new();
    let kernels = KERNELS.get_or_init(|| {
        let of_this_size = registered_kernels().into_iter().filter(|kernel| kernel.wave_size == WAVE_SIZE);
        of_this_size.map(|kernel| (kernel.name.clone(), kernel)).collect()
    });
    kernels.get(name)
}

/// Sizes in bytes of a kernel's parameters, if the host has the kernel.
pub(crate) fn parameters(name: &str) -> Option<Vec<u32>> {
    #[cfg(test)]
    if let Some(parameters) = crate::tests::kernels::parameters(name) {
        return Some(parameters);
    }
    find(name).map(|kernel| kernel.param_bytes.iter().copied().map(u32::from).collect())
}

/// Runs a kernel to its end. `order` chooses the order in which its threads start.
///
/// # Errors
/// What went wrong in it: a barrier that not all threads reach, shared memory that it did not ask for …
pub(crate) fn run(launch: &Launch, order: u32) -> Result<(), String> {
    #[cfg(test)]
    if let Some(outcome) = crate::tests::kernels::run(launch) {
        return outcome;
    }
    let kernel = find(&launch.kernel).ok_or_else(|| format!("the host has no kernel {}", launch.kernel))?;
    let mut values: Vec<ArgValue> = launch.arguments.iter().map(|bytes| ArgValue::new(bytes)).collect();
    // SAFETY: there is a value for each parameter: their sizes were compared with the image's when the module was loaded,
    // and the launch took as many as the image has. Addresses among them were found in live allocations. That a kernel
    // stays inside those is what is being tested: writes past them are found by guards.
    unsafe { launch_kernel(kernel, [launch.grid, launch.block], launch.shared_bytes, &mut values, order) }
}
