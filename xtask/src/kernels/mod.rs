//! `cargo xtask kernels`: device code for NVIDIA, compiled ahead of time.
//!
//! Every `gpu-common/kernels/FAMILY.cu` becomes one image per architecture. The compiler is a pinned NVRTC, which runs
//! without a GPU, a driver or a toolkit; kernels include nothing but their own headers. What comes out goes, compressed,
//! to `backend-cuda/images/`, with `manifest.json` beside it (what it was made from, what each kernel takes) and a table
//! for the Rust side. The same sources and compiler give the same bytes: `--check` compiles again and compares.

mod build;
mod disassembler;
mod gates;
mod instructions;
mod log;
mod manifest;
mod nvrtc;
mod sources;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::Args;

use build::{Earlier, Output};
use disassembler::Disassembler;
use instructions::Instructions;
use manifest::{Compiler, Manifest};
use nvrtc::Nvrtc;

/// What is compiled for, as NVRTC calls it: Ampere (A100, then the rest), Ada, Hopper, Blackwell (B200, then the rest).
pub(crate) const ARCHITECTURES: [&str; 6] = ["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120a"];

const VERSION: (i32, i32) = (12, 9);
const INSTALL: &str = "python3 -m venv target/nvrtc && target/nvrtc/bin/pip install nvidia-cuda-nvrtc-cu12==12.9.86";
/// Where the wheel puts the library, from `site-packages` on.
const LIBRARY: &str = "nvidia/cuda_nvrtc/lib/libnvrtc.so.12";

/// How to compile.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Compile, change nothing, and fail where the result is not what is committed
    #[arg(long)]
    check: bool,

    /// Print which of the instructions that matter each image has
    #[arg(long)]
    instructions: bool,

    /// The compiler: libnvrtc.so.12, or a Python environment or site-packages folder that has it; made by
    /// `python3 -m venv target/nvrtc && target/nvrtc/bin/pip install nvidia-cuda-nvrtc-cu12==12.9.86`,
    /// with the disassembler, nvidia-cuda-nvdisasm==13.5.37, beside it
    #[arg(long, value_name = "PATH", default_value = "target/nvrtc")]
    nvrtc: PathBuf,

    /// The root of the repository
    #[arg(long, value_name = "DIR", default_value = ".")]
    root: PathBuf,
}

/// Why kernels could not be compiled, or are not what is committed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KernelsError {
    #[error("no NVRTC in {}; run: {INSTALL}", .0.display())]
    NotFound(PathBuf),
    #[error("{}: {reason}", path.display())]
    Library { path: PathBuf, reason: String },
    #[error("NVRTC is {}.{}, the images are made with {}.{}; run: {INSTALL}", .0.0, .0.1, VERSION.0, VERSION.1)]
    Version((i32, i32)),
    #[error("no nvdisasm in {}; run: {}", .0.display(), disassembler::INSTALL)]
    NoDisassembler(PathBuf),
    #[error("{} is not of version {wanted}; run: {}", program.display(), disassembler::INSTALL)]
    DisassemblerVersion { program: PathBuf, wanted: &'static str },
    #[error("{} failed: {reason}", program.display())]
    Disassembly { program: PathBuf, reason: String },
    #[error("{file}: {reason}")]
    Unpack { file: String, reason: String },
    #[error("{function} failed with status {status}")]
    Status { function: &'static str, status: i32 },
    #[error("a zero byte in source or option {text:?}")]
    ZeroByte { text: String },
    #[error("{file} does not compile with {options}:\n{log}")]
    Compile { file: String, options: String, log: String },
    #[error("{file} for {architecture}: {reason}")]
    Image { file: String, architecture: &'static str, reason: String },
    #[error("{file} includes {included:?}, which is not in gpu-common/kernels")]
    Include { file: String, included: String },
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("the manifest cannot be written: {0}")]
    Manifest(#[from] serde_json::Error),
    #[error("{} breaches:\n{}", .0.len(), .0.join("\n"))]
    Breaches(Vec<String>),
    #[error("{} files are not what the sources give:\n{}\nrun `cargo xtask kernels` and commit what it writes", .0.len(), .0.join("\n"))]
    Stale(Vec<String>),
}

/// Compiles everything, writes or compares, then applies the gates: images with a breach can be tried, not merged.
pub(crate) fn run(options: &Options) -> Result<(), KernelsError> {
    let library = find_library(&options.nvrtc)?;
    let nvrtc = Nvrtc::open(&library)?;
    if nvrtc.version()? != VERSION {
        return Err(KernelsError::Version(nvrtc.version()?));
    }
    let compiler =
        Compiler { version: format!("{}.{}", VERSION.0, VERSION.1), library_sha256: build::sha256(&read(&library)?) };
    let sources = sources::read(&options.root.join("gpu-common/kernels"))?;
    let images = options.root.join("backend-cuda/images");
    // What is checked is compiled, whatever the manifest claims.
    let earlier = if options.check { None } else { read_earlier(&images) };
    let output = build::compile(&nvrtc, compiler, &sources, earlier.as_ref())?;
    summarise(&output.manifest);
    let files = files(&output)?;
    if options.check {
        compare(options, &files, &images)?;
    } else {
        write(options, &files, &images)?;
    }
    let disassembler = Disassembler::find(&options.nvrtc)?;
    let instructions = disassembled(&output, &disassembler, options.check || options.instructions)?;
    if options.instructions {
        print_instructions(&output.manifest, &instructions);
    }
    let mut breaches = output.performance_losses.clone();
    breaches.extend(gates::breaches(&output.manifest, gates::ALLOWED));
    breaches.extend(instruction_breaches(&output.manifest, &instructions));
    if breaches.is_empty() { Ok(()) } else { Err(KernelsError::Breaches(breaches)) }
}

/// Instructions of every image by its file; without `all`, of those that were compiled now.
fn disassembled(
    output: &Output,
    disassembler: &Disassembler,
    all: bool,
) -> Result<BTreeMap<String, Instructions>, KernelsError> {
    let jobs: Vec<(&String, &Vec<u8>)> =
        output.images.iter().filter(|(file, _)| all || output.compiled.contains(*file)).collect();
    let found = build::in_parallel(&jobs, |(file, zlib)| {
        let cubin = miniz_oxide::inflate::decompress_to_vec_zlib(zlib);
        let cubin = cubin.map_err(|error| KernelsError::Unpack { file: (*file).clone(), reason: error.to_string() })?;
        disassembler.instructions(file, &cubin)
    })?;
    Ok(jobs.into_iter().map(|(file, _)| file.clone()).zip(found).collect())
}

/// Breaches of the rules for instructions. A kernel that the disassembly does not show is one: no rule would see it.
fn instruction_breaches(manifest: &Manifest, images: &BTreeMap<String, Instructions>) -> Vec<String> {
    let mut found = Vec::new();
    let is_complete = images.len() == manifest.families.iter().map(|family| family.images.len()).sum::<usize>();
    for image in manifest.families.iter().flat_map(|family| &family.images) {
        let Some(instructions) = images.get(&image.file) else { continue };
        let unseen = image.kernels.iter().filter(|kernel| !instructions.kernels.contains_key(&kernel.name));
        found.extend(unseen.map(|kernel| format!("{} on {}: not disassembled", kernel.name, image.architecture)));
        found.extend(instructions::breaches(&image.architecture, instructions, instructions::RULES, gates::ALLOWED));
    }
    if is_complete {
        found.extend(instructions::idle_rules(images.values(), instructions::RULES));
    }
    found
}

fn print_instructions(manifest: &Manifest, images: &BTreeMap<String, Instructions>) {
    for image in manifest.families.iter().flat_map(|family| &family.images) {
        let table = images.get(&image.file).map(|found| instructions::table(found, instructions::RULES));
        let counts = table.into_iter().flatten().map(|(instruction, count)| format!("{instruction}: {count}"));
        println!("{:<32} {}", image.file, counts.collect::<Vec<_>>().join(", "));
    }
}

/// The images that are there, if there is a manifest that can be read.
fn read_earlier(images: &Path) -> Option<Earlier> {
    let manifest: Manifest = serde_json::from_slice(&fs::read(images.join("manifest.json")).ok()?).ok()?;
    let entries = manifest.families.iter().flat_map(|family| &family.images);
    let files = entries.filter_map(|image| Some((image.file.clone(), fs::read(images.join(&image.file)).ok()?)));
    Some(Earlier { images: files.collect(), manifest })
}

/// Every file of the build, by its path from the root.
fn files(output: &Output) -> Result<BTreeMap<String, Vec<u8>>, KernelsError> {
    let mut files: BTreeMap<String, Vec<u8>> =
        output.images.iter().map(|(file, bytes)| (format!("backend-cuda/images/{file}"), bytes.clone())).collect();
    files.insert("backend-cuda/images/manifest.json".into(), output.manifest.to_json()?.into_bytes());
    files.insert("backend-cuda/src/images/embedded.rs".into(), table::rust(&output.manifest).into_bytes());
    Ok(files)
}

fn write(options: &Options, files: &BTreeMap<String, Vec<u8>>, images: &Path) -> Result<(), KernelsError> {
    for name in superfluous(files, images)? {
        let path = options.root.join(name);
        fs::remove_file(&path).map_err(|error| KernelsError::File { path, error })?;
    }
    for (name, bytes) in files {
        let path = options.root.join(name);
        let parent = path.parent().unwrap_or(&path);
        fs::create_dir_all(parent).map_err(|error| KernelsError::File { path: parent.into(), error })?;
        fs::write(&path, bytes).map_err(|error| KernelsError::File { path, error })?;
    }
    println!("wrote {} files", files.len());
    Ok(())
}

fn compare(options: &Options, files: &BTreeMap<String, Vec<u8>>, images: &Path) -> Result<(), KernelsError> {
    let mut stale: Vec<String> =
        superfluous(files, images)?.into_iter().map(|name| format!("{name}: nothing makes it")).collect();
    for (name, bytes) in files {
        match fs::read(options.root.join(name)) {
            Ok(committed) if committed == *bytes => {}
            Ok(committed) => {
                stale.push(format!("{name}: {} bytes committed, {} bytes compiled", committed.len(), bytes.len()));
            }
            Err(error) => stale.push(format!("{name}: {error}")),
        }
    }
    if !stale.is_empty() {
        return Err(KernelsError::Stale(stale));
    }
    println!("{} files are what the sources give", files.len());
    Ok(())
}

/// Files in the folder of images that the build does not make, by their paths from the root.
fn superfluous(files: &BTreeMap<String, Vec<u8>>, images: &Path) -> Result<Vec<String>, KernelsError> {
    let of_folder = |error| KernelsError::File { path: images.into(), error };
    let entries = match fs::read_dir(images) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(of_folder(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = format!("backend-cuda/images/{}", entry.map_err(of_folder)?.file_name().to_string_lossy());
        if !files.contains_key(&name) {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

fn summarise(manifest: &Manifest) {
    println!(
        "{:<16} {:<8} {:>7} {:>9} {:>13} {:>12}",
        "family", "for", "kernels", "image", "registers <=", "shared <="
    );
    for family in &manifest.families {
        for image in &family.images {
            let most =
                |of: fn(&log::Resources) -> u32| image.kernels.iter().map(|k| of(&k.resources)).max().unwrap_or(0);
            println!(
                "{:<16} {:<8} {:>7} {:>9} {:>13} {:>12}",
                family.family,
                image.architecture,
                image.kernels.len(),
                image.cubin_bytes,
                most(|resources| resources.registers),
                most(|resources| resources.shared_bytes)
            );
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, KernelsError> {
    fs::read(path).map_err(|error| KernelsError::File { path: path.into(), error })
}

/// The library that `place` stands for: itself, or below a Python environment or a site-packages folder.
fn find_library(place: &Path) -> Result<PathBuf, KernelsError> {
    if place.is_file() {
        return Ok(place.into());
    }
    let found = site_packages(place).map(|folder| folder.join(LIBRARY)).find(|path| path.is_file());
    found.ok_or_else(|| KernelsError::NotFound(place.into()))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Needs no compiler, so that every run of the tests notices a kernel that was changed without its images.
    #[test]
    fn the_committed_images_are_of_these_sources() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let sources = sources::read(&root.join("gpu-common/kernels")).unwrap();
        let earlier = read_earlier(&root.join("backend-cuda/images")).unwrap();
        let compiled: BTreeMap<&str, &str> =
            earlier.manifest.families.iter().map(|family| (&*family.family, &*family.source_sha256)).collect();
        let hashes: BTreeMap<&str, String> =
            sources.iter().map(|family| (&*family.name, build::source_sha256(family))).collect();
        let stale: Vec<&&str> = hashes
            .iter()
            .filter(|(name, hash)| compiled.get(*name) != Some(&hash.as_str()))
            .map(|(name, _)| name)
            .collect();
        assert!(stale.is_empty(), "run `cargo xtask kernels`: {stale:?} changed since they were compiled");
        assert_eq!(compiled.len(), hashes.len(), "run `cargo xtask kernels`: an image has lost its source");
        for image in earlier.manifest.families.iter().flat_map(|family| &family.images) {
            let cubin = miniz_oxide::inflate::decompress_to_vec_zlib(&earlier.images[&image.file]).unwrap();
            assert_eq!(build::sha256(&cubin), image.cubin_sha256, "{}", image.file);
        }
    }

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

    #[test]
    fn a_kernel_that_is_not_disassembled_is_a_breach() {
        let earlier = read_earlier(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../backend-cuda/images")).unwrap();
        let nothing = BTreeMap::from([("quant.sm_80.cubin.z".to_owned(), Instructions::default())]);
        let found = instruction_breaches(&earlier.manifest, &nothing);
        assert!(found.contains(&"quantise_fp8 on sm_80: not disassembled".to_owned()), "{found:?}");
    }

    #[test]
    fn the_help_names_the_command_that_errors_name() {
        let command = <Options as Args>::augment_args(clap::Command::new("kernels"));
        let help = command.get_arguments().find(|arg| arg.get_id() == "nvrtc").unwrap().get_help().unwrap().to_string();
        assert!(help.contains(INSTALL), "{help}");
    }
}
