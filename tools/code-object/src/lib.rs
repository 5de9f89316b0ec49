//! What an AMD code object says about its kernels.
//!
//! A code object is an ELF file. A note of the name `AMDGPU` holds a MessagePack map with the target and, of every kernel, its
//! arguments and what it takes (LLVM's AMDGPU usage guide, "Code Object V5 Metadata"). [`CodeObject::parse`] checks that
//! what it reads hangs together.

use std::collections::BTreeMap;

use object::elf::{EM_AMDGPU, FileHeader64};
use object::read::elf::{ElfFile, FileHeader as _, SectionHeader as _};
use object::{LittleEndian, Object as _, ObjectSymbol as _};
use serde::Deserialize;

/// Type of the note with the metadata.
const NT_AMDGPU_METADATA: u32 = 32;
/// How metadata names a target, before the processor.
const TRIPLE: &str = "amdgcn-amd-amdhsa--";
/// Symbols of kernel descriptors end so.
const DESCRIPTOR: &str = ".kd";

/// Why bytes are not a code object that this crate can read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeObjectError {
    /// Not ELF, or damaged.
    #[error("not an ELF file: {0}")]
    Elf(String),
    /// ELF for another machine.
    #[error("an ELF file for machine {0}, not for an AMD device (224)")]
    Machine(u16),
    /// No note with metadata, or one that cannot be read.
    #[error("metadata of the code object: {0}")]
    Metadata(String),
    /// Parts contradict each other.
    #[error("kernel {kernel}: {reason}")]
    Inconsistent {
        /// Kernel that is described wrongly.
        kernel: String,
        /// What does not fit.
        reason: String,
    },
}

/// A code object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeObject {
    /// Processor, with required features behind colons where there are some: `gfx942`, `gfx90a:xnack-`.
    pub target: String,
    /// Entry points by name.
    pub kernels: BTreeMap<String, Kernel>,
}

/// An entry point of a code object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kernel {
    /// Arguments that a launch gives, in order. Those that the runtime adds come behind them.
    pub parameters: Vec<Parameter>,
    /// Bytes of all arguments, with those that the runtime adds.
    pub argument_bytes: u32,
    /// Threads that run in lockstep: 32 or 64.
    pub wave_size: u32,
    /// Most threads per block.
    pub max_threads: u32,
    /// Vector registers per lane, accumulation registers among them.
    pub num_vgprs: u32,
    /// Scalar registers per wave.
    pub num_sgprs: u32,
    /// Vector and scalar registers that were moved to memory or to lanes of others.
    pub num_spilled: u32,
    /// Memory per lane beside registers, in bytes.
    pub scratch_bytes: u32,
    /// Static local data share per block, in bytes.
    pub shared_bytes: u32,
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Offset in the block of arguments, in bytes.
    pub offset: u32,
    /// Size in bytes.
    pub num_bytes: u32,
}

/// The note, as far as it is of interest.
#[derive(Deserialize)]
struct Metadata {
    #[serde(rename = "amdhsa.target")]
    target: String,
    #[serde(rename = "amdhsa.kernels")]
    kernels: Vec<KernelMetadata>,
}

#[derive(Deserialize)]
struct KernelMetadata {
    #[serde(rename = ".name")]
    name: String,
    #[serde(rename = ".symbol")]
    symbol: String,
    #[serde(rename = ".args", default)]
    arguments: Vec<ArgumentMetadata>,
    #[serde(rename = ".kernarg_segment_size")]
    argument_bytes: u32,
    #[serde(rename = ".wavefront_size")]
    wave_size: u32,
    #[serde(rename = ".max_flat_workgroup_size")]
    max_threads: u32,
    #[serde(rename = ".vgpr_count")]
    num_vgprs: u32,
    #[serde(rename = ".sgpr_count")]
    num_sgprs: u32,
    #[serde(rename = ".vgpr_spill_count", default)]
    num_spilled_vgprs: u32,
    #[serde(rename = ".sgpr_spill_count", default)]
    num_spilled_sgprs: u32,
    #[serde(rename = ".private_segment_fixed_size")]
    scratch_bytes: u32,
    #[serde(rename = ".group_segment_fixed_size")]
    shared_bytes: u32,
}

#[derive(Deserialize)]
struct ArgumentMetadata {
    #[serde(rename = ".offset")]
    offset: u32,
    #[serde(rename = ".size")]
    num_bytes: u32,
    #[serde(rename = ".value_kind")]
    kind: String,
}

impl CodeObject {
    /// Reads a code object.
    ///
    /// # Errors
    /// [`CodeObjectError`] where the bytes are none, or one whose parts contradict each other.
    pub fn parse(bytes: &[u8]) -> Result<Self, CodeObjectError> {
        let elf: ElfFile<'_, FileHeader64<LittleEndian>> = ElfFile::parse(bytes).map_err(damaged)?;
        let machine = elf.elf_header().e_machine(LittleEndian);
        if machine != EM_AMDGPU {
            return Err(CodeObjectError::Machine(machine.0));
        }
        let metadata = |reason: String| CodeObjectError::Metadata(reason);
        let note = note(&elf)?.ok_or_else(|| metadata("there is none".into()))?;
        let read: Metadata = rmp_serde::from_slice(note).map_err(|error| metadata(error.to_string()))?;
        let target = read.target.strip_prefix(TRIPLE).filter(|target| !target.is_empty());
        let target = target.ok_or_else(|| metadata(format!("target {:?}", read.target)))?.to_owned();

        let mut kernels = BTreeMap::new();
        for kernel in read.kernels {
            let name = kernel.name.clone();
            let is_there = elf.dynamic_symbols().any(|symbol| symbol.name() == Ok(&kernel.symbol));
            let kernel = checked(kernel, is_there)?;
            if kernels.insert(name.clone(), kernel).is_some() {
                return Err(CodeObjectError::Inconsistent { kernel: name, reason: "described twice".into() });
            }
        }
        Ok(Self { target, kernels })
    }

    /// True where a device that its driver calls `device` (`gfx942:sramecc+:xnack-`) runs this code object: the same
    /// processor, and every feature that the code object requires.
    pub fn runs_on(&self, device: &str) -> bool {
        let mut required = self.target.split(':');
        let mut offered = device.split(':');
        required.next() == offered.next() && required.all(|feature| offered.clone().any(|offer| offer == feature))
    }
}

fn damaged(error: object::Error) -> CodeObjectError {
    CodeObjectError::Elf(error.to_string())
}

/// The contents of the metadata note.
fn note<'a>(elf: &ElfFile<'a, FileHeader64<LittleEndian>>) -> Result<Option<&'a [u8]>, CodeObjectError> {
    for section in elf.elf_section_table().iter() {
        let Some(mut notes) = section.notes(LittleEndian, elf.data()).map_err(damaged)? else { continue };
        while let Some(note) = notes.next().map_err(damaged)? {
            if note.name() == b"AMDGPU" && note.n_type(LittleEndian).0 == NT_AMDGPU_METADATA {
                return Ok(Some(note.desc()));
            }
        }
    }
    Ok(None)
}

/// A kernel, if what is said about it hangs together. `has_descriptor`: its symbol is in the ELF file.
fn checked(read: KernelMetadata, has_descriptor: bool) -> Result<Kernel, CodeObjectError> {
    let inconsistent = |reason: String| Err(CodeObjectError::Inconsistent { kernel: read.name.clone(), reason });
    if !has_descriptor || read.symbol.strip_suffix(DESCRIPTOR) != Some(&read.name) {
        return inconsistent(format!("its descriptor {} is not in the file", read.symbol));
    }
    if !matches!(read.wave_size, 32 | 64) {
        return inconsistent(format!("waves of {}", read.wave_size));
    }
    let mut end = 0;
    let mut is_hidden = false;
    let mut parameters = Vec::new();
    for ArgumentMetadata { offset, num_bytes, kind } in &read.arguments {
        let next = offset.checked_add(*num_bytes).filter(|next| *next <= read.argument_bytes);
        let Some(next) = next.filter(|_| *offset >= end && *num_bytes > 0) else {
            return inconsistent(format!(
                "an argument of {num_bytes} bytes at {offset}, after byte {end} of {}",
                read.argument_bytes
            ));
        };
        end = next;
        is_hidden |= kind.starts_with("hidden_");
        if is_hidden != kind.starts_with("hidden_") {
            return inconsistent("an argument behind those that the runtime adds".into());
        }
        if !is_hidden {
            parameters.push(Parameter { offset: *offset, num_bytes: *num_bytes });
        }
    }
    Ok(Kernel {
        parameters,
        argument_bytes: read.argument_bytes,
        wave_size: read.wave_size,
        max_threads: read.max_threads,
        num_vgprs: read.num_vgprs,
        num_sgprs: read.num_sgprs,
        num_spilled: read.num_spilled_vgprs + read.num_spilled_sgprs,
        scratch_bytes: read.scratch_bytes,
        shared_bytes: read.shared_bytes,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// `testdata/two.cu`, compiled by clang 22.
    const OBJECTS: [(&str, u32, &[u8]); 2] = [
        ("gfx942", 64, include_bytes!("../testdata/two.gfx942.co")),
        ("gfx1100", 32, include_bytes!("../testdata/two.gfx1100.co")),
    ];

    #[test]
    fn kernels_are_described_as_they_were_written() {
        for (target, wave_size, bytes) in OBJECTS {
            let object = CodeObject::parse(bytes).unwrap();
            assert_eq!(object.target, target);
            assert_eq!(object.kernels.keys().collect::<Vec<_>>(), ["scale", "zero"]);
            let scale = &object.kernels["scale"];
            let places: Vec<(u32, u32)> = scale.parameters.iter().map(|p| (p.offset, p.num_bytes)).collect();
            assert_eq!(places, [(0, 8), (8, 8), (16, 4), (20, 4)]);
            assert_eq!((scale.shared_bytes, scale.scratch_bytes, scale.num_spilled), (1024, 0, 0));
            // It asks for the size of its blocks, which the runtime adds.
            assert!(scale.argument_bytes > 24, "{scale:?}");
            let zero = &object.kernels["zero"];
            assert_eq!((zero.shared_bytes, zero.max_threads, zero.argument_bytes), (0, 96, 8));
            for kernel in object.kernels.values() {
                assert!(kernel.wave_size == wave_size && kernel.num_vgprs > 0 && kernel.num_sgprs > 0, "{kernel:?}");
            }
        }
    }

    #[test]
    fn code_objects_run_on_their_own_processor() {
        let object = CodeObject::parse(OBJECTS[0].2).unwrap();
        assert!(["gfx942", "gfx942:sramecc+:xnack-"].into_iter().all(|device| object.runs_on(device)));
        assert!(["gfx90a", "gfx950:sramecc+:xnack-", ""].into_iter().all(|device| !object.runs_on(device)));
        let strict = CodeObject { target: "gfx942:xnack-".into(), ..object };
        assert!(strict.runs_on("gfx942:sramecc+:xnack-") && !strict.runs_on("gfx942:sramecc+:xnack+"));
    }

    #[test]
    fn damaged_code_objects_are_refused() {
        let whole = OBJECTS[0].2;
        assert!(matches!(CodeObject::parse(b"not ELF"), Err(CodeObjectError::Elf(_))));
        for end in (0..whole.len()).step_by(97) {
            assert!(CodeObject::parse(&whole[..end]).is_err(), "the first {end} bytes");
        }
        let mut other_machine = whole.to_vec();
        other_machine[18..20].copy_from_slice(&[62, 0]);
        assert_eq!(CodeObject::parse(&other_machine), Err(CodeObjectError::Machine(62)));
    }

    fn kernel(arguments: &[(u32, u32, &str)]) -> KernelMetadata {
        let argument = |(offset, num_bytes, kind): &(u32, u32, &str)| ArgumentMetadata {
            offset: *offset,
            num_bytes: *num_bytes,
            kind: (*kind).to_owned(),
        };
        KernelMetadata {
            name: "k".into(),
            symbol: "k.kd".into(),
            arguments: arguments.iter().map(argument).collect(),
            argument_bytes: 16,
            wave_size: 64,
            max_threads: 256,
            num_vgprs: 8,
            num_sgprs: 8,
            num_spilled_vgprs: 1,
            num_spilled_sgprs: 2,
            scratch_bytes: 0,
            shared_bytes: 0,
        }
    }

    #[test]
    fn arguments_that_do_not_fit_are_refused() {
        let good = kernel(&[(0, 8, "global_buffer"), (8, 4, "by_value"), (12, 4, "hidden_block_count_x")]);
        let good = checked(good, true).unwrap();
        assert_eq!((good.parameters.len(), good.num_spilled), (2, 3));
        for (arguments, reason) in [
            (vec![(0, 8, "by_value"), (4, 4, "by_value")], "4 bytes at 4, after byte 8 of 16"),
            (vec![(8, 16, "by_value")], "16 bytes at 8"),
            (vec![(u32::MAX, 8, "by_value")], "8 bytes at 4294967295"),
            (vec![(0, 4, "hidden_block_count_x"), (4, 4, "by_value")], "behind those that the runtime adds"),
        ] {
            let error = checked(kernel(&arguments), true).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
        let error = checked(kernel(&[]), false).unwrap_err();
        assert!(error.to_string().contains("descriptor k.kd"), "{error}");
    }
}
