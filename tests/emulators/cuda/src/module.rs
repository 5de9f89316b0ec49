//! Modules and launches: the image is the real one, and what it says is what counts.

use cubin::{Image, Kernel};

use crate::abi::status;
use crate::config::{Config, DEFAULT_SHARED_BYTES, MAX_BLOCK, MAX_GRID, MAX_REGISTERS, MAX_THREADS};
use crate::driver::{Context, Failure, Outcome};
use crate::kernels;
use crate::tensor_map;

/// A loaded image.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) image: Image,
}

/// An entry point that somebody asked for.
#[derive(Debug, Clone)]
pub(crate) struct Function {
    pub(crate) module: u64,
    pub(crate) name: String,
    pub(crate) kernel: Kernel,
    /// Dynamic shared memory that it may ask for, in bytes.
    pub(crate) max_dynamic_shared_bytes: u32,
}

/// A kernel on its way to the device.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) kernel: String,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    /// Dynamic, in bytes.
    pub(crate) shared_bytes: u32,
    /// The value of each argument.
    pub(crate) arguments: Vec<Vec<u8>>,
}

impl Module {
    /// Takes an image that the device can run and whose kernels the host has, with the same parameters.
    pub(crate) fn load(bytes: &[u8], config: &Config) -> Outcome<Self> {
        let image = Image::parse(bytes).map_err(|error| Failure::new(status::INVALID_IMAGE, error.to_string()))?;
        let device = config.profile.compute_capability;
        if !image.runs_on(device) {
            return Err(Failure::new(
                status::NO_BINARY_FOR_GPU,
                format!(
                    "an image for sm_{}{} on a device of sm_{device}",
                    image.compute_capability,
                    if image.is_architecture_specific { "a" } else { "" }
                ),
            ));
        }
        for (name, kernel) in &image.kernels {
            let on_device: Vec<u32> = kernel.parameters.iter().map(|parameter| parameter.num_bytes).collect();
            match kernels::parameters(name) {
                Some(on_host) if on_host == on_device => {}
                on_host => {
                    let message = format!(
                        "kernel {name}: parameters of {on_device:?} bytes in the image, {on_host:?} on the host"
                    );
                    return Err(Failure::new(status::INVALID_IMAGE, message));
                }
            }
        }
        Ok(Self { image })
    }

    /// An entry point of this module, whose handle is given.
    pub(crate) fn function(&self, module: u64, name: &str) -> Outcome<Function> {
        let Some(kernel) = self.image.kernels.get(name) else {
            return Err(Failure::new(status::NOT_FOUND, format!("the image has no kernel {name}")));
        };
        // Without permission a block has DEFAULT_SHARED_BYTES, static shared memory included.
        let max_dynamic_shared_bytes = DEFAULT_SHARED_BYTES.saturating_sub(kernel.shared_bytes);
        Ok(Function { module, name: name.to_owned(), kernel: kernel.clone(), max_dynamic_shared_bytes })
    }
}

impl Function {
    /// Permits dynamic shared memory up to `num_bytes`.
    pub(crate) fn permit_shared(&mut self, num_bytes: i32, config: &Config) -> Outcome<()> {
        let most = config.profile.max_shared_bytes - self.kernel.shared_bytes.min(config.profile.max_shared_bytes);
        match u32::try_from(num_bytes) {
            Ok(num_bytes) if num_bytes <= most => {
                self.max_dynamic_shared_bytes = num_bytes;
                Ok(())
            }
            _ => Err(Failure::new(
                status::INVALID_VALUE,
                format!("{}: {num_bytes} bytes of shared memory, the device permits {most}", self.name),
            )),
        }
    }

    /// Most threads per block: of the device, of the launch bounds, of the registers.
    pub(crate) fn max_threads(&self) -> u32 {
        let by_registers = MAX_REGISTERS / self.kernel.num_registers.next_multiple_of(8).max(8) / 32 * 32;
        MAX_THREADS.min(self.kernel.max_threads.unwrap_or(MAX_THREADS)).min(by_registers)
    }

    /// Checks the shape of a launch against the device and the image.
    pub(crate) fn check_shape(&self, grid: [u32; 3], block: [u32; 3], shared_bytes: u32) -> Outcome<()> {
        let invalid = |message: String| Err(Failure::new(status::INVALID_VALUE, format!("{}: {message}", self.name)));
        for (what, shape, most) in [("grid", grid, MAX_GRID), ("block", block, MAX_BLOCK)] {
            if (0..3).any(|axis| shape[axis] == 0 || shape[axis] > most[axis]) {
                return invalid(format!("a {what} of {shape:?}, at least 1 and at most {most:?}"));
            }
        }
        let num_threads: u64 = block.map(u64::from).iter().product();
        if num_threads > u64::from(MAX_THREADS) {
            return invalid(format!("{num_threads} threads per block, at most {MAX_THREADS}"));
        }
        if num_threads > u64::from(self.max_threads()) {
            let message = format!("{}: {num_threads} threads per block, at most {}", self.name, self.max_threads());
            return Err(Failure::new(status::LAUNCH_OUT_OF_RESOURCES, message));
        }
        if shared_bytes > self.max_dynamic_shared_bytes {
            return invalid(format!(
                "{shared_bytes} bytes of dynamic shared memory, {} are permitted",
                self.max_dynamic_shared_bytes
            ));
        }
        Ok(())
    }
}

impl Context {
    pub(crate) fn module(&self, handle: u64) -> Outcome<&Module> {
        let module = self.modules.get(&handle);
        module.ok_or_else(|| Failure::new(status::INVALID_HANDLE, format!("{handle:#x} is no loaded module")))
    }

    pub(crate) fn function(&mut self, handle: u64) -> Outcome<&mut Function> {
        let function = self.functions.get_mut(&handle);
        function.ok_or_else(|| {
            Failure::new(status::INVALID_HANDLE, format!("{handle:#x} is no function of a loaded module"))
        })
    }

    /// The allocations that a launch's pointers point into. Arguments of eight bytes are addresses: kernels have no other
    /// parameters of that size. 0 stands for "none". The matrix behind a tensor map lies in one allocation, whole.
    pub(crate) fn pointer_arguments(&self, launch: &Launch) -> Result<Vec<u64>, String> {
        let mut holders = Vec::new();
        for (index, bytes) in launch.arguments.iter().enumerate() {
            if let Some(matrix) = tensor_map::matrix_behind(bytes) {
                let (address, num_bytes) = matrix.map_err(|message| format!("argument {index} is {message}"))?;
                let place = || self.memory.describe(address);
                let outside = || format!("argument {index} maps {num_bytes} bytes at {address:#x}, {}", place());
                holders.push(self.memory.holder(address..address + num_bytes).ok_or_else(outside)?);
                continue;
            }
            let Ok(bytes) = <[u8; 8]>::try_from(bytes.as_slice()) else { continue };
            let address = u64::from_le_bytes(bytes);
            if address == 0 {
                continue;
            }
            match self.memory.holder(address..address + 1) {
                Some(holder) => holders.push(holder),
                None => {
                    return Err(format!("argument {index} points to {address:#x}, {}", self.memory.describe(address)));
                }
            }
        }
        Ok(holders)
    }
}
