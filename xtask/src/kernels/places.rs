//! Files of compilers and of the repository, and programs that are run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::KernelsError;

pub(super) fn read(path: &Path) -> Result<Vec<u8>, KernelsError> {
    fs::read(path).map_err(|error| KernelsError::File { path: path.into(), error })
}

/// A file of a wheel, `inside` from `site-packages` on, below a Python environment, a site-packages folder, or beside
/// another file of a wheel.
pub(super) fn find(place: &Path, inside: &str) -> Option<PathBuf> {
    site_packages(place).map(|folder| folder.join(inside)).find(|path| path.is_file())
}

/// Folders that may be the site-packages of `place`: itself, those of a Python environment, or those above a file.
fn site_packages(place: &Path) -> impl Iterator<Item = PathBuf> {
    let mut folders: Vec<PathBuf> =
        place.ancestors().take(if place.is_file() { usize::MAX } else { 1 }).map(Path::to_owned).collect();
    if let Ok(entries) = fs::read_dir(place.join("lib")) {
        folders.extend(entries.flatten().map(|entry| entry.path().join("site-packages")));
    }
    folders.into_iter()
}

/// What a program prints.
pub(super) fn run(command: &mut Command) -> Result<String, KernelsError> {
    let program = PathBuf::from(command.get_program());
    let output = command.output().map_err(|error| KernelsError::File { path: program.clone(), error })?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(KernelsError::Program { program, reason });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
