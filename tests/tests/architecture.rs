//! The rules of ARCHITECTURE.md that a program can check: sizes of files, who may name a vendor, who may depend on
//! whom, where `unsafe` lives. Each rule is shown to fail on a breach made for it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest file, in lines.
const MAX_LINES: usize = 600;

/// Written by programs: as long as what they were given.
const GENERATED: &str = "backend-ascend/src/driver/sys/";

/// Folders that are not ours to judge.
const SKIPPED: [&str; 3] = ["target", "models", ".git"];

/// Folders of library crates: no environment, no output.
const LIBRARIES: [&str; 4] = ["src/", "engine-core/", "backend-", "gpu-common/"];

/// Where a vendor's feature may be asked for.
const FEATURE_GATES: [&str; 2] = ["src/device.rs", "tests/"];

const VENDOR_FEATURES: [&str; 5] = ["cpu", "wgpu", "cuda", "rocm", "ascend"];

const VENDOR_WORDS: [&str; 16] = [
    "cuda", "rocm", "hip", "ascend", "wgpu", "nvidia", "amd", "huawei", "cann", "vulkan", "metal", "cublas", "nccl",
    "rccl", "hccl", "npu",
];

/// Files and folders with `unsafe`, each with the reason that its comments give.
const UNSAFE: &[&str] = &[
    "engine-core/src/weights/mmap.rs",
    "backend-cpu/src/simd/",
    "backend-cpu/src/grid.rs",
    "backend-wgpu/src/pipeline_cache.rs",
    "xtask/src/kernels/nvidia/nvrtc.rs",
    "gpu-common/src/collective/library.rs",
    "tests/emulators/host/src/memory.rs",
    "tests/emulators/host/src/runtime.rs",
    "tests/emulators/host/src/sys.rs",
    "tests/emulators/host/tests/broken_async.rs",
    "backend-cuda/src/driver/",
    "backend-rocm/src/driver/",
    "backend-ascend/src/driver/",
    "tests/emulators/ascend/src/api/",
    "tests/emulators/common/src/",
    "tests/emulators/cuda/src/api/",
    "tests/emulators/gpu/src/api.rs",
    "tests/emulators/gpu/src/kernels.rs",
    "tests/emulators/gpu/src/nccl.rs",
];

/// Arrows between packages of the workspace (ARCHITECTURE.md, "Folders and arrows").
const ARROWS: &[(&str, &[&str])] = &[
    ("engine-core", &[]),
    ("gpu-common", &["engine-core"]),
    ("backend-cpu", &["engine-core"]),
    ("backend-wgpu", &["engine-core"]),
    ("backend-ascend", &["engine-core"]),
    ("backend-cuda", &["engine-core", "gpu-common"]),
    ("backend-rocm", &["engine-core", "gpu-common"]),
    ("bathysphere", &["engine-core", "backend-*"]),
    ("gpu-host", &["engine-core", "gpu-common"]),
    (
        "conformance",
        &[
            "engine-core",
            "backend-*",
            "gpu-common",
            "gpu-host",
            "ascend-emulator",
            "cuda-emulator",
            "hip-emulator",
            "bathysphere",
        ],
    ),
    ("emulator-common", &[]),
    ("gpu-emulator", &["emulator-common", "gpu-host"]),
    ("ascend-emulator", &["emulator-common"]),
    ("code-object", &[]),
    ("cubin", &[]),
    ("xtask", &["code-object", "cubin"]),
    ("cuda-emulator", &["cubin", "emulator-common", "gpu-emulator"]),
    ("hip-emulator", &["code-object", "emulator-common", "gpu-emulator"]),
];
/// Every other package: what an embedder sees, and nothing behind it.
const OUTSIDE: &[&str] = &["bathysphere"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Path from the root with forward slashes, and text, of every file whose name ends in `extension`.
fn files(extension: &str) -> BTreeMap<String, String> {
    fn visit(dir: &Path, extension: &str, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !SKIPPED.contains(&name.as_str()) {
                visit(&path, extension, found);
            } else if name.ends_with(extension) {
                let relative = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
                found.insert(relative, fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    visit(&root(), extension, &mut found);
    assert!(found.len() > 3, "the workspace has more than {} files ending in {extension}", found.len());
    found
}

/// Numbered lines that are not comments, without a trailing comment.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//")).map(|(i, line)| {
        // A double slash inside a string belongs to a URL.
        (i, line.split(" // ").next().unwrap_or(line))
    })
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_ascii_alphanumeric())
}

fn starts_with_any(path: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| path.starts_with(prefix))
}

/// What is wrong with one Rust file, as `path:line: rule`.
fn breaches(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if text.lines().count() > MAX_LINES && !path.starts_with(GENERATED) {
        found.push(format!("{path}: {} lines, at most {MAX_LINES}", text.lines().count()));
    }
    for (number, line) in code(text) {
        let mut breach = |rule: &str| found.push(format!("{path}:{number}: {rule}: {}", line.trim()));
        let gates = |feature: &str| line.contains(&format!("feature = \"{feature}\""));
        if VENDOR_FEATURES.into_iter().any(gates) && !starts_with_any(path, &FEATURE_GATES) {
            breach("a vendor's feature is named in src/device.rs and tests/ only");
        }
        if path.starts_with("engine-core/") {
            let is_vendor = |word: &str| VENDOR_WORDS.contains(&word.to_ascii_lowercase().as_str());
            if words(line).any(is_vendor) {
                breach("engine-core knows no vendor");
            }
        }
        // A package's benchmarks are programs.
        if starts_with_any(path, &LIBRARIES) && !path.contains("/benches/") {
            if line.contains("env::var") {
                breach("a library reads no environment variable");
            }
            if ["println!", "print!", "eprintln!", "eprint!", "dbg!"].iter().any(|print| line.contains(print)) {
                breach("a library prints nothing");
            }
        }
        // Lint names have the word in them, between underscores.
        let says_unsafe = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == "unsafe");
        if says_unsafe && !starts_with_any(path, UNSAFE) && path != "tests/tests/architecture.rs" {
            breach("unsafe has its files");
        }
    }
    found
}

/// A package's name and the packages of the workspace that its manifest names as dependencies of any kind.
fn manifest(text: &str, packages: &[String]) -> (String, Vec<String>) {
    let (mut section, mut name, mut dependencies) = (String::new(), String::new(), Vec::new());
    for line in text.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']').to_owned();
            if let Some((_, package)) = section.split_once("dependencies.") {
                dependencies.push(package.to_owned());
            }
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let key = key.trim();
        if section == "package" && key == "name" {
            name = value.trim().trim_matches('"').to_owned();
        }
        if section.ends_with("dependencies") && !section.starts_with("workspace") {
            dependencies.push(key.split('.').next().unwrap_or(key).to_owned());
        }
    }
    dependencies.retain(|dependency| packages.contains(dependency));
    (name, dependencies)
}

fn is_allowed(package: &str, dependency: &str) -> bool {
    let arrows = ARROWS.iter().find(|(from, _)| *from == package).map_or(OUTSIDE, |(_, to)| *to);
    arrows.iter().any(|to| match to.strip_suffix('*') {
        Some(prefix) => dependency.starts_with(prefix),
        None => dependency == *to,
    })
}

#[test]
fn every_file_keeps_the_rules() {
    let found: Vec<String> = files(".rs").iter().flat_map(|(path, text)| breaches(path, text)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn files_with_unsafe_still_exist_and_need_it() {
    let sources = files(".rs");
    for place in UNSAFE {
        let needed = sources.iter().any(|(path, text)| path.starts_with(place) && text.contains("unsafe"));
        assert!(needed, "{place} has no unsafe left: take it off the list");
    }
}

#[test]
fn packages_depend_on_each_other_as_drawn() {
    let manifests = files("Cargo.toml");
    let packages: Vec<String> = manifests.values().map(|text| manifest(text, &[]).0).collect();
    for expected in ["engine-core", "backend-cpu", "bathysphere", "conformance"] {
        assert!(packages.iter().any(|package| package == expected), "{expected} among {packages:?}");
    }
    for (path, text) in &manifests {
        let (package, dependencies) = manifest(text, &packages);
        for dependency in dependencies {
            assert!(is_allowed(&package, &dependency), "{path}: {package} may not depend on {dependency}");
        }
    }
}

#[test]
fn the_facade_takes_every_backend_by_feature_only() {
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let dependencies = text.split("\n[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    for line in dependencies.lines().filter(|line| line.starts_with("backend-")) {
        assert!(line.contains("optional = true"), "a backend is optional: {line}");
    }
}

#[test]
fn a_breach_of_each_rule_is_found() {
    let core = "engine-core/src/x.rs";
    for (path, text, rule) in [
        (core, "//\n".repeat(MAX_LINES + 1).as_str(), "lines"),
        (core, "#[cfg(feature = \"wgpu\")]", "feature"),
        ("backend-cpu/src/x.rs", "#[cfg(feature = \"cpu\")]", "feature"),
        (core, "fn use_cuda() {}", "vendor"),
        (core, "let name = \"NVIDIA H100\";", "vendor"),
        ("src/lib.rs", "std::env::var(\"HOME\")", "environment"),
        (core, "    println!(\"loaded\");", "prints"),
        (core, "    let x = unsafe { *p };", "unsafe"),
        ("cli/src/main.rs", "unsafe fn f() {}", "unsafe"),
    ] {
        let found = breaches(path, text);
        assert!(found.iter().any(|breach| breach.contains(rule)), "{path}: {text:?} gave {found:?}");
    }
}

#[test]
fn what_only_looks_like_a_breach_is_not_one() {
    for (path, text) in [
        ("src/device.rs", "#[cfg(feature = \"cuda\")]"),
        ("tests/tests/cpu.rs", "#![cfg(feature = \"cpu\")]"),
        ("engine-core/src/x.rs", "/// f32 on CPUs, bf16 on CUDA"),
        ("engine-core/src/x.rs", "let ownership = relationship(ascending);"),
        ("engine-core/src/x.rs", "#![deny(unsafe_op_in_unsafe_fn)]"),
        ("engine-core/src/x.rs", "#[cfg(target_feature = \"avx2\")]"),
        ("cli/src/main.rs", "println!(\"{text}\");"),
        ("backend-wgpu/benches/x.rs", "println!(\"{text}\");"),
        ("backend-cpu/src/simd/avx2.rs", "unsafe { load(p) }"),
        ("backend-ascend/src/driver/sys/x.rs", "//\n".repeat(MAX_LINES + 1).as_str()),
    ] {
        assert_eq!(breaches(path, text), Vec::<String>::new());
    }
}

#[test]
fn forbidden_arrows_are_found() {
    let packages: Vec<String> = ["engine-core", "backend-cpu", "bathysphere", "gpu-common"].map(str::to_owned).into();
    let text = "[package]\nname = \"cli\"\n[dependencies]\nbathysphere.workspace = true\nengine-core = { path = \"..\" }\n\
                [dev-dependencies.backend-cpu]\nserde = \"1\"\n";
    let (name, dependencies) = manifest(text, &packages);
    assert_eq!(name, "cli");
    assert_eq!(dependencies, ["bathysphere", "engine-core", "backend-cpu"]);
    let forbidden: Vec<&String> = dependencies.iter().filter(|dependency| !is_allowed("cli", dependency)).collect();
    assert_eq!(forbidden, ["engine-core", "backend-cpu"]);
    assert!(is_allowed("backend-rocm", "gpu-common") && !is_allowed("backend-cpu", "gpu-common"));
    assert!(!is_allowed("engine-core", "backend-cpu") && !is_allowed("gpu-common", "backend-cuda"));
}
