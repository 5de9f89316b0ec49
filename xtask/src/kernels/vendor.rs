//! Whose devices kernels are compiled for: everything in which the two builds differ, beside their compilers.

use clap::ValueEnum;

use super::gates::Allowed;
use super::instructions::Rule;
use super::{allowed, rules};

/// A vendor of GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Vendor {
    Nvidia,
    Amd,
}

impl Vendor {
    pub(super) const ALL: [Self; 2] = [Self::Nvidia, Self::Amd];

    /// The folder of the crate that the images are for.
    pub(super) fn backend(self) -> &'static str {
        match self {
            Self::Nvidia => "backend-cuda",
            Self::Amd => "backend-rocm",
        }
    }

    /// What is compiled for, as the compiler calls it. NVIDIA: Ampere (A100, then the rest), Ada, Hopper, Blackwell (B200,
    /// then the rest). AMD: MI200, MI300, MI350, RDNA3, RDNA4.
    pub(super) fn architectures(self) -> &'static [&'static str] {
        match self {
            Self::Nvidia => &["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120a"],
            Self::Amd => &["gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1201"],
        }
    }

    /// Families that use what one architecture alone has, which are compiled for no other.
    fn families_of_one_architecture(self) -> &'static [(&'static str, [&'static str; 1])] {
        match self {
            Self::Nvidia => &[("hopper_gemm", ["sm_90a"]), ("scales", ["sm_90a"])],
            Self::Amd => &[],
        }
    }

    /// What a family is compiled for; nothing where it is for another vendor's devices.
    pub(super) fn architectures_of(self, family: &str) -> &'static [&'static str] {
        let own = |vendor: Self| vendor.families_of_one_architecture().iter().find(|(name, _)| *name == family);
        match own(self) {
            Some((_, architecture)) => architecture,
            None if Self::ALL.into_iter().any(|vendor| own(vendor).is_some()) => &[],
            None => self.architectures(),
        }
    }

    /// False for headers of the other targets, which are behind a condition that no compilation for this vendor meets:
    /// they are left out, so that one of them reaching a device is a compile error.
    pub(super) fn includes(self, header: &str) -> bool {
        let others: &[&str] = match self {
            Self::Nvidia => &["target_amdgpu.h", "tile_amdgpu.h"],
            Self::Amd => &["target_nvidia.h", "tile_nvidia.h"],
        };
        !header.starts_with("host/") && !others.contains(&header)
    }

    /// How files of images end.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Nvidia => "cubin.z",
            Self::Amd => "co.z",
        }
    }

    /// Which instructions kernels must have, and which not.
    pub(super) fn rules(self) -> &'static [Rule] {
        match self {
            Self::Nvidia => rules::NVIDIA,
            Self::Amd => rules::AMD,
        }
    }

    /// Known breaches of the gates.
    pub(super) fn allowed(self) -> &'static [Allowed] {
        match self {
            Self::Nvidia => allowed::NVIDIA,
            Self::Amd => allowed::AMD,
        }
    }

    /// Most bytes of shared memory that a kernel can have fixed on an architecture.
    pub(super) fn max_shared_bytes(self, architecture: &str) -> u32 {
        match (self, architecture) {
            (Self::Nvidia, _) => 48 << 10,
            (Self::Amd, "gfx950") => 160 << 10,
            (Self::Amd, _) => 64 << 10,
        }
    }
}
