//! `nvdisasm`, NVIDIA's disassembler, run as a program of its own: a pinned wheel beside that of the compiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kernels::KernelsError;
use crate::kernels::instructions::Instructions;
use crate::kernels::places;

const VERSION: &str = "V13.5.37";
pub(crate) const INSTALL: &str = "target/nvrtc/bin/pip install nvidia-cuda-nvdisasm==13.5.37";
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
        let program = places::find(place, PROGRAM).ok_or_else(|| KernelsError::NoDisassembler(place.into()))?;
        let version = places::run(Command::new(&program).arg("--version"))?;
        if !version.contains(VERSION) {
            return Err(KernelsError::ProgramVersion { program, wanted: VERSION, install: INSTALL });
        }
        Ok(Self { program })
    }

    /// The instructions of every kernel of an image.
    pub(super) fn instructions(&self, name: &str, cubin: &[u8]) -> Result<Instructions, KernelsError> {
        let path = std::env::temp_dir().join(format!("bathysphere-{}-{name}.cubin", std::process::id()));
        fs::write(&path, cubin).map_err(|error| KernelsError::File { path: path.clone(), error })?;
        // Code alone, without the analysis of data flow, which takes most of the time and adds comments only.
        let text = places::run(Command::new(&self.program).args(["-c", "-ndf"]).arg(&path));
        fs::remove_file(&path).map_err(|error| KernelsError::File { path, error })?;
        Ok(Instructions::of_cubin(&text?))
    }
}
