//! The libraries: are they there, and which operators do they have?

use std::ffi::CStr;

use libloading::Library;

use super::AscendError;
use super::sys::acl_later::AclLater;
use super::sys::acl_rt::AclRt;
use super::sys::capture::Capture;
use super::sys::hccl::Hccl;
use super::sys::nnopbase::NnOpBase;
use super::sys::opapi::OpApi;
use super::sys::types::{aclError, aclrtStream};

/// Names of the runtime: the newer one first.
const RUNTIME: [&str; 2] = ["libacl_rt.so", "libascendcl.so"];
/// Sums over devices, for those who ask for them.
const COLLECTIVES: [&str; 1] = ["libhccl.so"];
const DESCRIPTORS: [&str; 1] = ["libnnopbase.so"];
/// Operators live in three libraries from CANN 9 on, and in one before.
const OPERATORS: [&str; 4] = ["libopapi_math.so", "libopapi_nn.so", "libopapi_transformer.so", "libopapi.so"];

/// `ACL_ERROR_REPEAT_INITIALIZE`: another engine of the process was first.
const REPEAT_INITIALIZE: i32 = 100_002;

/// What is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Absence {
    /// A library: none of these names could be loaded.
    Library(&'static [&'static str]),
    /// A function of a library that is there; the loader's words.
    Function(String),
    /// It is all there and does not start.
    Failed(AscendError),
}

/// CANN's libraries, with every function that they have and we call.
pub(crate) struct Libraries {
    pub(super) acl: AclRt,
    later: AclLater,
    capture: Option<Capture>,
    pub(super) base: NnOpBase,
    pub(super) operators: Vec<OpApi>,
}

impl std::fmt::Debug for Libraries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Libraries").field("operators", &self.operators.len()).finish_non_exhaustive()
    }
}

/// `aclrtStreamAbort`.
pub(super) type StreamAbort = unsafe extern "C" fn(aclrtStream) -> aclError;

/// Operators that this crate calls, each by the names of its two functions.
macro_rules! operators {
    ($($name:ident $plan:ident,)*) => {
        /// An operator, by its name in CANN.
        #[allow(non_camel_case_types, reason = "CANN's own names")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Operator {
            $(#[doc = stringify!($name)] $name,)*
        }

        impl Operator {
            /// Every operator.
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            /// Name in CANN.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }

        impl Libraries {
            /// True where both functions of an operator are there.
            pub(crate) fn has(&self, operator: Operator) -> bool {
                let is_in = |library: &OpApi| match operator {
                    $(Operator::$name => library.$name.is_ok() && library.$plan.is_ok(),)*
                };
                self.operators.iter().any(is_in)
            }
        }
    };
}

operators! {
    aclnnInplaceCopy aclnnInplaceCopyGetWorkspaceSize,
    aclnnInplaceAdd aclnnInplaceAddGetWorkspaceSize,
    aclnnInplaceMuls aclnnInplaceMulsGetWorkspaceSize,
    aclnnCat aclnnCatGetWorkspaceSize,
    aclnnNanToNum aclnnNanToNumGetWorkspaceSize,
    aclnnMaxDim aclnnMaxDimGetWorkspaceSize,
    aclnnEqScalar aclnnEqScalarGetWorkspaceSize,
    aclnnSWhere aclnnSWhereGetWorkspaceSize,
    aclnnIndexSelect aclnnIndexSelectGetWorkspaceSize,
    aclnnGather aclnnGatherGetWorkspaceSize,
    aclnnEmbedding aclnnEmbeddingGetWorkspaceSize,
    aclnnRmsNorm aclnnRmsNormGetWorkspaceSize,
    aclnnAddRmsNorm aclnnAddRmsNormGetWorkspaceSize,
    aclnnSoftmax aclnnSoftmaxGetWorkspaceSize,
    aclnnSwiGlu aclnnSwiGluGetWorkspaceSize,
    aclnnMatmul aclnnMatmulGetWorkspaceSize,
    aclnnMatmulWeightNz aclnnMatmulWeightNzGetWorkspaceSize,
    aclnnBatchMatMul aclnnBatchMatMulGetWorkspaceSize,
    aclnnDynamicQuant aclnnDynamicQuantGetWorkspaceSize,
    aclnnQuantMatmulV5 aclnnQuantMatmulV5GetWorkspaceSize,
    aclnnQuantMatmulWeightNz aclnnQuantMatmulWeightNzGetWorkspaceSize,
    aclnnRotaryPositionEmbedding aclnnRotaryPositionEmbeddingGetWorkspaceSize,
    aclnnScatterPaKvCache aclnnScatterPaKvCacheGetWorkspaceSize,
    aclnnKvRmsNormRopeCache aclnnKvRmsNormRopeCacheGetWorkspaceSize,
    aclnnMlaPrologV3WeightNz aclnnMlaPrologV3WeightNzGetWorkspaceSize,
    aclnnFusedInferAttentionScoreV4 aclnnFusedInferAttentionScoreV4GetWorkspaceSize,
    aclnnMoeGatingTopK aclnnMoeGatingTopKGetWorkspaceSize,
    aclnnMoeInitRoutingV3 aclnnMoeInitRoutingV3GetWorkspaceSize,
    aclnnMoeFinalizeRoutingV2 aclnnMoeFinalizeRoutingV2GetWorkspaceSize,
    aclnnGroupedMatmulV5 aclnnGroupedMatmulV5GetWorkspaceSize,
    aclnnGroupedMatmulSwigluQuantWeightNZ aclnnGroupedMatmulSwigluQuantWeightNZGetWorkspaceSize,
}

impl Libraries {
    /// Opens the libraries and initialises the runtime. Can be repeated.
    pub(crate) fn open() -> Result<Self, Absence> {
        let (acl, later) = first(&RUNTIME, |open| {
            // SAFETY: the declarations are those of this library (`bindings/acl_rt.h`).
            let acl = unsafe { AclRt::from_library(open()?) }?;
            // SAFETY: as above (`bindings/acl_later.h`).
            let later = unsafe { AclLater::from_library(open()?) }?;
            Ok((acl, later))
        })?;
        let capture = first(&RUNTIME, |open| {
            // SAFETY: as above (`bindings/capture.h`).
            unsafe { Capture::from_library(open()?) }
        });
        if let Err(absence) = &capture {
            tracing::debug!(?absence, "steps are not recorded");
        }
        let capture = capture.ok();
        let base = first(&DESCRIPTORS, |open| {
            // SAFETY: as above (`bindings/nnopbase.h`).
            unsafe { NnOpBase::from_library(open()?) }
        })?;
        let mut operators = Vec::new();
        for library in OPERATORS.into_iter().filter_map(|name| load(name).ok()) {
            // SAFETY: as above (`bindings/opapi.h`).
            let loaded = unsafe { OpApi::from_library(library) };
            operators.push(loaded.map_err(|error| Absence::Function(words(&error)))?);
        }
        if operators.is_empty() {
            return Err(Absence::Library(&OPERATORS));
        }
        let libraries = Self { acl, later, capture, base, operators };
        // SAFETY: without a configuration file.
        let status = unsafe { (libraries.acl.aclInit)(std::ptr::null()) };
        match libraries.check("aclInit", status) {
            Err(error) if error.status != REPEAT_INITIALIZE => Err(Absence::Failed(error)),
            _ => Ok(libraries),
        }
    }

    /// Turns a status into a result. The words of a failure are taken from the calling thread, which must be the one that
    /// failed.
    pub(super) fn check(&self, function: &'static str, status: i32) -> Result<(), AscendError> {
        if status == 0 { Ok(()) } else { Err(self.error(function, status)) }
    }

    pub(super) fn error(&self, function: &'static str, status: i32) -> AscendError {
        // SAFETY: takes nothing. The answer is null or a text that lives until the thread asks again.
        let text = unsafe { (self.acl.aclGetRecentErrMsg)() };
        let message = if text.is_null() {
            String::new()
        } else {
            // SAFETY: not null, so a text that ends with a zero; it is copied at once.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned()
        };
        AscendError { function, status, message }
    }

    /// What ends the work of a stream.
    pub(super) fn stream_abort(&self) -> Result<StreamAbort, Absence> {
        self.later.aclrtStreamAbort.as_ref().copied().map_err(|error| Absence::Function(words(error)))
    }

    /// Functions that record work, where this CANN has all of them.
    pub(super) fn capture(&self) -> Option<&Capture> {
        self.capture.as_ref()
    }

    /// True where work can be recorded.
    pub(crate) fn captures(&self) -> bool {
        self.capture.is_some()
    }

    /// The product's name, `Ascend910B1` for instance; empty where the runtime does not know.
    pub(crate) fn product(&self) -> String {
        // SAFETY: takes nothing. The answer is null or a text that lives as long as the library.
        let text = unsafe { (self.acl.aclrtGetSocName)() };
        if text.is_null() {
            return String::new();
        }
        // SAFETY: not null, so a text that ends with a zero.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    /// How many devices there are.
    pub(crate) fn num_devices(&self) -> Result<u32, AscendError> {
        let mut count = 0;
        // SAFETY: the result goes to an integer that outlives the call.
        let status = unsafe { (self.acl.aclrtGetDeviceCount)(&raw mut count) };
        self.check("aclrtGetDeviceCount", status)?;
        Ok(count)
    }
}

/// What the loader says, and why.
fn words(error: &libloading::Error) -> String {
    let reason = std::error::Error::source(error).map(|reason| format!(": {reason}"));
    format!("{error}{}", reason.unwrap_or_default())
}

/// HCCL.
pub(super) fn collectives() -> Result<Hccl, Absence> {
    first(&COLLECTIVES, |open| {
        // SAFETY: the declarations are those of this library (`bindings/hccl.h`).
        unsafe { Hccl::from_library(open()?) }
    })
}

/// What the first library of these names has that has all of it. `functions` is given what opens the library.
fn first<T>(
    names: &'static [&'static str],
    functions: impl Fn(&dyn Fn() -> Result<Library, libloading::Error>) -> Result<T, libloading::Error>,
) -> Result<T, Absence> {
    let mut absence = Absence::Library(names);
    for name in names.iter().filter(|name| load(name).is_ok()) {
        match functions(&|| load(name)) {
            Ok(found) => return Ok(found),
            Err(error) => absence = Absence::Function(words(&error)),
        }
    }
    Err(absence)
}

/// Loads a library for the rest of the process: CANN's own are not made to be unloaded. They are there for Linux only, and
/// are not found elsewhere.
fn load(name: &str) -> Result<Library, libloading::Error> {
    #[cfg(target_os = "linux")]
    {
        use libloading::os::unix;
        /// `RTLD_NODELETE` of Linux.
        const NO_DELETE: std::ffi::c_int = 0x1000;
        // SAFETY: runs the initialisers of a library of CANN, which are made to run in any process.
        unsafe { unix::Library::open(Some(name), unix::RTLD_LAZY | unix::RTLD_LOCAL | NO_DELETE) }.map(Library::from)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = name;
        Err(libloading::Error::DlOpenUnknown)
    }
}
