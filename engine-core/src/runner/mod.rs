//! One step of a batch on one device.
//!
//! [`Runner`] is generic over the backend; [`StepRunner`] is the object-safe edge behind which the engine forgets which
//! device it has. The erasure costs one virtual call a step.

mod capture;
mod group;
mod pass;
mod rows;
mod run;

pub use group::GroupRunner;
pub use rows::{StepOutput, TopRows, WantedRows};
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
    /// Rows of the head; of a rank's runner, those that it has.
    pub vocab_size: usize,
    /// Ids that stand for a token, from 0 on; the head may have more rows. Others are never a best token.
    pub num_token_ids: usize,
    /// Highest logits of a row that can be asked for; 0 where the device does not find them.
    pub num_top_logits: usize,
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
    /// puts what is `wanted` of the rows into `output`.
    ///
    /// # Errors
    /// [`StepError`] from the device.
    fn step(
        &mut self,
        sequences: &[SequenceStep<'_>],
        wanted: WantedRows<'_>,
        output: &mut StepOutput,
    ) -> Result<(), StepError>;

    /// Runs the MTP module over the rows of the step before. `next_tokens` holds, for each of its rows, the token that
    /// follows; what is `wanted` of the rows predicts the one after that (spec section 5).
    ///
    /// # Errors
    /// [`StepError`] from the device.
    ///
    /// # Panics
    /// Without an MTP module ([`RunnerInfo::has_mtp`]).
    fn draft(&mut self, next_tokens: &[u32], wanted: WantedRows<'_>, output: &mut StepOutput) -> Result<(), StepError>;

    /// Reads all logits of one of the rows that were wanted of the step or draft before: the `index`-th, those of
    /// [`WantedRows::logits`] first, then `top_logits`, then `best_tokens`.
    ///
    /// # Errors
    /// [`StepError`] from the device.
    ///
    /// # Panics
    /// When there was no such row, or more than [`StepLimits::max_logit_rows`] of them, which are not held together.
    fn read_logits(&mut self, index: usize, logits: &mut Vec<f32>) -> Result<(), StepError>;
}
