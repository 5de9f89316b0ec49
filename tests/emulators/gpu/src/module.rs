//! Modules and launches: the image is the real one, and what it says is what counts.

use std::collections::BTreeMap;
use std::ffi::c_void;

use emulator_common::{Failure, Outcome, memory};

use crate::api::read_at;
use crate::config::{Gpu, Limits};
use crate::driver::{Context, Driver, Kind};
use crate::status;
use crate::stream::Op;

/// What an image says of a kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Bytes of each parameter.
    pub parameters: Vec<u32>,
    /// Static shared memory of a block, in bytes.
    pub shared_bytes: u32,
    /// Memory of a thread that is no register, in bytes.
    pub stack_bytes: u32,
    /// Registers of a thread.
    pub num_registers: u32,
    /// Threads that a block can have at most, by launch bounds and registers.
    pub max_threads: u32,
}

/// A loaded image.
#[derive(Debug)]
pub struct Module {
    kernels: BTreeMap<String, Kernel>,
}

/// An entry point that somebody asked for.
#[derive(Debug, Clone)]
pub struct Function {
    module: u64,
    name: String,
    /// What the image says of it.
    pub kernel: Kernel,
    /// Dynamic shared memory that it may ask for, in bytes.
    pub max_dynamic_shared_bytes: u32,
}

/// A kernel on its way to the device.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Its name.
    pub kernel: String,
    /// Blocks along each axis.
    pub grid: [u32; 3],
    /// Threads of a block along each axis.
    pub block: [u32; 3],
    /// Dynamic, in bytes.
    pub shared_bytes: u32,
    /// The value of each argument.
    pub arguments: Vec<Vec<u8>>,
}

/// How many threads, and what they share.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Blocks along each axis.
    pub grid: [u32; 3],
    /// Threads of a block along each axis.
    pub block: [u32; 3],
    /// Dynamic shared memory, in bytes.
    pub shared_bytes: u32,
}

impl Module {
    /// Takes an image that the device can run and whose kernels the host has, with the same parameters.
    ///
    /// # Errors
    /// Where the host does not.
    pub fn new<G: Gpu>(kernels: BTreeMap<String, Kernel>, gpu: &G) -> Outcome<Self> {
        for (name, kernel) in &kernels {
            let on_device = &kernel.parameters;
            match gpu.parameters(name) {
                Some(on_host) if on_host == *on_device => {}
                on_host => {
                    let message = format!(
                        "kernel {name}: parameters of {on_device:?} bytes in the image, {on_host:?} on the host"
                    );
                    return Err(Failure::new(status::INVALID_IMAGE, message));
                }
            }
        }
        Ok(Self { kernels })
    }
}

impl Function {
    /// Permits dynamic shared memory up to `num_bytes`.
    ///
    /// # Errors
    /// Where the device does not.
    pub fn permit_shared(&mut self, num_bytes: i32, limits: Limits) -> Outcome<()> {
        let most = limits.max_shared_bytes.saturating_sub(self.kernel.shared_bytes);
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

    /// Checks the shape of a launch against the device and the image.
    fn check_shape(&self, shape: Shape, limits: Limits) -> Outcome<()> {
        let invalid = |message: String| Err(Failure::new(status::INVALID_VALUE, format!("{}: {message}", self.name)));
        let Shape { grid, block, shared_bytes } = shape;
        for (what, shape, most) in [("grid", grid, limits.max_grid), ("block", block, limits.max_block)] {
            if (0..3).any(|axis| shape[axis] == 0 || shape[axis] > most[axis]) {
                return invalid(format!("a {what} of {shape:?}, at least 1 and at most {most:?}"));
            }
        }
        let num_threads: u64 = block.map(u64::from).iter().product();
        if num_threads > u64::from(limits.max_threads) {
            return invalid(format!("{num_threads} threads per block, at most {}", limits.max_threads));
        }
        if num_threads > u64::from(self.kernel.max_threads) {
            let message =
                format!("{}: {num_threads} threads per block, at most {}", self.name, self.kernel.max_threads);
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
    fn module(&self, handle: u64) -> Outcome<&Module> {
        let module = self.modules.get(&handle);
        module.ok_or_else(|| Failure::new(status::INVALID_HANDLE, format!("{handle:#x} is no loaded module")))
    }

    /// A function of a loaded module.
    ///
    /// # Errors
    /// For a handle that stands for none.
    pub fn function(&mut self, handle: u64) -> Outcome<&mut Function> {
        let function = self.functions.get_mut(&handle);
        function.ok_or_else(|| {
            Failure::new(status::INVALID_HANDLE, format!("{handle:#x} is no function of a loaded module"))
        })
    }

    /// The allocations that a launch's pointers point into. Arguments of eight bytes are addresses: kernels have no other
    /// parameters of that size. 0 stands for "none". Memory behind another argument lies in one allocation, whole.
    pub(crate) fn pointer_arguments(
        &self,
        launch: &Launch,
        memory_behind: impl Fn(&[u8]) -> Option<Result<(u64, u64), String>>,
    ) -> Result<Vec<u64>, String> {
        let mut holders = Vec::new();
        for (index, bytes) in launch.arguments.iter().enumerate() {
            if let Some(described) = memory_behind(bytes) {
                let (address, num_bytes) = described.map_err(|message| format!("argument {index} is {message}"))?;
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
            match self.memory.holder(address..address.saturating_add(1)) {
                Some(holder) => holders.push(holder),
                None => {
                    return Err(format!("argument {index} points to {address:#x}, {}", self.memory.describe(address)));
                }
            }
        }
        Ok(holders)
    }
}

#[allow(missing_docs, clippy::missing_errors_doc, reason = "the functions of the drivers' references")]
impl<G: Gpu> Driver<G> {
    pub fn load(&mut self, module: Module) -> Outcome<u64> {
        self.context()?.check_no_capture("loading a module")?;
        let handle = self.new_handle(Kind::Module);
        self.context()?.modules.insert(handle, module);
        Ok(handle)
    }

    pub fn unload(&mut self, module: u64) -> Outcome<()> {
        self.context()?.module(module)?;
        self.run_all()?;
        let context = self.context()?;
        context.modules.remove(&module);
        context.functions.retain(|_, function| function.module != module);
        Ok(())
    }

    /// An entry point of a module. Without permission its blocks have what the device gives anybody.
    pub fn find_function(&mut self, module: u64, name: &str) -> Outcome<u64> {
        let Limits { default_shared_bytes, .. } = self.config.gpu.limits();
        let Some(kernel) = self.context()?.module(module)?.kernels.get(name).cloned() else {
            return Err(Failure::new(status::NOT_FOUND, format!("the image has no kernel {name}")));
        };
        let max_dynamic_shared_bytes = default_shared_bytes.saturating_sub(kernel.shared_bytes);
        let handle = self.new_handle(Kind::Function);
        let function = Function { module, name: name.to_owned(), kernel, max_dynamic_shared_bytes };
        self.context()?.functions.insert(handle, function);
        Ok(handle)
    }

    /// Queues a kernel. `arguments` leads to a pointer to each argument's value.
    pub fn launch(
        &mut self,
        function: u64,
        shape: Shape,
        stream: u64,
        arguments: *const *const c_void,
        extra: *const *const c_void,
    ) -> Outcome<()> {
        if !extra.is_null() {
            return Err(Failure::new(status::NOT_SUPPORTED, "arguments in one buffer are not modelled"));
        }
        let limits = self.config.gpu.limits();
        let context = self.context()?;
        let function = context.function(function)?;
        function.check_shape(shape, limits)?;
        let function = function.clone();
        let Shape { grid, block, shared_bytes } = shape;
        let arguments = read_arguments(&function, arguments)?;
        let launch = Launch { kernel: function.name, grid, block, shared_bytes, arguments };
        // A device would find out while it runs; a developer wants to know at the call.
        context
            .pointer_arguments(&launch, G::memory_behind)
            .map_err(|message| Failure::new(status::ILLEGAL_ADDRESS, format!("{}: {message}", launch.kernel)))?;
        self.push(stream, Op::Launch(launch))
    }
}

fn read_arguments(function: &Function, arguments: *const *const c_void) -> Outcome<Vec<Vec<u8>>> {
    let parameters = &function.kernel.parameters;
    let mut values = Vec::with_capacity(parameters.len());
    for (index, num_bytes) in parameters.iter().enumerate() {
        let value = read_at(arguments, index)?;
        if value.is_null() {
            let message = format!("{}: argument {index} of {}", function.name, parameters.len());
            return Err(Failure::new(status::INVALID_VALUE, format!("a null pointer for {message}")));
        }
        values.push(memory::read(value as u64, *num_bytes as usize));
    }
    Ok(values)
}
