//! The output directory while it is being made: a sibling that is renamed when complete and removed otherwise.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::ConvertError;

/// A directory `OUTPUT.partial-XXXXXX` beside the output. Dropping it removes it with all it holds;
/// [`Staging::commit`] puts it in place.
#[derive(Debug)]
pub(crate) struct Staging {
    dir: TempDir,
    output: PathBuf,
}

impl Staging {
    /// Checks that `output` does not exist or is an empty directory, and makes the directory beside it.
    pub(crate) fn create(output: &Path) -> Result<Self, ConvertError> {
        let output = resolve(output)?;
        let (parent, name) = parent_and_name(&output)?;
        let mut prefix = name.to_owned();
        prefix.push(".partial-");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix);
        // A checkpoint is an ordinary directory, not a private one: the umask decides.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let dir = builder.tempdir_in(parent).map_err(ConvertError::io("create a directory in", parent))?;
        Ok(Self { dir, output })
    }

    /// The final path, absolute.
    pub(crate) fn output(&self) -> &Path {
        &self.output
    }

    /// Where file `name` is being made.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Refuses a checkpoint that is larger than what the file system has free.
    pub(crate) fn check_space(&self, need_bytes: u64) -> Result<(), ConvertError> {
        let path = self.dir.path();
        let have_bytes = fs4::available_space(path).map_err(ConvertError::io("ask for the free space of", path))?;
        if need_bytes > have_bytes {
            return Err(ConvertError::DiskFull { path: self.output.clone(), need_bytes, have_bytes });
        }
        Ok(())
    }

    /// Writes a small file.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), ConvertError> {
        let path = self.path(name);
        let mut file = File::create_new(&path).map_err(ConvertError::io("create", &path))?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(ConvertError::io("write", &path))
    }

    /// Copies a file under its own name. Contents only: a read-only original makes an ordinary file.
    pub(crate) fn copy(&self, from: &Path) -> Result<(), ConvertError> {
        let to = self.dir.path().join(from.file_name().unwrap_or_default());
        let mut source = File::open(from).map_err(ConvertError::io("read", from))?;
        let mut copy = File::create_new(&to).map_err(ConvertError::io("create", &to))?;
        io::copy(&mut source, &mut copy).and_then(|_| copy.sync_all()).map_err(ConvertError::io("write", &to))
    }

    /// Renames the directory to the output path, durably.
    pub(crate) fn commit(self) -> Result<PathBuf, ConvertError> {
        let Self { dir, output } = self;
        sync_dir(dir.path())?;
        // An empty directory may stand there; not every system renames over one.
        if output.is_dir() {
            fs::remove_dir(&output).map_err(ConvertError::io("replace", &output))?;
        }
        fs::rename(dir.path(), &output).map_err(ConvertError::io("rename the finished directory to", &output))?;
        // The directory is gone from its old place, there is nothing left to remove.
        let _ = dir.keep();
        sync_dir(parent_and_name(&output)?.0)?;
        Ok(output)
    }
}

/// The absolute path of an output that does not exist or is an empty directory.
fn resolve(output: &Path) -> Result<PathBuf, ConvertError> {
    if output.symlink_metadata().is_ok() {
        let absolute = output.canonicalize().map_err(ConvertError::io("resolve", output))?;
        let is_empty = absolute.is_dir() && {
            let mut entries = fs::read_dir(&absolute).map_err(ConvertError::io("list", &absolute))?;
            entries.next().is_none()
        };
        return if is_empty { Ok(absolute) } else { Err(ConvertError::OutputExists { path: output.to_owned() }) };
    }
    let absolute = std::path::absolute(output).map_err(ConvertError::io("resolve", output))?;
    let (parent, name) = parent_and_name(&absolute)?;
    match parent.canonicalize() {
        Ok(parent) if parent.is_dir() => Ok(parent.join(name)),
        Ok(_) | Err(_) => Err(ConvertError::NoParent { path: output.to_owned(), parent: parent.to_owned() }),
    }
}

fn parent_and_name(path: &Path) -> Result<(&Path, OsString), ConvertError> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, name.to_owned())),
        // The root directory, or a path that ends in `..`.
        _ => Err(ConvertError::OutputExists { path: path.to_owned() }),
    }
}

/// Makes renames and new names in a directory durable, where the system has that.
fn sync_dir(path: &Path) -> Result<(), ConvertError> {
    if cfg!(unix) {
        File::open(path).and_then(|dir| dir.sync_all()).map_err(ConvertError::io("flush", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_dropped_staging_leaves_nothing_and_a_committed_one_only_the_output() {
        let root = tempfile::tempdir().unwrap();
        let output = root.path().join("out");
        let staging = Staging::create(&output).unwrap();
        staging.write("a.json", b"{}").unwrap();
        assert!(names(root.path())[0].starts_with("out.partial-"));
        drop(staging);
        assert_eq!(names(root.path()), [""; 0]);

        fs::create_dir(&output).unwrap();
        let staging = Staging::create(&output).unwrap();
        staging.write("a.json", b"{}").unwrap();
        staging.commit().unwrap();
        assert_eq!(names(root.path()), ["out"]);
        assert_eq!(fs::read(output.join("a.json")).unwrap(), b"{}");
    }

    #[cfg(unix)]
    #[test]
    fn the_output_is_as_readable_as_any_new_directory() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let output = Staging::create(&root.path().join("out")).unwrap().commit().unwrap();
        fs::create_dir(root.path().join("plain")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&output), mode(&root.path().join("plain")));
    }

    #[test]
    fn occupied_and_impossible_outputs_are_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), b"x").unwrap();
        for occupied in [root.path().to_owned(), root.path().join("file"), PathBuf::from("/")] {
            let error = Staging::create(&occupied).unwrap_err();
            assert!(matches!(error, ConvertError::OutputExists { .. }), "{}: {error}", occupied.display());
        }
        for impossible in ["missing/out", "file/out"] {
            let error = Staging::create(&root.path().join(impossible)).unwrap_err();
            assert!(matches!(error, ConvertError::NoParent { .. }), "{impossible}: {error}");
        }
        assert_eq!(names(root.path()), ["file"]);
    }

    #[test]
    fn more_than_the_disk_holds_is_refused_with_both_sizes() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::create(&root.path().join("out")).unwrap();
        staging.check_space(1).unwrap();
        match staging.check_space(1 << 60) {
            Err(ConvertError::DiskFull { need_bytes, have_bytes, path }) => {
                assert_eq!(need_bytes, 1 << 60);
                assert!(have_bytes > 0 && have_bytes < need_bytes);
                assert!(path.ends_with("out"));
            }
            other => panic!("{other:?}"),
        }
    }
}
