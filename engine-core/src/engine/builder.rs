//! Building an engine: what to load, where, and how large.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;

use super::active::TextFacts;
use super::options::BuildOptions;
use super::worker::Worker;
use super::{Engine, ModelFacts, Shared};
use crate::Error;
use crate::backend::{Backend, CacheFormat, Capabilities, PrepareError, Rank, StepError};
use crate::config::ModelConfig;
use crate::model::LoadProgress;
use crate::plan::MemoryPlan;
use crate::quant::PrecisionPolicy;
use crate::runner::{GroupRunner, Runner, RunnerOptions, StepRunner};
use crate::tokenizer::{ChatTemplate, Tokenizer};
use crate::weights::Checkpoint;

/// Opens a device and loads a model onto it. The facade's `Device` implements it for every compiled-in backend.
pub trait OpenDevice {
    /// Opens as many devices as [`Loader::tensor_parallel_size`] says and hands their backends to [`Loader::load`].
    ///
    /// # Errors
    /// Why the device cannot be opened, or what [`Loader::load`] returns.
    fn open(&self, loader: Loader<'_>) -> Result<Box<dyn StepRunner>, Error>;

    /// Abilities of a group of `world_size` such devices ([`Capabilities::of_group`]), without loading anything.
    ///
    /// # Errors
    /// Why a device cannot be opened, or not be part of the group.
    fn capabilities(&self, world_size: usize) -> Result<Capabilities, Error>;

    /// Devices with memory of their own that a group of this one could have: what advice counts on.
    fn num_devices(&self) -> usize {
        1
    }
}

/// No device chosen yet: such a builder cannot build.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDevice;

type ProgressCallback = Box<dyn FnMut(LoadProgress) + Send>;

/// Collects what an engine is built from.
pub struct EngineBuilder<D> {
    dir: PathBuf,
    device: D,
    options: BuildOptions,
    progress: Option<ProgressCallback>,
}

impl<D: std::fmt::Debug> std::fmt::Debug for EngineBuilder<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("dir", &self.dir)
            .field("device", &self.device)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl EngineBuilder<NoDevice> {
    pub(super) fn new(dir: PathBuf) -> Self {
        let options = BuildOptions::default();
        Self { dir, device: NoDevice, options, progress: None }
    }

    /// Chooses the device.
    pub fn device<D: OpenDevice>(self, device: D) -> EngineBuilder<D> {
        EngineBuilder { dir: self.dir, device, options: self.options, progress: self.progress }
    }

    /// Builds on a backend of your own.
    ///
    /// # Errors
    /// As [`EngineBuilder::build`].
    pub fn build_with<B: Backend>(self, backend: B) -> Result<Engine, Error> {
        self.build_with_group(vec![backend])
    }

    /// Builds on a group of backends of your own, as many as there are: those of [`Rank::group`] in order.
    ///
    /// # Errors
    /// As [`EngineBuilder::build`].
    ///
    /// # Panics
    /// If they are no group.
    pub fn build_with_group<B: Backend>(self, backends: Vec<B>) -> Result<Engine, Error> {
        self.tensor_parallel_size(backends.len()).build_from(|loader| loader.load(backends))
    }
}

impl<D> EngineBuilder<D> {
    /// Format of the weights: one [`Precision`](crate::quant::Precision) or a policy by class. Default: the
    /// checkpoint's own.
    #[must_use]
    pub fn precision(mut self, precision: impl Into<PrecisionPolicy>) -> Self {
        self.options.precision = precision.into();
        self
    }

    /// Longest window in tokens, prompt and generation together. Default: the checkpoint's
    /// `max_position_embeddings`, or what fits the device if that is less.
    #[must_use]
    pub fn max_model_len(mut self, tokens: usize) -> Self {
        self.options.max_model_len = Some(tokens);
        self
    }

    /// Sequences that run together at most. Default 16.
    #[must_use]
    pub fn max_num_seqs(mut self, sequences: usize) -> Self {
        self.options.max_num_seqs = sequences;
        self
    }

    /// Tokens of one step at most; longer prompts are prefilled in chunks of this size. Default 512.
    #[must_use]
    pub fn max_num_batched_tokens(mut self, tokens: usize) -> Self {
        self.options.max_num_batched_tokens = tokens;
        self
    }

    /// Tokens the latent cache holds over all sequences. Default: one window, or up to 8 192 tokens per sequence where
    /// they fit and leave a tenth of the memory free.
    #[must_use]
    pub fn num_cache_tokens(mut self, tokens: usize) -> Self {
        self.options.num_cache_tokens = Some(tokens);
        self
    }

    /// Slots per cache block. Default 64.
    #[must_use]
    pub fn block_size(mut self, slots: usize) -> Self {
        self.options.block_size = slots;
        self
    }

    /// Format of the latent cache. [`CacheFormat::Fp8`] takes a little more than half of a bf16 cache's memory (656 in place
    /// of 1152 bytes per token and layer at DeepSeek's sizes) and costs accuracy (`docs/numerics.md`). Default: the device's
    /// own.
    #[must_use]
    pub fn kv_cache_dtype(mut self, format: CacheFormat) -> Self {
        self.options.kv_cache_dtype = format;
        self
    }

    /// Devices that share the model (tensor parallelism): the chosen one and those whose numbers follow it. Heads and the
    /// intermediate sizes of FFNs and experts are divided among them. Default 1.
    #[must_use]
    pub fn tensor_parallel_size(mut self, devices: usize) -> Self {
        self.options.tensor_parallel_size = devices;
        self
    }

    /// Loads the MTP module, for draft logits. Default false.
    #[must_use]
    pub fn load_mtp(mut self, load: bool) -> Self {
        self.options.load_mtp = load;
        self
    }

    /// Seed of requests that bring none. Default: different in every engine.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.seed = Some(seed);
        self
    }

    /// Called while loading, once per layer.
    #[must_use]
    pub fn progress(mut self, callback: impl FnMut(LoadProgress) + Send + 'static) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }

    fn build_from(self, open: impl FnOnce(Loader<'_>) -> Result<Box<dyn StepRunner>, Error>) -> Result<Engine, Error> {
        let config = ModelConfig::from_dir(&self.dir)?;
        self.options.check_group(&config)?;
        let checkpoint = Checkpoint::open(&self.dir)?;
        let tokenizer = Tokenizer::from_dir(&self.dir)?.map(Arc::new);
        let template = ChatTemplate::from_dir(&self.dir)?;
        let mut progress = self.progress.unwrap_or_else(|| Box::new(|_| {}));
        let loader = Loader {
            checkpoint: &checkpoint,
            config: &config,
            options: &self.options,
            num_token_ids: tokenizer.as_ref().map(|tokenizer| tokenizer.vocab_size()),
            progress: &mut *progress,
        };
        let runner = open(loader)?;
        let text = TextFacts {
            tokenizer: tokenizer.clone(),
            eos_token_ids: config.eos_token_ids.clone(),
            num_token_ids: runner.info().num_token_ids as u32,
            seed: self.options.seed.unwrap_or_else(entropy),
        };
        let model = ModelFacts {
            dir: self.dir,
            config,
            capabilities: runner.capabilities().clone(),
            info: runner.info(),
            formats: runner.formats().clone(),
            tokenizer,
            template,
        };
        start(runner, text, model)
    }
}

impl<D: OpenDevice> EngineBuilder<D> {
    /// What the model needs on the chosen device and what fits, before anything is loaded.
    ///
    /// # Errors
    /// [`Error::Config`], why the device cannot be opened, or that it lacks the format of the latent cache.
    pub fn plan(&self) -> Result<MemoryPlan, Error> {
        let config = ModelConfig::from_dir(&self.dir)?;
        self.options.check_group(&config)?;
        let capabilities = self.device.capabilities(self.options.tensor_parallel_size)?;
        let options = BuildOptions { num_devices: self.device.num_devices(), ..self.options.clone() };
        let request = options.plan_request(&config, &capabilities).map_err(PrepareError::from)?;
        Ok(MemoryPlan::new(&config, &request))
    }

    /// Loads the checkpoint onto the device and starts the engine's thread.
    ///
    /// # Errors
    /// What is wrong with configuration, weights, tokenizer or template; what the device refuses; or
    /// [`Error::Plan`] when it cannot fit.
    pub fn build(self) -> Result<Engine, Error> {
        let EngineBuilder { dir, device, options, progress } = self;
        let options = BuildOptions { num_devices: device.num_devices(), ..options };
        let builder = EngineBuilder { dir, device: NoDevice, options, progress };
        builder.build_from(|loader| device.open(loader))
    }
}

/// Loads onto a backend; given to [`OpenDevice::open`].
pub struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a ModelConfig,
    options: &'a BuildOptions,
    /// Of the tokenizer, if there is one.
    num_token_ids: Option<usize>,
    progress: &'a mut dyn FnMut(LoadProgress),
}

impl std::fmt::Debug for Loader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader").field("options", self.options).finish_non_exhaustive()
    }
}

impl Loader<'_> {
    /// The checkpoint's directory.
    pub fn dir(&self) -> &Path {
        self.checkpoint.dir()
    }

    /// Devices that share the model.
    pub fn tensor_parallel_size(&self) -> usize {
        self.options.tensor_parallel_size
    }

    /// Checks what fits and loads onto the ranks of a group, in order: each on a thread of its own, the first on this one.
    ///
    /// # Errors
    /// As [`EngineBuilder::build`].
    ///
    /// # Panics
    /// If they are no group of [`Loader::tensor_parallel_size`] backends: a bug of the device.
    pub fn load<B: Backend>(self, backends: Vec<B>) -> Result<Box<dyn StepRunner>, Error> {
        assert_eq!(backends.len(), self.options.tensor_parallel_size, "a backend for each rank");
        assert!(Rank::is_group(backends.iter().map(Backend::rank)), "ranks of one group, in order");
        let report = self.checkpoint.check(self.config)?;
        for name in &report.unknown {
            tracing::warn!(tensor = %name, "the checkpoint holds a tensor that the model does not use");
        }
        let capabilities: Vec<_> = backends.iter().map(Backend::capabilities).collect();
        let capabilities = Capabilities::of_group(&capabilities).map_err(PrepareError::from)?;
        let options = self.options.resolve(self.config, &capabilities, report.has_mtp)?;
        let options = RunnerOptions { num_token_ids: self.num_token_ids, ..options };
        let Self { checkpoint, config, progress, .. } = self;
        GroupRunner::load(backends, progress, |backend, progress| {
            Runner::load(backend, checkpoint, config, &options, progress)
        })
    }
}

fn start(runner: Box<dyn StepRunner>, text: TextFacts, model: ModelFacts) -> Result<Engine, Error> {
    let (commands, receiver) = channel();
    let worker = Worker::new(runner, receiver, text);
    let thread = std::thread::Builder::new()
        .name("bathysphere-engine".into())
        .spawn(move || worker.run())
        .map_err(|error| StepError::DeviceLost { device: "host".into(), reason: format!("no thread: {error}") })?;
    Ok(Engine { shared: Arc::new(Shared { commands: Some(commands), thread: Some(thread), model }) })
}

/// A number that differs from process to process and call to call, without a dependency.
fn entropy() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
