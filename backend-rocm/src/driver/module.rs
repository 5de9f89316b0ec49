//! Loaded images and their kernels.

use std::ffi::CString;
use std::ptr;
use std::sync::Arc;

use super::sys::{self, status};
use super::{Context, HipError, report_drop};

/// An image on a device, unloaded when dropped.
#[derive(Debug)]
pub(crate) struct Module {
    context: Arc<Context>,
    handle: sys::Module,
}

// SAFETY: the runtime lets any thread use a module; handles are numbers to us.
unsafe impl Send for Module {}
// SAFETY: as above; the runtime does its own locking.
unsafe impl Sync for Module {}

impl Module {
    /// Loads a device image: a whole ELF file, which tells its own size.
    pub(crate) fn load(context: &Arc<Context>, image: &[u8]) -> Result<Self, HipError> {
        let mut handle = ptr::null_mut();
        // SAFETY: the image is one of those that this crate embeds, complete; the runtime copies what it needs.
        unsafe { context.bind()?.hipModuleLoadData(&raw mut handle, image.as_ptr().cast()) }?;
        Ok(Self { context: context.clone(), handle })
    }

    /// Finds a kernel by name.
    pub(crate) fn function(self: &Arc<Self>, name: &str) -> Result<Function, HipError> {
        let not_found = HipError { function: "hipModuleGetFunction", status: status::NOT_FOUND };
        let name = CString::new(name).map_err(|_| not_found)?;
        let api = self.context.bind()?;
        let mut handle = ptr::null_mut();
        // SAFETY: the module is loaded as long as `self`, the name ends in a zero byte.
        unsafe { api.hipModuleGetFunction(&raw mut handle, self.handle, name.as_ptr()) }?;
        Ok(Function { _module: self.clone(), handle })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        report_drop(self.context.synchronize());
        // SAFETY: `load` loaded it, nothing has unloaded it, and none of its kernels is queued any more.
        report_drop(self.context.bind().and_then(|api| unsafe { api.hipModuleUnload(self.handle) }));
    }
}

/// A kernel of a loaded image.
#[derive(Debug, Clone)]
pub(crate) struct Function {
    _module: Arc<Module>,
    handle: sys::Function,
}

// SAFETY: the runtime lets any thread use a function; handles are numbers to us.
unsafe impl Send for Function {}
// SAFETY: as above; the runtime does its own locking.
unsafe impl Sync for Function {}

impl Function {
    pub(super) fn handle(&self) -> sys::Function {
        self.handle
    }
}
