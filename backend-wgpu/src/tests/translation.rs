//! Every kernel keeps its contract and becomes SPIR-V, MSL and HLSL.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{self, Write as _};

use engine_core::quant::WeightFormat;
use naga::back::{hlsl, msl, spv};

use super::catalogue::{KINDS, kernels, kind, tunings};
use super::contract::{Checked, Contract};
use crate::kernels::{Cut, Kernel, MatmulKernel, RowSource, Scaling, Tuning};
use crate::options::MatmulStyle;

type Write = fn(&Checked, &Contract) -> Result<(), String>;

/// Languages that wgpu hands to drivers.
const TARGETS: [(&str, Write); 3] = [("SPIR-V", to_spirv), ("MSL", to_msl), ("HLSL", to_hlsl)];

#[test]
fn every_kernel_passes_for_every_api() {
    let mut texts = HashSet::new();
    let mut kinds = BTreeMap::<_, BTreeSet<String>>::new();
    let (mut num_asked, mut failures, mut most_workgroup_bytes) = (0, Vec::new(), 0);
    for tuning in tunings() {
        for kernel in kernels(tuning) {
            num_asked += 1;
            let wgsl = kernel.wgsl(tuning).unwrap();
            let contract = Contract::of(&kernel, tuning);
            kinds.entry(kind(&kernel)).or_default().insert(wgsl.clone());
            // Tunings share most texts; what may use subgroups is checked apart.
            if !texts.insert((contract.subgroups, wgsl.clone())) {
                continue;
            }
            let name = format!("{kernel:?} for {tuning:?}");
            match contract.check(&wgsl) {
                Err(reason) => failures.push(format!("{name}: {reason}")),
                Ok(checked) => {
                    most_workgroup_bytes = most_workgroup_bytes.max(checked.workgroup_bytes);
                    failures.extend(
                        TARGETS
                            .iter()
                            .filter_map(|(target, write)| Some((target, write(&checked, &contract).err()?)))
                            .map(|(target, error)| format!("{name} as {target}: {error}")),
                    );
                }
            }
        }
    }
    // Past the capture of passing tests' output: every log shows how much was checked.
    let by_kind: Vec<_> = kinds.iter().map(|(kind, texts)| format!("{} {kind}", texts.len())).collect();
    let report = format!(
        "backend-wgpu: {} kernels ({num_asked} asked for, by {} tunings) x {} targets, at most {most_workgroup_bytes} \
         bytes of workgroup memory: {}",
        texts.len(),
        tunings().len(),
        TARGETS.len(),
        by_kind.join(", ")
    );
    let _ = writeln!(io::stdout(), "{report}");
    assert!(failures.is_empty(), "{} failures, the first: {}", failures.len(), failures[0]);
    assert_eq!(kinds.len(), KINDS, "a kind of kernel is missing from the catalogue");
}

fn to_spirv(checked: &Checked, contract: &Contract) -> Result<(), String> {
    // Subgroup operations came with SPIR-V 1.3.
    let lang_version = if contract.subgroups { (1, 3) } else { (1, 0) };
    let options = spv::Options { lang_version, ..Default::default() };
    let words = spv::write_vec(&checked.module, &checked.info, &options, None).map_err(|error| error.to_string())?;
    if words.is_empty() { Err("nothing was written".into()) } else { Ok(()) }
}

fn to_msl(checked: &Checked, contract: &Contract) -> Result<(), String> {
    let num_bindings = contract.bindings.len() as u8 + 1;
    let target = |binding: u8| msl::BindTarget { buffer: Some(binding), mutable: true, ..Default::default() };
    let resources = (0..num_bindings)
        .map(|binding| (naga::ResourceBinding { group: 0, binding: binding.into() }, target(binding)))
        .collect();
    // Lengths of the buffers, for bounds checks, go into one more.
    let resources = msl::EntryPointResources { resources, immediates_buffer: None, sizes_buffer: Some(num_bindings) };
    let options = msl::Options {
        lang_version: if contract.subgroups { (2, 1) } else { (2, 0) },
        per_entry_point_map: [("main".to_owned(), resources)].into(),
        fake_missing_bindings: false,
        ..Default::default()
    };
    let (text, translation) = msl::write_string(&checked.module, &checked.info, &options, &Default::default())
        .map_err(|error| error.to_string())?;
    let names: Result<Vec<String>, _> = translation.entry_point_names.into_iter().collect();
    let names = names.map_err(|error| error.to_string())?;
    if names.iter().all(|name| text.contains(name)) { Ok(()) } else { Err(format!("no entry point {names:?}")) }
}

fn to_hlsl(checked: &Checked, contract: &Contract) -> Result<(), String> {
    // Wave intrinsics came with shader model 6.0.
    let shader_model = if contract.subgroups { hlsl::ShaderModel::V6_0 } else { hlsl::ShaderModel::V5_1 };
    let options = hlsl::Options { shader_model, ..Default::default() };
    let mut text = String::new();
    let pipeline = hlsl::PipelineOptions::default();
    let reflection = hlsl::Writer::new(&mut text, &options, &pipeline)
        .write(&checked.module, &checked.info, None)
        .map_err(|error| error.to_string())?;
    let names: Result<Vec<String>, _> = reflection.entry_point_names.into_iter().collect();
    let names = names.map_err(|error| error.to_string())?;
    if names.iter().all(|name| text.contains(name)) { Ok(()) } else { Err(format!("no entry point {names:?}")) }
}

/// A kernel that has everything: storage buffers of both kinds, workgroup memory, subgroup operations.
fn gemv(tuning: Tuning) -> (String, Contract) {
    let kernel = Kernel::Matmul(MatmulKernel {
        cut: Cut::Gemv,
        rows: 2,
        format: WeightFormat::Fp8Block,
        scaling: Scaling::Block,
        vectorised: true,
        source: RowSource::Gather,
        gated: true,
    });
    (kernel.wgsl(tuning).unwrap(), Contract::of(&kernel, tuning))
}

const PLAIN: Tuning = Tuning { matmul: MatmulStyle::Tiles, subgroups: false, share: 0 };

#[test]
fn a_kernel_with_a_mistake_fails() {
    let mistakes = [
        // The text, what becomes of it, what the message must name.
        ("workgroupBarrier();", "workgroupBarrier()", "expected"),
        ("P.top_k", "P.top_j", "top_j"),
        ("var sum0_0_0 = 0.0;", "var sum0_0_0 = 0u;", "type"),
        ("    top_k: u32,\n", "    top_k: u32,\n    spare: u32,\n", "spare"),
        ("    m: u32,\n", "", "host's are [(\"m\""),
        ("    m: u32,\n", "    m: i32,\n", "neither u32 nor f32"),
        ("var<storage, read> pairs", "var<storage, read_write> pairs", "bindings rrrrwwu, the layout has rrrrrwu"),
        ("@binding(4) var<storage, read> pairs", "@binding(9) var<storage, read> pairs", "pairs has a binding"),
        ("@binding(4) var<storage, read> pairs", "@binding(3) var<storage, read> pairs", "conflict"),
        ("array<f32, 64>", "array<f32, 8192>", "workgroup memory"),
        ("@workgroup_size(64)", "@workgroup_size(64, 5)", "320 invocations"),
        ("return partial[0];", "return subgroupAdd(partial[0]);", "SUBGROUP"),
    ];
    let (wgsl, contract) = gemv(PLAIN);
    assert_eq!(contract.check(&wgsl).err(), None);
    for (right, wrong, named) in mistakes {
        let mistaken = wgsl.replacen(right, wrong, 1);
        assert_ne!(mistaken, wgsl, "{right:?} is not in the text");
        let error = contract.check(&mistaken).err().unwrap_or_default();
        assert!(error.contains(named), "{right:?} -> {wrong:?}: {error:?} does not name {named:?}");
    }
}

#[test]
fn a_binding_too_many_fails() {
    let (wgsl, contract) = gemv(PLAIN);
    let contract = Contract { bindings: "rrrrrrrrw", ..contract };
    assert!(contract.check(&wgsl).err().unwrap_or_default().contains("9 storage buffers"));
}

/// Where an adapter has no subgroup operations, no kernel asks for them; where it has, some do.
#[test]
fn subgroup_operations_are_used_only_where_there_are_some() {
    let users = |tuning: Tuning| {
        kernels(tuning).iter().filter(|kernel| kernel.wgsl(tuning).unwrap().contains("subgroup")).count()
    };
    for tuning in tunings() {
        assert_eq!(users(tuning) > 0, tuning.subgroups, "{tuning:?}");
    }
}
