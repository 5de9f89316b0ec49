//! The C interface of the host ring (`gpu-common/kernels/host/host.h`).

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use crate::profile::Profile;

#[repr(C)]
#[derive(Clone, Copy)]
struct Dim3 {
    x: u32,
    y: u32,
    z: u32,
}

#[repr(C)]
struct GkHostKernel {
    profile: *const c_char,
    family: *const c_char,
    name: *const c_char,
    num_params: u32,
    param_bytes: *const u8,
}

unsafe extern "C" {
    fn gk_host_kernel(index: usize, kernel: *mut GkHostKernel) -> bool;
    fn gk_host_launch(
        profile: *const c_char,
        family: *const c_char,
        name: *const c_char,
        grid: Dim3,
        block: Dim3,
        shared_bytes: u32,
        args: *mut *mut c_void,
        order: u32,
    ) -> c_int;
    fn gk_host_barrier(index: usize, file: *mut *const c_char, line: *mut u32) -> bool;
    fn gk_host_skip_barrier(file: *const c_char, line: u32);
    fn gk_host_error() -> *const c_char;
}

/// A compiled kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelInfo {
    /// Source file without its ending.
    pub family: String,
    /// Entry point.
    pub name: String,
    /// Whose kernel it is.
    pub profile: Profile,
    /// Bytes of each parameter.
    pub param_bytes: Vec<u8>,
}

/// All kernels that are compiled for a profile.
pub fn registered_kernels(profile: Profile) -> Vec<KernelInfo> {
    let mut found = Vec::new();
    for index in 0.. {
        let mut kernel = GkHostKernel {
            profile: std::ptr::null(),
            family: std::ptr::null(),
            name: std::ptr::null(),
            num_params: 0,
            param_bytes: std::ptr::null(),
        };
        // SAFETY: `kernel` lives through the call, and the function writes nothing else.
        let exists = unsafe { gk_host_kernel(index, &raw mut kernel) };
        if !exists {
            break;
        }
        // SAFETY: the registry names profiles and kernels by string literals.
        let name_of_profile = unsafe { CStr::from_ptr(kernel.profile) };
        if name_of_profile.to_bytes() != profile.name().as_bytes() {
            continue;
        }
        // SAFETY: as above.
        let family = unsafe { CStr::from_ptr(kernel.family) };
        // SAFETY: as above.
        let name = unsafe { CStr::from_ptr(kernel.name) };
        let num_params = kernel.num_params as usize;
        // SAFETY: the registry lists as many sizes as it says, and is not changed after the program's start.
        let param_bytes = unsafe { std::slice::from_raw_parts(kernel.param_bytes, num_params) };
        found.push(KernelInfo {
            family: family.to_string_lossy().into_owned(),
            name: name.to_string_lossy().into_owned(),
            profile,
            param_bytes: param_bytes.to_vec(),
        });
    }
    found
}

/// The value of an argument, in its first bytes: as large and as aligned as any parameter of a kernel.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy)]
pub struct ArgValue([u8; Self::NUM_BYTES]);

impl ArgValue {
    /// Bytes of the largest parameter, a tensor map.
    pub const NUM_BYTES: usize = 128;

    /// # Panics
    /// If there are more bytes than a parameter has.
    pub fn new(bytes: &[u8]) -> Self {
        let mut value = [0; Self::NUM_BYTES];
        value[..bytes.len()].copy_from_slice(bytes);
        Self(value)
    }
}

/// Runs a kernel on the calling thread; `args` hold each argument's value.
///
/// # Safety
/// `args` are as many and as large as the kernel's parameters, and the kernel accesses only memory that is there: addresses
/// among the arguments, and addresses and sizes computed from them, are right. What depends on the block alone (barriers,
/// shared memory, alignment of vector accesses) is checked.
///
/// # Errors
/// What the emulation found wrong.
pub unsafe fn launch_kernel(
    kernel: &KernelInfo,
    [grid, block]: [[u32; 3]; 2],
    shared_bytes: u32,
    args: &mut [ArgValue],
    order: u32,
) -> Result<(), String> {
    let dim3 = |[x, y, z]: [u32; 3]| Dim3 { x, y, z };
    let c_string = |text: &str| CString::new(text).map_err(|_| format!("{text:?} holds a NUL"));
    let (profile, family) = (c_string(kernel.profile.name())?, c_string(&kernel.family)?);
    let name = c_string(&kernel.name)?;
    let mut pointers: Vec<*mut c_void> = args.iter_mut().map(|arg| std::ptr::from_mut(arg).cast()).collect();
    // SAFETY: strings and arguments live through the call; the rest is the caller's promise.
    let status = unsafe {
        gk_host_launch(
            profile.as_ptr(),
            family.as_ptr(),
            name.as_ptr(),
            dim3(grid),
            dim3(block),
            shared_bytes,
            pointers.as_mut_ptr(),
            order,
        )
    };
    if status == 0 {
        return Ok(());
    }
    // SAFETY: the message is a string that lives until this thread's next failed launch.
    let message = unsafe { CStr::from_ptr(gk_host_error()) };
    Err(format!("{} (status {status})", message.to_string_lossy()))
}

/// Where a kernel calls a barrier.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Barrier {
    /// Source file, as the compiler was given it.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
}

impl std::fmt::Display for Barrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.rsplit('/').next().unwrap_or(&self.file), self.line)
    }
}

/// Every barrier that kernels launched by this thread have come to.
pub fn barriers() -> Vec<Barrier> {
    let mut found = Vec::new();
    loop {
        let (mut file, mut line) = (std::ptr::null(), 0);
        // SAFETY: both places live through the call.
        if !unsafe { gk_host_barrier(found.len(), &raw mut file, &raw mut line) } {
            return found;
        }
        // SAFETY: the compiler's name of a source file is a string literal.
        let file = unsafe { CStr::from_ptr(file) };
        found.push(Barrier { file: file.to_string_lossy().into_owned(), line });
    }
}

/// Kernels launched by this thread leave out a barrier from now on. Without it a kernel may do anything, write anywhere
/// included: for processes that have nothing else to do.
///
/// # Errors
/// If the file's name holds a NUL.
pub fn skip_barrier(barrier: &Barrier) -> Result<(), String> {
    let file = CString::new(barrier.file.as_str()).map_err(|error| error.to_string())?;
    // SAFETY: the name lives through the call, which copies it.
    unsafe { gk_host_skip_barrier(file.as_ptr(), barrier.line) }
    Ok(())
}
