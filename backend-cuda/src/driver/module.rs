//! Loaded images and their kernels.

use std::ffi::CString;
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUfunction, CUfunction_attribute, CUmodule};

use super::{Context, DriverError, check, report_drop};

/// An image on a device, unloaded when dropped.
#[derive(Debug)]
pub(crate) struct Module {
    context: Arc<Context>,
    handle: CUmodule,
}

// SAFETY: the driver lets any thread use a module; handles are numbers to us.
unsafe impl Send for Module {}
// SAFETY: as above; the driver does its own locking.
unsafe impl Sync for Module {}

impl Module {
    /// Loads a device image: a whole ELF file, which tells its own size.
    pub(crate) fn load(context: &Arc<Context>, image: &[u8]) -> Result<Self, DriverError> {
        context.bind()?;
        let mut handle = ptr::null_mut();
        // SAFETY: the image is one of those that this crate embeds, complete; the driver copies what it needs.
        let status = unsafe { sys::cuModuleLoadData(&raw mut handle, image.as_ptr().cast()) };
        check("cuModuleLoadData", status)?;
        Ok(Self { context: context.clone(), handle })
    }

    /// Finds a kernel by name.
    pub(crate) fn function(self: &Arc<Self>, name: &str) -> Result<Function, DriverError> {
        let not_found = sys::CUresult::CUDA_ERROR_NOT_FOUND;
        let name = CString::new(name);
        let name = name.map_err(|_| DriverError { function: "cuModuleGetFunction", status: not_found })?;
        self.context.bind()?;
        let mut handle = ptr::null_mut();
        // SAFETY: the module is loaded as long as `self`, the name ends in a zero byte.
        let status = unsafe { sys::cuModuleGetFunction(&raw mut handle, self.handle, name.as_ptr()) };
        check("cuModuleGetFunction", status)?;
        Ok(Function { module: self.clone(), handle })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        report_drop(self.context.synchronize());
        // SAFETY: `load` loaded it, nothing has unloaded it, and none of its kernels is queued any more.
        report_drop(check("cuModuleUnload", unsafe { sys::cuModuleUnload(self.handle) }));
    }
}

/// A kernel of a loaded image.
#[derive(Debug, Clone)]
pub(crate) struct Function {
    module: Arc<Module>,
    handle: CUfunction,
}

// SAFETY: the driver lets any thread use a function; handles are numbers to us.
unsafe impl Send for Function {}
// SAFETY: as above; the driver does its own locking.
unsafe impl Sync for Function {}

impl Function {
    pub(super) fn handle(&self) -> CUfunction {
        self.handle
    }

    /// Permits as much dynamic shared memory per block as `max_shared_bytes` leave beside the static one.
    pub(crate) fn permit_shared(&self, max_shared_bytes: u32) -> Result<(), DriverError> {
        self.module.context.bind()?;
        let mut fixed = 0;
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
        // SAFETY: the function is alive as long as `self` holds its module; the result goes to a live integer.
        let status = unsafe { sys::cuFuncGetAttribute(&raw mut fixed, attribute, self.handle) };
        check("cuFuncGetAttribute", status)?;
        let dynamic = i32::try_from(max_shared_bytes).unwrap_or(i32::MAX).saturating_sub(fixed);
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: as above; the driver checks the number.
        check("cuFuncSetAttribute", unsafe { sys::cuFuncSetAttribute(self.handle, attribute, dynamic) })
    }
}
