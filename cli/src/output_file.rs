//! Files that appear when they are complete.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::CliError;

/// A file being written beside its final place. Dropped without [`OutputFile::commit`] it leaves nothing.
#[derive(Debug)]
pub(crate) struct OutputFile {
    path: PathBuf,
    target: Target,
}

#[derive(Debug)]
enum Target {
    Beside(BufWriter<NamedTempFile>),
    /// A pipe or a device: nothing can be renamed onto it.
    Direct(BufWriter<File>),
}

impl OutputFile {
    pub(crate) fn create(path: &Path) -> Result<Self, CliError> {
        // Through a symbolic link, the file it points to is replaced.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let target = Self::open(&path).map_err(CliError::file("create", &path))?;
        Ok(Self { path, target })
    }

    fn open(path: &Path) -> io::Result<Target> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(metadata) if !metadata.is_file() => {
                Ok(Target::Direct(BufWriter::new(OpenOptions::new().write(true).open(path)?)))
            }
            Ok(_) | Err(_) => {
                let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let mut builder = tempfile::Builder::new();
                builder.prefix(".bathysphere-");
                // Like any new file, not like a secret.
                #[cfg(unix)]
                builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
                Ok(Target::Beside(BufWriter::new(builder.tempfile_in(dir)?)))
            }
        }
    }

    pub(crate) fn write(&mut self, action: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), CliError> {
        let result = match &mut self.target {
            Target::Beside(file) => action(file),
            Target::Direct(file) => action(file),
        };
        result.map_err(CliError::file("write", &self.path))
    }

    /// Puts the complete file in its place.
    pub(crate) fn commit(self) -> Result<(), CliError> {
        let Self { path, target } = self;
        let result = match target {
            Target::Beside(file) => match file.into_inner() {
                Ok(file) => file.persist(&path).map(drop).map_err(|error| error.error),
                Err(error) => Err(error.into_error()),
            },
            Target::Direct(mut file) => file.flush(),
        };
        result.map_err(CliError::file("write", &path))
    }
}
