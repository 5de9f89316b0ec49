//! The runner of one backend.

use std::collections::BTreeMap;

use super::{RunnerInfo, StepRunner};
use crate::Error;
use crate::backend::{Backend, CacheSpec, Capabilities, PrepareError, SequenceStep, StepError, StepLimits, StepMeta};
use crate::config::ModelConfig;
use crate::model::mtp::MtpStep;
use crate::model::{LoadOptions, LoadProgress, Model, Observer, Workspace, mla_spec};
use crate::quant::{PrecisionPolicy, WeightClass, WeightFormat};
use crate::weights::Checkpoint;

/// How large a runner to build.
#[derive(Debug, Clone, PartialEq)]
pub struct RunnerOptions {
    /// Format of each class of weights.
    pub precision: PrecisionPolicy,
    /// Load the MTP module.
    pub with_mtp: bool,
    /// Largest step.
    pub limits: StepLimits,
    /// Blocks of the latent cache.
    pub num_blocks: usize,
}

/// A model, its memory and a stream on one device.
pub struct Runner<B: Backend> {
    backend: B,
    model: Model<B>,
    stream: B::Stream,
    meta: StepMeta<B::Buffer>,
    workspace: Workspace<B>,
    info: RunnerInfo,
    token_ids: Vec<u32>,
    rows_of_logits: Vec<f32>,
}

impl<B: Backend> std::fmt::Debug for Runner<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("info", &self.info).finish_non_exhaustive()
    }
}

impl<B: Backend> Runner<B> {
    /// Loads a checkpoint onto a device.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for what is wrong in the files, [`Error::Prepare`] for what the device refuses.
    pub fn load(
        backend: B,
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        options: &RunnerOptions,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, Error> {
        let limits = options.limits;
        let load = LoadOptions {
            precision: options.precision.clone(),
            with_mtp: options.with_mtp,
            max_model_len: limits.max_model_len,
        };
        let model = Model::load(&backend, checkpoint, config, &load, progress)?;
        let cache = CacheSpec {
            num_layers: config.num_hidden_layers + usize::from(model.has_mtp()),
            num_blocks: options.num_blocks,
            block_size: limits.block_size,
            kv_lora_rank: config.attention.kv_lora_rank,
            qk_rope_head_dim: config.attention.qk_rope_head_dim,
        };
        // The workspace only needs the dimensions of attention, not a second rope table.
        let mla = mla_spec(config, 1);
        let workspace = Workspace::alloc(&backend, config, &mla, &limits, &cache)?;
        let info = RunnerInfo {
            limits,
            num_blocks: options.num_blocks,
            vocab_size: config.vocab_size,
            has_mtp: model.has_mtp(),
        };
        Ok(Self {
            stream: backend.stream().map_err(PrepareError::from)?,
            meta: StepMeta::alloc(&backend, &limits).map_err(PrepareError::from)?,
            workspace,
            model,
            backend,
            info,
            token_ids: Vec::with_capacity(limits.max_num_batched_tokens),
            rows_of_logits: Vec::new(),
        })
    }

    /// As [`StepRunner::step`], showing intermediate values to `observer`.
    ///
    /// # Errors
    /// [`StepError`] from the device.
    pub fn step_observed(
        &mut self,
        sequences: &[SequenceStep<'_>],
        logit_rows: &[u32],
        logits: &mut Vec<f32>,
        observer: Observer<'_, B>,
    ) -> Result<(), StepError> {
        self.token_ids.clear();
        sequences.iter().for_each(|sequence| self.token_ids.extend_from_slice(sequence.tokens));
        self.meta.fill(&self.backend, &mut self.stream, sequences)?;
        self.workspace.tokens.write(&self.backend, &mut self.stream, &self.token_ids)?;
        self.model.forward(&self.backend, &mut self.stream, &self.meta, &mut self.workspace, observer)?;
        self.read_logits(logit_rows, logits)
    }

    /// As [`StepRunner::draft`], showing intermediate values to `observer`.
    ///
    /// # Errors
    /// [`StepError`] from the device.
    pub fn draft_observed(
        &mut self,
        next_tokens: &[u32],
        logit_rows: &[u32],
        logits: &mut Vec<f32>,
        observer: Observer<'_, B>,
    ) -> Result<(), StepError> {
        assert_eq!(next_tokens.len(), self.meta.host().num_tokens(), "one following token per row of the step");
        let mtp = self.model.mtp().expect("the caller checks has_mtp");
        self.workspace.tokens.write(&self.backend, &mut self.stream, next_tokens)?;
        let run = MtpStep { model: &self.model, meta: &self.meta, workspace: &mut self.workspace };
        mtp.forward(&self.backend, &mut self.stream, run, observer)?;
        self.read_logits(logit_rows, logits)
    }

    /// Logits of `rows`, as many rows at a time as the workspace holds.
    fn read_logits(&mut self, rows: &[u32], logits: &mut Vec<f32>) -> Result<(), StepError> {
        logits.clear();
        for rows in rows.chunks(self.workspace.logits.capacity()) {
            self.workspace.logit_rows.write(&self.backend, &mut self.stream, rows)?;
            self.model.logits(&self.backend, &mut self.stream, &mut self.workspace)?;
            self.workspace.logits.read(&self.backend, &mut self.stream, &mut self.rows_of_logits)?;
            logits.extend_from_slice(&self.rows_of_logits);
        }
        Ok(())
    }

    /// The backend, e.g. to read a wrapper's report.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The loaded model.
    pub fn model(&self) -> &Model<B> {
        &self.model
    }
}

impl<B: Backend> StepRunner for Runner<B> {
    fn capabilities(&self) -> &Capabilities {
        self.backend.capabilities()
    }

    fn info(&self) -> RunnerInfo {
        self.info
    }

    fn formats(&self) -> &BTreeMap<WeightClass, WeightFormat> {
        self.model.formats()
    }

    fn step(
        &mut self,
        sequences: &[SequenceStep<'_>],
        logit_rows: &[u32],
        logits: &mut Vec<f32>,
    ) -> Result<(), StepError> {
        self.step_observed(sequences, logit_rows, logits, Observer::none())
    }

    fn draft(&mut self, next_tokens: &[u32], logit_rows: &[u32], logits: &mut Vec<f32>) -> Result<(), StepError> {
        self.draft_observed(next_tokens, logit_rows, logits, Observer::none())
    }
}
