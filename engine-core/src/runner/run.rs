//! The runner of one backend.

use std::collections::BTreeMap;
use std::ops::Range;

use super::capture::{Bucket, CapturedPasses, Recording};
use super::pass::{Pass, PassRun};
use super::rows::{KindPart, RowKinds};
use super::{RunnerInfo, StepOutput, StepRunner, WantedRows};
use crate::Error;
use crate::backend::{
    Backend, CacheFormat, CacheSpec, Capabilities, NO_TOKEN, PrepareError, Replayed, SequenceStep, StepError,
    StepLimits, StepMeta, Tensor,
};
use crate::config::ModelConfig;
use crate::model::{LoadOptions, LoadProgress, Model, Observer, Workspace, mla_spec, num_top_logits};
use crate::quant::{PrecisionPolicy, WeightClass, WeightFormat};
use crate::sampling::SamplingError;
use crate::weights::Checkpoint;
use crate::weights::shares::Share;

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
    /// [`WantedRows`]: logits first, then top logits.
    rows: Vec<u32>,
    /// Of these rows; 1 where none is given.
    inverse_temperatures: Vec<f32>,
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
        let mla = mla_spec(config, backend.rank().world_size(), 1);
        let workspace = Workspace::alloc(&backend, config, &mla, &limits, &cache)?;
        let ids = Share::of(backend.rank()).token_ids(config.vocab_size);
        let num_top_logits = if backend.finds_top_logits() { num_top_logits(ids.len()) } else { 0 };
        let num_token_ids = options.num_token_ids.unwrap_or(ids.end).clamp(ids.start, ids.end) - ids.start;
        let info = RunnerInfo {
            limits,
            num_blocks: options.num_blocks,
            vocab_size: ids.len(),
            num_token_ids,
            num_top_logits,
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
            inverse_temperatures: Vec::new(),
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
        self.inverse_temperatures.resize(bucket.num_seqs, 1.0);
        let with_top = !wanted.top_logits.rows.is_empty();
        self.write_rows(0..bucket.num_seqs, with_top)?;
        self.replay_or_run(Recording { pass, bucket, with_top })?;
        self.resize(wanted, output);
        self.read_rows(&wanted.kinds(), 0..wanted.num_rows(), output)
    }

    /// Queues a pass over a padded step, and the head's. Whether the work is replayed, recorded or run, it is the same.
    fn replay_or_run(&mut self, recording: Recording) -> Result<(), StepError> {
        let Recording { pass, with_top, .. } = recording;
        if self.captured.is_due(recording) {
            let (mut run, stream) = self.pass_run(pass);
            let backend = run.backend;
            let recorded = backend.capture(stream, &mut |stream| run.forward_to_logits(stream, with_top));
            if let Err(error) = &recorded {
                tracing::debug!(%error, ?recording, "a step cannot be captured and is launched each time");
            }
            self.captured.keep(recording, recorded.ok().flatten());
        }
        if let Some(graph) = self.captured.get(recording) {
            self.backend.prepare_replay(&mut self.stream, graph, self.meta.host())?;
            match self.backend.replay(&mut self.stream, graph)? {
                Replayed::Queued => {
                    self.pass_run(pass).0.set_rows(with_top);
                    return Ok(());
                }
                Replayed::OutOfDate => self.captured.drop_outdated(recording),
            }
        }
        let (mut run, stream) = self.pass_run(pass);
        run.forward_to_logits(stream, with_top)
    }

    /// Lists what is wanted: `rows`, and `inverse_temperatures` where a device finds top logits.
    fn list_rows(&mut self, wanted: WantedRows<'_>) {
        let Self { rows, inverse_temperatures, .. } = self;
        rows.clear();
        for kind in [wanted.logits, wanted.top_logits.rows, wanted.best_tokens] {
            rows.extend_from_slice(kind);
        }
        inverse_temperatures.clear();
        inverse_temperatures.resize(wanted.logits.len(), 1.0);
        inverse_temperatures.extend_from_slice(wanted.top_logits.inverse_temperatures);
        inverse_temperatures.resize(rows.len(), 1.0);
    }

    /// Uploads a chunk of the rows that are listed, and how their totals are taken if that is wanted.
    fn write_rows(&mut self, chunk: Range<usize>, with_top: bool) -> Result<(), StepError> {
        let Self { backend, stream, workspace, rows, inverse_temperatures, .. } = self;
        if with_top {
            workspace.inverse_temperatures.write(backend, stream, &inverse_temperatures[chunk.clone()])?;
        }
        workspace.logit_rows.write(backend, stream, &rows[chunk])
    }

    /// Makes room for what is wanted.
    fn resize(&self, wanted: WantedRows<'_>, output: &mut StepOutput) {
        output.logits.resize(wanted.logits.len() * self.info.vocab_size, 0.0);
        output.top_logits.resize(wanted.top_logits.rows.len() * self.workspace.top_logits.cols(), 0);
        output.best_tokens.clear();
    }

    /// What is wanted of the hidden states in the workspace, as many rows at a time as it holds: rows of all kinds share a
    /// pass over the head.
    fn read_output(&mut self, wanted: WantedRows<'_>, output: &mut StepOutput) -> Result<(), StepError> {
        self.list_rows(wanted);
        self.resize(wanted, output);
        let kinds = wanted.kinds();
        let rows_at_once = self.workspace.logits.capacity();
        for first in (0..self.rows.len()).step_by(rows_at_once) {
            let chunk = first..self.rows.len().min(first + rows_at_once);
            let with_top = KindPart::of(&kinds.top, &chunk).is_some();
            self.write_rows(chunk.clone(), with_top)?;
            let Self { backend, model, stream, workspace, info, .. } = self;
            model.logits(backend, stream, workspace)?;
            if with_top {
                model.top_logits(backend, stream, info.num_token_ids, workspace)?;
            }
            if KindPart::of(&kinds.best, &chunk).is_some() {
                model.best_tokens(backend, stream, info.num_token_ids, workspace)?;
            }
            self.read_rows(&kinds, chunk, output)?;
        }
        Ok(())
    }

    /// Reads what is wanted of a chunk of the rows, which is in the workspace.
    fn read_rows(&mut self, kinds: &RowKinds, chunk: Range<usize>, output: &mut StepOutput) -> Result<(), StepError> {
        let Self { backend, stream, workspace: ws, info, best_ids, .. } = self;
        if let Some(part) = KindPart::of(&kinds.logits, &chunk) {
            let values = &mut output.logits[part.values(info.vocab_size)];
            ws.logits.read_rows(backend, stream, part.first_row, values)?;
        }
        if let Some(part) = KindPart::of(&kinds.top, &chunk) {
            let words = &mut output.top_logits[part.values(ws.top_logits.cols())];
            ws.top_logits.read_rows(backend, stream, part.first_row, words)?;
        }
        let Some(part) = KindPart::of(&kinds.best, &chunk) else { return Ok(()) };
        best_ids.resize(part.outputs.len(), 0);
        ws.best_tokens.read_rows(backend, stream, part.first_row, best_ids)?;
        for (row, &id) in (part.first_row..).zip(best_ids.iter()) {
            output.best_tokens.push(match id {
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

    fn read_logits(&mut self, index: usize, logits: &mut Vec<f32>) -> Result<(), StepError> {
        let Self { backend, stream, workspace, rows, info, .. } = self;
        let num_held = workspace.logits.rows();
        assert!(rows.len() == num_held && index < num_held, "row {index} of {}, {num_held} are held", rows.len());
        logits.resize(info.vocab_size, 0.0);
        workspace.logits.read_rows(backend, stream, index, logits)
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
