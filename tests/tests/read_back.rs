//! What a step reads back from the device: whole rows of logits only where they are asked for.
#![cfg(feature = "cpu")]
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use backend_cpu::{CpuBackend, CpuOptions};
use conformance::golden::model_dir;
use engine_core::backend::{
    ActTensor, Backend, CacheFormat, SequenceStep, StepError, StepLimits, Tensor, delegate_backend,
};
use engine_core::config::ModelConfig;
use engine_core::quant::PrecisionPolicy;
use engine_core::runner::{Runner, RunnerOptions, StepOutput, StepRunner, WantedRows};
use engine_core::sampling::{SamplingError, argmax};
use engine_core::weights::Checkpoint;

/// Ids of the tiny model that stand for a token in these tests: fewer than its head has rows.
const NUM_TOKEN_IDS: usize = 100;

/// Counts the bytes that are read.
struct CountingReads<B> {
    inner: B,
    num_bytes: Arc<AtomicUsize>,
}

impl<B: Backend> Backend for CountingReads<B> {
    delegate_backend!(inner: B; types, device except [read], uncaptured, prepare, ops);

    fn read(
        &self,
        stream: &mut B::Stream,
        buffer: &B::Buffer,
        offset: usize,
        data: &mut [u8],
    ) -> Result<(), StepError> {
        self.num_bytes.fetch_add(data.len(), Ordering::Relaxed);
        self.inner.read(stream, buffer, offset, data)
    }
}

/// The logits of the second row of every chunk are NaN, but for one −∞.
struct BrokenRow<B>(B);

impl<B: Backend> Backend for BrokenRow<B> {
    delegate_backend!(0: B; types, device, uncaptured, prepare, ops except [logits]);

    fn logits(
        &self,
        stream: &mut B::Stream,
        head: &B::Linear,
        x: &ActTensor<B>,
        out: &mut Tensor<B::Buffer, f32>,
    ) -> Result<(), StepError> {
        self.0.logits(stream, head, x, out)?;
        let mut row = vec![f32::NAN; out.cols()];
        row[7] = f32::NEG_INFINITY;
        let offset = size_of_val(&row[..]);
        self.0.write(stream, out.buffer_mut(), offset, bytemuck::cast_slice(&row))
    }
}

fn cpu() -> CpuBackend {
    CpuBackend::new(CpuOptions::default()).unwrap()
}

/// Four rows of logits at a time.
fn load<B: Backend>(backend: B, dir: &Path) -> Runner<B> {
    let config = ModelConfig::from_dir(dir).unwrap();
    let limits = StepLimits { max_num_batched_tokens: 4, max_num_seqs: 1, max_model_len: 64, block_size: 64 };
    let options = RunnerOptions {
        precision: PrecisionPolicy::default(),
        with_mtp: true,
        limits,
        num_blocks: 1,
        cache_format: CacheFormat::Native,
        num_token_ids: Some(NUM_TOKEN_IDS),
    };
    Runner::load(backend, &Checkpoint::open(dir).unwrap(), &config, &options, &mut |_| {}).unwrap()
}

const TOKENS: [u32; 4] = [17, 300, 41, 5];

fn step<B: Backend>(runner: &mut Runner<B>, wanted: WantedRows<'_>) -> StepOutput {
    let mut output = StepOutput::default();
    let sequence = SequenceStep { tokens: &TOKENS, context_len: 0, block_table: &[0] };
    runner.step(&[sequence], wanted, &mut output).unwrap();
    output
}

#[test]
fn a_best_token_costs_four_bytes_and_a_row_of_logits_four_times_the_vocabulary() {
    let num_bytes = Arc::new(AtomicUsize::new(0));
    let mut runner = load(CountingReads { inner: cpu(), num_bytes: num_bytes.clone() }, &model_dir("fp8"));
    let row_bytes = 4 * runner.info().vocab_size;
    let mut read = |wanted| {
        num_bytes.store(0, Ordering::Relaxed);
        step(&mut runner, wanted);
        num_bytes.load(Ordering::Relaxed)
    };
    assert_eq!(read(WantedRows::default()), 0);
    assert_eq!(read(WantedRows::best_tokens(&[0, 1, 2, 3])), 4 * 4);
    assert_eq!(read(WantedRows::logits(&[1, 2])), 2 * row_bytes);
    assert_eq!(read(WantedRows { logits: &[3], best_tokens: &[0, 2], ..WantedRows::default() }), row_bytes + 2 * 4);
    // More rows than fit the workspace at once.
    assert_eq!(
        read(WantedRows { logits: &[0; 6], best_tokens: &[1; 9], ..WantedRows::default() }),
        6 * row_bytes + 9 * 4
    );
}

/// Any number of rows of either kind, in any order, over any number of passes; in drafts as in steps.
#[test]
fn best_tokens_are_those_of_the_logits_among_ids_that_stand_for_a_token() {
    let mut runner = load(cpu(), &model_dir("fp8"));
    let vocab = runner.info().vocab_size;
    assert_eq!((runner.info().num_token_ids, vocab), (NUM_TOKEN_IDS, 4096));
    let all = step(&mut runner, WantedRows::logits(&[0, 1, 2, 3])).logits;
    let mut drafts = StepOutput::default();
    runner.draft(&TOKENS, WantedRows::logits(&[0, 1, 2, 3]), &mut drafts).unwrap();
    let row = |of: &[f32], row: u32| of[row as usize * vocab..][..vocab].to_vec();
    let best = |of: &[f32], r: u32| Ok(argmax(&row(of, r)[..NUM_TOKEN_IDS]).unwrap());
    assert!((0..4).any(|r| best(&all, r) != Ok(argmax(&row(&all, r)).unwrap())), "the limit makes a difference");
    let rows = [3, 0, 2, 2, 1, 0, 3, 1, 1, 2, 0];
    for num_logits in 0..=rows.len() {
        let (logits, best_tokens) = rows.split_at(num_logits);
        let wanted = WantedRows { logits, best_tokens, ..WantedRows::default() };
        let check = |of: &[f32], output: &StepOutput| {
            assert_eq!(output.logits, logits.iter().flat_map(|r| row(of, *r)).collect::<Vec<f32>>());
            assert_eq!(output.best_tokens, best_tokens.iter().map(|r| best(of, *r)).collect::<Vec<_>>());
        };
        let mut output = step(&mut runner, wanted);
        check(&all, &output);
        runner.draft(&TOKENS, wanted, &mut output).unwrap();
        check(&drafts.logits, &output);
    }
}

#[test]
fn a_row_without_a_best_token_says_why() {
    let mut runner = load(BrokenRow(cpu()), &model_dir("fp8"));
    let output = step(&mut runner, WantedRows { logits: &[0], best_tokens: &[1, 2], ..WantedRows::default() });
    let error = SamplingError::NoCandidate { num_logits: NUM_TOKEN_IDS, num_nan: NUM_TOKEN_IDS - 1 };
    assert_eq!(output.best_tokens[0], Err(error));
    assert!(output.best_tokens[1].is_ok());
}
