// Written by tools/ascend-bindings from backend-ascend/bindings/nnopbase.h.

use super::types::*;

pub struct NnOpBase {
    __library: ::libloading::Library,
    pub aclCreateTensor: unsafe extern "C" fn(
        viewDims: *const i64,
        viewDimsNum: u64,
        dataType: aclDataType,
        stride: *const i64,
        offset: i64,
        format: aclFormat,
        storageDims: *const i64,
        storageDimsNum: u64,
        tensorData: *mut ::std::os::raw::c_void,
    ) -> *mut aclTensor,
    pub aclDestroyTensor: unsafe extern "C" fn(tensor: *const aclTensor) -> aclnnStatus,
    pub aclCreateTensorList: unsafe extern "C" fn(value: *const *const aclTensor, size: u64) -> *mut aclTensorList,
    pub aclDestroyTensorList: unsafe extern "C" fn(array: *const aclTensorList) -> aclnnStatus,
    pub aclCreateIntArray: unsafe extern "C" fn(value: *const i64, size: u64) -> *mut aclIntArray,
    pub aclDestroyIntArray: unsafe extern "C" fn(array: *const aclIntArray) -> aclnnStatus,
    pub aclCreateScalar:
        unsafe extern "C" fn(value: *mut ::std::os::raw::c_void, dataType: aclDataType) -> *mut aclScalar,
    pub aclDestroyScalar: unsafe extern "C" fn(scalar: *const aclScalar) -> aclnnStatus,
    pub aclSetAclOpExecutorRepeatable: unsafe extern "C" fn(executor: *mut aclOpExecutor) -> aclnnStatus,
    pub aclDestroyAclOpExecutor: unsafe extern "C" fn(executor: *mut aclOpExecutor) -> aclnnStatus,
}
impl NnOpBase {
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
        let aclCreateTensor = __library.get(b"aclCreateTensor\0").map(|sym| *sym)?;
        let aclDestroyTensor = __library.get(b"aclDestroyTensor\0").map(|sym| *sym)?;
        let aclCreateTensorList = __library.get(b"aclCreateTensorList\0").map(|sym| *sym)?;
        let aclDestroyTensorList = __library.get(b"aclDestroyTensorList\0").map(|sym| *sym)?;
        let aclCreateIntArray = __library.get(b"aclCreateIntArray\0").map(|sym| *sym)?;
        let aclDestroyIntArray = __library.get(b"aclDestroyIntArray\0").map(|sym| *sym)?;
        let aclCreateScalar = __library.get(b"aclCreateScalar\0").map(|sym| *sym)?;
        let aclDestroyScalar = __library.get(b"aclDestroyScalar\0").map(|sym| *sym)?;
        let aclSetAclOpExecutorRepeatable = __library.get(b"aclSetAclOpExecutorRepeatable\0").map(|sym| *sym)?;
        let aclDestroyAclOpExecutor = __library.get(b"aclDestroyAclOpExecutor\0").map(|sym| *sym)?;
        Ok(NnOpBase {
            __library,
            aclCreateTensor,
            aclDestroyTensor,
            aclCreateTensorList,
            aclDestroyTensorList,
            aclCreateIntArray,
            aclDestroyIntArray,
            aclCreateScalar,
            aclDestroyScalar,
            aclSetAclOpExecutorRepeatable,
            aclDestroyAclOpExecutor,
        })
    }
    pub unsafe fn aclCreateTensor(
        &self,
        viewDims: *const i64,
        viewDimsNum: u64,
        dataType: aclDataType,
        stride: *const i64,
        offset: i64,
        format: aclFormat,
        storageDims: *const i64,
        storageDimsNum: u64,
        tensorData: *mut ::std::os::raw::c_void,
    ) -> *mut aclTensor {
        (self.aclCreateTensor)(
            viewDims,
            viewDimsNum,
            dataType,
            stride,
            offset,
            format,
            storageDims,
            storageDimsNum,
            tensorData,
        )
    }
    pub unsafe fn aclDestroyTensor(&self, tensor: *const aclTensor) -> aclnnStatus {
        (self.aclDestroyTensor)(tensor)
    }
    pub unsafe fn aclCreateTensorList(&self, value: *const *const aclTensor, size: u64) -> *mut aclTensorList {
        (self.aclCreateTensorList)(value, size)
    }
    pub unsafe fn aclDestroyTensorList(&self, array: *const aclTensorList) -> aclnnStatus {
        (self.aclDestroyTensorList)(array)
    }
    pub unsafe fn aclCreateIntArray(&self, value: *const i64, size: u64) -> *mut aclIntArray {
        (self.aclCreateIntArray)(value, size)
    }
    pub unsafe fn aclDestroyIntArray(&self, array: *const aclIntArray) -> aclnnStatus {
        (self.aclDestroyIntArray)(array)
    }
    pub unsafe fn aclCreateScalar(&self, value: *mut ::std::os::raw::c_void, dataType: aclDataType) -> *mut aclScalar {
        (self.aclCreateScalar)(value, dataType)
    }
    pub unsafe fn aclDestroyScalar(&self, scalar: *const aclScalar) -> aclnnStatus {
        (self.aclDestroyScalar)(scalar)
    }
    pub unsafe fn aclSetAclOpExecutorRepeatable(&self, executor: *mut aclOpExecutor) -> aclnnStatus {
        (self.aclSetAclOpExecutorRepeatable)(executor)
    }
    pub unsafe fn aclDestroyAclOpExecutor(&self, executor: *mut aclOpExecutor) -> aclnnStatus {
        (self.aclDestroyAclOpExecutor)(executor)
    }
}
