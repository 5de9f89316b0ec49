//! Compiled kernels on disk, for drivers that keep none of their own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use wgpu::PipelineCacheDescriptor;

/// A driver's cache of compiled kernels and the file it is kept in.
#[derive(Debug)]
pub(crate) struct PipelineCache {
    raw: wgpu::PipelineCache,
    file: PathBuf,
}

impl PipelineCache {
    /// Opens the cache in `file`. A file that is missing, damaged, or of another adapter or driver is an empty cache.
    pub(crate) fn open(device: &wgpu::Device, file: &Path) -> Self {
        let stored = fs::read(file).ok();
        let descriptor = PipelineCacheDescriptor { label: None, data: stored.as_deref(), fallback: true };
        // SAFETY: wgpu asks that the data came from `PipelineCache::get_data`. The file is one that `save` wrote, under a
        // name the user chose for it; wgpu's header, which it checks, holds a magic number, the adapter, the driver's
        // validation key and the length, and with `fallback` anything that does not match is left aside.
        let raw = unsafe { device.create_pipeline_cache(&descriptor) };
        Self { raw, file: file.to_owned() }
    }

    pub(crate) fn raw(&self) -> &wgpu::PipelineCache {
        &self.raw
    }

    /// Writes the cache beside its file and moves it there.
    ///
    /// # Errors
    /// From the file system.
    pub(crate) fn save(&self) -> io::Result<()> {
        let Some(data) = self.raw.get_data() else { return Ok(()) };
        let partial = self.file.with_extension(format!("partial-{}", std::process::id()));
        fs::write(&partial, data)?;
        fs::rename(&partial, &self.file).inspect_err(|_| {
            // Whatever the rename said matters more than that the rest could not be removed.
            let _ = fs::remove_file(&partial);
        })
    }
}
