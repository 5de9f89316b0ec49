//! What a step reads back from the device: whole rows of logits only where they are asked for.
#![cfg(feature = "cpu")]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use backend_cpu::{CpuBackend, CpuOptions};
use bathysphere::Engine;
use conformance::golden::model_dir;
use engine_core::backend::{
    ActTensor, Backend, CacheFormat, HostBuffer, NO_TOKEN, SequenceStep, StepError, StepLimits, Tensor, TopLogits,
    delegate_backend,
};
use engine_core::config::ModelConfig;
use engine_core::quant::PrecisionPolicy;
use engine_core::reference::{Numerics, ReferenceBackend, ReferenceStream};
use engine_core::runner::{Runner, RunnerOptions, StepOutput, StepRunner, TopRows, WantedRows};
use engine_core::sampling::{SamplingError, SamplingParams, argmax};
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

/// The CPU as a device that finds top logits, as the reference does.
struct FindsTop<B>(B);

impl<B: Backend<Buffer = HostBuffer>> Backend for FindsTop<B> {
    delegate_backend!(0: B; types, device except [finds_top_logits], uncaptured, prepare, ops except [top_logits]);

    fn finds_top_logits(&self) -> bool {
        true
    }

    fn top_logits(
        &self,
        _: &mut B::Stream,
        logits: &Tensor<HostBuffer, f32>,
        inverse_temperatures: &Tensor<HostBuffer, f32>,
        num_ids: usize,
        out: &mut Tensor<HostBuffer, u32>,
    ) -> Result<(), StepError> {
        let reference = ReferenceBackend::new(Numerics::default());
        reference.top_logits(&mut ReferenceStream, logits, inverse_temperatures, num_ids, out)
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

/// The same words over any number of passes, and the rows themselves for who needs them.
#[test]
fn top_logits_are_those_of_the_logits_and_whole_rows_can_be_had() {
    let mut runner = load(FindsTop(cpu()), &model_dir("fp8"));
    let (vocab, num_top) = (runner.info().vocab_size, runner.info().num_top_logits);
    assert_eq!(num_top, 256);
    let all = step(&mut runner, WantedRows::logits(&[0, 1, 2, 3])).logits;
    let rows = [3, 0, 2, 2, 1, 0];
    let inverse_temperatures = [1.0, 2.0, 0.5, 1.0, 3.0, 0.1];
    let top_logits = TopRows { rows: &rows, inverse_temperatures: &inverse_temperatures };
    let output = step(&mut runner, WantedRows { logits: &[1], top_logits, best_tokens: &[2, 3] });
    assert_eq!(output.best_tokens.len(), 2);
    let found: Vec<_> = StepOutput::top_rows(&output.top_logits, num_top).collect();
    assert_eq!(found.len(), rows.len());
    for ((top, row), scale) in found.iter().zip(rows).zip(inverse_temperatures) {
        let logits = &all[row as usize * vocab..][..NUM_TOKEN_IDS];
        let highest = logits[argmax(logits).unwrap() as usize];
        let total: f32 = logits.iter().map(|logit| ((logit - highest) * scale).exp()).sum();
        assert!((top.total / total - 1.0).abs() < 1e-5, "{} {total}", top.total);
        // Fewer ids take part than there is room for.
        let ids: BTreeSet<u32> = top.ids.iter().copied().filter(|id| *id != NO_TOKEN).collect();
        assert_eq!(ids, (0..NUM_TOKEN_IDS as u32).collect());
        assert!(top.ids.iter().zip(top.logits).all(|(id, logit)| *id == NO_TOKEN || logits[*id as usize] == *logit));
    }
    let top_logits = TopRows { rows: &rows[..2], inverse_temperatures: &inverse_temperatures[..2] };
    step(&mut runner, WantedRows { logits: &[1], top_logits, best_tokens: &[2] });
    let mut row = Vec::new();
    for (index, expected) in [1, 3, 0, 2].into_iter().enumerate() {
        runner.read_logits(index, &mut row).unwrap();
        assert_eq!(row, all[expected * vocab..][..vocab], "row {index}");
    }
}

/// Requests of all kinds in one batch get the tokens that they get where every row is read; most draws read a few hundred
/// logits, and those that need more read the row.
#[test]
fn draws_from_top_logits_are_those_from_whole_rows() {
    let num_bytes = Arc::new(AtomicUsize::new(0));
    let requests: Vec<SamplingParams> = (0..24)
        .map(|i| SamplingParams {
            temperature: [1.0, 0.6, 3.0, 0.0][i % 4],
            top_p: [1.0, 0.95][i / 4 % 2],
            top_k: [0, 20, 0][i % 3],
            min_p: if i % 5 == 4 { 0.05 } else { 0.0 },
            presence_penalty: if i % 7 == 6 { 0.5 } else { 0.0 },
            logprobs: (i % 11 == 10).then_some(2),
            seed: Some(i as u64),
            max_tokens: Some(24),
            ..SamplingParams::default()
        })
        .collect();
    let run = |engine: &Engine| {
        num_bytes.store(0, Ordering::Relaxed);
        let stream = |params: &SamplingParams| engine.stream("fn main() {", params.clone()).unwrap();
        let streams: Vec<_> = requests.iter().map(stream).collect();
        let tokens: Vec<_> = streams.into_iter().map(|stream| stream.collect_all().unwrap().token_ids).collect();
        (tokens, num_bytes.load(Ordering::Relaxed))
    };
    let counting = || CountingReads { inner: cpu(), num_bytes: num_bytes.clone() };
    let builder = || Engine::builder(model_dir("fp8")).max_num_seqs(24);
    let (expected, whole_bytes) = run(&builder().build_with(counting()).unwrap());
    let (found, top_bytes) = run(&builder().build_with(FindsTop(counting())).unwrap());
    assert_eq!(found, expected);
    assert!(expected.iter().any(|tokens| tokens != &expected[0]), "requests differ");
    assert!(top_bytes * 3 < whole_bytes * 2, "{top_bytes} of {whole_bytes} bytes");
    // Hot draws fall past the 256 likeliest of 4096 tokens at times: they alone read more than top logits.
    let hot = |top_p| SamplingParams { temperature: 3.0, top_p, max_tokens: Some(24), ..SamplingParams::default() };
    let engine = builder().build_with(FindsTop(counting())).unwrap();
    let bytes_of = |params| {
        num_bytes.store(0, Ordering::Relaxed);
        engine.generate("fn main() {", params).unwrap();
        num_bytes.load(Ordering::Relaxed)
    };
    let top_row = 4 * TopLogits::num_words(256);
    assert!(bytes_of(hot(1.0)) > 24 * top_row, "no row was needed");
    assert_eq!(bytes_of(SamplingParams { top_k: 50, ..hot(1.0) }), 24 * top_row);
}

#[test]
fn a_row_without_a_best_token_says_why() {
    let mut runner = load(BrokenRow(cpu()), &model_dir("fp8"));
    let output = step(&mut runner, WantedRows { logits: &[0], best_tokens: &[1, 2], ..WantedRows::default() });
    let error = SamplingError::NoCandidate { num_logits: NUM_TOKEN_IDS, num_nan: NUM_TOKEN_IDS - 1 };
    assert_eq!(output.best_tokens[0], Err(error));
    assert!(output.best_tokens[1].is_ok());
}
