//! Speed of a device: whole steps of models of published shapes with random weights, and single ops, each held against what
//! the card's memory and its matrix units allow.
//!
//! Random weights route evenly, which is the worst case for the number of experts that a batch reads. Every sequence and
//! every step has other tokens, or experts would coincide. Contexts lie in blocks of their own: shared ones would be read
//! from the card's cache.

mod card;
mod kernels;
mod model;
mod pair;
mod report;
mod timing;

pub use card::{Card, Limits};
pub use kernels::kernels;
pub use model::{ModelShape, Workload, models};
pub use pair::{PairRow, pair_products};
pub use report::{Cost, Row, table};

use std::path::PathBuf;

/// How much to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Everything.
    Full,
    /// The smaller model, fewer repetitions.
    Quick,
    /// The same program at sizes that a software device can run: its figures mean nothing.
    Tiny,
}

/// What to measure, and against what.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// How much.
    pub scale: Scale,
    /// What the card allows, if it is known.
    pub limits: Option<Limits>,
    /// Where random checkpoints are written while they are needed: up to 47 GB, so a file system in memory does well.
    pub dir: PathBuf,
}

impl BenchOptions {
    /// Timed repetitions of a step.
    fn num_steps(&self) -> usize {
        match self.scale {
            Scale::Full => 50,
            Scale::Quick => 10,
            Scale::Tiny => 2,
        }
    }
}
