//! Runs cases.

use std::panic::{AssertUnwindSafe, catch_unwind};

use engine_core::backend::Backend;
use engine_core::reference::ReferenceBackend;

use super::{CaseOutcome, Output, Profile, Report, Rig, Stop};
use crate::cases::{Case, cases};
use crate::oracle::Oracle;

/// Runs every case on `backend` and holds it against a reference with the profile's numerics.
pub fn run_all<B: Backend>(backend: &B, profile: &Profile) -> Report {
    run_selected(backend, profile, "")
}

/// Runs the cases whose name starts with `prefix`.
pub fn run_selected<B: Backend>(backend: &B, profile: &Profile, prefix: &str) -> Report {
    let reference = ReferenceBackend::new(profile.numerics);
    let mut report = Report::new(profile);
    for case in cases().into_iter().filter(|case| case.name().starts_with(prefix)) {
        report.add(&case, run_case(&case, backend, &reference, profile));
    }
    report
}

/// Runs one case on `backend` and on `reference`.
pub fn run_case<B: Backend>(case: &Case, backend: &B, reference: &ReferenceBackend, profile: &Profile) -> CaseOutcome {
    let found = match outputs(case, backend, profile) {
        Ok(found) => found,
        Err(stop) => return stop.into(),
    };
    match outputs(case, reference, profile) {
        Ok(expected) => CaseOutcome::judge(&expected, &found, &case.tolerance(profile)),
        Err(stop) => CaseOutcome::Failed { reason: format!("the reference itself: {stop:?}"), measured: None },
    }
}

/// Runs one case on `backend` and holds it against the oracle.
pub fn run_case_against_oracle<B: Backend>(case: &Case, backend: &B, profile: &Profile) -> CaseOutcome {
    match outputs(case, backend, profile) {
        Ok(found) => {
            let expected = case.oracle(Oracle { numerics: profile.numerics });
            CaseOutcome::judge(&expected, &found, &case.tolerance(profile))
        }
        Err(stop) => stop.into(),
    }
}

/// What a case yields on a backend. A panic is a failure of this case only.
///
/// # Errors
/// [`Stop`]: refused while loading, or failed.
pub fn outputs<B: Backend>(case: &Case, backend: &B, profile: &Profile) -> Result<Vec<Output>, Stop> {
    let run = || {
        let mut rig = Rig::new(backend, profile)?;
        let outputs = case.run_on(&mut rig)?;
        rig.finish()?;
        Ok(outputs)
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(Stop::Failed(format!("panicked: {text}")))
    })
}
