//! The runner of one backend.

use std::collections::BTreeMap;

use super::{RunnerInfo, StepOutput, StepRunner, WantedRows};
use crate::Error;
use crate::backend::{
    Backend, CacheSpec, Capabilities, NO_TOKEN, PrepareError, SequenceStep, StepError, StepLimits, StepMeta, Tensor,
};
use crate::config::ModelConfig;
use crate::model::mtp::MtpStep;
use crate::model::{LoadOptions, LoadProgress, Model, Observer, Workspace, mla_spec};
use crate::quant::{PrecisionPolicy, WeightClass, WeightFormat};
use crate::sampling::SamplingError;
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
    /// Ids that stand for a token, from 0 on; `None` for all that the head has.
    pub num_token_ids: Option<usize>,
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
    /// [`WantedRows`], logits first.
    rows: Vec<u32>,
    best_ids: Vec<u32>,
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
            num_token_ids: options.num_token_ids.map_or(config.vocab_size, |n| n.min(config.vocab_size)),
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
            rows: Vec::new(),
            best_ids: Vec::new(),
        })
    }

    /// As [`StepRunner::step`], showing intermediate values to `observer`.
    ///
    /// # Errors
    /// [`StepError`] from the device.
    pub fn step_observed(
        &mut self,
        sequences: &[SequenceStep<'_>],
        wanted: WantedRows<'_>,
        output: &mut StepOutput,
        observer: Observer<'_, B>,
    ) -> Result<(), StepError> {
        self.token_ids.clear();
        sequences.iter().for_each(|sequence| self.token_ids.extend_from_slice(sequence.tokens));
        self.meta.fill(&self.backend, &mut self.stream, sequences)?;
        self.workspace.tokens.write(&self.backend, &mut self.stream, &self.token_ids)?;
        self.model.forward(&self.backend, &mut self.stream, &self.meta, &mut self.workspace, observer)?;
        self.read_output(wanted, output)
    }

    /// As [`StepRunner::draft`], showing intermediate values to `observer`.
    ///
    /// # Errors
    /// [`StepError`] from the device.
    pub fn draft_observed(
        &mut self,
        next_tokens: &[u32],
        wanted: WantedRows<'_>,
        output: &mut StepOutput,
        observer: Observer<'_, B>,
    ) -> Result<(), StepError> {
        assert_eq!(next_tokens.len(), self.meta.host().num_tokens(), "one following token per row of the step");
        let mtp = self.model.mtp().expect("the caller checks has_mtp");
        self.workspace.tokens.write(&self.backend, &mut self.stream, next_tokens)?;
        let run = MtpStep { model: &self.model, meta: &self.meta, workspace: &mut self.workspace };
        mtp.forward(&self.backend, &mut self.stream, run, observer)?;
        self.read_output(wanted, output)
    }

    /// What is wanted of the hidden states in the workspace, as many rows at a time as it holds: rows of both kinds
    /// share a pass over the head.
    fn read_output(&mut self, wanted: WantedRows<'_>, output: &mut StepOutput) -> Result<(), StepError> {
        let Self { backend, model, stream, workspace: ws, info, rows, best_ids, .. } = self;
        rows.clear();
        rows.extend_from_slice(wanted.logits);
        rows.extend_from_slice(wanted.best_tokens);
        output.logits.resize(wanted.logits.len() * info.vocab_size, 0.0);
        output.best_tokens.clear();
        let mut logits = output.logits.as_mut_slice();
        for rows in rows.chunks(ws.logits.capacity()) {
            ws.logit_rows.write(backend, stream, rows)?;
            model.logits(backend, stream, ws)?;
            let num_with_logits = rows.len().min(logits.len() / info.vocab_size);
            if num_with_logits < rows.len() {
                model.best_tokens(backend, stream, info.num_token_ids, ws)?;
            }
            if num_with_logits > 0 {
                let (into, rest) = logits.split_at_mut(num_with_logits * info.vocab_size);
                ws.logits.read_rows(backend, stream, 0, into)?;
                logits = rest;
            }
            best_ids.resize(rows.len() - num_with_logits, 0);
            if !best_ids.is_empty() {
                ws.best_tokens.read_rows(backend, stream, num_with_logits, best_ids)?;
            }
            for (row, &id) in (num_with_logits..).zip(best_ids.iter()) {
                output.best_tokens.push(match id {
                    NO_TOKEN => Err(no_candidate(backend, stream, &ws.logits, (row, info.num_token_ids))?),
                    id => Ok(id),
                });
            }
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
        wanted: WantedRows<'_>,
        output: &mut StepOutput,
    ) -> Result<(), StepError> {
        self.step_observed(sequences, wanted, output, Observer::none())
    }

    fn draft(&mut self, next_tokens: &[u32], wanted: WantedRows<'_>, output: &mut StepOutput) -> Result<(), StepError> {
        self.draft_observed(next_tokens, wanted, output, Observer::none())
    }
}

/// The error of a row without a best token, whose logits are read back to say why.
fn no_candidate<B: Backend>(
    backend: &B,
    stream: &mut B::Stream,
    logits: &Tensor<B::Buffer, f32>,
    (row, num_ids): (usize, usize),
) -> Result<SamplingError, StepError> {
    let mut values = vec![0.0; logits.cols()];
    logits.read_rows(backend, stream, row, &mut values)?;
    Ok(SamplingError::no_candidate(&values[..num_ids]))
}
