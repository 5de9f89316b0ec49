//! What a compiled kernel must not do.

use std::collections::BTreeSet;

use super::manifest::{FamilyImages, Manifest};

/// A breach of a gate that is known and has a reason.
struct Allowed {
    kernel: &'static str,
    architecture: &'static str,
    /// Most bytes of stack and spills together.
    bytes: u32,
    reason: &'static str,
}

/// Every entry is needed: one that nothing makes use of is a breach itself.
const ALLOWED: &[Allowed] = &[];

/// Everything that is wrong with a build; empty is good.
pub(super) fn breaches(manifest: &Manifest) -> Vec<String> {
    let mut found = Vec::new();
    let mut used = BTreeSet::new();
    for family in &manifest.families {
        for image in &family.images {
            for kernel in &image.kernels {
                let bytes = kernel.resources.stack_bytes.max(kernel.resources.spill_bytes);
                if bytes == 0 {
                    continue;
                }
                let allowed = ALLOWED
                    .iter()
                    .position(|entry| entry.kernel == kernel.name && entry.architecture == image.architecture);
                match allowed {
                    Some(index) if bytes <= ALLOWED[index].bytes => {
                        used.insert(index);
                    }
                    allowed => found.push(format!(
                        "{} on {}: {} bytes of stack, {} bytes of spills, {} registers; {}",
                        kernel.name,
                        image.architecture,
                        kernel.resources.stack_bytes,
                        kernel.resources.spill_bytes,
                        kernel.resources.registers,
                        match allowed {
                            Some(index) =>
                                format!("at most {} are allowed ({})", ALLOWED[index].bytes, ALLOWED[index].reason),
                            None => "it must keep to registers, or have an entry with a reason in gates.rs".into(),
                        }
                    )),
                }
            }
        }
        found.extend(differing_parameters(family));
    }
    for (index, entry) in ALLOWED.iter().enumerate() {
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

    use super::super::log::Resources;
    use super::super::manifest::{Compiler, ImageEntry, KernelEntry};
    use super::*;

    fn manifest(kernels: &[(&str, &str, Resources, Vec<u32>)]) -> Manifest {
        let images = ["sm_80", "sm_90a"].map(|architecture| ImageEntry {
            architecture: architecture.into(),
            file: format!("f.{architecture}.cubin.z"),
            cubin_bytes: 1,
            cubin_sha256: String::new(),
            kernels: kernels
                .iter()
                .filter(|(_, on, ..)| *on == architecture)
                .map(|(name, _, resources, parameters)| KernelEntry {
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

    #[test]
    fn what_keeps_to_registers_passes() {
        let fits = Resources { registers: 40, ..Resources::default() };
        assert!(breaches(&manifest(&[("a", "sm_80", fits, vec![8]), ("a", "sm_90a", fits, vec![8])])).is_empty());
    }

    #[test]
    fn spills_and_stacks_are_breaches() {
        for resources in
            [Resources { spill_bytes: 4, ..Resources::default() }, Resources { stack_bytes: 8, ..Resources::default() }]
        {
            let found = breaches(&manifest(&[("a", "sm_90a", resources, vec![])]));
            assert!(found.len() == 1 && found[0].contains("a on sm_90a"), "{found:?}");
        }
    }

    #[test]
    fn parameters_that_depend_on_the_architecture_are_a_breach() {
        let fits = Resources::default();
        let found = breaches(&manifest(&[("a", "sm_80", fits, vec![8]), ("a", "sm_90a", fits, vec![8, 4])]));
        assert!(found.len() == 1 && found[0].contains("[8, 4] bytes on sm_90a"), "{found:?}");
    }

    #[test]
    fn a_name_in_two_families_is_a_breach() {
        let fits = Resources::default();
        let mut twice = manifest(&[("a", "sm_80", fits, vec![])]);
        let again = FamilyImages { family: "g".into(), ..twice.families[0].clone() };
        twice.families.push(again);
        let found = breaches(&twice);
        assert!(found.len() == 1 && found[0].contains("defined in g"), "{found:?}");
    }
}
