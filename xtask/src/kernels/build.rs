//! From sources to images.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use sha2::{Digest as _, Sha256};

use super::KernelsError;
use super::instructions::Instructions;
use super::manifest::{FamilyImages, ImageEntry, Manifest};
use super::sources::Family;
use super::toolchain::Toolchain;
use super::vendor::Vendor;

/// Images are small and read once: as dense as the format goes.
const COMPRESSION_LEVEL: u8 = 10;

/// All that one build gives.
pub(super) struct Output {
    pub(super) manifest: Manifest,
    /// Compressed images by file name.
    pub(super) images: BTreeMap<String, Vec<u8>>,
    /// Instructions of the images that were compiled now, not kept from an earlier build, by file name.
    pub(super) instructions: BTreeMap<String, Instructions>,
    /// Notes of the compiler that no image may have, with kernel file and architecture.
    pub(super) performance_losses: Vec<String>,
    /// Compilations that failed. Their families have the images of the earlier build, or none.
    pub(super) failures: Vec<String>,
}

struct Built {
    entry: ImageEntry,
    compressed: Vec<u8>,
    instructions: Instructions,
    performance_losses: Vec<String>,
}

/// An earlier build, whose images are as good as new ones where source, compiler and options are the same.
pub(super) struct Earlier {
    pub(super) manifest: Manifest,
    /// By file name.
    pub(super) images: BTreeMap<String, Vec<u8>>,
}

impl Earlier {
    /// The images of a family, with their files, whatever they were made of.
    fn images(&self, family: &Family) -> Option<(&FamilyImages, BTreeMap<String, Vec<u8>>)> {
        let found = self.manifest.families.iter().find(|found| found.family == family.name)?;
        let file = |image: &ImageEntry| Some((image.file.clone(), self.images.get(&image.file)?.clone()));
        Some((found, found.images.iter().map(file).collect::<Option<_>>()?))
    }

    /// The same, if they can be used again.
    fn valid_images(
        &self,
        vendor: Vendor,
        toolchain: &dyn Toolchain,
        family: &Family,
    ) -> Option<(&FamilyImages, BTreeMap<String, Vec<u8>>)> {
        let (found, files) = self.images(family)?;
        let Manifest { compiler, options, families: _ } = &self.manifest;
        let is_same = compiler == toolchain.compiler()
            && *options == toolchain.options()
            && found.source_sha256 == source_sha256(family);
        let compiled = found.images.iter().map(|image| image.architecture.as_str());
        let is_whole = compiled.eq(vendor.architectures_of(&family.name).iter().copied());
        (is_same && is_whole).then_some((found, files))
    }
}

/// Of a source and all it includes.
pub(super) fn source_sha256(family: &Family) -> String {
    sha256(family.whole().as_bytes())
}

/// Compiles every family for every architecture of a vendor, on all processors. A family that `earlier` has is kept, if
/// `is_kept` or if it does not compile any more.
pub(super) fn compile(
    vendor: Vendor,
    toolchain: &dyn Toolchain,
    families: &[Family],
    earlier: Option<&Earlier>,
    is_kept: bool,
) -> Output {
    let kept = |family: &Family| earlier.filter(|_| is_kept)?.valid_images(vendor, toolchain, family);
    let jobs: Vec<(&Family, &'static str)> = families
        .iter()
        .filter(|family| kept(family).is_none())
        .flat_map(|family| vendor.architectures_of(&family.name).iter().map(move |on| (family, *on)))
        .collect();
    let mut built =
        in_parallel(&jobs, |(family, architecture)| compile_one(vendor, toolchain, family, architecture)).into_iter();

    let mut output = Output::new(toolchain);
    for family in families {
        if let Some((images, files)) = kept(family) {
            output.keep(images, files);
            continue;
        }
        let results = built.by_ref().take(vendor.architectures_of(&family.name).len());
        let (built, failures): (Vec<_>, Vec<_>) = results.partition(Result::is_ok);
        if failures.is_empty() {
            output.add(family, built.into_iter().flatten());
        } else if let Some((images, files)) = earlier.and_then(|earlier| earlier.images(family)) {
            output.keep(images, files);
        }
        output.failures.extend(failures.into_iter().filter_map(Result::err).map(|error| error.to_string()));
    }
    output
}

impl Output {
    fn new(toolchain: &dyn Toolchain) -> Self {
        Self {
            manifest: Manifest {
                compiler: toolchain.compiler().clone(),
                options: toolchain.options(),
                families: Vec::new(),
            },
            images: BTreeMap::new(),
            instructions: BTreeMap::new(),
            performance_losses: Vec::new(),
            failures: Vec::new(),
        }
    }

    fn keep(&mut self, images: &FamilyImages, files: BTreeMap<String, Vec<u8>>) {
        self.manifest.families.push(images.clone());
        self.images.extend(files);
    }

    fn add(&mut self, family: &Family, built: impl Iterator<Item = Built>) {
        let mut images = Vec::new();
        for Built { entry, compressed, instructions, performance_losses } in built {
            self.instructions.insert(entry.file.clone(), instructions);
            self.images.insert(entry.file.clone(), compressed);
            self.performance_losses.extend(performance_losses);
            images.push(entry);
        }
        self.manifest.families.push(FamilyImages {
            family: family.name.clone(),
            source_sha256: source_sha256(family),
            images,
        });
    }
}

/// Results in the order of the jobs, whichever thread did them.
fn in_parallel<J: Sync, R: Send>(jobs: &[J], work: impl Fn(&J) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let num_threads = thread::available_parallelism().map_or(1, NonZero::get);
    let mut results: Vec<(usize, R)> = Vec::with_capacity(jobs.len());
    thread::scope(|scope| {
        let worker = || {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(job) = jobs.get(index) else { return done };
                done.push((index, work(job)));
            }
        };
        let workers: Vec<_> = (0..num_threads).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            match worker.join() {
                Ok(done) => results.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

fn compile_one(
    vendor: Vendor,
    toolchain: &dyn Toolchain,
    family: &Family,
    architecture: &'static str,
) -> Result<Built, KernelsError> {
    let file = family.file_name();
    let compiled = toolchain.compile(family, architecture)?;
    for warning in &compiled.warnings {
        println!("{file} for {architecture}: {warning}");
    }
    Ok(Built {
        entry: ImageEntry {
            architecture: architecture.to_owned(),
            file: format!("{}.{architecture}.{}", family.name, vendor.suffix()),
            image_bytes: compiled.image.len(),
            image_sha256: sha256(&compiled.image),
            kernels: compiled.kernels,
        },
        compressed: miniz_oxide::deflate::compress_to_vec_zlib(&compiled.image, COMPRESSION_LEVEL),
        instructions: compiled.instructions,
        performance_losses: compiled
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::manifest::Compiler;
    use super::super::toolchain::Compiled;
    use super::*;

    /// Makes an image of a family's text, if that is no mistake.
    struct Copier(Compiler);

    impl Toolchain for Copier {
        fn compiler(&self) -> &Compiler {
            &self.0
        }

        fn options(&self) -> Vec<String> {
            Vec::new()
        }

        fn compile(&self, family: &Family, architecture: &'static str) -> Result<Compiled, KernelsError> {
            let failed = |log: &str| KernelsError::Compile {
                file: family.file_name(),
                options: architecture.to_owned(),
                log: log.to_owned(),
            };
            if family.text.contains("mistake") && architecture == "gfx950" {
                return Err(failed("a mistake"));
            }
            let image = family.text.clone().into_bytes();
            let (warnings, performance_losses) = (Vec::new(), Vec::new());
            Ok(Compiled {
                image,
                kernels: Vec::new(),
                instructions: Instructions::default(),
                warnings,
                performance_losses,
            })
        }
    }

    fn built(texts: [&str; 2], earlier: Option<&Earlier>) -> Output {
        let family =
            |(name, text): (&str, &str)| Family { name: name.into(), text: text.into(), headers: BTreeMap::new() };
        let families: Vec<Family> = ["a", "b"].into_iter().zip(texts).map(family).collect();
        let copier = Copier(Compiler { version: "1".into(), library_sha256: String::new() });
        compile(Vendor::Amd, &copier, &families, earlier, true)
    }

    #[test]
    fn only_what_changed_is_compiled() {
        let first = built(["one", "two"], None);
        assert_eq!((first.instructions.len(), first.images.len(), first.failures.len()), (10, 10, 0));
        let earlier = Earlier { manifest: first.manifest, images: first.images };
        let second = built(["one", "three"], Some(&earlier));
        assert!(second.instructions.keys().all(|file| file.starts_with("b.")) && second.instructions.len() == 5);
        assert_eq!(second.images["a.gfx942.co.z"], earlier.images["a.gfx942.co.z"]);
        assert_ne!(second.images["b.gfx942.co.z"], earlier.images["b.gfx942.co.z"]);
    }

    #[test]
    fn a_family_that_fails_costs_the_others_nothing() {
        let first = built(["one", "two"], None);
        let earlier = Earlier { manifest: first.manifest, images: first.images };
        let second = built(["a mistake", "three"], Some(&earlier));
        assert!(second.failures.len() == 1 && second.failures[0].contains("a.cu does not compile with gfx950"));
        // The images of its last good text, with the hash of that, and new ones of the other family.
        assert_eq!(second.manifest.families[0], earlier.manifest.families[0]);
        assert_eq!(second.images["a.gfx942.co.z"], earlier.images["a.gfx942.co.z"]);
        assert!(second.instructions.keys().all(|file| file.starts_with("b.")) && second.instructions.len() == 5);
        let fresh = built(["a mistake", "three"], None);
        assert_eq!((fresh.manifest.families.len(), fresh.images.len()), (1, 5));
    }
}
