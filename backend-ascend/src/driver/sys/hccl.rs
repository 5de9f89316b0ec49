// Written by tools/ascend-bindings from backend-ascend/bindings/hccl.h.

use super::types::*;

pub struct Hccl {
    __library: ::libloading::Library,
    pub HcclCommInitAll: unsafe extern "C" fn(ndev: u32, devices: *mut i32, comms: *mut HcclComm) -> HcclResult,
    pub HcclCommDestroy: unsafe extern "C" fn(comm: HcclComm) -> HcclResult,
    pub HcclGetCommAsyncError: unsafe extern "C" fn(comm: HcclComm, asyncError: *mut HcclResult) -> HcclResult,
    pub HcclGetErrorString: unsafe extern "C" fn(code: HcclResult) -> *const ::std::os::raw::c_char,
    pub HcclAllReduce: unsafe extern "C" fn(
        sendBuf: *mut ::std::os::raw::c_void,
        recvBuf: *mut ::std::os::raw::c_void,
        count: u64,
        dataType: HcclDataType,
        op: HcclReduceOp,
        comm: HcclComm,
        stream: aclrtStream,
    ) -> HcclResult,
}
impl Hccl {
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
        let HcclCommInitAll = __library.get(b"HcclCommInitAll\0").map(|sym| *sym)?;
        let HcclCommDestroy = __library.get(b"HcclCommDestroy\0").map(|sym| *sym)?;
        let HcclGetCommAsyncError = __library.get(b"HcclGetCommAsyncError\0").map(|sym| *sym)?;
        let HcclGetErrorString = __library.get(b"HcclGetErrorString\0").map(|sym| *sym)?;
        let HcclAllReduce = __library.get(b"HcclAllReduce\0").map(|sym| *sym)?;
        Ok(Hccl {
            __library,
            HcclCommInitAll,
            HcclCommDestroy,
            HcclGetCommAsyncError,
            HcclGetErrorString,
            HcclAllReduce,
        })
    }
    pub unsafe fn HcclCommInitAll(&self, ndev: u32, devices: *mut i32, comms: *mut HcclComm) -> HcclResult {
        (self.HcclCommInitAll)(ndev, devices, comms)
    }
    pub unsafe fn HcclCommDestroy(&self, comm: HcclComm) -> HcclResult {
        (self.HcclCommDestroy)(comm)
    }
    pub unsafe fn HcclGetCommAsyncError(&self, comm: HcclComm, asyncError: *mut HcclResult) -> HcclResult {
        (self.HcclGetCommAsyncError)(comm, asyncError)
    }
    pub unsafe fn HcclGetErrorString(&self, code: HcclResult) -> *const ::std::os::raw::c_char {
        (self.HcclGetErrorString)(code)
    }
    pub unsafe fn HcclAllReduce(
        &self,
        sendBuf: *mut ::std::os::raw::c_void,
        recvBuf: *mut ::std::os::raw::c_void,
        count: u64,
        dataType: HcclDataType,
        op: HcclReduceOp,
        comm: HcclComm,
        stream: aclrtStream,
    ) -> HcclResult {
        (self.HcclAllReduce)(sendBuf, recvBuf, count, dataType, op, comm, stream)
    }
}
