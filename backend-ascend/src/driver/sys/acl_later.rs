// Written by tools/ascend-bindings from backend-ascend/bindings/acl_later.h.

use super::types::*;

pub struct AclLater {
    __library: ::libloading::Library,
    pub aclrtStreamAbort: Result<unsafe extern "C" fn(stream: aclrtStream) -> aclError, ::libloading::Error>,
}
impl AclLater {
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
        let aclrtStreamAbort = __library.get(b"aclrtStreamAbort\0").map(|sym| *sym);
        Ok(AclLater { __library, aclrtStreamAbort })
    }
    pub unsafe fn aclrtStreamAbort(&self, stream: aclrtStream) -> aclError {
        (self.aclrtStreamAbort.as_ref().expect("Expected function, got error."))(stream)
    }
}
