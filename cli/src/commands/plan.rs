//! `bathysphere plan`

use crate::args::PlanArgs;
use crate::error::CliError;
use crate::model;
use crate::output;

pub(crate) fn run(args: &PlanArgs) -> Result<(), CliError> {
    let builder = model::builder(&args.model)?.load_mtp(args.mtp).max_num_seqs(args.max_num_seqs);
    let plan = builder.plan()?;
    if args.json { output::json(&plan) } else { output::line(plan) }
}
