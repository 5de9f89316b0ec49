//! NVIDIA's library of matrix products: its functions, looked up once, and products of FP8 blocks.
//!
//! The functions are declared here, not taken from the bindings: those panic where the library is missing, and a status or a
//! mode that a newer library knows is undefined behaviour in their enums. Numbers are those of the header of CUDA 12.9.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::mem::{ManuallyDrop, size_of};
use std::ptr;
use std::sync::Arc;

use super::{Context, DriverError, report_drop};

/// Its names: one is loaded under the first that there is.
pub(crate) const FILES: [&str; 3] = ["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"];

/// Memory that a product may use while it runs.
pub(crate) const WORKSPACE_BYTES: usize = 32 << 20;

/// What most functions return (`cublasStatus_t`).
type Status = c_int;
const SUCCESS: Status = 0;
const NOT_SUPPORTED: Status = 15;

/// `cublasComputeType_t`, `cudaDataType_t` and `cublasOperation_t`.
const COMPUTE_32F: c_int = 68;
const R_32F: c_int = 0;
const R_16BF: c_int = 14;
const R_8F_E4M3: c_int = 28;
const OP_N: c_int = 0;
const OP_T: c_int = 1;

/// `cublasLtMatmulDescAttributes_t`.
const DESC_TRANSA: c_int = 3;
const DESC_TRANSB: c_int = 4;
const DESC_A_SCALE_POINTER: c_int = 17;
const DESC_B_SCALE_POINTER: c_int = 18;
const DESC_A_SCALE_MODE: c_int = 31;
const DESC_B_SCALE_MODE: c_int = 32;

/// `cublasLtMatmulMatrixScale_t`: an f32 for 128 values along k, and for 128 rows of them.
const SCALE_VEC128_32F: c_int = 4;
const SCALE_BLK128X128_32F: c_int = 5;

/// `cublasLtMatmulPreferenceAttributes_t`.
const PREF_MAX_WORKSPACE_BYTES: c_int = 1;
/// Of A, B, C and D; the library takes 256 bytes where it is not told.
const PREF_MIN_ALIGNMENT_BYTES: [c_int; 4] = [5, 6, 7, 8];

/// What operands' addresses are multiples of.
const ALIGNMENT: u32 = 16;

/// A handle or a descriptor, as the library knows it.
type Handle = *mut c_void;

/// How the library computes a product (`cublasLtMatmulAlgo_t`): opaque to us, good for products of the same sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Algorithm([u64; 8]);

/// `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
struct Heuristic {
    algorithm: Algorithm,
    workspace_bytes: usize,
    state: Status,
    waves: f32,
    reserved: [c_int; 4],
}

/// Declares functions of the library, all of which it must have.
macro_rules! functions {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?) -> $result:ty;)*) => {
        #[allow(non_snake_case, reason = "the library's own names")]
        struct Api {
            $($name: unsafe extern "C" fn($($type),*) -> $result,)*
            /// The functions' home, which stays loaded: it is large, and may be another library's too.
            _library: ManuallyDrop<libloading::Library>,
        }

        #[allow(non_snake_case, reason = "the library's own names")]
        impl Api {
            fn new(library: libloading::Library) -> Result<Self, LibraryAbsence> {
                $(
                    // SAFETY: the function is declared as the library's reference has it.
                    let found = unsafe { library.get(concat!(stringify!($name), "\0")) };
                    let $name = *found.map_err(|_| LibraryAbsence::Symbol(stringify!($name)))?;
                )*
                Ok(Self { $($name,)* _library: ManuallyDrop::new(library) })
            }
        }
    };
}

functions! {
    fn cublasLtGetVersion() -> usize;
    fn cublasLtGetStatusString(status: Status) -> *const c_char;
    fn cublasLtCreate(handle: *mut Handle) -> Status;
    fn cublasLtDestroy(handle: Handle) -> Status;
    fn cublasLtMatmulDescCreate(description: *mut Handle, compute_type: c_int, scale_type: c_int) -> Status;
    fn cublasLtMatmulDescDestroy(description: Handle) -> Status;
    fn cublasLtMatmulDescSetAttribute(
        description: Handle,
        attribute: c_int,
        value: *const c_void,
        num_bytes: usize,
    ) -> Status;
    fn cublasLtMatrixLayoutCreate(layout: *mut Handle, data_type: c_int, rows: u64, cols: u64, step: i64) -> Status;
    fn cublasLtMatrixLayoutDestroy(layout: Handle) -> Status;
    fn cublasLtMatmulPreferenceCreate(preference: *mut Handle) -> Status;
    fn cublasLtMatmulPreferenceDestroy(preference: Handle) -> Status;
    fn cublasLtMatmulPreferenceSetAttribute(
        preference: Handle,
        attribute: c_int,
        value: *const c_void,
        num_bytes: usize,
    ) -> Status;
    fn cublasLtMatmulAlgoGetHeuristic(
        handle: Handle,
        description: Handle,
        a_layout: Handle,
        b_layout: Handle,
        c_layout: Handle,
        d_layout: Handle,
        preference: Handle,
        num_asked: c_int,
        found: *mut Heuristic,
        num_found: *mut c_int,
    ) -> Status;
    fn cublasLtMatmul(
        handle: Handle,
        description: Handle,
        alpha: *const c_void,
        a: *const c_void,
        a_layout: Handle,
        b: *const c_void,
        b_layout: Handle,
        beta: *const c_void,
        c: *const c_void,
        c_layout: Handle,
        d: *mut c_void,
        d_layout: Handle,
        algorithm: *const Algorithm,
        workspace: *mut c_void,
        workspace_bytes: usize,
        queue: *mut c_void,
    ) -> Status;
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Api {
    /// Turns a status into a result.
    fn check(&self, function: &'static str, status: Status) -> Result<(), LibraryError> {
        if status == SUCCESS {
            return Ok(());
        }
        // SAFETY: takes any number.
        let words = unsafe { (self.cublasLtGetStatusString)(status) };
        let words = if words.is_null() {
            "without a word".into()
        } else {
            // SAFETY: the library answers with a text of its own that ends in a zero byte and stays.
            unsafe { CStr::from_ptr(words) }.to_string_lossy()
        };
        Err(LibraryError(format!("{function} answered {status} ({words})")))
    }

    /// What `create` makes.
    fn made(
        &self,
        name: &'static str,
        destroy: unsafe extern "C" fn(Handle) -> Status,
        create: impl FnOnce(*mut Handle) -> Status,
    ) -> Result<Descriptor, LibraryError> {
        let mut handle = ptr::null_mut();
        self.check(name, create(&raw mut handle))?;
        Ok(Descriptor { handle, destroy })
    }
}

/// A function of the library that failed: which, and what it answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LibraryError(String);

impl std::fmt::Display for LibraryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<DriverError> for LibraryError {
    fn from(error: DriverError) -> Self {
        Self(error.to_string())
    }
}

/// What of the library is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LibraryAbsence {
    /// All of it.
    Library,
    /// A function of it.
    Symbol(&'static str),
}

/// Something that the library made, destroyed when dropped.
#[derive(Debug)]
struct Descriptor {
    handle: Handle,
    destroy: unsafe extern "C" fn(Handle) -> Status,
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: the library made the handle, for this function, and nothing has destroyed it.
        let status = unsafe { (self.destroy)(self.handle) };
        if status != SUCCESS {
            tracing::warn!(status, "something of cuBLASLt could not be given back");
        }
    }
}

/// The library, loaded.
#[derive(Debug)]
pub(crate) struct ProductLibrary(Api);

impl ProductLibrary {
    /// Opens it and looks every function up.
    pub(crate) fn open() -> Result<Self, LibraryAbsence> {
        let opened = FILES.iter().find_map(|file| {
            // SAFETY: the library is cuBLASLt, whose initialisers are made to run in any process.
            unsafe { libloading::Library::new(OsStr::new(file)) }.ok()
        });
        Ok(Self(Api::new(opened.ok_or(LibraryAbsence::Library)?)?))
    }

    /// 120900 is 12.9.0.
    pub(crate) fn version(&self) -> usize {
        // SAFETY: takes nothing, and works before anything else does.
        unsafe { (self.0.cublasLtGetVersion)() }
    }

    /// Ready for products on a context's device.
    pub(crate) fn on(self, context: &Arc<Context>) -> Result<Products, LibraryError> {
        let Self(api) = self;
        context.bind()?;
        let handle = api.made("cublasLtCreate", api.cublasLtDestroy, |to| {
            // SAFETY: the result goes to a pointer that outlives the call.
            unsafe { (api.cublasLtCreate)(to) }
        })?;
        Ok(Products { handle, api, context: context.clone() })
    }
}

/// `out = x Wᵀ` of e4m3 codes with f32 scales: for 128 values of a row of x, and for 128 x 128 of W. Sizes, and bytes (x, W)
/// or elements (out) from row to row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BlockProduct {
    /// Rows of x: a multiple of 4.
    pub(crate) num_rows: u32,
    /// Rows of W.
    pub(crate) n: u32,
    /// Columns of both: a multiple of 16.
    pub(crate) k: u32,
    pub(crate) x_stride: u32,
    pub(crate) w_stride: u32,
    pub(crate) out_stride: u32,
    /// f32 results in place of bf16.
    pub(crate) out_is_f32: bool,
}

/// Addresses in device memory, multiples of 16.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockOperands {
    pub(crate) x: u64,
    /// `[⌈k / 128⌉][num_rows]`.
    pub(crate) x_scales: u64,
    pub(crate) w: u64,
    /// `[⌈n / 128⌉][⌈k / 128⌉ rounded up to 4]`.
    pub(crate) w_scales: u64,
    pub(crate) out: u64,
    /// [`WORKSPACE_BYTES`], aligned to 256.
    pub(crate) workspace: u64,
}

/// The library on a device.
#[derive(Debug)]
pub(crate) struct Products {
    handle: Descriptor,
    api: Api,
    /// Whose memory the library's handle holds.
    context: Arc<Context>,
}

impl Drop for Products {
    fn drop(&mut self) {
        // What the handle has on the device is given back next.
        report_drop(self.context.bind());
    }
}

// SAFETY: the library lets any thread use a handle, several at a time.
unsafe impl Send for Products {}
// SAFETY: as above.
unsafe impl Sync for Products {}

/// A product as the library is told about it. It stores matrices by columns, so rows of ours are columns of its: its A is W,
/// transposed, its B is x, its C and D are the result.
struct Described {
    description: Descriptor,
    layouts: [Descriptor; 3],
}

impl Products {
    /// How the library would compute a product, if it can. Scales lie at these addresses of W's and x's; they are not read.
    pub(crate) fn choose(&self, product: &BlockProduct, scales: [u64; 2]) -> Result<Option<Algorithm>, LibraryError> {
        self.context.bind()?;
        let api = &self.api;
        let Described { description, layouts: [w, x, out] } = self.describe(product, scales)?;
        let preference = self.preference()?;
        let mut found = Heuristic {
            algorithm: Algorithm([0; 8]),
            workspace_bytes: 0,
            state: NOT_SUPPORTED,
            waves: 0.0,
            reserved: [0; 4],
        };
        let mut num_found = 0;
        // SAFETY: the handle and the descriptors are alive; there is room for the one result that is asked for.
        let status = unsafe {
            (api.cublasLtMatmulAlgoGetHeuristic)(
                self.handle.handle,
                description.handle,
                w.handle,
                x.handle,
                out.handle,
                out.handle,
                preference.handle,
                1,
                &raw mut found,
                &raw mut num_found,
            )
        };
        if status == NOT_SUPPORTED {
            return Ok(None);
        }
        api.check("cublasLtMatmulAlgoGetHeuristic", status)?;
        let is_good = num_found > 0 && found.state == SUCCESS && found.workspace_bytes <= WORKSPACE_BYTES;
        Ok(is_good.then_some(found.algorithm))
    }

    /// Queues a product. The queue is a stream of the context, which is the calling thread's; the operands live until the
    /// product has run: the caller vouches for that, as in [`Stream::launch`](super::Stream::launch).
    pub(crate) fn multiply(
        &self,
        queue: u64,
        product: &BlockProduct,
        algorithm: &Algorithm,
        operands: &BlockOperands,
    ) -> Result<(), LibraryError> {
        let BlockOperands { x, x_scales, w, w_scales, out, workspace } = *operands;
        let described = self.describe(product, [w_scales, x_scales])?;
        let [w_layout, x_layout, out_layout] = &described.layouts;
        let [queue, x, w, out, workspace] =
            [queue, x, w, out, workspace].map(|address| ptr::with_exposed_provenance_mut::<c_void>(address as usize));
        let (alpha, beta) = (1.0_f32, 0.0_f32);
        // SAFETY: the handle and the descriptors are alive, and read before the call returns; so are the two factors. Queue
        // and operands are the caller's promise. With a factor of zero the result's old values are not read.
        let status = unsafe {
            (self.api.cublasLtMatmul)(
                self.handle.handle,
                described.description.handle,
                (&raw const alpha).cast(),
                w,
                w_layout.handle,
                x,
                x_layout.handle,
                (&raw const beta).cast(),
                out,
                out_layout.handle,
                out,
                out_layout.handle,
                algorithm,
                workspace,
                WORKSPACE_BYTES,
                queue,
            )
        };
        self.api.check("cublasLtMatmul", status)
    }

    fn describe(&self, product: &BlockProduct, [w_scales, x_scales]: [u64; 2]) -> Result<Described, LibraryError> {
        let api = &self.api;
        let BlockProduct { num_rows, n, k, x_stride, w_stride, out_stride, out_is_f32 } = *product;
        let description = api.made("cublasLtMatmulDescCreate", api.cublasLtMatmulDescDestroy, |to| {
            // SAFETY: the result goes to a pointer that outlives the call.
            unsafe { (api.cublasLtMatmulDescCreate)(to, COMPUTE_32F, R_32F) }
        })?;
        for (attribute, value) in [
            (DESC_TRANSA, OP_T),
            (DESC_TRANSB, OP_N),
            (DESC_A_SCALE_MODE, SCALE_BLK128X128_32F),
            (DESC_B_SCALE_MODE, SCALE_VEC128_32F),
        ] {
            self.set(&description, attribute, &value)?;
        }
        for (attribute, address) in [(DESC_A_SCALE_POINTER, w_scales), (DESC_B_SCALE_POINTER, x_scales)] {
            self.set(&description, attribute, &ptr::with_exposed_provenance::<c_void>(address as usize))?;
        }
        let layout = |data_type, [rows, cols, step]: [u32; 3]| {
            api.made("cublasLtMatrixLayoutCreate", api.cublasLtMatrixLayoutDestroy, |to| {
                // SAFETY: the result goes to a pointer that outlives the call.
                unsafe { (api.cublasLtMatrixLayoutCreate)(to, data_type, rows.into(), cols.into(), step.into()) }
            })
        };
        let layouts = [
            layout(R_8F_E4M3, [k, n, w_stride])?,
            layout(R_8F_E4M3, [k, num_rows, x_stride])?,
            layout(if out_is_f32 { R_32F } else { R_16BF }, [n, num_rows, out_stride])?,
        ];
        Ok(Described { description, layouts })
    }

    /// An attribute of a description, which is a number of 32 bits or an address.
    fn set<T: Copy>(&self, description: &Descriptor, attribute: c_int, value: &T) -> Result<(), LibraryError> {
        let value = ptr::from_ref(value).cast();
        // SAFETY: the description is alive; the value is as large as it is said to be, and copied.
        let status =
            unsafe { (self.api.cublasLtMatmulDescSetAttribute)(description.handle, attribute, value, size_of::<T>()) };
        self.api.check("cublasLtMatmulDescSetAttribute", status)
    }

    /// As much workspace as there is, and operands as they are aligned here.
    fn preference(&self) -> Result<Descriptor, LibraryError> {
        let api = &self.api;
        let preference = api.made("cublasLtMatmulPreferenceCreate", api.cublasLtMatmulPreferenceDestroy, |to| {
            // SAFETY: the result goes to a pointer that outlives the call.
            unsafe { (api.cublasLtMatmulPreferenceCreate)(to) }
        })?;
        self.prefer(&preference, PREF_MAX_WORKSPACE_BYTES, &(WORKSPACE_BYTES as u64))?;
        for attribute in PREF_MIN_ALIGNMENT_BYTES {
            self.prefer(&preference, attribute, &ALIGNMENT)?;
        }
        Ok(preference)
    }

    /// An attribute of a preference, which is a number of 64 or of 32 bits.
    fn prefer<T: Copy>(&self, preference: &Descriptor, attribute: c_int, value: &T) -> Result<(), LibraryError> {
        let value = ptr::from_ref(value).cast();
        // SAFETY: the preference is alive; the value is as large as it is said to be, and copied.
        let status = unsafe {
            (self.api.cublasLtMatmulPreferenceSetAttribute)(preference.handle, attribute, value, size_of::<T>())
        };
        self.api.check("cublasLtMatmulPreferenceSetAttribute", status)
    }
}
