//! Sixteen f32 lanes on whatever the processor has.
//!
//! [`Simd`] is the vocabulary the [kernels](crate::kernels) are written in: one logical vector of [`LANES`] values,
//! whatever the width of the registers below. A value of an implementing type is the proof that its instructions
//! exist, so the operations are safe; [`Isa`] holds one of these proofs, chosen once per backend.
//!
//! Kernels run through [`Isa::run`], which enters a function compiled for the level and inlines everything into it.
//!
//! All levels assign values to lanes in the same way and add the lanes in the same order. Levels with fused
//! multiply-add therefore agree bit for bit.
//!
//! Intrinsics and the `unsafe` they need live in this directory only.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
#[cfg(test)]
mod tests;

use portable::Portable;

/// Values in one logical vector.
pub(crate) const LANES: usize = 16;

/// One logical vector in memory.
pub(crate) type Chunk = [f32; LANES];

/// Operations on one logical vector.
pub(crate) trait Simd: Copy + Send + Sync {
    /// One logical vector in registers.
    type Vector: Copy;

    /// True where thirty-two registers hold a logical vector each; decides the shape of register tiles, never a
    /// result.
    const WIDE: bool;

    /// The value in all lanes.
    fn splat(self, value: f32) -> Self::Vector;
    /// Reads a chunk.
    fn load(self, from: &Chunk) -> Self::Vector;
    /// Asks for the cache line at `address`, which need not be readable.
    fn prefetch<T>(self, address: *const T);
    /// Writes a chunk.
    fn store(self, vector: Self::Vector, to: &mut Chunk);
    /// `a · b`.
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a · b + c`, rounded once where the processor can.
    fn fma(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// The sum of the lanes: lane `i` and `i + 8`, then `i + 4`, `i + 2`, `i + 1`.
    fn sum(self, vector: Self::Vector) -> f32;
    /// [`Simd::sum`] of each of four vectors.
    fn sum4(self, vectors: [Self::Vector; 4]) -> [f32; 4];
    /// Widens bf16 bit patterns.
    fn bf16(self, from: &[u16; LANES]) -> Self::Vector;
    /// Widens e4m3fn bytes to 2^-8 times their value, exactly. The NaN codes 0x7F and 0xFF give 2^-8 times ±480, the
    /// number they would be without the exception; the caller looks for them.
    fn e4m3_div_256(self, from: &[u8; LANES]) -> Self::Vector;
    /// True where one of the e4m3fn bytes is a NaN.
    fn has_e4m3_nan(self, chunks: &[[u8; LANES]]) -> bool;
    /// Widens integers.
    fn i8(self, from: &[i8; LANES]) -> Self::Vector;
    /// Widens 4-bit values stored as value + 8, the even lane in the low nibble.
    fn int4(self, from: &[u8; LANES / 2]) -> Self::Vector;
}

/// A computation written once for all levels.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;

    /// The computation; implementations are `#[inline(always)]`, as is everything they call.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Instruction sets the kernels are compiled for, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SimdLevel {
    /// What the compiler may assume of every processor of this architecture.
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, VL and DQ.
    Avx512,
}

impl SimdLevel {
    /// Every level, in ascending order.
    pub const ALL: [SimdLevel; 3] = [SimdLevel::Portable, SimdLevel::Avx2, SimdLevel::Avx512];

    /// The levels this processor can run, in ascending order.
    pub fn available() -> impl Iterator<Item = SimdLevel> {
        Self::ALL.into_iter().filter(|level| Isa::new(*level).is_some())
    }

    /// The best level of this processor.
    pub fn detect() -> SimdLevel {
        Self::available().last().unwrap_or(SimdLevel::Portable)
    }
}

impl std::fmt::Display for SimdLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            SimdLevel::Portable => "portable",
            SimdLevel::Avx2 => "avx2",
            SimdLevel::Avx512 => "avx512",
        })
    }
}

/// A level this processor is known to have.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Isa {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
}

impl Isa {
    /// `level`, if this processor has it.
    pub(crate) fn new(level: SimdLevel) -> Option<Self> {
        match level {
            SimdLevel::Portable => Some(Isa::Portable(Portable)),
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx2 => avx2::Avx2::detect().map(Isa::Avx2),
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512 => avx512::Avx512::detect().map(Isa::Avx512),
            #[cfg(not(target_arch = "x86_64"))]
            SimdLevel::Avx2 | SimdLevel::Avx512 => None,
        }
    }

    /// Runs a kernel compiled for this level.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Isa::Portable(simd) => kernel.run(simd),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(simd) => simd.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(simd) => simd.run(kernel),
        }
    }
}
