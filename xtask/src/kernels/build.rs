//! From sources to images.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cubin::Image;
use sha2::{Digest as _, Sha256};

use super::KernelsError;
use super::log::Log;
use super::manifest::{Compiler, FamilyImages, ImageEntry, KernelEntry, Manifest};
use super::nvrtc::{Nvrtc, Source};
use super::sources::{Family, architectures};

/// `-v` makes the assembler say what each kernel takes.
const OPTIONS: [&str; 2] = ["--std=c++17", "--ptxas-options=-v"];
/// Images are small and read once: as dense as the format goes.
const COMPRESSION_LEVEL: u8 = 10;

/// All that one build gives.
pub(super) struct Output {
    pub(super) manifest: Manifest,
    /// Compressed images by file name.
    pub(super) images: BTreeMap<String, Vec<u8>>,
    /// Files that were compiled now, not kept from an earlier build.
    pub(super) compiled: BTreeSet<String>,
    /// Notes of the compiler that no image may have, with kernel file and architecture.
    pub(super) performance_losses: Vec<String>,
}

struct Built {
    entry: ImageEntry,
    compressed: Vec<u8>,
    performance_losses: Vec<String>,
}

/// An earlier build, whose images are as good as new ones where source, compiler and options are the same.
pub(super) struct Earlier {
    pub(super) manifest: Manifest,
    /// By file name.
    pub(super) images: BTreeMap<String, Vec<u8>>,
}

impl Earlier {
    /// The images of a family if they can be used again, with their files.
    fn images(&self, compiler: &Compiler, family: &Family) -> Option<(&FamilyImages, BTreeMap<String, Vec<u8>>)> {
        let Manifest { compiler: earlier, options, families } = &self.manifest;
        let found = families.iter().find(|found| found.family == family.name)?;
        let is_same = earlier == compiler && *options == OPTIONS && found.source_sha256 == source_sha256(family);
        let compiled = found.images.iter().map(|image| image.architecture.as_str());
        if !is_same || !compiled.eq(architectures(&family.name).iter().copied()) {
            return None;
        }
        let file = |image: &ImageEntry| Some((image.file.clone(), self.images.get(&image.file)?.clone()));
        Some((found, found.images.iter().map(file).collect::<Option<_>>()?))
    }
}

/// Of a source and all it includes.
pub(super) fn source_sha256(family: &Family) -> String {
    sha256(family.whole().as_bytes())
}

/// Compiles every family for every architecture, on all processors, except what `earlier` has.
pub(super) fn compile(
    nvrtc: &Nvrtc,
    compiler: Compiler,
    families: &[Family],
    earlier: Option<&Earlier>,
) -> Result<Output, KernelsError> {
    let kept = |family: &Family| earlier.and_then(|earlier| earlier.images(&compiler, family));
    let jobs: Vec<(&Family, &'static str)> = families
        .iter()
        .filter(|family| kept(family).is_none())
        .flat_map(|family| architectures(&family.name).iter().map(move |architecture| (family, *architecture)))
        .collect();
    let built = in_parallel(&jobs, |(family, architecture)| compile_one(nvrtc, family, architecture))?;

    let mut output = Output {
        manifest: Manifest {
            compiler: compiler.clone(),
            options: OPTIONS.map(str::to_owned).into(),
            families: Vec::new(),
        },
        images: BTreeMap::new(),
        compiled: BTreeSet::new(),
        performance_losses: Vec::new(),
    };
    let mut built = built.into_iter();
    for family in families {
        if let Some((images, files)) = kept(family) {
            output.manifest.families.push(images.clone());
            output.images.extend(files);
            continue;
        }
        let mut images = Vec::new();
        for built in built.by_ref().take(architectures(&family.name).len()) {
            output.compiled.insert(built.entry.file.clone());
            output.images.insert(built.entry.file.clone(), built.compressed);
            output.performance_losses.extend(built.performance_losses);
            images.push(built.entry);
        }
        output.manifest.families.push(FamilyImages {
            family: family.name.clone(),
            source_sha256: source_sha256(family),
            images,
        });
    }
    Ok(output)
}

/// Results in the order of the jobs, whichever thread did them.
pub(super) fn in_parallel<J: Sync, R: Send>(
    jobs: &[J],
    work: impl Fn(&J) -> Result<R, KernelsError> + Sync,
) -> Result<Vec<R>, KernelsError> {
    let next = AtomicUsize::new(0);
    let num_threads = thread::available_parallelism().map_or(1, NonZero::get);
    let mut results: Vec<(usize, R)> = Vec::with_capacity(jobs.len());
    thread::scope(|scope| -> Result<(), KernelsError> {
        let worker = || -> Result<Vec<(usize, R)>, KernelsError> {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(job) = jobs.get(index) else { return Ok(done) };
                done.push((index, work(job)?));
            }
        };
        let workers: Vec<_> = (0..num_threads).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            match worker.join() {
                Ok(done) => results.extend(done?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    })?;
    results.sort_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

fn compile_one(nvrtc: &Nvrtc, family: &Family, architecture: &'static str) -> Result<Built, KernelsError> {
    let file = family.file_name();
    let source = Source { name: &file, text: &family.text };
    let headers: Vec<Source<'_>> = family.headers.iter().map(|(name, text)| Source { name, text }).collect();
    let mut options = vec![format!("--gpu-architecture={architecture}")];
    options.extend(OPTIONS.map(str::to_owned));
    let compiled = nvrtc.compile(&source, &headers, &options)?;

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
    for warning in &log.warnings {
        println!("{file} for {architecture}: {warning}");
    }
    let kernels = image
        .kernels
        .iter()
        .map(|(name, kernel)| KernelEntry {
            name: name.clone(),
            parameters: kernel.parameters.iter().map(|parameter| parameter.num_bytes).collect(),
            resources: log.kernels[name],
        })
        .collect();
    Ok(Built {
        entry: ImageEntry {
            architecture: architecture.to_owned(),
            file: format!("{}.{architecture}.cubin.z", family.name),
            cubin_bytes: compiled.cubin.len(),
            cubin_sha256: sha256(&compiled.cubin),
            kernels,
        },
        compressed: miniz_oxide::deflate::compress_to_vec_zlib(&compiled.cubin, COMPRESSION_LEVEL),
        performance_losses: log
            .performance_losses
            .iter()
            .map(|loss| format!("{file} for {architecture}: {loss}"))
            .collect(),
    })
}

/// In hexadecimal digits.
pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
