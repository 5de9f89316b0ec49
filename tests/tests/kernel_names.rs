//! Every kernel that the shared half of the GPU backends asks for is in the images of every architecture of every vendor, and
//! every kernel in the images is asked for: a name that is spelled differently on the two sides is found here, not by a user.
//!
//! Names are not listed again: a runtime that runs nothing writes down what is asked for while all cases are prepared.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use conformance::cases::cases;
use conformance::harness::{Format, Profile, Rng, TestWeight, outputs};
use engine_core::backend::{Backend, PrepareError, StepError};
use engine_core::quant::QuantisedInputs;
use engine_core::reference::{ActivationRounding, Numerics};
use gpu_common::{
    Arg, Fp8, GpuBackend, GpuInfo, GpuOptions, GpuRuntime, LaunchShape, NativeQueue, WideRows, WideWeights,
};
use serde_json::Value;

type Names = BTreeSet<(String, String)>;

/// Remembers which kernels it was asked for; memory is numbers and launches do nothing.
#[derive(Debug)]
struct Asked {
    info: GpuInfo,
    names: Arc<Mutex<Names>>,
    next_address: AtomicU64,
}

impl Asked {
    fn new(names: &Arc<Mutex<Names>>, max_shared_bytes: u32) -> Self {
        let info = GpuInfo {
            backend: "asked".into(),
            name: "no device".into(),
            architecture: "none".into(),
            wave_size: 32,
            num_multiprocessors: 132,
            total_bytes: 1 << 40,
            free_bytes: 1 << 40,
            max_shared_bytes,
            fp8: Fp8::Ocp,
            has_mma: true,
            results_are_operands: true,
            notes: Vec::new(),
        };
        Self { info, names: names.clone(), next_address: AtomicU64::new(256) }
    }
}

impl GpuRuntime for Asked {
    type Buffer = u64;
    type Stream = ();
    type Kernel = ();
    type Graph = ();
    type Wide = ();

    fn info(&self) -> &GpuInfo {
        &self.info
    }

    fn kernel(&self, family: &'static str, name: &str) -> Result<(), PrepareError> {
        self.names.lock().unwrap().insert((family.to_owned(), name.to_owned()));
        Ok(())
    }

    fn prepare_wide(&self, _: &[WideWeights]) -> Result<Option<()>, PrepareError> {
        Ok(None)
    }

    fn wide_tile_rows(&self, (): &(), rows: u32) -> u32 {
        rows
    }

    fn wide_scratch_bytes(&self, (): &(), _: u32) -> usize {
        0
    }

    fn launch_wide(&self, (): &mut (), (): &(), _: &WideRows) -> Result<(), StepError> {
        Ok(())
    }

    fn alloc(&self, num_bytes: usize, _: &str) -> Result<u64, StepError> {
        Ok(self.next_address.fetch_add(num_bytes.next_multiple_of(256) as u64, Ordering::Relaxed))
    }

    fn address(&self, buffer: &u64) -> u64 {
        *buffer
    }

    fn stream(&self) -> Result<(), StepError> {
        Ok(())
    }

    fn upload(&self, (): &mut (), _: &u64, _: usize, _: &[u8]) -> Result<(), StepError> {
        Ok(())
    }

    fn download(&self, (): &mut (), _: &u64, _: usize, data: &mut [u8]) -> Result<(), StepError> {
        data.fill(0);
        Ok(())
    }

    fn launch(&self, (): &mut (), (): &(), _: LaunchShape, _: &[Arg]) -> Result<(), StepError> {
        Ok(())
    }

    fn native_queue(&self, (): &mut ()) -> Result<NativeQueue, StepError> {
        Ok(NativeQueue(0))
    }

    fn synchronize(&self, (): &mut ()) -> Result<(), StepError> {
        Ok(())
    }

    fn captures(&self) -> bool {
        false
    }

    fn begin_capture(&self, (): &mut ()) -> Result<(), StepError> {
        Ok(())
    }

    fn end_capture(&self, (): &mut ()) -> Result<Option<()>, StepError> {
        Ok(None)
    }

    fn replay(&self, (): &mut (), (): &()) -> Result<(), StepError> {
        Ok(())
    }
}

/// What all conformance cases ask for, with blocks of few and of many waves, quantising or not, with as much shared memory as
/// one device or another has.
fn asked_for() -> Names {
    let names = Arc::default();
    let (all, none) = (QuantisedInputs::ALL, QuantisedInputs::NONE);
    for (quantised_inputs, waves_per_block, shared_kib) in [(all, 8, 227), (none, 2, 99), (none, 1, 64)] {
        let options = GpuOptions { quantised_inputs, waves_per_block, ..GpuOptions::default() };
        let backend = GpuBackend::new(Asked::new(&names, shared_kib << 10), options).unwrap();
        let numerics =
            Numerics { activations: ActivationRounding::Bf16, linears: quantised_inputs, ..Numerics::default() };
        let profile = Profile::new("asked", numerics);
        for case in cases() {
            // Results are zeros: that a case fails by them is no matter here.
            let _ = outputs(&case, &backend, &profile);
        }
        // Embeddings are quantised in no case, but may be in a checkpoint.
        for format in Format::ALL {
            let table = TestWeight::random(&mut Rng::from_name("table"), format, 8, 64);
            backend.prepare_embedding(table.host).unwrap();
        }
    }
    names.lock().unwrap().clone()
}

/// Crates with images of the shared kernels.
const BACKENDS: [&str; 2] = ["backend-cuda", "backend-rocm"];

/// Kernels of a backend's images: family, name and architectures.
fn in_images(backend: &str) -> BTreeMap<(String, String), BTreeSet<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(backend).join("images/manifest.json");
    let manifest: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut found: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for family in manifest["families"].as_array().unwrap() {
        for image in family["images"].as_array().unwrap() {
            for kernel in image["kernels"].as_array().unwrap() {
                let name = (text(&family["family"]), text(&kernel["name"]));
                found.entry(name).or_default().insert(text(&image["architecture"]));
            }
        }
    }
    found
}

/// Kernels that another crate asks for, which has tests of its own: `backend-cuda/src/wide.rs`, `cublaslt.rs`.
const ASKED_FOR_ELSEWHERE: [&str; 2] = ["hopper_gemm", "scales"];

/// Asked for without being in some architecture's image, and in an image without being asked for.
fn differences(asked: &Names, images: &BTreeMap<(String, String), BTreeSet<String>>) -> Vec<String> {
    let architectures: BTreeSet<&String> = images.values().flatten().collect();
    let mut found = Vec::new();
    for name in asked {
        let lacking = architectures.iter().filter(|on| !images.get(name).is_some_and(|has| has.contains(**on)));
        found.extend(lacking.map(|on| format!("{} of {} is not in the image for {on}", name.1, name.0)));
    }
    let elsewhere = |family: &String| ASKED_FOR_ELSEWHERE.contains(&family.as_str());
    let unasked = images.keys().filter(|name| !asked.contains(name) && !elsewhere(&name.0));
    found.extend(unasked.map(|(family, name)| format!("nobody asks for {name} of {family}")));
    found
}

#[test]
fn kernels_that_are_asked_for_are_those_of_the_images() {
    let asked = asked_for();
    for backend in BACKENDS {
        assert_eq!(differences(&asked, &in_images(backend)), Vec::<String>::new(), "{backend}");
    }
}

#[test]
fn names_that_differ_are_found() {
    let name = |name: &str| ("norm".to_owned(), name.to_owned());
    let on = |architectures: &[&str]| architectures.iter().map(|on| (*on).to_owned()).collect();
    let images = BTreeMap::from([(name("rms_norm"), on(&["sm_80", "sm_90a"])), (name("add_norm"), on(&["sm_80"]))]);
    let found = differences(&BTreeSet::from([name("rms_norm"), name("add_norm")]), &images);
    assert_eq!(found, ["add_norm of norm is not in the image for sm_90a"]);
    let found = differences(&BTreeSet::from([name("rms_norm")]), &images);
    assert_eq!(found, ["nobody asks for add_norm of norm"]);
}
