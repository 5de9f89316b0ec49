//! What the runtimes of vendors share: errors in a device's name, images that are loaded when they are needed, bounds of
//! device memory.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use engine_core::backend::{PrepareError, StepError, Unsupported};

use crate::images::{Images, KernelParameters};

/// A driver function that failed.
pub trait DriverFailure: Display {
    /// True where memory ran out and nothing else is wrong.
    fn is_out_of_memory(&self) -> bool;

    /// True where an image does not have the kernel that was asked for.
    fn is_not_found(&self) -> bool;
}

/// A device as its errors name it: `cuda:0 (NVIDIA H100)`.
#[derive(Debug, Clone)]
pub struct DeviceName(String);

impl DeviceName {
    /// A vendor's device by its number, and what its maker calls it.
    pub fn new(vendor: &str, ordinal: u32, model: &str) -> Self {
        Self(format!("{vendor}:{ordinal} ({model})"))
    }

    /// After a call that fails for no good reason the device is lost.
    pub fn lost(&self, error: impl Display) -> StepError {
        StepError::DeviceLost { device: self.0.clone(), reason: error.to_string() }
    }

    /// A call that may fail for want of memory did fail.
    pub fn alloc_error(&self, error: impl DriverFailure, what: &str, num_bytes: usize) -> StepError {
        if error.is_out_of_memory() {
            let requested_bytes = num_bytes as u64;
            return StepError::OutOfMemory { device: self.0.clone(), what: what.to_owned(), requested_bytes };
        }
        self.lost(error)
    }

    /// A kernel that there is not.
    fn unsupported(&self, family: &str, kernel: &str, reason: String) -> PrepareError {
        PrepareError::Unsupported(Unsupported {
            backend: self.0.clone(),
            what: format!("kernel {kernel} of {family}"),
            reason,
            action: "choose another precision, or another device".into(),
        })
    }
}

/// Images on a device by family, each loaded when its first kernel is asked for.
#[derive(Debug)]
pub struct Modules<M> {
    images: Images,
    architecture: &'static str,
    loaded: Mutex<HashMap<&'static str, Arc<M>>>,
}

impl<M> Modules<M> {
    /// None is loaded yet.
    pub fn new(images: Images, architecture: &'static str) -> Self {
        Self { images, architecture, loaded: Mutex::default() }
    }

    /// The images' architecture, as the compiler calls it.
    pub fn architecture(&self) -> &'static str {
        self.architecture
    }

    /// A kernel and its parameters: `find` looks it up in its family's module, which `load` makes of the image.
    ///
    /// # Errors
    /// Where the images lack it, or the driver does not load them.
    pub fn kernel<E: DriverFailure, F>(
        &self,
        device: &DeviceName,
        (family, kernel): (&'static str, &str),
        load: impl FnOnce(&[u8]) -> Result<M, E>,
        find: impl FnOnce(&Arc<M>) -> Result<F, E>,
    ) -> Result<(F, &'static KernelParameters), PrepareError> {
        let absent = || device.unsupported(family, kernel, format!("the image for {} lacks it", self.architecture));
        let parameters = self.images.kernel(family, kernel).ok_or_else(absent)?;
        let found = find(&self.module(device, (family, kernel), load)?);
        let function =
            found.map_err(|error| if error.is_not_found() { absent() } else { device.lost(error).into() })?;
        Ok((function, parameters))
    }

    /// The module of a family, whose kernel somebody wants.
    fn module<E: DriverFailure>(
        &self,
        device: &DeviceName,
        (family, kernel): (&'static str, &str),
        load: impl FnOnce(&[u8]) -> Result<M, E>,
    ) -> Result<Arc<M>, PrepareError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = loaded.get(family) {
            return Ok(module.clone());
        }
        let Some(image) = self.images.image(family, self.architecture) else {
            return Err(device.unsupported(family, kernel, format!("there is no image for {}", self.architecture)));
        };
        let module = load(&image);
        let module = module.map_err(|error| device.alloc_error(error, &format!("kernels of {family}"), image.len()))?;
        Ok(loaded.entry(family).or_insert(Arc::new(module)).clone())
    }
}

/// The address of `num_bytes` from `offset` on in memory of `size` bytes.
///
/// # Panics
/// If they do not lie in it: the layers above keep to their buffers.
pub fn range_within((address, size): (u64, usize), offset: usize, num_bytes: usize) -> u64 {
    let end = offset.checked_add(num_bytes);
    assert!(end.is_some_and(|end| end <= size), "{num_bytes} bytes from byte {offset} of a buffer of {size} bytes");
    address + offset as u64
}
