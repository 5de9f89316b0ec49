//! What was compared and what was over tolerance.

use crate::backend::Comparison;
use crate::quant::QuantisedInputs;
use crate::reference::{ActivationRounding, Numerics};

/// How far an op may be from the reference that was given the same inputs. Both bounds must hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CheckedTolerance {
    /// Bound on [`Comparison::nmse`].
    pub nmse: f64,
    /// Bound on [`Comparison::max_error`].
    pub max_error: f64,
}

impl CheckedTolerance {
    /// Wide enough for one op of any size in these numerics; tight enough that a wrong element of a small tensor or a
    /// wrong row of a large one is over it. The conformance suite holds each op to far less.
    pub fn of(numerics: Numerics) -> Self {
        // Squares of a few unit roundoffs: 2^-24 with sums of thousands of terms, 2^-9 for bf16.
        let rounding = match numerics.activations {
            ActivationRounding::F32 => Self { nmse: 1e-8, max_error: 1e-2 },
            ActivationRounding::Bf16 => Self { nmse: 5e-5, max_error: 1e-1 },
        };
        // A rounding may move an input across one quantisation step of e4m3, 1/8 of its value.
        let steps = match numerics.linears {
            QuantisedInputs::NONE => Self { nmse: 0.0, max_error: 0.0 },
            QuantisedInputs { .. } => Self { nmse: 1e-4, max_error: 1e-1 },
        };
        Self { nmse: rounding.nmse + steps.nmse, max_error: rounding.max_error + steps.max_error }
    }
}

/// An op whose result was over tolerance.
///
/// A router that decides a near tie the other way is reported too: `expected` and `found` then differ by a whole combine
/// weight in a single row, while a wrong router differs in many.
#[derive(Debug, Clone, PartialEq)]
pub struct Mismatch {
    /// Name of the trait's method.
    pub op: &'static str,
    /// Layer of the latent cache that the most recent MLA op named: the op's own layer, except for what runs before
    /// the attention of the next one.
    pub layer: Option<usize>,
    /// Row of the largest difference.
    pub row: usize,
    /// Column of the largest difference; for `moe_gate` the expert.
    pub column: usize,
    /// Value of the reference there; for `moe_gate` the combine weight of the expert, 0 if it was not chosen.
    pub expected: f32,
    /// Value of the backend there.
    pub found: f32,
    /// [`Comparison::nmse`] of the whole result.
    pub nmse: f64,
    /// [`Comparison::max_error`] of the whole result.
    pub max_error: f64,
    /// What was allowed.
    pub tolerance: CheckedTolerance,
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.op)?;
        if let Some(layer) = self.layer {
            write!(f, " (layer {layer})")?;
        }
        let Self { row, column, expected, found, nmse, max_error, tolerance, .. } = self;
        write!(
            f,
            ": row {row}, column {column}: expected {expected}, found {found}; nmse {nmse:.2e} (allowed {:.2e}), largest \
             error {max_error:.2e} of the rms (allowed {:.2e})",
            tolerance.nmse, tolerance.max_error
        )
    }
}

#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) first: Option<Mismatch>,
    pub(super) num_mismatches: usize,
    pub(super) num_compared: usize,
}

impl Record {
    pub(super) fn judge(
        &mut self,
        tolerance: CheckedTolerance,
        (op, layer, cols): (&'static str, Option<usize>, usize),
        expected: &[f32],
        found: &[f32],
    ) {
        if expected.is_empty() {
            return;
        }
        self.num_compared += 1;
        let Comparison { nmse, max_error, worst, expected, found } = Comparison::of(expected, found);
        if nmse <= tolerance.nmse && max_error <= tolerance.max_error {
            return;
        }
        self.num_mismatches += 1;
        if self.first.is_none() {
            let (row, column) = (worst / cols, worst % cols);
            let mismatch = Mismatch { op, layer, row, column, expected, found, nmse, max_error, tolerance };
            tracing::error!("first op over tolerance: {mismatch}");
            self.first = Some(mismatch);
        }
    }
}
