//! `bathysphere batch`

use bathysphere::{Engine, FinishReason, SamplingParams, Timings, TokenStream, Usage};
use serde::Serialize;

use crate::args::BatchArgs;
use crate::batch_input::{self, BatchRequest, LineError};
use crate::error::CliError;
use crate::interrupt::{Event, Interrupt, Stoppable};
use crate::model;
use crate::output;
use crate::output_file::OutputFile;
use crate::prompt::{self, Framing};

pub(crate) fn run(args: &BatchArgs) -> Result<(), CliError> {
    let text = prompt::read_text(&args.input_file)?;
    let bad_line = |line| move |error| CliError::BatchLine { path: args.input_file.clone(), line, error };
    let requests = batch_input::parse(&text, &args.sampling.params()).map_err(|(line, error)| bad_line(line)(error))?;
    let engine = model::load(model::builder(&args.model)?.max_num_seqs(args.max_num_seqs))?.engine;
    let framing = if args.raw { Framing::Raw } else { Framing::Chat };
    let interrupt = Interrupt::install()?;
    let stoppable = interrupt.stoppable();
    // Every line is checked before a result is written.
    let mut streams = Vec::with_capacity(requests.len());
    for request in requests {
        let line = request.line;
        let stream =
            submit(&engine, request, framing).map_err(|error| bad_line(line)(LineError::Engine(Box::new(error))))?;
        streams.push((line, stream));
    }
    let mut sink = Sink::new(args)?;
    let bar = output::progress_bar("{bar:32} {pos}/{len} prompts");
    bar.set_length(streams.len() as u64);
    for (index, (line, stream)) in streams.into_iter().enumerate() {
        let result = collect(&stoppable, stream, index, line)?;
        bar.suspend(|| sink.write(&result))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    sink.finish()
}

fn submit(engine: &Engine, request: BatchRequest, framing: Framing) -> Result<TokenStream, bathysphere::Error> {
    let tokens = request.encode(engine, framing)?;
    let params: SamplingParams = request.params;
    engine.stream(tokens, params)
}

/// One line of the output.
#[derive(Debug, Serialize)]
struct BatchResult {
    /// Place among the prompts, from 0.
    index: usize,
    /// Line of the input, from 1.
    line: usize,
    token_ids: Vec<u32>,
    text: Option<String>,
    finish_reason: FinishReason,
    usage: Usage,
    timings: Timings,
}

fn collect(
    stoppable: &Stoppable<'_>,
    mut stream: TokenStream,
    index: usize,
    line: usize,
) -> Result<BatchResult, CliError> {
    let mut token_ids = Vec::new();
    let mut text: Option<String> = None;
    while let Event::Token(chunk) = stoppable.next(&mut stream)? {
        token_ids.push(chunk.token_id);
        if let Some(piece) = &chunk.text {
            text.get_or_insert_default().push_str(piece);
        }
        if let Some(end) = chunk.finished {
            let (finish_reason, usage, timings) = (end.reason, end.usage, end.timings);
            return Ok(BatchResult { index, line, token_ids, text, finish_reason, usage, timings });
        }
    }
    Err(CliError::Interrupted)
}

/// Where the results go.
enum Sink {
    Stdout,
    File(OutputFile),
}

impl Sink {
    fn new(args: &BatchArgs) -> Result<Self, CliError> {
        Ok(match &args.output {
            None => Sink::Stdout,
            Some(path) => Sink::File(OutputFile::create(path)?),
        })
    }

    fn write(&mut self, result: &BatchResult) -> Result<(), CliError> {
        match self {
            Sink::Stdout => output::json(result),
            Sink::File(file) => file.write(|out| {
                serde_json::to_writer(&mut *out, result)?;
                out.write_all(b"\n")
            }),
        }
    }

    fn finish(self) -> Result<(), CliError> {
        match self {
            Sink::Stdout => Ok(()),
            Sink::File(file) => file.commit(),
        }
    }
}
