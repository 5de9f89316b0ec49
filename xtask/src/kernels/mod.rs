//! `cargo xtask kernels`: device code, compiled ahead of time.
//!
//! Every `gpu-common/kernels/FAMILY.cu` becomes one image per architecture of each vendor. The compilers are pinned and run
//! without a GPU, a driver or a toolkit; kernels include nothing but their own headers. What comes out goes, compressed, to
//! `backend-cuda/images/` and `backend-rocm/images/`, with `manifest.json` beside it (what it was made from, what each kernel
//! takes) and a table for the Rust side. The same sources and compiler give the same bytes: `--check` compiles again and
//! compares.

mod allowed;
mod amd;
mod build;
mod error;
mod gates;
mod instructions;
mod manifest;
mod nvidia;
mod places;
mod resources;
mod rules;
mod sources;
mod table;
mod toolchain;
mod vendor;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::Args;

use amd::AmdToolchain;
use build::{Earlier, Output};
use instructions::Instructions;
use manifest::{Manifest, Resources};
use nvidia::NvidiaToolchain;
use toolchain::Toolchain;

pub(crate) use error::KernelsError;
pub(crate) use vendor::Vendor;

/// How to compile.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Compile, change nothing, and fail where the result is not what is committed
    #[arg(long)]
    check: bool,

    /// Compile everything, and print which of the instructions that matter each image has
    #[arg(long)]
    instructions: bool,

    /// Print what each of the committed kernels takes, and do nothing else
    #[arg(long)]
    resources: bool,

    /// For one vendor's devices alone
    #[arg(long)]
    vendor: Option<Vendor>,

    /// NVIDIA's compiler: libnvrtc.so.12, or a Python environment or site-packages folder that has it; made by
    /// `python3 -m venv target/nvrtc && target/nvrtc/bin/pip install nvidia-cuda-nvrtc-cu12==12.9.86`,
    /// with the disassembler, nvidia-cuda-nvdisasm==13.5.37, beside it
    #[arg(long, value_name = "PATH", default_value = "target/nvrtc")]
    nvrtc: PathBuf,

    /// The compiler for AMD: zig, or a Python environment or site-packages folder that has it; made by
    /// `python3 -m venv target/zig && target/zig/bin/pip install ziglang==0.17.1`
    #[arg(long, value_name = "PATH", default_value = "target/zig")]
    zig: PathBuf,

    /// The root of the repository
    #[arg(long, value_name = "DIR", default_value = ".")]
    root: PathBuf,
}

/// Compiles everything, writes or compares, then applies the gates: images with a breach can be tried, not merged.
pub(crate) fn run(options: &Options) -> Result<(), KernelsError> {
    let vendors = options.vendor.map_or_else(|| Vendor::ALL.to_vec(), |vendor| vec![vendor]);
    let done: Vec<_> = vendors.into_iter().map(|vendor| run_for(vendor, options)).collect();
    done.into_iter().collect()
}

fn toolchain(vendor: Vendor, options: &Options) -> Result<Box<dyn Toolchain>, KernelsError> {
    Ok(match vendor {
        Vendor::Nvidia => Box::new(NvidiaToolchain::open(&options.nvrtc)?),
        Vendor::Amd => Box::new(AmdToolchain::find(&options.zig)?),
    })
}

fn run_for(vendor: Vendor, options: &Options) -> Result<(), KernelsError> {
    if options.resources {
        return print_resources(vendor, options);
    }
    let toolchain = toolchain(vendor, options)?;
    let sources = sources::read(&options.root.join("gpu-common/kernels"), vendor)?;
    let earlier = read_earlier(&images_folder(vendor, &options.root));
    // What is checked is compiled, whatever the manifest claims.
    let is_kept = !options.check && !options.instructions;
    let output = build::compile(vendor, &*toolchain, &sources, earlier.as_ref(), is_kept);
    summarise(&output.manifest);
    let files = files(vendor, &output)?;
    if !options.check {
        write(vendor, options, &files)?;
    }
    if !output.failures.is_empty() {
        return Err(KernelsError::Failed(output.failures));
    }
    if options.check {
        compare(vendor, options, &files)?;
    }
    if options.instructions {
        print_instructions(vendor, &output);
    }
    let mut breaches = output.performance_losses.clone();
    breaches.extend(gates::breaches(&output.manifest, vendor, vendor.allowed()));
    breaches.extend(instruction_breaches(vendor, &output.manifest, &output.instructions));
    if breaches.is_empty() { Ok(()) } else { Err(KernelsError::Breaches(breaches)) }
}

/// Breaches of the rules for instructions, of images that were compiled now. A kernel whose instructions are not known is
/// one: no rule would see it.
fn instruction_breaches(vendor: Vendor, manifest: &Manifest, images: &BTreeMap<String, Instructions>) -> Vec<String> {
    let mut found = Vec::new();
    let is_complete = images.len() == manifest.families.iter().map(|family| family.images.len()).sum::<usize>();
    for image in manifest.families.iter().flat_map(|family| &family.images) {
        let Some(instructions) = images.get(&image.file) else { continue };
        let unseen = image.kernels.iter().filter(|kernel| !instructions.kernels.contains_key(&kernel.name));
        found.extend(unseen.map(|kernel| format!("{} on {}: not disassembled", kernel.name, image.architecture)));
        found.extend(instructions::breaches(&image.architecture, instructions, vendor.rules(), vendor.allowed()));
    }
    if is_complete {
        found.extend(instructions::idle_rules(images.values(), vendor.rules()));
    }
    found
}

fn print_resources(vendor: Vendor, options: &Options) -> Result<(), KernelsError> {
    let path = images_folder(vendor, &options.root).join("manifest.json");
    let manifest: Manifest = serde_json::from_slice(&places::read(&path)?)?;
    println!("{}", resources::table(vendor, &manifest));
    Ok(())
}

fn print_instructions(vendor: Vendor, output: &Output) {
    for (file, found) in &output.instructions {
        let counts = instructions::table(found, vendor.rules());
        let counts = counts.into_iter().map(|(instruction, count)| format!("{instruction}: {count}"));
        println!("{file:<32} {}", counts.collect::<Vec<_>>().join(", "));
    }
}

fn images_folder(vendor: Vendor, root: &Path) -> PathBuf {
    root.join(vendor.backend()).join("images")
}

/// The images that are there, if there is a manifest that can be read.
fn read_earlier(images: &Path) -> Option<Earlier> {
    let manifest: Manifest = serde_json::from_slice(&fs::read(images.join("manifest.json")).ok()?).ok()?;
    let entries = manifest.families.iter().flat_map(|family| &family.images);
    let files = entries.filter_map(|image| Some((image.file.clone(), fs::read(images.join(&image.file)).ok()?)));
    Some(Earlier { images: files.collect(), manifest })
}

/// Every file of the build, by its path from the root.
fn files(vendor: Vendor, output: &Output) -> Result<BTreeMap<String, Vec<u8>>, KernelsError> {
    let backend = vendor.backend();
    let mut files: BTreeMap<String, Vec<u8>> =
        output.images.iter().map(|(file, bytes)| (format!("{backend}/images/{file}"), bytes.clone())).collect();
    files.insert(format!("{backend}/images/manifest.json"), output.manifest.to_json()?.into_bytes());
    files.insert(format!("{backend}/src/images/embedded.rs"), table::rust(&output.manifest).into_bytes());
    Ok(files)
}

fn write(vendor: Vendor, options: &Options, files: &BTreeMap<String, Vec<u8>>) -> Result<(), KernelsError> {
    for name in superfluous(vendor, options, files)? {
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

fn compare(vendor: Vendor, options: &Options, files: &BTreeMap<String, Vec<u8>>) -> Result<(), KernelsError> {
    let mut stale: Vec<String> =
        superfluous(vendor, options, files)?.into_iter().map(|name| format!("{name}: nothing makes it")).collect();
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
fn superfluous(
    vendor: Vendor,
    options: &Options,
    files: &BTreeMap<String, Vec<u8>>,
) -> Result<Vec<String>, KernelsError> {
    let images = images_folder(vendor, &options.root);
    let of_folder = |error| KernelsError::File { path: images.clone(), error };
    let entries = match fs::read_dir(&images) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(of_folder(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(of_folder)?.file_name();
        let name = format!("{}/images/{}", vendor.backend(), name.to_string_lossy());
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
            let most = |of: fn(&Resources) -> u32| image.kernels.iter().map(|k| of(&k.resources)).max().unwrap_or(0);
            println!(
                "{:<16} {:<8} {:>7} {:>9} {:>13} {:>12}",
                family.family,
                image.architecture,
                image.kernels.len(),
                image.image_bytes,
                most(|resources| resources.registers),
                most(|resources| resources.shared_bytes)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Needs no compiler, so that every run of the tests notices a kernel that was changed without its images.
    #[test]
    fn the_committed_images_are_of_these_sources() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for vendor in Vendor::ALL {
            let sources = sources::read(&root.join("gpu-common/kernels"), vendor).unwrap();
            let earlier = read_earlier(&images_folder(vendor, &root)).unwrap();
            let compiled: BTreeMap<&str, &str> =
                earlier.manifest.families.iter().map(|family| (&*family.family, &*family.source_sha256)).collect();
            let hashes: BTreeMap<&str, String> =
                sources.iter().map(|family| (&*family.name, build::source_sha256(family))).collect();
            let is_stale = |(name, hash): &(&&str, &String)| compiled.get(*name) != Some(&hash.as_str());
            let stale: Vec<&&str> = hashes.iter().filter(is_stale).map(|(name, _)| name).collect();
            assert!(stale.is_empty(), "run `cargo xtask kernels`: {stale:?} changed since they were compiled");
            assert_eq!(compiled.len(), hashes.len(), "run `cargo xtask kernels`: an image has lost its source");
            for image in earlier.manifest.families.iter().flat_map(|family| &family.images) {
                let bytes = miniz_oxide::inflate::decompress_to_vec_zlib(&earlier.images[&image.file]).unwrap();
                assert_eq!(build::sha256(&bytes), image.image_sha256, "{}", image.file);
            }
        }
    }

    #[test]
    fn a_kernel_that_is_not_disassembled_is_a_breach() {
        let earlier = read_earlier(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../backend-cuda/images")).unwrap();
        let nothing = BTreeMap::from([("quant.sm_80.cubin.z".to_owned(), Instructions::default())]);
        let found = instruction_breaches(Vendor::Nvidia, &earlier.manifest, &nothing);
        assert!(found.contains(&"quantise_fp8 on sm_80: not disassembled".to_owned()), "{found:?}");
    }

    #[test]
    fn the_help_names_the_commands_that_errors_name() {
        let command = <Options as Args>::augment_args(clap::Command::new("kernels"));
        for (option, install) in [("nvrtc", nvidia::INSTALL), ("zig", amd::INSTALL)] {
            let found = command.get_arguments().find(|arg| arg.get_id() == option).unwrap();
            let help = found.get_help().unwrap().to_string();
            assert!(help.contains(install), "{help}");
        }
    }
}
