//! Checks that run over an emulated driver, or over none: each in a process of its own (`device-check`), since a driver is
//! one per process.

pub(crate) mod faults;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// An emulated driver, which cargo builds because this package depends on it.
#[derive(Debug)]
pub(crate) struct Emulator {
    /// The shared library's name.
    pub(crate) file: &'static str,
    /// The names under which a backend looks it up.
    pub(crate) libraries: &'static [&'static str],
    /// The backend's name, as in `--device`.
    pub(crate) device: &'static str,
    /// How its environment variables begin.
    pub(crate) prefix: &'static str,
    /// The driver's words for a launch that failed, and for a device that is gone.
    pub(crate) failed_launch: &'static str,
    pub(crate) lost_device: &'static str,
}

impl Emulator {
    /// Where cargo put it.
    pub(crate) fn path(&self) -> PathBuf {
        let binary = std::env::current_exe().unwrap();
        let folder = binary.parent().unwrap();
        let places = [folder.join(self.file), folder.join("..").join(self.file)];
        places.into_iter().find(|place| place.is_file()).expect("cargo builds the emulator beside this binary")
    }

    /// A machine that has it.
    pub(crate) fn installed(&self) -> Machine {
        self.machine_with(&self.path())
    }

    /// Runs a check with one choice of the emulator, without its prefix: `("FAULT", "alloc:1")`.
    pub(crate) fn check(&self, words: &[&str], (name, value): (&str, &str)) -> Outcome {
        self.installed().check(words, &[(&format!("{}_{name}", self.prefix), value)])
    }

    /// A machine that has it without some of its functions: their names are made unfindable.
    pub(crate) fn without(&self, functions: &[&str]) -> Machine {
        let mut library = fs::read(self.path()).unwrap();
        for function in functions {
            let name = format!("\0{function}\0").into_bytes();
            let places: Vec<usize> =
                library.windows(name.len()).enumerate().filter(|(_, bytes)| *bytes == name).map(|(at, _)| at).collect();
            assert!(!places.is_empty(), "{function} is a symbol of the emulator");
            places.into_iter().for_each(|at| library[at + 1] = b'x');
        }
        // One file under all names: one machine.
        let folder = TempDir::new().unwrap();
        let changed = folder.path().join("emulator.so");
        fs::write(&changed, &library).unwrap();
        let machine = self.machine_with(&changed);
        Machine { _library: Some(folder), ..machine }
    }

    fn machine_with(&self, library: &Path) -> Machine {
        let machine = Machine::bare();
        self.libraries.iter().for_each(|name| symlink(library, machine.folder().join(name)).unwrap());
        machine
    }

    /// True where the machine's own loader finds one of the libraries: it cannot play a machine without.
    pub(crate) fn is_shadowed(&self) -> bool {
        let known = Command::new("ldconfig").arg("-p").output();
        let known = known.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        self.libraries.iter().any(|library| known.contains(library))
    }
}

/// A folder with the libraries in it, or with none, in which checks run.
#[derive(Debug)]
pub(crate) struct Machine {
    folder: TempDir,
    _library: Option<TempDir>,
}

impl Machine {
    /// Without any driver.
    pub(crate) fn bare() -> Self {
        Self { folder: TempDir::new().unwrap(), _library: None }
    }

    /// Where the loader is to look.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs `device-check`.
    pub(crate) fn check(&self, words: &[&str], variables: &[(&str, &str)]) -> Outcome {
        self.run(Command::new(env!("CARGO_BIN_EXE_device-check")).args(words).envs(variables.iter().copied()))
    }

    /// Runs any program.
    pub(crate) fn run(&self, command: &mut Command) -> Outcome {
        let output = command.env("LD_LIBRARY_PATH", self.folder()).output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        Outcome { status: output.status.code(), text }
    }
}

/// What a check said and how it ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// `None` where a signal ended it.
    pub(crate) status: Option<i32>,
    /// What it printed, on either stream.
    pub(crate) text: String,
}

impl Outcome {
    /// Asserts how it ended, and words that it said.
    pub(crate) fn expect(&self, status: i32, words: &[&str]) {
        let as_expected = self.status == Some(status) && words.iter().all(|word| self.text.contains(word));
        assert!(as_expected, "status {status} and {words:?} expected, got {:?} and:\n{}", self.status, self.text);
    }
}
