//! NVRTC, the compiler of device code, loaded at run time.
//!
//! The eleven functions that are needed, as the library's reference documents them. All of them return a status, 0 for
//! success.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr;

use libloading::{Library, Symbol};

use crate::kernels::KernelsError;

/// An open library.
pub(super) struct Nvrtc {
    library: Library,
    path: PathBuf,
}

/// What a compilation gave.
pub(super) struct Compiled {
    /// The device image.
    pub(super) cubin: Vec<u8>,
    /// What compiler and assembler said.
    pub(super) log: String,
}

/// One file of a compilation: the name that `#include` or an error message uses, and its text.
pub(super) struct Source<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
}

type ProgramHandle = *mut c_void;
type GetSize = unsafe extern "C" fn(ProgramHandle, *mut usize) -> c_int;
type GetText = unsafe extern "C" fn(ProgramHandle, *mut c_char) -> c_int;

/// A program, destroyed on drop.
struct Program<'a> {
    nvrtc: &'a Nvrtc,
    handle: ProgramHandle,
}

impl Nvrtc {
    /// Opens the library at `path`.
    pub(super) fn open(path: &Path) -> Result<Self, KernelsError> {
        // SAFETY: loading runs the library's initialisers; it is NVIDIA's compiler, which the developer chose by path.
        let library = unsafe { Library::new(path) };
        let library =
            library.map_err(|error| KernelsError::Library { path: path.into(), reason: error.to_string() })?;
        Ok(Self { library, path: path.into() })
    }

    /// Major and minor version.
    pub(super) fn version(&self) -> Result<(i32, i32), KernelsError> {
        let function = self.symbol::<unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int>("nvrtcVersion")?;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both pointers are to integers that outlive the call.
        self.check("nvrtcVersion", unsafe { function(&raw mut major, &raw mut minor) })?;
        Ok((major, minor))
    }

    /// Compiles one source file to a device image. `headers` are all that it can include.
    pub(super) fn compile(
        &self,
        source: &Source<'_>,
        headers: &[Source<'_>],
        options: &[String],
    ) -> Result<Compiled, KernelsError> {
        let program = self.program(source, headers)?;
        let options = strings(options.iter().map(String::as_str))?;
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let function = self.symbol::<unsafe extern "C" fn(ProgramHandle, c_int, *const *const c_char) -> c_int>(
            "nvrtcCompileProgram",
        )?;
        // SAFETY: `program` holds a live handle, `pointers` as many strings as is said, alive until the call returns.
        let status = unsafe { function(program.handle, pointers.len() as c_int, pointers.as_ptr()) };
        let log = program.bytes("nvrtcGetProgramLogSize", "nvrtcGetProgramLog")?;
        let log = CStr::from_bytes_until_nul(&log).map(|log| log.to_string_lossy().into_owned()).unwrap_or_default();
        if status != 0 {
            return Err(KernelsError::Compile { file: source.name.into(), options: options_text(&options), log });
        }
        Ok(Compiled { cubin: program.bytes("nvrtcGetCUBINSize", "nvrtcGetCUBIN")?, log })
    }

    fn program(&self, source: &Source<'_>, headers: &[Source<'_>]) -> Result<Program<'_>, KernelsError> {
        type Create = unsafe extern "C" fn(
            *mut ProgramHandle,
            *const c_char,
            *const c_char,
            c_int,
            *const *const c_char,
            *const *const c_char,
        ) -> c_int;
        let file = strings([source.text, source.name].into_iter())?;
        let texts = strings(headers.iter().map(|header| header.text))?;
        let names = strings(headers.iter().map(|header| header.name))?;
        let texts: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
        let names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let function = self.symbol::<Create>("nvrtcCreateProgram")?;
        let mut handle = ptr::null_mut();
        // SAFETY: all strings end in a zero byte and outlive the call, which copies them; both arrays have
        // `headers.len()` entries; `handle` is where the result goes.
        let status = unsafe {
            function(
                &raw mut handle,
                file[0].as_ptr(),
                file[1].as_ptr(),
                headers.len() as c_int,
                texts.as_ptr(),
                names.as_ptr(),
            )
        };
        self.check("nvrtcCreateProgram", status)?;
        Ok(Program { nvrtc: self, handle })
    }

    fn symbol<T>(&self, name: &'static str) -> Result<Symbol<'_, T>, KernelsError> {
        // SAFETY: the callers name the types that the library's reference documents for `name`.
        let symbol = unsafe { self.library.get(name.as_bytes()) };
        symbol.map_err(|error| KernelsError::Library { path: self.path.clone(), reason: error.to_string() })
    }

    fn check(&self, function: &'static str, status: c_int) -> Result<(), KernelsError> {
        if status == 0 { Ok(()) } else { Err(KernelsError::Status { function, status }) }
    }
}

impl Program<'_> {
    /// A result of which one function tells the size and another writes the bytes.
    fn bytes(&self, size_function: &'static str, text_function: &'static str) -> Result<Vec<u8>, KernelsError> {
        let function = self.nvrtc.symbol::<GetSize>(size_function)?;
        let mut size = 0;
        // SAFETY: `self` holds a live handle; the size goes to a variable that outlives the call.
        self.nvrtc.check(size_function, unsafe { function(self.handle, &raw mut size) })?;
        let mut bytes = vec![0_u8; size];
        let function = self.nvrtc.symbol::<GetText>(text_function)?;
        // SAFETY: `bytes` has as many bytes as the library just said it will write.
        self.nvrtc.check(text_function, unsafe { function(self.handle, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        let function = self.nvrtc.symbol::<unsafe extern "C" fn(*mut ProgramHandle) -> c_int>("nvrtcDestroyProgram");
        if let Ok(function) = function {
            // SAFETY: the handle came from nvrtcCreateProgram and is destroyed once, here.
            unsafe { function(&raw mut self.handle) };
        }
    }
}

fn strings<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<CString>, KernelsError> {
    texts
        .map(|text| CString::new(text).map_err(|_| KernelsError::ZeroByte { text: text.chars().take(40).collect() }))
        .collect()
}

fn options_text(options: &[CString]) -> String {
    options.iter().map(|option| option.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
