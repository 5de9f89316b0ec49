//! Profiles. Shared with the build script, which compiles kernels for each of them: no dependencies.

/// What kind of GPU the host plays: everything that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// NVIDIA: waves of 32, `mma.sync`, e4m3fn.
    Nvidia,
    /// AMD's CDNA4 (gfx950): waves of 64, MFMA of long operands, e4m3fn.
    Cdna,
    /// AMD's CDNA3 (gfx942): waves of 64, MFMA, e4m3fnuz.
    CdnaFnuz,
    /// AMD's RDNA3 (gfx1100): waves of 32, WMMA of operands that both halves of a wave hold, FP8 widened.
    Rdna3,
    /// AMD's RDNA4 (gfx1201): waves of 32, WMMA, e4m3fn.
    Rdna4,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Nvidia, Self::Cdna, Self::CdnaFnuz, Self::Rdna3, Self::Rdna4];

    /// The word that kernels are registered under, and their namespace ends in.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nvidia => "nvidia",
            Self::Cdna => "cdna",
            Self::CdnaFnuz => "cdna_fnuz",
            Self::Rdna3 => "rdna3",
            Self::Rdna4 => "rdna4",
        }
    }

    /// Threads that run in lockstep.
    pub fn wave_size(self) -> u32 {
        match self {
            Self::Nvidia | Self::Rdna3 | Self::Rdna4 => 32,
            Self::Cdna | Self::CdnaFnuz => 64,
        }
    }
}
