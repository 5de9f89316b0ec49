// Written by tools/ascend-bindings from backend-ascend/bindings/capture.h.

use super::types::*;

pub struct Capture {
    __library: ::libloading::Library,
    pub aclmdlRICaptureBegin: unsafe extern "C" fn(stream: aclrtStream, mode: aclmdlRICaptureMode) -> aclError,
    pub aclmdlRICaptureEnd: unsafe extern "C" fn(stream: aclrtStream, modelRI: *mut aclmdlRI) -> aclError,
    pub aclmdlRICaptureTaskGrpBegin: unsafe extern "C" fn(stream: aclrtStream) -> aclError,
    pub aclmdlRICaptureTaskGrpEnd: unsafe extern "C" fn(stream: aclrtStream, handle: *mut aclrtTaskGrp) -> aclError,
    pub aclmdlRICaptureTaskUpdateBegin: unsafe extern "C" fn(stream: aclrtStream, handle: aclrtTaskGrp) -> aclError,
    pub aclmdlRICaptureTaskUpdateEnd: unsafe extern "C" fn(stream: aclrtStream) -> aclError,
    pub aclmdlRIExecuteAsync: unsafe extern "C" fn(modelRI: aclmdlRI, stream: aclrtStream) -> aclError,
    pub aclmdlRIDestroy: unsafe extern "C" fn(modelRI: aclmdlRI) -> aclError,
    pub aclrtCreateEventExWithFlag: unsafe extern "C" fn(event: *mut aclrtEvent, flag: u32) -> aclError,
    pub aclrtDestroyEvent: unsafe extern "C" fn(event: aclrtEvent) -> aclError,
    pub aclrtRecordEvent: unsafe extern "C" fn(event: aclrtEvent, stream: aclrtStream) -> aclError,
    pub aclrtStreamWaitEvent: unsafe extern "C" fn(stream: aclrtStream, event: aclrtEvent) -> aclError,
    pub aclrtResetEvent: unsafe extern "C" fn(event: aclrtEvent, stream: aclrtStream) -> aclError,
}
impl Capture {
    pub unsafe fn new<P>(path: P) -> Result<Self, ::libloading::Error>
    where
        P: AsRef<::std::ffi::OsStr>,
    {
        let path = path.as_ref();
        let library = ::libloading::Library::new(path)?;
        Self::from_library(library)
    }
    pub unsafe fn from_library<L>(library: L) -> Result<Self, ::libloading::Error>
    where
        L: Into<::libloading::Library>,
    {
        let __library = library.into();
        let aclmdlRICaptureBegin = __library.get(b"aclmdlRICaptureBegin\0").map(|sym| *sym)?;
        let aclmdlRICaptureEnd = __library.get(b"aclmdlRICaptureEnd\0").map(|sym| *sym)?;
        let aclmdlRICaptureTaskGrpBegin = __library.get(b"aclmdlRICaptureTaskGrpBegin\0").map(|sym| *sym)?;
        let aclmdlRICaptureTaskGrpEnd = __library.get(b"aclmdlRICaptureTaskGrpEnd\0").map(|sym| *sym)?;
        let aclmdlRICaptureTaskUpdateBegin = __library.get(b"aclmdlRICaptureTaskUpdateBegin\0").map(|sym| *sym)?;
        let aclmdlRICaptureTaskUpdateEnd = __library.get(b"aclmdlRICaptureTaskUpdateEnd\0").map(|sym| *sym)?;
        let aclmdlRIExecuteAsync = __library.get(b"aclmdlRIExecuteAsync\0").map(|sym| *sym)?;
        let aclmdlRIDestroy = __library.get(b"aclmdlRIDestroy\0").map(|sym| *sym)?;
        let aclrtCreateEventExWithFlag = __library.get(b"aclrtCreateEventExWithFlag\0").map(|sym| *sym)?;
        let aclrtDestroyEvent = __library.get(b"aclrtDestroyEvent\0").map(|sym| *sym)?;
        let aclrtRecordEvent = __library.get(b"aclrtRecordEvent\0").map(|sym| *sym)?;
        let aclrtStreamWaitEvent = __library.get(b"aclrtStreamWaitEvent\0").map(|sym| *sym)?;
        let aclrtResetEvent = __library.get(b"aclrtResetEvent\0").map(|sym| *sym)?;
        Ok(Capture {
            __library,
            aclmdlRICaptureBegin,
            aclmdlRICaptureEnd,
            aclmdlRICaptureTaskGrpBegin,
            aclmdlRICaptureTaskGrpEnd,
            aclmdlRICaptureTaskUpdateBegin,
            aclmdlRICaptureTaskUpdateEnd,
            aclmdlRIExecuteAsync,
            aclmdlRIDestroy,
            aclrtCreateEventExWithFlag,
            aclrtDestroyEvent,
            aclrtRecordEvent,
            aclrtStreamWaitEvent,
            aclrtResetEvent,
        })
    }
    pub unsafe fn aclmdlRICaptureBegin(&self, stream: aclrtStream, mode: aclmdlRICaptureMode) -> aclError {
        (self.aclmdlRICaptureBegin)(stream, mode)
    }
    pub unsafe fn aclmdlRICaptureEnd(&self, stream: aclrtStream, modelRI: *mut aclmdlRI) -> aclError {
        (self.aclmdlRICaptureEnd)(stream, modelRI)
    }
    pub unsafe fn aclmdlRICaptureTaskGrpBegin(&self, stream: aclrtStream) -> aclError {
        (self.aclmdlRICaptureTaskGrpBegin)(stream)
    }
    pub unsafe fn aclmdlRICaptureTaskGrpEnd(&self, stream: aclrtStream, handle: *mut aclrtTaskGrp) -> aclError {
        (self.aclmdlRICaptureTaskGrpEnd)(stream, handle)
    }
    pub unsafe fn aclmdlRICaptureTaskUpdateBegin(&self, stream: aclrtStream, handle: aclrtTaskGrp) -> aclError {
        (self.aclmdlRICaptureTaskUpdateBegin)(stream, handle)
    }
    pub unsafe fn aclmdlRICaptureTaskUpdateEnd(&self, stream: aclrtStream) -> aclError {
        (self.aclmdlRICaptureTaskUpdateEnd)(stream)
    }
    pub unsafe fn aclmdlRIExecuteAsync(&self, modelRI: aclmdlRI, stream: aclrtStream) -> aclError {
        (self.aclmdlRIExecuteAsync)(modelRI, stream)
    }
    pub unsafe fn aclmdlRIDestroy(&self, modelRI: aclmdlRI) -> aclError {
        (self.aclmdlRIDestroy)(modelRI)
    }
    pub unsafe fn aclrtCreateEventExWithFlag(&self, event: *mut aclrtEvent, flag: u32) -> aclError {
        (self.aclrtCreateEventExWithFlag)(event, flag)
    }
    pub unsafe fn aclrtDestroyEvent(&self, event: aclrtEvent) -> aclError {
        (self.aclrtDestroyEvent)(event)
    }
    pub unsafe fn aclrtRecordEvent(&self, event: aclrtEvent, stream: aclrtStream) -> aclError {
        (self.aclrtRecordEvent)(event, stream)
    }
    pub unsafe fn aclrtStreamWaitEvent(&self, stream: aclrtStream, event: aclrtEvent) -> aclError {
        (self.aclrtStreamWaitEvent)(stream, event)
    }
    pub unsafe fn aclrtResetEvent(&self, event: aclrtEvent, stream: aclrtStream) -> aclError {
        (self.aclrtResetEvent)(event, stream)
    }
}
