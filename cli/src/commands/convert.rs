//! `bathysphere convert`

use bathysphere::convert::{ConvertOptions, convert_checkpoint};

use crate::args::ConvertArgs;
use crate::error::CliError;
use crate::output::{self, count};

pub(crate) fn run(args: &ConvertArgs) -> Result<(), CliError> {
    let bar = output::progress_bar(output::BYTES_BAR);
    let options = ConvertOptions { policy: args.precision.clone() };
    let report = convert_checkpoint(&args.input, &args.output, &options, &mut |progress| {
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.done_bytes);
    });
    bar.finish_and_clear();
    let report = report?;
    output::line(output::table(&[
        ("checkpoint", report.path.display().to_string()),
        ("weights converted", count(report.num_converted)),
        ("tensors copied", count(report.num_copied)),
        ("files", count(report.num_shards)),
        ("size", output::bytes(report.total_bytes)),
    ]))
}
