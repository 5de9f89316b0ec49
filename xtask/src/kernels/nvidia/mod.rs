//! Device code for NVIDIA, by NVRTC.

mod disassembler;
mod log;
mod nvrtc;

use std::path::{Path, PathBuf};

use cubin::Image;

use disassembler::Disassembler;
use log::Log;
use nvrtc::{Nvrtc, Source};

use super::KernelsError;
use super::manifest::{Compiler, KernelEntry};
use super::sources::Family;
use super::toolchain::{Compiled, Toolchain};
use super::{build, places};

pub(super) use disassembler::INSTALL as INSTALL_DISASSEMBLER;

pub(super) const VERSION: (i32, i32) = (12, 9);
pub(super) const INSTALL: &str =
    "python3 -m venv target/nvrtc && target/nvrtc/bin/pip install nvidia-cuda-nvrtc-cu12==12.9.86";
/// Where the wheel puts the library, from `site-packages` on.
const LIBRARY: &str = "nvidia/cuda_nvrtc/lib/libnvrtc.so.12";
/// `-v` makes the assembler say what each kernel takes.
const OPTIONS: [&str; 2] = ["--std=c++17", "--ptxas-options=-v"];

/// NVRTC, and what reads its images.
pub(super) struct NvidiaToolchain {
    nvrtc: Nvrtc,
    disassembler: Disassembler,
    compiler: Compiler,
}

impl NvidiaToolchain {
    /// Opens what is at `place`: the library, or a Python environment or site-packages folder that has it.
    pub(super) fn open(place: &Path) -> Result<Self, KernelsError> {
        let library = find_library(place)?;
        let nvrtc = Nvrtc::open(&library)?;
        let version = nvrtc.version()?;
        if version != VERSION {
            return Err(KernelsError::NvrtcVersion(version));
        }
        let compiler = Compiler {
            version: format!("{}.{}", VERSION.0, VERSION.1),
            library_sha256: build::sha256(&places::read(&library)?),
        };
        Ok(Self { nvrtc, disassembler: Disassembler::find(place)?, compiler })
    }
}

/// The library that `place` stands for: itself, or below a Python environment or a site-packages folder.
fn find_library(place: &Path) -> Result<PathBuf, KernelsError> {
    if place.is_file() {
        return Ok(place.into());
    }
    places::find(place, LIBRARY).ok_or_else(|| KernelsError::NoNvrtc(place.into()))
}

impl Toolchain for NvidiaToolchain {
    fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    fn options(&self) -> Vec<String> {
        OPTIONS.map(str::to_owned).into()
    }

    fn compile(&self, family: &Family, architecture: &'static str) -> Result<Compiled, KernelsError> {
        let file = family.file_name();
        let source = Source { name: &file, text: &family.text };
        let headers: Vec<Source<'_>> = family.headers.iter().map(|(name, text)| Source { name, text }).collect();
        let mut options = vec![format!("--gpu-architecture={architecture}")];
        options.extend(self.options());
        let compiled = self.nvrtc.compile(&source, &headers, &options)?;

        let failed = |reason: String| KernelsError::Image { file: file.clone(), architecture, reason };
        let image = Image::parse(&compiled.cubin).map_err(|error| failed(error.to_string()))?;
        let log = Log::parse(&compiled.log);
        if !log.kernels.keys().eq(image.kernels.keys()) {
            return Err(failed(format!(
                "the log speaks of {:?}, the image has {:?}",
                log.kernels.keys().collect::<Vec<_>>(),
                image.kernels.keys().collect::<Vec<_>>()
            )));
        }
        let kernels = image.kernels.iter().map(|(name, kernel)| KernelEntry {
            name: name.clone(),
            parameters: kernel.parameters.iter().map(|parameter| parameter.num_bytes).collect(),
            resources: log.kernels[name],
        });
        Ok(Compiled {
            kernels: kernels.collect(),
            instructions: self
                .disassembler
                .instructions(&format!("{}.{architecture}", family.name), &compiled.cubin)?,
            image: compiled.cubin,
            warnings: log.warnings,
            performance_losses: log.performance_losses,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_missing_compiler_says_how_to_get_it() {
        let error = find_library(Path::new("no/such/folder")).unwrap_err().to_string();
        assert!(
            error.contains("no/such/folder") && error.contains("pip install nvidia-cuda-nvrtc-cu12==12.9.86"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_disassembler_says_how_to_get_it() {
        let error = Disassembler::find(Path::new("no/such/folder")).unwrap_err().to_string();
        assert!(error.contains("no/such/folder") && error.contains("nvidia-cuda-nvdisasm==13.5.37"), "{error}");
    }
}
