//! Running the command and reading what it says.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A file or directory of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}

pub(crate) fn fp8_model() -> String {
    text_of(&repository("models/tiny-deepseek-v3-fp8"))
}

pub(crate) fn text_of(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

pub(crate) fn bathysphere() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bathysphere"));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    // Looking for GPUs, Mesa complains on stderr where the system did not set it.
    command.env("XDG_RUNTIME_DIR", env!("CARGO_TARGET_TMPDIR"));
    command
}

#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    pub(crate) fn of(output: std::process::Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Stdout of a command that must have succeeded without a word on stderr.
    #[track_caller]
    pub(crate) fn success(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""), "stdout: {}", self.stdout);
        self.stdout
    }

    #[track_caller]
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.success()).unwrap()
    }
}

pub(crate) fn run(args: &[&str]) -> Outcome {
    Outcome::of(bathysphere().args(args).stdin(Stdio::null()).output().unwrap())
}

pub(crate) fn run_with_input(args: &[&str], input: &str) -> Outcome {
    let mut child =
        bathysphere().args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Outcome::of(child.wait_with_output().unwrap())
}

/// A directory with one file in it.
pub(crate) struct Scratch {
    dir: TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        text_of(&self.dir.path().join(name))
    }

    pub(crate) fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, contents).unwrap();
        path
    }

    /// A checkpoint directory with some of the files of the tiny model.
    pub(crate) fn model(&self, keep: impl Fn(&str) -> bool) -> String {
        let dir = self.path("model");
        std::fs::create_dir(&dir).unwrap();
        for entry in std::fs::read_dir(fp8_model()).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if keep(&name) {
                std::fs::copy(entry.path(), Path::new(&dir).join(name)).unwrap();
            }
        }
        dir
    }

    /// Names of all files, hidden ones too.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Prompt ids and the first greedy ids that the reference implementation of the family gave for them.
pub(crate) fn golden(prompt: &str) -> (Vec<u64>, Vec<u64>) {
    let text = std::fs::read_to_string(repository("tests/goldens/goldens.json")).unwrap();
    let goldens: Value = serde_json::from_str(&text).unwrap();
    let ids = |value: &Value| value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
    let prompts = goldens["prompts"].as_array().unwrap();
    let found = prompts.iter().find(|p| p["name"] == prompt).unwrap();
    (ids(&found["ids"]), ids(&goldens["results"]["fp8w_f32"][prompt]["greedy"]))
}
