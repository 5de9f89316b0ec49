//! The runner of one backend.

use std::collections::BTreeMap;

use super::capture::{Bucket, CapturedPasses};
use super::pass::{Pass, PassRun};
use super::{RunnerInfo, StepOutput, StepRunner, WantedRows};
use crate::Error;
use crate::backend::{
    Backend, CacheFormat, CacheSpec, Capabilities, NO_TOKEN, PrepareError, Replayed, SequenceStep, StepError,
    StepLimits, StepMeta, Tensor,
};
use crate::config::ModelConfig;
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
    /// Format of the latent cache.
    pub cache_format: CacheFormat,
    /// Ids that stand for a token, from 0 on; `None` for all that the head has.
    pub num_token_ids: Option<usize>,
}

/// A model, its memory and a stream on one device.
pub struct Runner<B: Backend> {
    /// First, so that recorded work goes before the memory that it uses.
    captured: CapturedPasses<B::Graph>,
    backend: B,
    model: Model<B>,
    stream: B::Stream,
    meta: StepMeta<B::Buffer>,
    workspace: Workspace<B>,
    info: RunnerInfo,
    /// Tokens of the step in `meta`, without padding.
    num_tokens: usize,
    /// What that step is padded to.
    bucket: Option<Bucket>,
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
            format: options.cache_format,
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
            captured: CapturedPasses::new(),
            stream: backend.stream().map_err(PrepareError::from)?,
            meta: StepMeta::alloc(&backend, &limits).map_err(PrepareError::from)?,
            workspace,
            model,
            backend,
            info,
            num_tokens: 0,
            bucket: None,
            token_ids: Vec::with_capacity(limits.max_num_batched_tokens),
            rows: Vec::new(),
            best_ids: Vec::new(),
        })
    }

    /// As [`StepRunner::step`], showing intermediate values to `observer`. Such a step is not padded and not captured.
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
        self.describe(sequences, None)?;
        self.run(Pass::Model, wanted, output, observer)
    }

    /// As [`StepRunner::draft`], showing intermediate values to `observer`. Such a draft is not captured.
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
        self.write_next_tokens(next_tokens)?;
        self.run(Pass::Draft, wanted, output, observer)
    }

    /// Uploads a step, padded to `bucket` if there is one.
    fn describe(&mut self, sequences: &[SequenceStep<'_>], bucket: Option<Bucket>) -> Result<(), StepError> {
        let Self { backend, stream, meta, .. } = self;
        match bucket {
            None => meta.fill(backend, stream, sequences)?,
            Some(Bucket { num_seqs, max_seq_len }) => {
                meta.fill_padded(backend, stream, sequences, (num_seqs, max_seq_len))?;
            }
        }
        self.bucket = bucket;
        self.token_ids.clear();
        sequences.iter().for_each(|sequence| self.token_ids.extend_from_slice(sequence.tokens));
        self.num_tokens = self.token_ids.len();
        self.write_tokens()
    }

    fn write_next_tokens(&mut self, next_tokens: &[u32]) -> Result<(), StepError> {
        assert_eq!(next_tokens.len(), self.num_tokens, "one following token per row of the step");
        self.token_ids.clear();
        self.token_ids.extend_from_slice(next_tokens);
        self.write_tokens()
    }

    /// Uploads `token_ids`; padding repeats the last one, as it repeats the last sequence.
    fn write_tokens(&mut self) -> Result<(), StepError> {
        let last = self.token_ids.last().copied().unwrap_or_default();
        self.token_ids.resize(self.meta.host().num_tokens(), last);
        self.workspace.tokens.write(&self.backend, &mut self.stream, &self.token_ids)
    }

    /// A pass over the step in `meta`, then what is wanted of its rows.
    fn run(
        &mut self,
        pass: Pass,
        wanted: WantedRows<'_>,
        output: &mut StepOutput,
        observer: Observer<'_, B>,
    ) -> Result<(), StepError> {
        let (mut run, stream) = self.pass_run(pass);
        run.forward(stream, observer)?;
        self.read_output(wanted, output)
    }

    fn pass_run(&mut self, pass: Pass) -> (PassRun<'_, B>, &mut B::Stream) {
        let Self { backend, model, meta, workspace, info, stream, .. } = self;
        (PassRun { pass, backend, model, meta, workspace, num_token_ids: info.num_token_ids }, stream)
    }

    /// As [`Runner::run`] over a step that is padded to `bucket`, replaying the pass if it is held. The head takes as many
    /// rows as the bucket has.
    fn run_padded(
        &mut self,
        (pass, bucket): (Pass, Bucket),
        wanted: WantedRows<'_>,
        output: &mut StepOutput,
    ) -> Result<(), StepError> {
        self.list_rows(wanted);
        let last = self.rows.last().copied().unwrap_or_default();
        self.rows.resize(bucket.num_seqs, last);
        self.workspace.logit_rows.write(&self.backend, &mut self.stream, &self.rows)?;
        self.replay_or_run(pass, bucket)?;
        output.logits.resize(wanted.logits.len() * self.info.vocab_size, 0.0);
        output.best_tokens.clear();
        self.read_rows(&mut output.logits, wanted.best_tokens.len(), &mut output.best_tokens)
    }

    /// Queues a pass over a padded step, and the head's. Whether the work is replayed, recorded or run, it is the same.
    fn replay_or_run(&mut self, pass: Pass, bucket: Bucket) -> Result<(), StepError> {
        if self.captured.is_due(pass, bucket) {
            let (mut run, stream) = self.pass_run(pass);
            let backend = run.backend;
            let recorded = backend.capture(stream, &mut |stream| run.forward_to_logits(stream));
            if let Err(error) = &recorded {
                tracing::debug!(%error, ?pass, ?bucket, "a step cannot be captured and is launched each time");
            }
            self.captured.keep(pass, bucket, recorded.ok().flatten());
        }
        if let Some(graph) = self.captured.get(pass, bucket) {
            match self.backend.replay(&mut self.stream, graph)? {
                Replayed::Queued => {
                    self.pass_run(pass).0.set_rows();
                    return Ok(());
                }
                Replayed::OutOfDate => self.captured.drop_outdated(pass, bucket),
            }
        }
        let (mut run, stream) = self.pass_run(pass);
        run.forward_to_logits(stream)
    }

    fn list_rows(&mut self, wanted: WantedRows<'_>) {
        self.rows.clear();
        self.rows.extend_from_slice(wanted.logits);
        self.rows.extend_from_slice(wanted.best_tokens);
    }

    /// What is wanted of the hidden states in the workspace, as many rows at a time as it holds: rows of both kinds
    /// share a pass over the head.
    fn read_output(&mut self, wanted: WantedRows<'_>, output: &mut StepOutput) -> Result<(), StepError> {
        self.list_rows(wanted);
        let vocab_size = self.info.vocab_size;
        output.logits.resize(wanted.logits.len() * vocab_size, 0.0);
        output.best_tokens.clear();
        let mut logits = output.logits.as_mut_slice();
        let rows_at_once = self.workspace.logits.capacity();
        for first in (0..self.rows.len()).step_by(rows_at_once) {
            let Self { backend, model, stream, workspace, info, rows, .. } = self;
            let rows = &rows[first..rows.len().min(first + rows_at_once)];
            workspace.logit_rows.write(backend, stream, rows)?;
            model.logits(backend, stream, workspace)?;
            let num_with_logits = rows.len().min(logits.len() / vocab_size);
            let num_best = rows.len() - num_with_logits;
            if num_best > 0 {
                model.best_tokens(backend, stream, info.num_token_ids, workspace)?;
            }
            let (into, rest) = logits.split_at_mut(num_with_logits * vocab_size);
            self.read_rows(into, num_best, &mut output.best_tokens)?;
            logits = rest;
        }
        Ok(())
    }

    /// Reads the logits of the first rows in the workspace, as many as `logits` has place for, and the best tokens of the
    /// next `num_best`.
    fn read_rows(
        &mut self,
        logits: &mut [f32],
        num_best: usize,
        best_tokens: &mut Vec<Result<u32, SamplingError>>,
    ) -> Result<(), StepError> {
        let Self { backend, stream, workspace: ws, info, best_ids, .. } = self;
        let num_with_logits = logits.len() / info.vocab_size;
        if !logits.is_empty() {
            ws.logits.read_rows(backend, stream, 0, logits)?;
        }
        best_ids.resize(num_best, 0);
        if num_best > 0 {
            ws.best_tokens.read_rows(backend, stream, num_with_logits, best_ids)?;
        }
        for (row, &id) in (num_with_logits..).zip(best_ids.iter()) {
            best_tokens.push(match id {
                NO_TOKEN => Err(no_candidate(backend, stream, &ws.logits, (row, info.num_token_ids))?),
                id => Ok(id),
            });
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
        let bucket = match self.backend.captures() {
            true => Bucket::of(sequences, wanted.num_rows(), &self.info.limits),
            false => None,
        };
        self.describe(sequences, bucket)?;
        match bucket {
            Some(bucket) => self.run_padded((Pass::Model, bucket), wanted, output),
            None => self.run(Pass::Model, wanted, output, Observer::none()),
        }
    }

    fn draft(&mut self, next_tokens: &[u32], wanted: WantedRows<'_>, output: &mut StepOutput) -> Result<(), StepError> {
        self.write_next_tokens(next_tokens)?;
        match self.bucket.filter(|bucket| (1..=bucket.num_seqs).contains(&wanted.num_rows())) {
            Some(bucket) => self.run_padded((Pass::Draft, bucket), wanted, output),
            None => self.run(Pass::Draft, wanted, output, Observer::none()),
        }
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
