//! `bathysphere score`

use std::time::Instant;

use bathysphere::{DraftReport, ScoreOptions};
use serde::Serialize;

use crate::args::ScoreArgs;
use crate::error::CliError;
use crate::interrupt::Interrupt;
use crate::logits_file;
use crate::model;
use crate::output::{self, count, rate};
use crate::prompt::{self, Framing};

pub(crate) fn run(args: &ScoreArgs) -> Result<(), CliError> {
    let prompt = prompt::read(&args.prompt)?;
    let loaded = model::load(model::builder(&args.model)?.max_num_seqs(1).load_mtp(args.mtp))?;
    let engine = loaded.engine;
    let tokens = prompt::encode(&engine, prompt, Framing::Raw)?;
    if tokens.len() < 2 {
        return Err(CliError::NothingToScore { num_tokens: tokens.len() });
    }
    let window = args.window.unwrap_or(engine.info().limits.max_model_len);
    let start = Instant::now();
    let scored = engine.score(&tokens, ScoreOptions { window: Some(window), drafts: args.mtp })?;
    let score_s = start.elapsed().as_secs_f64();
    if let Some(path) = &args.logits {
        logits_file::write(&engine, &Interrupt::install()?, &tokens, window, path)?;
    }
    let report = Report {
        tokens: scored.tokens.len(),
        window,
        nll_sum: scored.nll_sum,
        nll_mean: scored.nll_mean,
        perplexity: scored.perplexity,
        drafts: scored.drafts.map(Drafts::new),
        load_s: loaded.duration.as_secs_f64(),
        score_s,
        tok_s: scored.tokens.len() as f64 / score_s.max(f64::MIN_POSITIVE),
    };
    if args.json { output::json(&report) } else { output::line(report.table()) }
}

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    /// Predicted tokens: all but the first.
    tokens: usize,
    window: usize,
    nll_sum: f64,
    nll_mean: f64,
    perplexity: f64,
    drafts: Option<Drafts>,
    load_s: f64,
    score_s: f64,
    tok_s: f64,
}

#[derive(Debug, Serialize)]
struct Drafts {
    #[serde(flatten)]
    report: DraftReport,
    acceptance: f64,
}

impl Drafts {
    fn new(report: DraftReport) -> Self {
        Self { report, acceptance: report.equal as f64 / (report.compared.max(1)) as f64 }
    }
}

impl Report {
    fn table(&self) -> String {
        let mut rows = vec![
            ("tokens predicted", count(self.tokens)),
            ("window", count(self.window)),
            ("sum of NLL", format!("{:.4}", self.nll_sum)),
            ("mean NLL", format!("{:.5}", self.nll_mean)),
            ("perplexity", format!("{:.4}", self.perplexity)),
            ("tok/s", rate(self.tok_s)),
        ];
        if let Some(drafts) = &self.drafts {
            let DraftReport { equal, compared } = drafts.report;
            rows.push(("drafts accepted", format!("{} of {}", count(equal), count(compared))));
            rows.push(("acceptance", format!("{:.2} %", 100.0 * drafts.acceptance)));
        }
        output::table(&rows)
    }
}
