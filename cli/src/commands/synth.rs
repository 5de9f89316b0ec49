//! `bathysphere synth`

use bathysphere::synth::{SynthFormat, SynthOptions, synth_checkpoint};

use crate::args::{StoredPrecision, SynthArgs};
use crate::error::CliError;
use crate::output::{self, count};
use crate::prompt;

pub(crate) fn run(args: &SynthArgs) -> Result<(), CliError> {
    let config = prompt::read_text(&args.config)?;
    let options = SynthOptions {
        format: match args.precision {
            StoredPrecision::Fp8 => SynthFormat::Fp8Block,
            StoredPrecision::Bf16 => SynthFormat::Bf16,
        },
        layers: args.layers,
        dense_layers: args.dense_layers,
        seed: args.seed,
        with_mtp: args.mtp,
    };
    let bar = output::progress_bar(output::BYTES_BAR);
    let report = synth_checkpoint(&config, &args.output, &options, &mut |progress| {
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.done_bytes);
    });
    bar.finish_and_clear();
    let report = report?;
    output::line(output::table(&[
        ("checkpoint", report.path.display().to_string()),
        ("tensors", count(report.num_tensors)),
        ("files", count(report.num_shards)),
        ("size", output::bytes(report.total_bytes)),
    ]))
}
