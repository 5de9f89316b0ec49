//! What a compiled kernel must not do.

use std::collections::BTreeSet;

use super::Vendor;
use super::manifest::{FamilyImages, ImageEntry, Manifest};

/// A breach of a gate that is known and has a reason.
pub(super) struct Allowed {
    kernel: &'static str,
    architecture: &'static str,
    /// Most bytes of stack and spills together.
    bytes: u32,
    reason: &'static str,
}

impl Allowed {
    pub(super) const fn new(
        kernel: &'static str,
        architecture: &'static str,
        bytes: u32,
        reason: &'static str,
    ) -> Self {
        Self { kernel, architecture, bytes, reason }
    }

    /// True where a kernel may use local memory on an architecture; how much is [`breaches`]' business.
    pub(super) fn covers(allowed: &[Self], kernel: &str, architecture: &str) -> bool {
        allowed.iter().any(|entry| entry.kernel == kernel && entry.architecture == architecture)
    }
}

/// Everything that is wrong with a build; empty is good.
pub(super) fn breaches(manifest: &Manifest, vendor: Vendor, allowed: &[Allowed]) -> Vec<String> {
    let mut found = Vec::new();
    let mut used = BTreeSet::new();
    for family in &manifest.families {
        for image in &family.images {
            for kernel in &image.kernels {
                let bytes = kernel.resources.stack_bytes.max(kernel.resources.spill_bytes);
                if bytes == 0 {
                    continue;
                }
                let entry = allowed
                    .iter()
                    .position(|entry| entry.kernel == kernel.name && entry.architecture == image.architecture);
                let rule = match entry.map(|index| (index, &allowed[index])) {
                    Some((index, entry)) if bytes <= entry.bytes => {
                        used.insert(index);
                        continue;
                    }
                    Some((_, entry)) => format!("at most {} are allowed ({})", entry.bytes, entry.reason),
                    None => "it must keep to registers, or have an entry with a reason in allowed.rs".into(),
                };
                found.push(format!(
                    "{} on {}: {} bytes of stack, {} bytes of spills, {} registers; {rule}",
                    kernel.name,
                    image.architecture,
                    kernel.resources.stack_bytes,
                    kernel.resources.spill_bytes,
                    kernel.resources.registers,
                ));
            }
        }
        found.extend(family.images.iter().flat_map(|image| too_much_shared_memory(vendor, image)));
        found.extend(differing_parameters(family));
        found.extend(missing_kernels(family));
    }
    for (index, entry) in allowed.iter().enumerate() {
        if !used.contains(&index) {
            found.push(format!(
                "{} on {}: allowed to spill, but does not: remove the entry",
                entry.kernel, entry.architecture
            ));
        }
    }
    found.extend(names_used_twice(manifest));
    found
}

/// What is fixed fits into a block. What a launch asks for beside it is its own business.
fn too_much_shared_memory(vendor: Vendor, image: &ImageEntry) -> Vec<String> {
    let most = vendor.max_shared_bytes(&image.architecture);
    let above = image.kernels.iter().filter(|kernel| kernel.resources.shared_bytes > most);
    let breach =
        |name: &str, bytes| format!("{name} on {}: {bytes} bytes of shared memory, at most {most}", image.architecture);
    above.map(|kernel| breach(&kernel.name, kernel.resources.shared_bytes)).collect()
}

/// A kernel has the same parameters on every architecture: one launcher serves them all.
fn differing_parameters(family: &FamilyImages) -> Vec<String> {
    let mut found = Vec::new();
    let first = &family.images[0];
    for image in &family.images[1..] {
        for kernel in &image.kernels {
            match first.kernels.iter().find(|other| other.name == kernel.name) {
                Some(other) if other.parameters != kernel.parameters => found.push(format!(
                    "{}: parameters of {:?} bytes on {}, of {:?} bytes on {}",
                    kernel.name, other.parameters, first.architecture, kernel.parameters, image.architecture
                )),
                _ => {}
            }
        }
    }
    found
}

/// A kernel exists on every architecture of its family: what the Rust side finds on one (the emulated driver has three of them) it finds
/// on all.
fn missing_kernels(family: &FamilyImages) -> Vec<String> {
    let names = family.kernel_names();
    let lacks = |image: &ImageEntry| -> Vec<String> {
        let has = |name: &str| image.kernels.iter().any(|kernel| kernel.name == name);
        let missing = names.iter().filter(|name| !has(name));
        missing.map(|name| format!("{name} is missing on {}", image.architecture)).collect()
    };
    family.images.iter().flat_map(lacks).collect()
}

/// Kernels are found by name alone in the emulated driver, so that a name means one kernel.
fn names_used_twice(manifest: &Manifest) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for family in &manifest.families {
        for kernel in family.kernel_names() {
            if !seen.insert(kernel) {
                found.push(format!("{kernel} is defined in {} and in an earlier family", family.family));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::manifest::{Compiler, KernelEntry, Resources};
    use super::*;

    fn manifest(kernels: &[(&str, &str, Resources, Vec<u32>)]) -> Manifest {
        let images = ["sm_80", "sm_90a"].map(|architecture| ImageEntry {
            architecture: architecture.into(),
            file: format!("f.{architecture}.cubin.z"),
            image_bytes: 1,
            image_sha256: String::new(),
            kernels: kernels
                .iter()
                .filter(|(on, ..)| *on == architecture)
                .map(|(_, name, resources, parameters)| KernelEntry {
                    name: (*name).into(),
                    parameters: parameters.clone(),
                    resources: *resources,
                })
                .collect(),
        });
        Manifest {
            compiler: Compiler { version: "12.9".into(), library_sha256: String::new() },
            options: vec![],
            families: vec![FamilyImages { family: "f".into(), source_sha256: String::new(), images: images.into() }],
        }
    }

    /// The same kernels on both architectures.
    fn on_both(name: &str, resources: Resources) -> Manifest {
        manifest(&[("sm_80", name, Resources::default(), vec![8]), ("sm_90a", name, resources, vec![8])])
    }

    fn judged(manifest: &Manifest, allowed: &[Allowed]) -> Vec<String> {
        breaches(manifest, Vendor::Nvidia, allowed)
    }

    fn only(found: Vec<String>, words: &str) {
        assert!(found.len() == 1 && found[0].contains(words), "{found:?}");
    }

    #[test]
    fn what_keeps_to_registers_passes() {
        assert!(judged(&on_both("a", Resources { registers: 40, ..Resources::default() }), &[]).is_empty());
    }

    #[test]
    fn spills_and_stacks_are_breaches() {
        for resources in
            [Resources { spill_bytes: 4, ..Resources::default() }, Resources { stack_bytes: 8, ..Resources::default() }]
        {
            only(judged(&on_both("a", resources), &[]), "a on sm_90a");
        }
    }

    #[test]
    fn shared_memory_has_the_devices_limit() {
        let takes = |shared_bytes| on_both("a", Resources { shared_bytes, ..Resources::default() });
        assert!(judged(&takes(48 << 10), &[]).is_empty());
        only(judged(&takes(49 << 10), &[]), "50176 bytes of shared memory, at most 49152");
    }

    #[test]
    fn what_is_allowed_is_bounded_and_needed() {
        let allowed = [Allowed::new("a", "sm_90a", 8, "why")];
        let spills = |spill_bytes| on_both("a", Resources { spill_bytes, ..Resources::default() });
        assert!(judged(&spills(8), &allowed).is_empty());
        only(judged(&spills(12), &allowed).into_iter().take(1).collect(), "at most 8 are allowed (why)");
        only(judged(&spills(0), &allowed), "remove the entry");
    }

    #[test]
    fn a_kernel_that_an_architecture_lacks_is_a_breach() {
        only(judged(&manifest(&[("sm_80", "a", Resources::default(), vec![])]), &[]), "a is missing on sm_90a");
    }

    #[test]
    fn parameters_that_depend_on_the_architecture_are_a_breach() {
        let fits = Resources::default();
        let differing = manifest(&[("sm_80", "a", fits, vec![8]), ("sm_90a", "a", fits, vec![8, 4])]);
        only(judged(&differing, &[]), "[8, 4] bytes on sm_90a");
    }

    #[test]
    fn a_name_in_two_families_is_a_breach() {
        let mut twice = on_both("a", Resources::default());
        let again = FamilyImages { family: "g".into(), ..twice.families[0].clone() };
        twice.families.push(again);
        only(judged(&twice, &[]), "defined in g");
    }
}
