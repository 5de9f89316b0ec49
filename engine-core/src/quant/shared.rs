//! Typed, shared, read-only storage: a view of a memory-mapped file or an owned vector.

use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::sync::Arc;

use bytemuck::Pod;

type Owner = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A read-only `[T]` whose bytes live in a memory-mapped file or in an owned vector; cloning shares the bytes.
#[derive(Clone)]
pub struct SharedSlice<T> {
    owner: Owner,
    bytes: Range<usize>,
    element: PhantomData<T>,
}

struct OwnedVec<T>(Vec<T>);

impl<T: Pod> AsRef<[u8]> for OwnedVec<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl<T: Pod + Send + Sync> SharedSlice<T> {
    /// Takes a vector.
    pub fn from_vec(values: Vec<T>) -> Self {
        let bytes = 0..std::mem::size_of_val(values.as_slice());
        Self { owner: Arc::new(OwnedVec(values)), bytes, element: PhantomData }
    }

    /// Views `bytes` of `owner` (a memory-mapped file). A range that is not aligned for `T` is copied, since
    /// safetensors does not promise alignment.
    ///
    /// # Panics
    /// If the range lies outside the owner or is no multiple of `T`'s size: the checkpoint reader checks both.
    pub fn from_owner(owner: Owner, bytes: Range<usize>) -> Self {
        let view: &[u8] = &(*owner).as_ref()[bytes.clone()];
        assert!(view.len().is_multiple_of(size_of::<T>()), "byte range is no multiple of the element size");
        if bytemuck::try_cast_slice::<u8, T>(view).is_ok() {
            Self { owner, bytes, element: PhantomData }
        } else {
            Self::from_vec(bytemuck::allocation::pod_collect_to_vec(view))
        }
    }

    /// The values.
    pub fn as_slice(&self) -> &[T] {
        bytemuck::cast_slice(&(*self.owner).as_ref()[self.bytes.clone()])
    }

    /// A sub-range in elements, sharing the storage.
    ///
    /// # Panics
    /// If the range lies outside.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let start = self.bytes.start + range.start * size_of::<T>();
        let end = self.bytes.start + range.end * size_of::<T>();
        assert!(start <= end && end <= self.bytes.end, "slice outside the shared storage");
        Self { owner: self.owner.clone(), bytes: start..end, element: PhantomData }
    }
}

impl<T: Pod + Send + Sync> Deref for SharedSlice<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        self.as_slice()
    }
}

impl<T: Pod + Send + Sync> From<Vec<T>> for SharedSlice<T> {
    fn from(values: Vec<T>) -> Self {
        Self::from_vec(values)
    }
}

impl<T> std::fmt::Debug for SharedSlice<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedSlice({} bytes)", self.bytes.len())
    }
}
