//! `nvdisasm`, NVIDIA's disassembler, run as a program of its own: a pinned wheel beside that of the compiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::KernelsError;
use super::instructions::Instructions;

const VERSION: &str = "V13.5.37";
pub(super) const INSTALL: &str = "target/nvrtc/bin/pip install nvidia-cuda-nvdisasm==13.5.37";
/// Where the wheel puts the program, from `site-packages` on.
const PROGRAM: &str = "nvidia/cu13/bin/nvdisasm";

/// The program, found and of the right version.
#[derive(Debug)]
pub(super) struct Disassembler {
    program: PathBuf,
}

impl Disassembler {
    /// Finds it below a Python environment or a site-packages folder, or beside the compiler's library.
    pub(super) fn find(place: &Path) -> Result<Self, KernelsError> {
        let found = super::site_packages(place).map(|folder| folder.join(PROGRAM)).find(|path| path.is_file());
        let program = found.ok_or_else(|| KernelsError::NoDisassembler(place.into()))?;
        let version = run(Command::new(&program).arg("--version"))?;
        if !version.contains(VERSION) {
            return Err(KernelsError::DisassemblerVersion { program, wanted: VERSION });
        }
        Ok(Self { program })
    }

    /// The instructions of every kernel of an image.
    pub(super) fn instructions(&self, file: &str, cubin: &[u8]) -> Result<Instructions, KernelsError> {
        let path = std::env::temp_dir().join(format!("bathysphere-{}-{file}.cubin", std::process::id()));
        fs::write(&path, cubin).map_err(|error| KernelsError::File { path: path.clone(), error })?;
        // Code alone, without the analysis of data flow, which takes most of the time and adds comments only.
        let text = run(Command::new(&self.program).args(["-c", "-ndf"]).arg(&path));
        fs::remove_file(&path).map_err(|error| KernelsError::File { path, error })?;
        Ok(Instructions::parse(&text?))
    }
}

fn run(command: &mut Command) -> Result<String, KernelsError> {
    let program = PathBuf::from(command.get_program());
    let output = command.output().map_err(|error| KernelsError::File { path: program.clone(), error })?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(KernelsError::Disassembly { program, reason });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
