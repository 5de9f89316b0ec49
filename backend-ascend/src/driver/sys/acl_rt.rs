// Written by tools/ascend-bindings from backend-ascend/bindings/acl_rt.h.

use super::types::*;

pub struct AclRt {
    __library: ::libloading::Library,
    pub aclInit: unsafe extern "C" fn(configPath: *const ::std::os::raw::c_char) -> aclError,
    pub aclGetRecentErrMsg: unsafe extern "C" fn() -> *const ::std::os::raw::c_char,
    pub aclrtGetSocName: unsafe extern "C" fn() -> *const ::std::os::raw::c_char,
    pub aclrtGetDeviceCount: unsafe extern "C" fn(count: *mut u32) -> aclError,
    pub aclrtCreateContext: unsafe extern "C" fn(context: *mut aclrtContext, deviceId: i32) -> aclError,
    pub aclrtDestroyContext: unsafe extern "C" fn(context: aclrtContext) -> aclError,
    pub aclrtSetCurrentContext: unsafe extern "C" fn(context: aclrtContext) -> aclError,
    pub aclrtSynchronizeDevice: unsafe extern "C" fn() -> aclError,
    pub aclrtGetMemInfo: unsafe extern "C" fn(attr: aclrtMemAttr, free: *mut usize, total: *mut usize) -> aclError,
    pub aclrtMalloc: unsafe extern "C" fn(
        devPtr: *mut *mut ::std::os::raw::c_void,
        size: usize,
        policy: aclrtMemMallocPolicy,
    ) -> aclError,
    pub aclrtFree: unsafe extern "C" fn(devPtr: *mut ::std::os::raw::c_void) -> aclError,
    pub aclrtMallocHost: unsafe extern "C" fn(hostPtr: *mut *mut ::std::os::raw::c_void, size: usize) -> aclError,
    pub aclrtFreeHost: unsafe extern "C" fn(hostPtr: *mut ::std::os::raw::c_void) -> aclError,
    pub aclrtMemcpy: unsafe extern "C" fn(
        dst: *mut ::std::os::raw::c_void,
        destMax: usize,
        src: *const ::std::os::raw::c_void,
        count: usize,
        kind: aclrtMemcpyKind,
    ) -> aclError,
    pub aclrtMemcpyAsync: unsafe extern "C" fn(
        dst: *mut ::std::os::raw::c_void,
        destMax: usize,
        src: *const ::std::os::raw::c_void,
        count: usize,
        kind: aclrtMemcpyKind,
        stream: aclrtStream,
    ) -> aclError,
    pub aclrtCreateStream: unsafe extern "C" fn(stream: *mut aclrtStream) -> aclError,
    pub aclrtDestroyStream: unsafe extern "C" fn(stream: aclrtStream) -> aclError,
    pub aclrtSynchronizeStream: unsafe extern "C" fn(stream: aclrtStream) -> aclError,
}
impl AclRt {
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
        let aclInit = __library.get(b"aclInit\0").map(|sym| *sym)?;
        let aclGetRecentErrMsg = __library.get(b"aclGetRecentErrMsg\0").map(|sym| *sym)?;
        let aclrtGetSocName = __library.get(b"aclrtGetSocName\0").map(|sym| *sym)?;
        let aclrtGetDeviceCount = __library.get(b"aclrtGetDeviceCount\0").map(|sym| *sym)?;
        let aclrtCreateContext = __library.get(b"aclrtCreateContext\0").map(|sym| *sym)?;
        let aclrtDestroyContext = __library.get(b"aclrtDestroyContext\0").map(|sym| *sym)?;
        let aclrtSetCurrentContext = __library.get(b"aclrtSetCurrentContext\0").map(|sym| *sym)?;
        let aclrtSynchronizeDevice = __library.get(b"aclrtSynchronizeDevice\0").map(|sym| *sym)?;
        let aclrtGetMemInfo = __library.get(b"aclrtGetMemInfo\0").map(|sym| *sym)?;
        let aclrtMalloc = __library.get(b"aclrtMalloc\0").map(|sym| *sym)?;
        let aclrtFree = __library.get(b"aclrtFree\0").map(|sym| *sym)?;
        let aclrtMallocHost = __library.get(b"aclrtMallocHost\0").map(|sym| *sym)?;
        let aclrtFreeHost = __library.get(b"aclrtFreeHost\0").map(|sym| *sym)?;
        let aclrtMemcpy = __library.get(b"aclrtMemcpy\0").map(|sym| *sym)?;
        let aclrtMemcpyAsync = __library.get(b"aclrtMemcpyAsync\0").map(|sym| *sym)?;
        let aclrtCreateStream = __library.get(b"aclrtCreateStream\0").map(|sym| *sym)?;
        let aclrtDestroyStream = __library.get(b"aclrtDestroyStream\0").map(|sym| *sym)?;
        let aclrtSynchronizeStream = __library.get(b"aclrtSynchronizeStream\0").map(|sym| *sym)?;
        Ok(AclRt {
            __library,
            aclInit,
            aclGetRecentErrMsg,
            aclrtGetSocName,
            aclrtGetDeviceCount,
            aclrtCreateContext,
            aclrtDestroyContext,
            aclrtSetCurrentContext,
            aclrtSynchronizeDevice,
            aclrtGetMemInfo,
            aclrtMalloc,
            aclrtFree,
            aclrtMallocHost,
            aclrtFreeHost,
            aclrtMemcpy,
            aclrtMemcpyAsync,
            aclrtCreateStream,
            aclrtDestroyStream,
            aclrtSynchronizeStream,
        })
    }
    pub unsafe fn aclInit(&self, configPath: *const ::std::os::raw::c_char) -> aclError {
        (self.aclInit)(configPath)
    }
    pub unsafe fn aclGetRecentErrMsg(&self) -> *const ::std::os::raw::c_char {
        (self.aclGetRecentErrMsg)()
    }
    pub unsafe fn aclrtGetSocName(&self) -> *const ::std::os::raw::c_char {
        (self.aclrtGetSocName)()
    }
    pub unsafe fn aclrtGetDeviceCount(&self, count: *mut u32) -> aclError {
        (self.aclrtGetDeviceCount)(count)
    }
    pub unsafe fn aclrtCreateContext(&self, context: *mut aclrtContext, deviceId: i32) -> aclError {
        (self.aclrtCreateContext)(context, deviceId)
    }
    pub unsafe fn aclrtDestroyContext(&self, context: aclrtContext) -> aclError {
        (self.aclrtDestroyContext)(context)
    }
    pub unsafe fn aclrtSetCurrentContext(&self, context: aclrtContext) -> aclError {
        (self.aclrtSetCurrentContext)(context)
    }
    pub unsafe fn aclrtSynchronizeDevice(&self) -> aclError {
        (self.aclrtSynchronizeDevice)()
    }
    pub unsafe fn aclrtGetMemInfo(&self, attr: aclrtMemAttr, free: *mut usize, total: *mut usize) -> aclError {
        (self.aclrtGetMemInfo)(attr, free, total)
    }
    pub unsafe fn aclrtMalloc(
        &self,
        devPtr: *mut *mut ::std::os::raw::c_void,
        size: usize,
        policy: aclrtMemMallocPolicy,
    ) -> aclError {
        (self.aclrtMalloc)(devPtr, size, policy)
    }
    pub unsafe fn aclrtFree(&self, devPtr: *mut ::std::os::raw::c_void) -> aclError {
        (self.aclrtFree)(devPtr)
    }
    pub unsafe fn aclrtMallocHost(&self, hostPtr: *mut *mut ::std::os::raw::c_void, size: usize) -> aclError {
        (self.aclrtMallocHost)(hostPtr, size)
    }
    pub unsafe fn aclrtFreeHost(&self, hostPtr: *mut ::std::os::raw::c_void) -> aclError {
        (self.aclrtFreeHost)(hostPtr)
    }
    pub unsafe fn aclrtMemcpy(
        &self,
        dst: *mut ::std::os::raw::c_void,
        destMax: usize,
        src: *const ::std::os::raw::c_void,
        count: usize,
        kind: aclrtMemcpyKind,
    ) -> aclError {
        (self.aclrtMemcpy)(dst, destMax, src, count, kind)
    }
    pub unsafe fn aclrtMemcpyAsync(
        &self,
        dst: *mut ::std::os::raw::c_void,
        destMax: usize,
        src: *const ::std::os::raw::c_void,
        count: usize,
        kind: aclrtMemcpyKind,
        stream: aclrtStream,
    ) -> aclError {
        (self.aclrtMemcpyAsync)(dst, destMax, src, count, kind, stream)
    }
    pub unsafe fn aclrtCreateStream(&self, stream: *mut aclrtStream) -> aclError {
        (self.aclrtCreateStream)(stream)
    }
    pub unsafe fn aclrtDestroyStream(&self, stream: aclrtStream) -> aclError {
        (self.aclrtDestroyStream)(stream)
    }
    pub unsafe fn aclrtSynchronizeStream(&self, stream: aclrtStream) -> aclError {
        (self.aclrtSynchronizeStream)(stream)
    }
}
