//! The table of a run.

use std::collections::BTreeMap;

use super::{CaseOutcome, Measured, Profile};
use crate::cases::Case;

/// All outcomes of one backend; [`Display`](std::fmt::Display) draws an aligned table and a closing count.
#[derive(Debug, Clone)]
pub struct Report {
    profile: Profile,
    rows: Vec<Row>,
}

/// One case of a report.
#[derive(Debug, Clone)]
pub struct Row {
    /// The case's name.
    pub case: String,
    /// Why its tolerance is what it is.
    pub tolerance: String,
    /// How it came out.
    pub outcome: CaseOutcome,
    /// What that means, given what was declared.
    pub verdict: Verdict,
}

/// What an outcome means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Within tolerance.
    Passed,
    /// Refused, as declared.
    Unsupported,
    /// Over tolerance, refused without declaration, or run in spite of one.
    Failed(String),
}

impl Report {
    /// An empty report.
    pub fn new(profile: &Profile) -> Self {
        Self { profile: profile.clone(), rows: Vec::new() }
    }

    /// Adds a case.
    pub fn add(&mut self, case: &Case, outcome: CaseOutcome) {
        let name = case.name();
        let declared = self.profile.unsupported.iter().find(|declared| name.starts_with(declared.prefix));
        let verdict = match (&outcome, declared) {
            (CaseOutcome::Passed(_), None) => Verdict::Passed,
            (CaseOutcome::Unsupported(_), Some(_)) => Verdict::Unsupported,
            (CaseOutcome::Failed { reason, .. }, _) => Verdict::Failed(reason.clone()),
            (CaseOutcome::Unsupported(unsupported), None) => Verdict::Failed(format!("not declared: {unsupported}")),
            (CaseOutcome::Passed(_), Some(declared)) => Verdict::Failed(format!(
                "declared unsupported ({}) but it runs: remove the declaration of {:?}",
                declared.reason, declared.prefix
            )),
        };
        let tolerance = case.tolerance(&self.profile).reason;
        self.rows.push(Row { case: name, tolerance, outcome, verdict });
    }

    /// Every case.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Cases that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| matches!(row.verdict, Verdict::Failed(_)))
    }

    fn count(&self, wanted: &Verdict) -> usize {
        self.rows.iter().filter(|row| row.verdict == *wanted).count()
    }

    /// Fails the test that called it unless every case passed or was refused as declared, and there was at least one.
    ///
    /// # Panics
    /// With the failed cases and the closing count.
    pub fn assert_passed(&self) {
        let failed: Vec<String> = self.failures().map(|row| format!("  {}: {:?}", row.case, row.verdict)).collect();
        assert!(failed.is_empty(), "{}\n{}", failed.join("\n"), self.closing_count());
        let expected = self.rows.len() - self.count(&Verdict::Unsupported);
        assert!(self.count(&Verdict::Passed) == expected && expected > 0, "{}", self.closing_count());
    }

    /// `N passed, M unsupported (reasons), K failed`.
    pub fn closing_count(&self) -> String {
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        for row in &self.rows {
            if let CaseOutcome::Unsupported(unsupported) = &row.outcome {
                *reasons.entry(unsupported.to_string()).or_default() += 1;
            }
        }
        let reasons: Vec<String> = reasons.into_iter().map(|(reason, count)| format!("{count} x {reason}")).collect();
        let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) };
        format!(
            "{}: {} passed, {} unsupported{reasons}, {} failed, of {} cases",
            self.profile.name,
            self.count(&Verdict::Passed),
            self.count(&Verdict::Unsupported),
            self.failures().count(),
            self.rows.len()
        )
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = self.rows.iter().map(|row| row.case.len()).max().unwrap_or(0).max(4);
        writeln!(
            f,
            "{:<width$}  {:>8}  {:>8}  {:>7}  {:<11}  tolerance",
            "case", "nmse", "max err", "budget", "verdict"
        )?;
        for row in &self.rows {
            write!(f, "{:<width$}  ", row.case)?;
            match measured(&row.outcome) {
                Some(Measured { nmse, max_error, share_of_budget }) => {
                    write!(f, "{nmse:>8.1e}  {max_error:>8.1e}  {:>6.1}%", share_of_budget * 100.0)?;
                }
                None => write!(f, "{:>8}  {:>8}  {:>7}", "-", "-", "-")?,
            }
            match &row.verdict {
                Verdict::Passed => writeln!(f, "  {:<11}  {}", "passed", row.tolerance)?,
                Verdict::Unsupported => writeln!(f, "  unsupported")?,
                Verdict::Failed(reason) => writeln!(f, "  FAILED       {reason}")?,
            }
        }
        writeln!(f, "{}", self.closing_count())
    }
}

fn measured(outcome: &CaseOutcome) -> Option<Measured> {
    match outcome {
        CaseOutcome::Passed(measured) => Some(*measured),
        CaseOutcome::Failed { measured, .. } => *measured,
        CaseOutcome::Unsupported(_) => None,
    }
}
