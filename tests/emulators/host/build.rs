//! Compiles every kernel family for the host, in both wave sizes, with the system's C++ compiler, and kernels with planted
//! mistakes beside them.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

const WAVE_SIZES: [&str; 2] = ["32", "64"];

fn main() -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let (kernels, broken) = (here.join("../../../gpu-common/kernels"), here.join("testdata"));
    let mut sources = Vec::new();
    for folder in [&kernels, &broken] {
        println!("cargo::rerun-if-changed={}", folder.display());
        sources.extend(families(folder)?);
    }
    let mut objects = Vec::new();
    for family in sources {
        let name = family.file_stem().ok_or("a kernel family without a name")?.to_string_lossy().into_owned();
        for wave_size in WAVE_SIZES {
            let mut build = compiler(&kernels);
            // Objects are named after their source.
            let objects_of_size = Path::new(&std::env::var("OUT_DIR")?).join(format!("wave{wave_size}"));
            fs::create_dir_all(&objects_of_size)?;
            build.out_dir(objects_of_size);
            build.define("GK_WAVE", wave_size).define("GK_FAMILY", &*format!("\"{name}\""));
            // The compiler does not know the extension of kernels.
            build.flag("-x").flag("c++");
            objects.extend(build.file(&family).try_compile_intermediates()?);
        }
    }
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

/// Optimised whatever the profile is: kernels run billions of instructions in tests.
fn compiler(kernels: &Path) -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(3).include(kernels).warnings(true).extra_warnings(true);
    // Nothing is linked with what another compiler passes by value.
    build.flag_if_supported("-Wno-psabi");
    // Unrolling is asked for in the device compilers' words. Sums are not contracted, so that every x86-64 gives the same.
    build.flag("-Wno-unknown-pragmas").flag("-ffp-contract=off").flag_if_supported("-ftls-model=initial-exec");
    build
}
