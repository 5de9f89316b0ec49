//! Decode steps that are recorded and replayed against the same steps launched.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};

use backend_ascend::AscendBackend;
use engine_core::Error;
use engine_core::backend::{Backend, Replayed, SequenceStep, StepError, StepLayout, StepLimits, delegate_backend};
use engine_core::quant::Precision;
use engine_core::runner::{Runner, StepOutput, StepRunner, WantedRows};
use serde_json::{Value, json};

use super::steady::{MODEL, NUM_LAYERS, load};
use crate::golden::argmax;

const LIMITS: StepLimits =
    StepLimits { max_num_batched_tokens: 64, max_num_seqs: 4, max_model_len: 512, block_size: 64 };
/// Prompts of the sequences that come in turn.
const PROMPT_LENS: [usize; 4] = [5, 40, 17, 254];
/// Who decodes, and how many tokens: alone, with padding, longer than the shortest bucket, fewer again.
const STAGES: [(&[usize], usize); 5] = [(&[0], 4), (&[0, 1], 4), (&[0, 1, 2], 4), (&[1, 3], 5), (&[0, 1, 2, 3], 3)];

/// The same device, its steps padded and launched.
struct Launched<B>(B);

impl<B: Backend> Backend for Launched<B> {
    type Graph = Infallible;

    delegate_backend!(0: B; types, device, prepare, ops);

    fn captures(&self) -> bool {
        self.0.captures()
    }

    fn replay(&self, _: &mut Self::Stream, graph: &Infallible) -> Result<Replayed, StepError> {
        match *graph {}
    }
}

/// The same device, whose recorded work is never told of another step than the first.
struct Stale<B> {
    inner: B,
    first: Mutex<Option<StepLayout>>,
}

impl<B: Backend> Backend for Stale<B> {
    type Graph = B::Graph;

    delegate_backend!(inner: B; types, device, prepare, ops);

    fn captures(&self) -> bool {
        self.inner.captures()
    }

    fn capture(
        &self,
        stream: &mut B::Stream,
        run: &mut dyn FnMut(&mut B::Stream) -> Result<(), StepError>,
    ) -> Result<Option<B::Graph>, StepError> {
        self.inner.capture(stream, run)
    }

    fn prepare_replay(&self, stream: &mut B::Stream, graph: &B::Graph, layout: &StepLayout) -> Result<(), StepError> {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let known = first.get_or_insert_with(|| layout.clone());
        let lengths = if known.num_seqs() == layout.num_seqs() { &known.seq_lens } else { &layout.seq_lens };
        let stale = StepLayout { seq_lens: lengths.clone(), ..layout.clone() };
        self.inner.prepare_replay(stream, graph, &stale)
    }

    fn replay(&self, stream: &mut B::Stream, graph: &B::Graph) -> Result<Replayed, StepError> {
        self.inner.replay(stream, graph)
    }
}

/// The model of widths that one operator takes for all of attention's first half.
fn wide() -> String {
    let widths = [
        ("\"hidden_size\": 128", "\"hidden_size\": 1024"),
        ("\"q_lora_rank\": 64", "\"q_lora_rank\": 1536"),
        ("\"qk_nope_head_dim\": 64", "\"qk_nope_head_dim\": 128"),
    ];
    widths.iter().fold(MODEL.to_owned(), |model, (narrow, wide)| model.replace(narrow, wide))
}

/// Mixed steps in bf16 and INT8: whether logits and best tokens are the same bits, and how many steps were replayed.
///
/// # Errors
/// What keeps the device from being opened, or the model from being made, loaded or run.
pub fn capture(ordinal: u32) -> Result<(bool, Value), Error> {
    let (mut passed, mut runs) = (true, Vec::new());
    let wide = wide();
    for (name, model, precision) in
        [("bf16", MODEL, Precision::Bf16), ("int8", MODEL, Precision::Int8), ("wide bf16", &wide, Precision::Bf16)]
    {
        let open = || AscendBackend::open(ordinal);
        let mut replayed = load(open()?, model, precision, LIMITS)?;
        let mut launched = load(Launched(open()?), model, precision, LIMITS)?;
        let different = decode(&mut replayed, &mut launched)?;
        let stale = Stale { inner: open()?, first: Mutex::default() };
        let mut stale = load(stale, model, precision, LIMITS)?;
        let mut launched_again = load(Launched(open()?), model, precision, LIMITS)?;
        let different_if_stale = decode(&mut stale, &mut launched_again)?.len();
        let counts = replayed.backend().counts();
        let holds = different.is_empty()
            && different_if_stale > 0
            && counts.replays > 0
            && counts.updates == NUM_LAYERS * counts.replays;
        passed &= holds;
        runs.push(json!({
            "precision": name,
            "steps": STAGES.iter().map(|(_, steps)| steps).sum::<usize>(),
            "replays": counts.replays,
            "updates": counts.updates,
            "replays_of_launched": launched.backend().0.counts().replays,
            "different": different,
            "different_without_updates": different_if_stale,
            "holds": holds,
        }));
    }
    Ok((passed, json!({ "check": "capture", "runs": runs })))
}

/// The stages on both, and the steps whose results differ.
fn decode<A: Backend, B: Backend>(a: &mut Runner<A>, b: &mut Runner<B>) -> Result<Vec<String>, Error> {
    let mut tokens: [Vec<u32>; 4] =
        std::array::from_fn(|seq| (0..PROMPT_LENS[seq] as u32).map(|i| (i * 7 + seq as u32 * 31) % 256).collect());
    let mut num_computed = [0; 4];
    let mut different = Vec::new();
    for (stage, (sequences, num_steps)) in STAGES.into_iter().enumerate() {
        for step in 0..num_steps {
            for seq in sequences {
                while tokens[*seq].len() - num_computed[*seq] > 1 {
                    let count = (tokens[*seq].len() - 1 - num_computed[*seq]).min(LIMITS.max_num_batched_tokens);
                    run((a, b), &[(*seq, count)], &tokens, &mut num_computed)?;
                }
            }
            let parts: Vec<(usize, usize)> = sequences.iter().map(|seq| (*seq, 1)).collect();
            let [found, expected] = run((a, b), &parts, &tokens, &mut num_computed)?;
            let bits = |output: &StepOutput| output.logits.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            if bits(&found) != bits(&expected) || found.best_tokens != expected.best_tokens {
                different.push(format!("stage {stage}, step {step}"));
            }
            let best = expected.logits.chunks(b.info().vocab_size).map(argmax);
            let next = best.chain(expected.best_tokens.iter().map(|best| best.clone().unwrap_or_default()));
            sequences.iter().zip(next).for_each(|(seq, token)| tokens[*seq].push(token));
        }
    }
    Ok(different)
}

/// Some tokens of some sequences on both: the logits of the last of each, of the last sequence the best token.
fn run<A: Backend, B: Backend>(
    (a, b): (&mut Runner<A>, &mut Runner<B>),
    parts: &[(usize, usize)],
    tokens: &[Vec<u32>; 4],
    num_computed: &mut [usize; 4],
) -> Result<[StepOutput; 2], Error> {
    let blocks: [Vec<u32>; 4] = std::array::from_fn(|seq| (0..8).map(|block| (8 * seq + block) as u32).collect());
    let (mut steps, mut rows, mut end) = (Vec::new(), Vec::new(), 0);
    for (seq, count) in parts {
        let first = num_computed[*seq];
        steps.push(SequenceStep {
            tokens: &tokens[*seq][first..first + count],
            context_len: first,
            block_table: &blocks[*seq][..(first + count).div_ceil(LIMITS.block_size)],
        });
        end += count;
        rows.push(end as u32 - 1);
    }
    let mut outputs = [StepOutput::default(), StepOutput::default()];
    let (logits, best_tokens) = rows.split_at(rows.len() - 1);
    let wanted = WantedRows { logits, best_tokens, ..WantedRows::default() };
    a.step(&steps, wanted, &mut outputs[0])?;
    b.step(&steps, wanted, &mut outputs[1])?;
    for (seq, count) in parts {
        num_computed[*seq] += count;
    }
    Ok(outputs)
}
