//! One step of a batch on one device.
//!
//! [`Runner`] is generic over the backend; [`StepRunner`] is the object-safe edge behind which the engine forgets which
//! device it has. The erasure costs one virtual call a step.

mod run;

pub use run::{Runner, RunnerOptions};

use std::collections::BTreeMap;

use crate::backend::{Capabilities, SequenceStep, StepError, StepLimits};
use crate::quant::{WeightClass, WeightFormat};

/// What a loaded runner can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunnerInfo {
    /// Largest step.
    pub limits: StepLimits,
    /// Blocks of the latent cache.
    pub num_blocks: usize,
    /// Rows of the head.
    pub vocab_size: usize,
    /// True when [`StepRunner::draft`] can be called.
    pub has_mtp: bool,
}

/// Runs steps; the device behind it is not known.
pub trait StepRunner: Send {
    /// The device.
    fn capabilities(&self) -> &Capabilities;

    /// What it can take.
    fn info(&self) -> RunnerInfo;

    /// The format each class of weights was prepared in.
    fn formats(&self) -> &BTreeMap<WeightClass, WeightFormat>;

    /// Runs the tokens of `sequences` (their rows follow each other in order), writes their keys into the cache, and
    /// returns the logits `[M, vocab]` of the rows listed in `logit_rows` in `logits`, which is resized to fit.
    ///
    /// # Errors
    /// [`StepError`] from the device.
    fn step(
        &mut self,
        sequences: &[SequenceStep<'_>],
        logit_rows: &[u32],
        logits: &mut Vec<f32>,
    ) -> Result<(), StepError>;

    /// Runs the MTP module over the rows of the step before. `next_tokens` holds, for each of its rows, the token that
    /// follows; the logits of `logit_rows` predict the one after that (spec section 5).
    ///
    /// # Errors
    /// [`StepError`] from the device.
    ///
    /// # Panics
    /// Without an MTP module ([`RunnerInfo::has_mtp`]).
    fn draft(&mut self, next_tokens: &[u32], logit_rows: &[u32], logits: &mut Vec<f32>) -> Result<(), StepError>;
}
