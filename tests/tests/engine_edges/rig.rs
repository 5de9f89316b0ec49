//! A device whose steps can be counted, held and made to fail, and that checks what the engine asks of it.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bathysphere::backend::{Capabilities, SequenceStep, StepError};
use bathysphere::{Device, Engine, EngineBuilder, Error, RunnerInfo, SamplingParams, WeightClass, WeightFormat};
use conformance::golden::model_dir;
use engine_core::engine::{Loader, OpenDevice};
use engine_core::runner::{StepOutput, StepRunner, WantedRows};

/// Far above what any test takes; a wait this long is a hang.
pub(crate) const HANG: Duration = Duration::from_secs(60);

/// What a step does instead of running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Panic,
    DeviceLost,
    OutOfMemory,
}

impl Fault {
    fn error(self) -> StepError {
        let device = "rig".to_owned();
        match self {
            Fault::Panic => panic!("a panic on purpose"),
            Fault::DeviceLost => StepError::DeviceLost { device, reason: "on purpose".into() },
            Fault::OutOfMemory => StepError::OutOfMemory { device, what: "a purpose".into(), requested_bytes: 1 },
        }
    }
}

/// The CPU, watched and tampered with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rig {
    controls: Arc<Controls>,
}

#[derive(Debug, Default)]
struct Controls {
    num_steps: AtomicUsize,
    /// Steps asked for: one more than begun while one is held.
    num_arrived: AtomicUsize,
    largest_batch: AtomicUsize,
    num_logit_rows: AtomicUsize,
    num_best_rows: AtomicUsize,
    /// Faults by the number of the step, counted from 0.
    faults: Mutex<BTreeMap<usize, Fault>>,
    held: Mutex<bool>,
    changed: Condvar,
}

impl Rig {
    /// The next `after` steps run, the one after them does not.
    pub(crate) fn fail_after(&self, after: usize, fault: Fault) {
        self.controls.faults.lock().unwrap().insert(self.num_steps() + after, fault);
    }

    /// Lets no step begin until [`Rig::release`].
    pub(crate) fn hold(&self) {
        *self.controls.held.lock().unwrap() = true;
    }

    pub(crate) fn release(&self) {
        *self.controls.held.lock().unwrap() = false;
        self.controls.changed.notify_all();
    }

    /// Waits until a step is held: what is submitted from now on stays in the engine's queue.
    pub(crate) fn wait_for_a_held_step(&self) {
        let start = Instant::now();
        while self.controls.num_arrived.load(Ordering::SeqCst) == self.num_steps() {
            assert!(start.elapsed() < HANG, "no step came");
            std::thread::yield_now();
        }
    }

    /// Steps begun.
    pub(crate) fn num_steps(&self) -> usize {
        self.controls.num_steps.load(Ordering::SeqCst)
    }

    /// Rows of which logits were asked for, and rows of which the best token was.
    pub(crate) fn num_rows(&self) -> (usize, usize) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        (count(&self.controls.num_logit_rows), count(&self.controls.num_best_rows))
    }

    /// Most sequences in one step.
    pub(crate) fn largest_batch(&self) -> usize {
        self.controls.largest_batch.load(Ordering::SeqCst)
    }
}

impl OpenDevice for Rig {
    fn open(&self, loader: Loader<'_>) -> Result<Box<dyn StepRunner>, Error> {
        Ok(Box::new(RiggedRunner { inner: Device::Cpu.open(loader)?, controls: self.controls.clone() }))
    }

    fn capabilities(&self, world_size: usize) -> Result<Capabilities, Error> {
        Device::Cpu.capabilities(world_size)
    }
}

struct RiggedRunner {
    inner: Box<dyn StepRunner>,
    controls: Arc<Controls>,
}

impl StepRunner for RiggedRunner {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn info(&self) -> RunnerInfo {
        self.inner.info()
    }

    fn formats(&self) -> &BTreeMap<WeightClass, WeightFormat> {
        self.inner.formats()
    }

    fn step(
        &mut self,
        sequences: &[SequenceStep<'_>],
        wanted: WantedRows<'_>,
        output: &mut StepOutput,
    ) -> Result<(), StepError> {
        let controls = &self.controls;
        controls.num_arrived.fetch_add(1, Ordering::SeqCst);
        let held = controls.held.lock().unwrap();
        drop(controls.changed.wait_timeout_while(held, HANG, |held| *held).unwrap());
        let number = controls.num_steps.fetch_add(1, Ordering::SeqCst);
        controls.largest_batch.fetch_max(sequences.len(), Ordering::SeqCst);
        controls.num_logit_rows.fetch_add(wanted.logits.len(), Ordering::SeqCst);
        controls.num_best_rows.fetch_add(wanted.best_tokens.len(), Ordering::SeqCst);
        check_step(&self.inner.info(), sequences, wanted);
        let fault = controls.faults.lock().unwrap().get(&number).copied();
        match fault {
            Some(fault) => Err(fault.error()),
            None => self.inner.step(sequences, wanted, output),
        }
    }

    fn draft(&mut self, next_tokens: &[u32], wanted: WantedRows<'_>, output: &mut StepOutput) -> Result<(), StepError> {
        self.inner.draft(next_tokens, wanted, output)
    }

    fn read_logits(&mut self, index: usize, logits: &mut Vec<f32>) -> Result<(), StepError> {
        self.inner.read_logits(index, logits)
    }
}

/// What every step must be; a breach panics, which ends the engine and so the test.
fn check_step(info: &RunnerInfo, sequences: &[SequenceStep<'_>], wanted: WantedRows<'_>) {
    let limits = info.limits;
    let num_tokens: usize = sequences.iter().map(|sequence| sequence.tokens.len()).sum();
    assert!((1..=limits.max_num_batched_tokens).contains(&num_tokens), "{num_tokens} tokens");
    assert!(sequences.len() <= limits.max_num_seqs, "{} sequences", sequences.len());
    let rows = wanted.logits.iter().chain(wanted.best_tokens);
    assert!(rows.copied().all(|row| (row as usize) < num_tokens));
    let mut blocks = HashSet::new();
    for sequence in sequences {
        let seq_len = sequence.context_len + sequence.tokens.len();
        assert!(!sequence.tokens.is_empty() && seq_len <= limits.max_model_len, "{seq_len} tokens in a sequence");
        assert!(sequence.block_table.len() * limits.block_size >= seq_len, "too few blocks");
        for block in sequence.block_table {
            assert!((*block as usize) < info.num_blocks, "block {block} of {}", info.num_blocks);
            assert!(blocks.insert(*block), "block {block} belongs to two sequences");
        }
    }
}

/// A builder for the tiny model on `rig`.
pub(crate) fn builder(rig: &Rig) -> EngineBuilder<Rig> {
    Engine::builder(model_dir("fp8")).device(rig.clone())
}

/// The tiny model on `rig`, with defaults.
pub(crate) fn engine(rig: &Rig) -> Engine {
    builder(rig).build().unwrap()
}

pub(crate) fn greedy(max_tokens: usize) -> SamplingParams {
    SamplingParams { max_tokens: Some(max_tokens), ignore_eos: true, ..SamplingParams::greedy() }
}

/// A prompt of `len` tokens that differs with `salt`.
pub(crate) fn prompt(len: usize, salt: u32) -> Vec<u32> {
    (0..len as u32).map(|i| 10 + (i * 37 + salt * 101) % 4000).collect()
}
