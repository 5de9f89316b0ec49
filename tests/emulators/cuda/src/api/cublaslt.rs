//! The library of matrix products.

use std::ffi::{c_char, c_int};

use gpu_emulator::{Driver, Gpu as _, Outcome, Status, Statuses, answer_as, read, read_at, write};

use crate::config::Cuda;
use crate::cublaslt::{self, Algorithm, Call, Made, Operands, invalid, passed_on, result, words};

const STATUSES: Statuses =
    Statuses { known: result::NOT_INITIALIZED..=result::LAST, unhandled: result::EXECUTION_FAILED, words };

/// `cublasLtMatmulHeuristicResult_t`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Heuristic {
    pub(crate) algorithm: Algorithm,
    workspace_bytes: usize,
    state: Status,
    waves: f32,
    reserved: [c_int; 4],
}

/// Bytes of an attribute; its size is the caller's.
fn attribute(value: *const u8, num_bytes: usize) -> Outcome<Vec<u8>> {
    if num_bytes > 8 {
        return invalid(format!("an attribute of {num_bytes} bytes"));
    }
    (0..num_bytes).map(|i| read_at(value, i).map_err(passed_on)).collect()
}

/// Defines exported functions. The body gets the driver under its lock.
macro_rules! entries {
    ($(fn $name:ident($driver:pat $(, $argument:ident: $type:ty)* $(,)?) $body:block)*) => {
        $(
            // SAFETY: the name is that of the library's function, with its parameters.
            #[unsafe(no_mangle)]
            #[allow(non_snake_case, clippy::too_many_arguments, reason = "the library's own function")]
            pub(crate) extern "C" fn $name($($argument: $type),*) -> Status {
                let body = |$driver: &mut Driver<Cuda>| -> Outcome<()> { $body };
                answer_as(&STATUSES, stringify!($name), body)
            }
        )*
    };
}

entries! {
    fn cublasLtCreate(driver, handle: *mut u64) {
        write(handle, cublaslt::create(driver)?).map_err(passed_on)
    }

    fn cublasLtDestroy(driver, handle: u64) {
        cublaslt::destroy(driver, Made::Library, handle)
    }

    fn cublasLtMatmulDescCreate(driver, description: *mut u64, compute_type: c_int, scale_type: c_int) {
        write(description, cublaslt::new_description(driver, compute_type, scale_type)?).map_err(passed_on)
    }

    fn cublasLtMatmulDescDestroy(driver, description: u64) {
        cublaslt::destroy(driver, Made::Description, description)
    }

    fn cublasLtMatmulDescSetAttribute(driver, description: u64, what: c_int, value: *const u8, num_bytes: usize) {
        cublaslt::describe(driver, description, what, &attribute(value, num_bytes)?)
    }

    fn cublasLtMatrixLayoutCreate(driver, layout: *mut u64, data_type: c_int, rows: u64, cols: u64, step: i64) {
        write(layout, cublaslt::new_layout(driver, (data_type, rows, cols, step))?).map_err(passed_on)
    }

    fn cublasLtMatrixLayoutDestroy(driver, layout: u64) {
        cublaslt::destroy(driver, Made::Layout, layout)
    }

    fn cublasLtMatmulPreferenceCreate(driver, preference: *mut u64) {
        write(preference, cublaslt::new_preference(driver)?).map_err(passed_on)
    }

    fn cublasLtMatmulPreferenceDestroy(driver, preference: u64) {
        cublaslt::destroy(driver, Made::Preference, preference)
    }

    fn cublasLtMatmulPreferenceSetAttribute(driver, preference: u64, what: c_int, value: *const u8, num_bytes: usize) {
        cublaslt::prefer(driver, preference, what, &attribute(value, num_bytes)?)
    }

    fn cublasLtMatmulAlgoGetHeuristic(
        driver,
        handle: u64,
        description: u64,
        a_layout: u64,
        b_layout: u64,
        c_layout: u64,
        d_layout: u64,
        preference: u64,
        num_asked: c_int,
        found: *mut Heuristic,
        num_found: *mut c_int,
    ) {
        if num_asked < 1 {
            return invalid(format!("{num_asked} algorithms are asked for"));
        }
        let call = Call { handle, description, layouts: [a_layout, b_layout, c_layout, d_layout] };
        let chosen = cublaslt::choose(driver, call, preference)?;
        write(num_found, c_int::from(chosen.is_some())).map_err(passed_on)?;
        let Some((algorithm, workspace_bytes)) = chosen else { return Ok(()) };
        write(found, Heuristic { algorithm, workspace_bytes, ..Heuristic::default() }).map_err(passed_on)
    }

    fn cublasLtMatmul(
        driver,
        handle: u64,
        description: u64,
        alpha: *const f32,
        a: u64,
        a_layout: u64,
        b: u64,
        b_layout: u64,
        beta: *const f32,
        c: u64,
        c_layout: u64,
        d: u64,
        d_layout: u64,
        algorithm: *const Algorithm,
        workspace: u64,
        workspace_bytes: usize,
        stream: u64,
    ) {
        let call = Call { handle, description, layouts: [a_layout, b_layout, c_layout, d_layout] };
        let operands = Operands {
            addresses: [a, b, c, d],
            factors: [read(alpha).map_err(passed_on)?, read(beta).map_err(passed_on)?],
            algorithm: read(algorithm).map_err(passed_on)?,
            workspace: (workspace, workspace_bytes),
            stream,
        };
        cublaslt::multiply(driver, call, &operands)
    }
}

/// 120900 is 12.9.0; 0 where the environment asks for a machine that does not exist.
// SAFETY: the name is that of the library's function, with its parameters.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the library's own name")]
pub(crate) extern "C" fn cublasLtGetVersion() -> usize {
    Cuda::slot().lock().ok().and_then(|driver| driver.as_ref().map(|driver| driver.config.gpu.cublaslt)).unwrap_or(0)
}

/// What a result stands for.
// SAFETY: the name is that of the library's function, with its parameter.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the library's own name")]
pub(crate) extern "C" fn cublasLtGetStatusString(result: Status) -> *const c_char {
    words(result).as_ptr()
}
