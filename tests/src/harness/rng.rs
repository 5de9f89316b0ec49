//! Seeded random inputs: the same numbers on every machine.

use engine_core::reference::{ActivationRounding, Numerics};
use half::bf16;
use rand_core::{Rng as _, SeedableRng};
use rand_pcg::Pcg64;

/// A seeded source of test data.
#[derive(Debug, Clone)]
pub struct Rng(Pcg64);

impl Rng {
    /// A source that yields the same numbers for the same text: a case's name is its seed.
    pub fn from_name(name: &str) -> Self {
        // FNV-1a; the standard library's hasher may change between releases.
        let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        Self(Pcg64::seed_from_u64(seed))
    }

    /// Uniform in `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n as u64) as usize
    }

    /// Uniform in `[low, high)`.
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        let unit = (self.0.next_u32() >> 8) as f32 / (1u32 << 24) as f32;
        low + (high - low) * unit
    }

    /// About standard normal: the sum of four uniforms, scaled to variance 1 (tails end at 3.5).
    pub fn normal(&mut self) -> f32 {
        (0..4).map(|_| self.uniform(-0.5, 0.5)).sum::<f32>() * 3f32.sqrt()
    }

    /// `n` normal values with standard deviation `deviation`.
    pub fn normals(&mut self, n: usize, deviation: f32) -> Vec<f32> {
        (0..n).map(|_| self.normal() * deviation).collect()
    }

    /// `n` normal activations, rounded to the element that activations have in `numerics`.
    pub fn activations(&mut self, numerics: Numerics, n: usize) -> Vec<f32> {
        let mut values = self.normals(n, 1.0);
        if numerics.activations == ActivationRounding::Bf16 {
            values.iter_mut().for_each(|v| *v = bf16::from_f32(*v).to_f32());
        }
        values
    }

    /// The numbers `0..n` in random order.
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}
