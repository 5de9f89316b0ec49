//! What a card can do at most.

use serde::Serialize;

/// The two ceilings of a card.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Limits {
    /// Memory bandwidth, in bytes per second.
    pub bytes_s: f64,
    /// Dense FP8 products, in operations per second; bf16 ones where there are no FP8 units.
    pub fp8_flop_s: f64,
    /// Dense bf16 products, in operations per second.
    pub bf16_flop_s: f64,
}

impl Limits {
    /// The shortest time that work can take, in seconds.
    pub fn least_s(&self, bytes: f64, fp8_flop: f64, bf16_flop: f64) -> f64 {
        (bytes / self.bytes_s).max(fp8_flop / self.fp8_flop_s + bf16_flop / self.bf16_flop_s)
    }
}

/// A card that is known by its name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Card {
    /// As the driver calls it.
    pub name: &'static str,
    /// Of its data sheet, without sparsity.
    pub limits: Limits,
}

/// GB/s, TFLOP/s in FP8, TFLOP/s in bf16.
const fn card(name: &'static str, gb_s: f64, fp8: f64, bf16: f64) -> Card {
    Card { name, limits: Limits { bytes_s: gb_s * 1e9, fp8_flop_s: fp8 * 1e12, bf16_flop_s: bf16 * 1e12 } }
}

/// NVIDIA's and AMD's data sheets. Cards without FP8 units count bf16 twice.
const CARDS: [Card; 18] = [
    card("NVIDIA H100 80GB HBM3", 3352.0, 1979.0, 989.0),
    card("NVIDIA H100 PCIe", 2039.0, 1513.0, 756.0),
    card("NVIDIA H100 NVL", 3938.0, 1671.0, 835.0),
    card("NVIDIA H200", 4800.0, 1979.0, 989.0),
    card("NVIDIA H20", 4000.0, 296.0, 148.0),
    card("NVIDIA B200", 8000.0, 4500.0, 2250.0),
    card("NVIDIA A100-SXM4-80GB", 2039.0, 312.0, 312.0),
    card("NVIDIA A100 80GB PCIe", 1935.0, 312.0, 312.0),
    card("NVIDIA A100-SXM4-40GB", 1555.0, 312.0, 312.0),
    card("NVIDIA A10", 600.0, 125.0, 125.0),
    card("NVIDIA L40S", 864.0, 733.0, 362.0),
    card("NVIDIA L4", 300.0, 242.0, 121.0),
    card("NVIDIA GeForce RTX 4090", 1008.0, 330.0, 165.0),
    card("NVIDIA RTX 6000 Ada Generation", 960.0, 728.0, 364.0),
    card("AMD Instinct MI300X", 5300.0, 2615.0, 1307.0),
    card("AMD Instinct MI325X", 6000.0, 2615.0, 1307.0),
    card("AMD Instinct MI350X", 8000.0, 4614.0, 2307.0),
    card("AMD Instinct MI355X", 8000.0, 5033.0, 2517.0),
];

impl Card {
    /// The card of this name, if it is known.
    pub fn named(name: &str) -> Option<Self> {
        CARDS.into_iter().find(|card| card.name == name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_are_whole_names() {
        assert_eq!(Card::named("NVIDIA H100 PCIe").unwrap().limits.bytes_s, 2.039e12);
        assert!(Card::named("NVIDIA H100").is_none() && Card::named("Emulated").is_none());
    }

    #[test]
    fn the_slower_ceiling_counts() {
        let limits = Card::named("NVIDIA A100-SXM4-80GB").unwrap().limits;
        assert_eq!(limits.least_s(2.039e12, 1.0, 1.0), 1.0);
        assert_eq!(limits.least_s(1.0, 156e12, 156e12), 1.0);
    }
}
