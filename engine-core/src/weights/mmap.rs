//! Memory-mapping a weight file: the one place of this crate that cannot be checked by the compiler.

use std::io;
use std::path::Path;

use memmap2::Mmap;

use crate::file::open_regular;

/// A whole file, mapped read-only.
#[derive(Debug)]
pub(super) struct MappedFile(Mmap);

impl MappedFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = open_regular(path)?;
        // SAFETY: the mapping is read-only and lives inside `Mmap`; that nobody shortens or rewrites the file meanwhile
        // is the documented duty of whoever calls `Checkpoint::open`, as for every program that maps model weights.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self(map))
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
