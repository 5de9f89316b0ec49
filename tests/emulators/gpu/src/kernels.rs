//! Kernels that run: the sources of the device, compiled for the host.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use gpu_host::{ArgValue, KernelInfo, Profile, launch_kernel, registered_kernels};

use crate::module::Launch;

/// In which order threads of a launch start: another one with every launch, so that a missing barrier shows in some.
pub type LaunchOrder = u32;

/// The kernels of one kind of device.
#[derive(Debug)]
pub struct HostKernels {
    profile: Profile,
    by_name: OnceLock<BTreeMap<String, KernelInfo>>,
}

impl HostKernels {
    /// Those of a profile.
    pub const fn new(profile: Profile) -> Self {
        Self { profile, by_name: OnceLock::new() }
    }

    /// Finds a kernel by name: the kernel build refuses names that two families use.
    fn find(&self, name: &str) -> Option<&KernelInfo> {
        let kernels = self.by_name.get_or_init(|| {
            let kernels = registered_kernels(self.profile).into_iter();
            kernels.map(|kernel| (kernel.name.clone(), kernel)).collect()
        });
        kernels.get(name)
    }

    /// Sizes in bytes of a kernel's parameters, if the host has the kernel.
    pub fn parameters(&self, name: &str) -> Option<Vec<u32>> {
        self.find(name).map(|kernel| kernel.param_bytes.iter().copied().map(u32::from).collect())
    }

    /// Runs a kernel to its end.
    ///
    /// # Errors
    /// What went wrong in it.
    pub fn run(&self, launch: &Launch, order: LaunchOrder) -> Result<(), String> {
        let kernel = self.find(&launch.kernel).ok_or_else(|| format!("the host has no kernel {}", launch.kernel))?;
        let mut values: Vec<ArgValue> = launch.arguments.iter().map(|bytes| ArgValue::new(bytes)).collect();
        // SAFETY: there is a value for each parameter: their sizes were compared with the image's when the module was
        // loaded, and the launch took as many as the image has. Addresses among them were found in live allocations. That a
        // kernel stays inside those is what is being tested: writes past them are found by guards.
        unsafe { launch_kernel(kernel, [launch.grid, launch.block], launch.shared_bytes, &mut values, order) }
    }
}
