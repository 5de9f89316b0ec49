//! `bathysphere bench`

mod traffic;

use std::time::Instant;

use bathysphere::{Engine, ModelConfig, SamplingParams, TokenStream};
use serde::Serialize;

use crate::args::BenchArgs;
use crate::bandwidth;
use crate::error::CliError;
use crate::model;
use crate::output::{self, count, rate};
use traffic::StepTraffic;

pub(crate) fn run(args: &BenchArgs) -> Result<(), CliError> {
    let config = ModelConfig::from_dir(&model::find(args.model.model.as_deref())?).map_err(bathysphere::Error::from)?;
    let window = window(args, &config)?;
    let builder = model::builder(&args.model)?
        .max_model_len(window)
        .max_num_seqs(args.batch)
        .max_num_batched_tokens(args.step_tokens())
        .num_cache_tokens(args.batch.saturating_mul(window));
    let plan = builder.plan()?;
    let loaded = model::load(builder)?;
    let bench = Bench { engine: &loaded.engine, args, vocab_size: config.vocab_size };
    let rates = bench.measure()?;

    // The host's memory says nothing about a device that has its own.
    let backend = loaded.engine.capabilities().backend.clone();
    let bandwidth = matches!(backend.as_str(), "cpu" | "reference").then(bandwidth::measure);
    let mean_seq_len = args.prompt_len + args.gen_len / 2;
    let traffic = StepTraffic::new(&plan, &config, args.batch, mean_seq_len);
    let step_s = args.batch as f64 / rates.decode_tok_s;
    let report = Report {
        device: format!("{backend}: {}", loaded.engine.capabilities().device),
        precision: args.model.precision.to_string(),
        prompt_len: args.prompt_len,
        gen_len: args.gen_len,
        batch: args.batch,
        load_s: loaded.duration.as_secs_f64(),
        prefill_tok_s: rates.prefill_tok_s,
        decode_tok_s: rates.decode_tok_s,
        decode_step_s: step_s,
        step_traffic: traffic,
        bandwidth_bytes_s: bandwidth,
        bandwidth_share_min: bandwidth.map(|most| traffic.min() as f64 / step_s / most),
        bandwidth_share_max: bandwidth.map(|most| traffic.max() as f64 / step_s / most),
    };
    if args.json { output::json(&report) } else { output::line(report.table()) }
}

/// Tokens a sequence may come to hold: while the last one is prefilled, those before it already decode.
fn window(args: &BenchArgs, config: &ModelConfig) -> Result<usize, CliError> {
    let prompt_tokens = args.batch.saturating_mul(args.prompt_len);
    let num_prefill_steps = prompt_tokens.div_ceil(args.step_tokens() - args.batch);
    let head_start = if args.batch > 1 { num_prefill_steps + 1 } else { 0 };
    let need = args.prompt_len.saturating_add(args.gen_len).saturating_add(head_start);
    let have = args.model.max_model_len.unwrap_or(config.max_position_embeddings);
    if need > have { Err(CliError::BenchTooLong { need, have }) } else { Ok(need) }
}

struct Bench<'a> {
    engine: &'a Engine,
    args: &'a BenchArgs,
    vocab_size: usize,
}

struct Rates {
    prefill_tok_s: f64,
    /// Of all sequences together.
    decode_tok_s: f64,
}

impl Bench<'_> {
    /// Medians of `--runs` runs, after one that does not count.
    fn measure(&self) -> Result<Rates, CliError> {
        let bar = output::progress_bar("measuring {bar:32} {pos}/{len} runs");
        bar.set_length(self.args.runs as u64 + 1);
        let (mut prefills, mut decodes) = (Vec::new(), Vec::new());
        for run in 0..=self.args.runs {
            let (prefill, decode) = (self.prefill()?, self.decode()?);
            if run > 0 {
                prefills.push(prefill);
                decodes.push(decode);
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(Rates { prefill_tok_s: median(prefills), decode_tok_s: median(decodes) })
    }

    /// Prompt tokens per second, with nothing decoded meanwhile.
    fn prefill(&self) -> Result<f64, CliError> {
        let start = Instant::now();
        let streams: Result<Vec<TokenStream>, CliError> =
            (0..self.args.batch).map(|i| self.submit(i, Some(1))).collect();
        for stream in streams? {
            stream.collect_all()?;
        }
        Ok((self.args.batch * self.args.prompt_len) as f64 / start.elapsed().as_secs_f64())
    }

    /// Generated tokens per second. Requests are served in order of arrival, one token each per step: from the last
    /// one's first token on, every step decodes the whole batch. The others go on until the last one is done.
    fn decode(&self) -> Result<f64, CliError> {
        let last = self.args.batch - 1;
        let others: Result<Vec<TokenStream>, CliError> = (0..last).map(|i| self.submit(i, None)).collect();
        let others = others?;
        let measured = self.submit(last, Some(self.args.gen_len))?.collect_all()?;
        drop(others);
        Ok(self.args.batch as f64 * measured.timings.decode_tok_s)
    }

    fn submit(&self, index: usize, max_tokens: Option<usize>) -> Result<TokenStream, CliError> {
        let params = SamplingParams { max_tokens, ignore_eos: true, ..SamplingParams::greedy() };
        Ok(self.engine.stream(random_tokens(index as u64, self.args.prompt_len, self.vocab_size), params)?)
    }
}

/// SplitMix64: the same ids for the same seed, everywhere.
fn random_tokens(seed: u64, len: usize, vocab_size: usize) -> Vec<u32> {
    let mut state = seed.wrapping_mul(0xD134_2543_DE82_EF95);
    let next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % vocab_size as u64) as u32
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    device: String,
    precision: String,
    prompt_len: usize,
    gen_len: usize,
    batch: usize,
    load_s: f64,
    prefill_tok_s: f64,
    /// Of all sequences together.
    decode_tok_s: f64,
    decode_step_s: f64,
    step_traffic: StepTraffic,
    /// `None` for a device with memory of its own.
    bandwidth_bytes_s: Option<f64>,
    bandwidth_share_min: Option<f64>,
    bandwidth_share_max: Option<f64>,
}

impl Report {
    fn table(&self) -> String {
        let range = |min: String, max: String| if min == max { min } else { format!("{min} to {max}") };
        let mib = |bytes: u64| format!("{:.2}", bytes as f64 / f64::from(1 << 20));
        let StepTraffic { weight_bytes_min, weight_bytes_max, cache_bytes } = self.step_traffic;
        let mut rows = vec![
            ("device", self.device.clone()),
            ("precision", self.precision.clone()),
            ("prompt tokens", count(self.prompt_len)),
            ("generated tokens", count(self.gen_len)),
            ("batch", count(self.batch)),
            ("prefill tok/s", rate(self.prefill_tok_s)),
            ("decode tok/s", rate(self.decode_tok_s)),
            ("decode step ms", format!("{:.3}", 1e3 * self.decode_step_s)),
            ("weights read per step, MiB", range(mib(weight_bytes_min), mib(weight_bytes_max))),
            ("latent cache read per step, MiB", mib(cache_bytes)),
        ];
        if let (Some(bandwidth), Some(min), Some(max)) =
            (self.bandwidth_bytes_s, self.bandwidth_share_min, self.bandwidth_share_max)
        {
            let percent = |share: f64| format!("{:.1} %", 100.0 * share);
            rows.push(("memory bandwidth, GB/s", format!("{:.1}", bandwidth / 1e9)));
            rows.push(("share of it", range(percent(min), percent(max))));
        }
        output::table(&rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_differ_and_repeat() {
        let tokens = random_tokens(0, 100, 4096);
        assert_eq!(tokens, random_tokens(0, 100, 4096));
        assert_ne!(tokens, random_tokens(1, 100, 4096));
        assert!(tokens.iter().all(|id| *id < 4096));
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}
