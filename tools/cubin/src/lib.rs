//! What an NVIDIA device image says about its kernels.
//!
//! A cubin is an ELF file. Its symbol table names the entry points; the sections `.nv.info` and `.nv.info.KERNEL` hold
//! attributes of four header bytes each (format, attribute, size) and a value. The layout is not documented; what is read
//! here was found by comparing images of known kernels, and [`Image::parse`] checks that what it reads hangs together.

use std::collections::BTreeMap;

use object::elf::{FileHeader64, STT_FUNC};
use object::read::elf::{ElfFile, FileHeader as _, Sym as _};
use object::{LittleEndian, Object as _, ObjectSection as _, ObjectSymbol as _};

/// Machine number of NVIDIA devices.
const EM_CUDA: u16 = 190;
/// In a symbol's `st_other`: an entry point that a host can launch.
const ENTRY_POINT: u8 = 0x10;
/// Shared memory that the system keeps per block from compute capability 9.0 on; part of `.nv.shared.KERNEL`.
const SYSTEM_SHARED_BYTES: u32 = 1024;

/// Attributes of `.nv.info` sections.
mod attribute {
    /// Symbol, number of registers.
    pub(super) const REGISTERS: u8 = 0x2f;
    /// Symbol, bytes of stack frame.
    pub(super) const FRAME: u8 = 0x11;
    /// Index, ordinal, offset and size of a parameter.
    pub(super) const PARAMETER: u8 = 0x17;
    /// Bytes of all parameters; the value is in the header.
    pub(super) const PARAMETER_BYTES: u8 = 0x19;
    /// Most threads per block in x, y, z, from launch bounds.
    pub(super) const MAX_THREADS: u8 = 0x05;
    /// Format of an attribute whose header is followed by a value of the header's size.
    pub(super) const SIZED_VALUE: u8 = 4;
}

/// Why bytes are not an image that this crate can read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Not ELF, or damaged.
    #[error("not an ELF file: {0}")]
    Elf(String),
    /// ELF for another machine.
    #[error("an ELF file for machine {0}, not for an NVIDIA device (190)")]
    Machine(u16),
    /// Sections contradict each other.
    #[error("kernel {kernel}: {reason}")]
    Inconsistent {
        /// Kernel that is described wrongly.
        kernel: String,
        /// What does not fit.
        reason: String,
    },
}

/// A device image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Compute capability times ten: 80, 90, 120.
    pub compute_capability: u32,
    /// True for `sm_90a` and its like, which run on exactly this compute capability.
    pub is_architecture_specific: bool,
    /// Entry points by name.
    pub kernels: BTreeMap<String, Kernel>,
}

/// An entry point of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kernel {
    /// Parameters in order.
    pub parameters: Vec<Parameter>,
    /// Registers per thread.
    pub num_registers: u32,
    /// Stack per thread, in bytes.
    pub stack_bytes: u32,
    /// Static shared memory per block, in bytes, without what the system keeps.
    pub shared_bytes: u32,
    /// Most threads per block that its launch bounds allow, if it has any.
    pub max_threads: Option<u32>,
}

/// A parameter of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Offset in the parameter block, in bytes.
    pub offset: u32,
    /// Size in bytes.
    pub num_bytes: u32,
}

impl Image {
    /// Reads an image.
    ///
    /// # Errors
    /// [`ImageError`] where the bytes are no device image, or one whose sections contradict each other.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let elf: ElfFile<'_, FileHeader64<LittleEndian>> =
            ElfFile::parse(bytes).map_err(|error| ImageError::Elf(error.to_string()))?;
        let header = elf.elf_header();
        let machine = header.e_machine(LittleEndian).0;
        if machine != EM_CUDA {
            return Err(ImageError::Machine(machine));
        }
        let (compute_capability, is_architecture_specific) =
            architecture(header.e_flags(LittleEndian).0, header.e_ident().abi_version);

        let mut kernels = BTreeMap::new();
        let mut names = BTreeMap::new();
        for symbol in elf.symbols() {
            let raw = symbol.elf_symbol();
            if raw.st_type() == STT_FUNC && raw.st_other().0 & ENTRY_POINT != 0 {
                let name = symbol.name().map_err(|error| ImageError::Elf(error.to_string()))?;
                names.insert(symbol.index().0 as u32, name.to_owned());
                kernels.insert(name.to_owned(), Kernel::default());
            }
        }
        for section in elf.sections() {
            let name = section.name().map_err(|error| ImageError::Elf(error.to_string()))?;
            if let Some(kernel) = name.strip_prefix(".nv.shared.").and_then(|kernel| kernels.get_mut(kernel)) {
                let system = if compute_capability >= 90 { SYSTEM_SHARED_BYTES } else { 0 };
                kernel.shared_bytes = (section.size() as u32).saturating_sub(system);
            } else if name == ".nv.info" {
                read_image_info(data(&section)?, &names, &mut kernels)?;
            } else if let Some(kernel_name) = name.strip_prefix(".nv.info.")
                && let Some(kernel) = kernels.get_mut(kernel_name)
            {
                read_kernel_info(kernel_name, data(&section)?, kernel)?;
            }
        }
        Ok(Self { compute_capability, is_architecture_specific, kernels })
    }

    /// True where a device of compute capability `device` (times ten) runs this image: the same major number and no
    /// smaller a minor one, or exactly the same for architecture-specific images.
    pub fn runs_on(&self, device: u32) -> bool {
        if self.is_architecture_specific {
            device == self.compute_capability
        } else {
            device / 10 == self.compute_capability / 10 && device >= self.compute_capability
        }
    }
}

/// Compute capability times ten and whether it is architecture-specific, from the ELF header. Images up to sm_90 have ABI
/// 7 and the number in the lowest byte, later ones ABI 8 and the number in the second.
fn architecture(flags: u32, abi_version: u8) -> (u32, bool) {
    if abi_version < 8 { (flags & 0xff, flags & 0x800 != 0) } else { ((flags >> 8) & 0xff, flags & 0x8 != 0) }
}

fn data<'a>(section: &impl object::ObjectSection<'a>) -> Result<&'a [u8], ImageError> {
    section.data().map_err(|error| ImageError::Elf(error.to_string()))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Attribute, the two bytes of its header, and its value (empty where the header holds it).
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u8, u16, &[u8])> {
    std::iter::from_fn(move || {
        let (&[format, attribute, low, high], rest) = bytes.split_first_chunk::<4>()?;
        let size = u16::from_le_bytes([low, high]);
        let length = if format == attribute::SIZED_VALUE { usize::from(size) } else { 0 };
        let (value, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        Some((attribute, size, value))
    })
}

/// The section for the whole image: pairs of a kernel's symbol and a number.
fn read_image_info(
    bytes: &[u8],
    names: &BTreeMap<u32, String>,
    kernels: &mut BTreeMap<String, Kernel>,
) -> Result<(), ImageError> {
    for (attribute, _, value) in attributes(bytes) {
        let (Some(symbol), Some(number)) = (word(value, 0), word(value, 4)) else { continue };
        let Some(kernel) = names.get(&symbol).and_then(|name| kernels.get_mut(name)) else { continue };
        match attribute {
            attribute::REGISTERS => kernel.num_registers = number,
            attribute::FRAME => kernel.stack_bytes = number,
            _ => {}
        }
    }
    match kernels.iter().find(|(_, kernel)| kernel.num_registers == 0) {
        Some((name, _)) => {
            Err(ImageError::Inconsistent { kernel: name.clone(), reason: "no register count in .nv.info".into() })
        }
        None => Ok(()),
    }
}

fn read_kernel_info(name: &str, bytes: &[u8], kernel: &mut Kernel) -> Result<(), ImageError> {
    let inconsistent = |reason: String| ImageError::Inconsistent { kernel: name.to_owned(), reason };
    let mut parameters = BTreeMap::new();
    let mut parameter_bytes = 0;
    for (attribute, size, value) in attributes(bytes) {
        match attribute {
            attribute::PARAMETER => {
                let (Some(place), Some(shape)) = (word(value, 4), word(value, 8)) else {
                    return Err(inconsistent(format!("a parameter described in {} bytes, not 12", value.len())));
                };
                parameters.insert(place & 0xffff, Parameter { offset: place >> 16, num_bytes: shape >> 18 });
            }
            attribute::PARAMETER_BYTES => parameter_bytes = u32::from(size),
            attribute::MAX_THREADS => {
                let sides = [word(value, 0), word(value, 4), word(value, 8)];
                kernel.max_threads = sides.into_iter().try_fold(1, |product: u32, side| product.checked_mul(side?));
            }
            _ => {}
        }
    }
    let end = parameters.values().map(|parameter| parameter.offset + parameter.num_bytes).max().unwrap_or(0);
    if end != parameter_bytes {
        return Err(inconsistent(format!("parameters end at byte {end}, their block has {parameter_bytes} bytes")));
    }
    if parameters.keys().copied().ne(0..parameters.len() as u32) {
        return Err(inconsistent(format!("parameters numbered {:?}", parameters.keys().collect::<Vec<_>>())));
    }
    kernel.parameters = parameters.into_values().collect();
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// `testdata/two.cu`, compiled by NVRTC 12.9.
    const IMAGES: [(u32, bool, &[u8]); 3] = [
        (80, false, include_bytes!("../testdata/two.sm_80.cubin")),
        (90, true, include_bytes!("../testdata/two.sm_90a.cubin")),
        (120, true, include_bytes!("../testdata/two.sm_120a.cubin")),
    ];

    #[test]
    fn kernels_are_described_as_they_were_written() {
        for (compute_capability, is_architecture_specific, bytes) in IMAGES {
            let image = Image::parse(bytes).unwrap();
            assert_eq!(image.compute_capability, compute_capability);
            assert_eq!(image.is_architecture_specific, is_architecture_specific, "{compute_capability}");
            assert_eq!(image.kernels.keys().collect::<Vec<_>>(), ["scale", "zero"]);
            let scale = &image.kernels["scale"];
            let places: Vec<(u32, u32)> = scale.parameters.iter().map(|p| (p.offset, p.num_bytes)).collect();
            assert_eq!(places, [(0, 8), (8, 8), (16, 4), (20, 4)]);
            assert_eq!((scale.shared_bytes, scale.stack_bytes, scale.max_threads), (1024, 0, None));
            let zero = &image.kernels["zero"];
            assert_eq!((zero.shared_bytes, zero.max_threads), (0, Some(96)));
            assert!(zero.num_registers > 0 && scale.num_registers >= zero.num_registers);
        }
    }

    #[test]
    fn images_run_on_their_own_generation() {
        let [ampere, hopper, _] = IMAGES.map(|(.., bytes)| Image::parse(bytes).unwrap());
        assert!([80, 86, 89].into_iter().all(|device| ampere.runs_on(device)));
        assert!([75, 90, 120].into_iter().all(|device| !ampere.runs_on(device)));
        assert!(hopper.runs_on(90) && !hopper.runs_on(80) && !hopper.runs_on(100));
        let ada = Image { compute_capability: 89, ..ampere };
        assert!(ada.runs_on(89) && !ada.runs_on(86));
    }

    #[test]
    fn damaged_images_are_refused() {
        let whole = IMAGES[0].2;
        assert!(matches!(Image::parse(b"PTX, not ELF"), Err(ImageError::Elf(_))));
        for end in (0..whole.len()).step_by(97) {
            assert!(Image::parse(&whole[..end]).is_err(), "the first {end} bytes");
        }
        let mut other_machine = whole.to_vec();
        other_machine[18] = 62;
        assert_eq!(Image::parse(&other_machine), Err(ImageError::Machine(62)));
    }

    #[test]
    fn parameters_that_do_not_fill_their_block_are_refused() {
        let block = [3, attribute::PARAMETER_BYTES, 16, 0];
        let parameter = [4, attribute::PARAMETER, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
        let read = |bytes: &[u8]| read_kernel_info("k", bytes, &mut Kernel::default());
        let error = read(&[&block[..], &parameter[..]].concat()).unwrap_err();
        assert!(error.to_string().contains("end at byte 8, their block has 16"), "{error}");
        read(&[&[3, attribute::PARAMETER_BYTES, 8, 0], &parameter[..]].concat()).unwrap();
    }
}
