//! Compiles every kernel family for the host, for each profile, with the system's C++ compiler, and kernels with planted
//! mistakes beside them.

#[allow(unreachable_pub, reason = "public in the library, which has the same file")]
#[path = "src/profile.rs"]
mod profile;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use profile::Profile;

/// What kernels are told about a profile, in the words of `gpu-common/kernels/host/target_host.h`.
struct Traits {
    /// The struct of `layout.h` that says where lanes keep tiles.
    layout: &'static str,
    /// Lengths of the operands of bf16 values, FP8 codes and INT8 codes that matrix instructions take.
    lengths: &'static str,
    is_fnuz: bool,
}

fn traits(profile: Profile) -> Traits {
    let (layout, lengths, is_fnuz) = match profile {
        Profile::Nvidia => ("MmaLayout", "1, 1, 1", false),
        Profile::Cdna => ("LaneRowLayout", "2, 4, 2", false),
        Profile::CdnaFnuz => ("LaneRowLayout", "1, 1, 1", true),
        Profile::Rdna3 => ("Wmma3Layout", "1, 1, 1", false),
        Profile::Rdna4 => ("LaneRowLayout", "1, 1, 1", false),
    };
    Traits { layout, lengths, is_fnuz }
}

/// Families of kernels for one vendor's devices.
const OF_NVIDIA: [&str; 3] = ["hopper_gemm", "scales", "broken_async"];

/// One object to be.
struct Job<'a> {
    family: &'a Path,
    name: String,
    profile: Profile,
}

fn main() -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let (kernels, broken) = (here.join("../../../gpu-common/kernels"), here.join("testdata"));
    let mut sources = Vec::new();
    for folder in [&kernels, &broken] {
        println!("cargo::rerun-if-changed={}", folder.display());
        sources.extend(families(folder)?);
    }
    println!("cargo::rerun-if-changed=src/profile.rs");
    let mut jobs = Vec::new();
    for family in &sources {
        let name = family.file_stem().ok_or("a kernel family without a name")?.to_string_lossy().into_owned();
        let profiles = Profile::ALL.into_iter();
        let profiles = profiles.filter(|profile| *profile == Profile::Nvidia || !OF_NVIDIA.contains(&name.as_str()));
        jobs.extend(profiles.map(|profile| Job { family, name: name.clone(), profile }));
    }
    let objects = compile(&jobs, &kernels)?;
    let mut build = compiler(&kernels);
    for file in ["async.cpp", "block.cpp", "fiber.cpp", "launch.cpp"] {
        build.file(kernels.join("host").join(file));
    }
    // Kernels are entered into a registry by constructors, so nothing refers to them by name.
    build.objects(objects).link_lib_modifier("+whole-archive").try_compile("gk_host")?;
    Ok(())
}

/// `FAMILY.cu`, in order of names.
fn families(kernels: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(kernels)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cu") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The objects of all jobs, in their order, on all processors.
fn compile(jobs: &[Job<'_>], kernels: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        while let index = next.fetch_add(1, Ordering::Relaxed)
            && let Some(job) = jobs.get(index)
        {
            done.push((index, compile_one(job, kernels)));
        }
        done
    };
    let num_threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut done: Vec<(usize, Result<Vec<PathBuf>, String>)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..num_threads).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    done.sort_by_key(|(index, _)| *index);
    let mut objects = Vec::new();
    for (_, of_job) in done {
        objects.extend(of_job?);
    }
    Ok(objects)
}

fn compile_one(job: &Job<'_>, kernels: &Path) -> Result<Vec<PathBuf>, String> {
    let Job { family, name, profile } = job;
    let mut build = compiler(kernels);
    // Objects are named after their source.
    let out_dir = std::env::var("OUT_DIR").map_err(|error| error.to_string())?;
    let objects = Path::new(&out_dir).join(profile.name());
    fs::create_dir_all(&objects).map_err(|error| error.to_string())?;
    build.out_dir(objects);
    let Traits { layout, lengths, is_fnuz } = traits(*profile);
    build
        .define("gk", &*format!("gk_{}", profile.name()))
        .define("GK_PROFILE", &*format!("\"{}\"", profile.name()))
        .define("GK_FAMILY", &*format!("\"{name}\""))
        .define("GK_WAVE", &*profile.wave_size().to_string())
        .define("GK_LAYOUT", layout)
        .define("GK_IS_FNUZ", if is_fnuz { "true" } else { "false" })
        .define("GK_LENGTHS", lengths);
    // The compiler does not know the extension of kernels.
    build.flag("-x").flag("c++");
    build.file(family).try_compile_intermediates().map_err(|error| error.to_string())
}

/// Optimised whatever the profile is: kernels run billions of instructions in tests.
fn compiler(kernels: &Path) -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(3).include(kernels).warnings(true).extra_warnings(true);
    // Nothing is linked with what another compiler passes by value.
    build.flag_if_supported("-Wno-psabi");
    // Unrolling is asked for in the device compilers' words. Sums are not contracted, so that every x86-64 gives the same.
    build.flag("-Wno-unknown-pragmas").flag("-ffp-contract=off").flag_if_supported("-ftls-model=initial-exec");
    // Tests run where they are built. Wider vectors give the same values, as nothing is contracted.
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        build.flag("-mavx2").flag("-mavx512f");
    } else if std::arch::is_x86_feature_detected!("avx2") {
        build.flag("-mavx2");
    }
    build
}
