//! Device code for AMD, by the clang that comes with Zig: it knows all targets, and needs no ROCm.

mod assembly;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use assembly::Assembly;
use code_object::CodeObject;
use tempfile::TempDir;

use super::manifest::{Compiler, KernelEntry, Resources};
use super::sources::Family;
use super::toolchain::{Compiled, Toolchain};
use super::{KernelsError, build, places};

const VERSION: &str = "0.17.1";
pub(super) const INSTALL: &str = "python3 -m venv target/zig && target/zig/bin/pip install ziglang==0.17.1";
/// Where the wheel puts the program, from `site-packages` on.
const PROGRAM: &str = "ziglang/zig";

/// Device code alone, without headers and libraries that are not ours, and without a name made of paths. Version 5 is what
/// runtimes from ROCm 6 on load.
const OPTIONS: [&str; 12] = [
    "-x",
    "hip",
    "--cuda-device-only",
    "--no-gpu-bundle-output",
    "-nogpulib",
    "-nogpuinc",
    "-fuse-cuid=none",
    "-mcode-object-version=5",
    "-O3",
    "-std=c++17",
    "-Wall",
    "-Wextra",
];

/// A program that is clang, assembler and linker.
pub(super) struct AmdToolchain {
    zig: PathBuf,
    compiler: Compiler,
}

impl AmdToolchain {
    /// Finds the program at `place`: itself, or below a Python environment or a site-packages folder.
    pub(super) fn find(place: &Path) -> Result<Self, KernelsError> {
        let zig = if place.is_file() { Some(place.to_owned()) } else { places::find(place, PROGRAM) };
        let zig = zig.ok_or_else(|| KernelsError::NoZig(place.into()))?;
        // It is started from other folders.
        let zig = fs::canonicalize(&zig).map_err(|error| KernelsError::File { path: zig, error })?;
        let version = places::run(Command::new(&zig).arg("version"))?.trim().to_owned();
        if version != VERSION {
            return Err(KernelsError::ProgramVersion { program: zig, wanted: VERSION, install: INSTALL });
        }
        let compiler = Compiler { version, library_sha256: build::sha256(&places::read(&zig)?) };
        Ok(Self { zig, compiler })
    }

    /// Runs `zig TOOL ARGUMENTS` in a folder; what it says, or why it failed.
    fn run(&self, folder: &TempDir, tool: &str, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(&self.zig).current_dir(folder.path()).arg(tool).args(arguments).output();
        let output = output.map_err(|error| format!("{}: {error}", self.zig.display()))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(said) } else { Err(said) }
    }
}

impl Toolchain for AmdToolchain {
    fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    fn options(&self) -> Vec<String> {
        OPTIONS.map(str::to_owned).into()
    }

    /// To assembly text, which says what each kernel takes and does, and from that to the image.
    fn compile(&self, family: &Family, architecture: &'static str) -> Result<Compiled, KernelsError> {
        let file = family.file_name();
        let folder = sources_in_a_folder(family)?;
        let at = |name: &str| folder.path().join(name);
        let failed = |tool: &str| {
            let options = format!("zig {tool}, for {architecture}");
            let file = file.clone();
            move |log: String| KernelsError::Compile { file, options, log }
        };
        let offload = format!("--offload-arch={architecture}");
        let arguments: Vec<&str> = OPTIONS.into_iter().chain([&*offload, "-S", &file, "-o", "image.s"]).collect();
        let warnings = self.run(&folder, "clang", &arguments).map_err(failed("clang"))?;
        let processor = format!("-mcpu={architecture}");
        let assemble = ["--target=amdgcn-amd-amdhsa", &processor, "-c", "image.s", "-o", "image.o"];
        self.run(&folder, "clang", &assemble).map_err(failed("clang -c"))?;
        let link = ["-m", "elf64_amdgpu", "--no-undefined", "-shared", "image.o", "-o", "image.co"];
        self.run(&folder, "ld.lld", &link).map_err(failed("ld.lld"))?;

        let image = places::read(&at("image.co"))?;
        let text = fs::read_to_string(at("image.s"));
        let text = text.map_err(|error| KernelsError::File { path: at("image.s"), error })?;
        let unreadable = |reason: String| KernelsError::Image { file: file.clone(), architecture, reason };
        let Assembly { instructions, waves } = Assembly::parse(&text);
        Ok(Compiled {
            kernels: kernels(&image, &waves).map_err(unreadable)?,
            image,
            instructions,
            warnings: warnings.lines().filter(|line| line.contains("warning:")).map(str::to_owned).collect(),
            performance_losses: Vec::new(),
        })
    }
}

/// A family's source and headers, and nothing else: what is compiled is what is hashed.
fn sources_in_a_folder(family: &Family) -> Result<TempDir, KernelsError> {
    let in_temp = |error| KernelsError::File { path: std::env::temp_dir(), error };
    let folder = TempDir::with_prefix("bathysphere-").map_err(in_temp)?;
    let source = (family.file_name(), &family.text);
    for (name, text) in family.headers.iter().map(|(name, text)| (name.clone(), text)).chain([source]) {
        let path = folder.path().join(name);
        fs::write(&path, text).map_err(|error| KernelsError::File { path, error })?;
    }
    Ok(folder)
}

/// What an image says about its kernels, with the waves that the assembly tells.
fn kernels(image: &[u8], waves: &BTreeMap<String, u32>) -> Result<Vec<KernelEntry>, String> {
    let object = CodeObject::parse(image).map_err(|error| error.to_string())?;
    let entry = |(name, kernel): (&String, &code_object::Kernel)| {
        let waves = waves.get(name).ok_or_else(|| format!("the assembly does not say what {name} takes"))?;
        let resources = Resources {
            registers: kernel.num_vgprs,
            // A register holds four bytes.
            spill_bytes: 4 * kernel.num_spilled,
            stack_bytes: kernel.scratch_bytes,
            shared_bytes: kernel.shared_bytes,
            scalar_registers: Some(kernel.num_sgprs),
            waves: Some(*waves),
            ..Resources::default()
        };
        let parameters = kernel.parameters.iter().map(|parameter| parameter.num_bytes).collect();
        Ok(KernelEntry { name: name.clone(), parameters, resources })
    };
    object.kernels.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_missing_compiler_says_how_to_get_it() {
        let error = AmdToolchain::find(Path::new("no/such/folder")).err().unwrap().to_string();
        assert!(error.contains("no/such/folder") && error.contains("pip install ziglang==0.17.1"), "{error}");
    }
}
