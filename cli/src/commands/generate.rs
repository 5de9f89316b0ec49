//! `bathysphere generate`

use std::time::Duration;

use bathysphere::{Chunk, Timings, Usage};
use serde::Serialize;

use crate::args::GenerateArgs;
use crate::error::CliError;
use crate::generation::{Ending, Outcome, generate};
use crate::interrupt::Interrupt;
use crate::model;
use crate::output;
use crate::prompt::{self, Framing};

pub(crate) fn run(args: &GenerateArgs) -> Result<(), CliError> {
    let prompt = prompt::read(&args.prompt)?;
    let loaded = model::load(model::builder(&args.model)?.max_num_seqs(1))?;
    let framing = if args.raw { Framing::Raw } else { Framing::Chat };
    let tokens = prompt::encode(&loaded.engine, prompt, framing)?;
    let interrupt = Interrupt::install()?;

    let mut printer = Printer { is_silent: args.json, is_first: true };
    let show = |chunk: &Chunk| printer.print(chunk);
    let result = generate(&loaded.engine, &interrupt, tokens, args.sampling.params(), show)?;
    if args.json {
        output::json(&Report::new(&result, loaded.duration))?;
    } else {
        output::write("\n")?;
        if output::is_watched() {
            output::note(&result.summary());
        }
    }
    if result.ending == Ending::Interrupted { Err(CliError::Interrupted) } else { Ok(()) }
}

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    token_ids: &'a [u32],
    text: Option<&'a str>,
    finish_reason: Ending,
    usage: Usage,
    load_s: f64,
    #[serde(flatten)]
    timings: Timings,
}

impl<'a> Report<'a> {
    fn new(outcome: &'a Outcome, load: Duration) -> Self {
        Self {
            token_ids: &outcome.token_ids,
            text: outcome.text.as_deref(),
            finish_reason: outcome.ending,
            usage: outcome.usage,
            load_s: load.as_secs_f64(),
            timings: outcome.timings,
        }
    }
}

/// Text as it comes; ids where there is no tokenizer.
struct Printer {
    is_silent: bool,
    is_first: bool,
}

impl Printer {
    fn print(&mut self, chunk: &Chunk) -> Result<(), CliError> {
        if self.is_silent {
            return Ok(());
        }
        let is_first = std::mem::replace(&mut self.is_first, false);
        match &chunk.text {
            Some(text) => output::write(text),
            None if is_first => output::write(&chunk.token_id.to_string()),
            None => output::write(&format!(" {}", chunk.token_id)),
        }
    }
}
