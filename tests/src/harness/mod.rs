//! What every case is run with: seeded inputs, guarded memory, tolerances, outcomes and the report.

mod not_run;
mod outcome;
mod profile;
mod report;
mod rig;
mod rng;
mod run;
mod weights;

pub use not_run::not_run;
pub use outcome::{CaseOutcome, Measured, Output, Stop};
pub use profile::{DeclaredUnsupported, NO_FP8_CACHE, NO_TOP_LOGITS, Profile, Stage, Tolerance};
pub use report::{Report, Row, Verdict};
pub use rig::{Guarded, Rig};
pub use rng::Rng;
pub use run::{outputs, run_all, run_case, run_case_against_oracle, run_selected};
pub(crate) use weights::e4m3;
pub use weights::{Format, TestWeight};
