//! Results of one case.

use engine_core::backend::{Comparison, PrepareError, StepError, Unsupported};

use super::Tolerance;

/// One tensor that a case yields.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// What it is.
    pub name: String,
    /// Elements per row.
    pub cols: usize,
    /// Live rows.
    pub values: Vec<f32>,
}

impl Output {
    /// A named tensor.
    pub fn new(name: impl Into<String>, cols: usize, values: Vec<f32>) -> Self {
        Self { name: name.into(), cols, values }
    }
}

/// Why a case yields nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The backend refused while loading.
    Unsupported(Unsupported),
    /// Anything else: a failed step, a touched guard row, an output that is no output.
    Failed(String),
}

impl From<PrepareError> for Stop {
    fn from(error: PrepareError) -> Self {
        match error {
            PrepareError::Unsupported(unsupported) => Stop::Unsupported(unsupported),
            other => Stop::Failed(format!("prepare: {other}")),
        }
    }
}

impl From<StepError> for Stop {
    fn from(error: StepError) -> Self {
        Stop::Failed(format!("step: {error}"))
    }
}

/// How a case came out.
#[derive(Debug, Clone, PartialEq)]
pub enum CaseOutcome {
    /// Within tolerance.
    Passed(Measured),
    /// Over tolerance, or nothing to measure.
    Failed {
        /// What went wrong.
        reason: String,
        /// The worst output, if there is any.
        measured: Option<Measured>,
    },
    /// Refused while loading, with the backend's reason.
    Unsupported(Unsupported),
}

/// The worst output of a case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Normalised mean squared error.
    pub nmse: f64,
    /// Largest error over the root mean square of what was expected.
    pub max_error: f64,
    /// The larger of both errors' shares of what is allowed; at most 1 in a case that passed.
    pub share_of_budget: f64,
}

impl CaseOutcome {
    /// Holds what was found against what was expected.
    pub fn judge(expected: &[Output], found: &[Output], tolerance: &Tolerance) -> Self {
        let shapes = |outputs: &[Output]| -> Vec<_> {
            outputs.iter().map(|output| (output.name.clone(), output.cols, output.values.len())).collect()
        };
        if shapes(expected) != shapes(found) || expected.is_empty() {
            let reason = format!("outputs {:?}, expected {:?}", shapes(found), shapes(expected));
            return CaseOutcome::Failed { reason, measured: None };
        }
        let mut worst: Option<(Measured, Comparison, &Output)> = None;
        for (expected, found) in expected.iter().zip(found) {
            let comparison = Comparison::of(&expected.values, &found.values);
            let measured = tolerance.measure(&comparison);
            if worst.as_ref().is_none_or(|(w, ..)| measured.share_of_budget > w.share_of_budget) {
                worst = Some((measured, comparison, expected));
            }
        }
        let Some((measured, comparison, output)) = worst else {
            return CaseOutcome::Failed { reason: "no outputs".into(), measured: None };
        };
        if measured.share_of_budget <= 1.0 {
            return CaseOutcome::Passed(measured);
        }
        let Comparison { worst, expected, found, .. } = comparison;
        let (row, column) = (worst / output.cols, worst % output.cols);
        let reason = format!(
            "{}: row {row}, column {column}: expected {expected}, found {found} (allowed nmse {:.1e}, largest error \
             {:.1e}: {})",
            output.name, tolerance.nmse, tolerance.max_error, tolerance.reason
        );
        CaseOutcome::Failed { reason, measured: Some(measured) }
    }
}

impl From<Stop> for CaseOutcome {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Unsupported(unsupported) => CaseOutcome::Unsupported(unsupported),
            Stop::Failed(reason) => CaseOutcome::Failed { reason, measured: None },
        }
    }
}
