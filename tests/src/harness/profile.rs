//! What a backend rounds, and the tolerances that follow from it.

use engine_core::backend::Comparison;
use engine_core::quant::QuantisedInputs;
use engine_core::reference::{ActivationRounding, Numerics};

use super::{Format, Measured};

/// Unit roundoff of f32.
const F32_ROUNDOFF: f64 = 1.0 / (1u64 << 24) as f64;
/// Unit roundoff of bf16.
const BF16_ROUNDOFF: f64 = 1.0 / (1u64 << 9) as f64;

/// What the suite needs to know about a backend. Data: a backend states it in its test file.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Heading of the report.
    pub name: String,
    /// What the backend rounds; the reference and the oracle do the same.
    pub numerics: Numerics,
    /// Unit roundoff of the coarsest rounding of operands inside an op.
    pub unit_roundoff: f64,
    /// What the backend is known not to run. A declared refusal that does not happen is a failure.
    pub unsupported: Vec<DeclaredUnsupported>,
}

/// The cases of an FP8 latent cache, for backends that have none.
pub const NO_FP8_CACHE: DeclaredUnsupported =
    DeclaredUnsupported { prefix: "mla/fp8-cache/", reason: "its latent cache is in its own element only" };

/// The cases of top logits, for backends of which [`finds_top_logits`](engine_core::backend::Backend::finds_top_logits) is
/// false.
pub const NO_TOP_LOGITS: DeclaredUnsupported =
    DeclaredUnsupported { prefix: "top_logits/", reason: "whole rows are read for a draw" };

/// Cases that a backend is known to refuse.
#[derive(Debug, Clone, Copy)]
pub struct DeclaredUnsupported {
    /// Start of the cases' names.
    pub prefix: &'static str,
    /// Why.
    pub reason: &'static str,
}

impl Profile {
    /// Everything is supported, and operands are rounded as activations are.
    pub fn new(name: impl Into<String>, numerics: Numerics) -> Self {
        let unit_roundoff = match numerics.activations {
            ActivationRounding::F32 => F32_ROUNDOFF,
            ActivationRounding::Bf16 => BF16_ROUNDOFF,
        };
        Self { name: name.into(), numerics, unit_roundoff, unsupported: Vec::new() }
    }

    /// For backends with f32 activations that multiply bf16 operands.
    #[must_use]
    pub fn with_bf16_products(mut self) -> Self {
        self.unit_roundoff = BF16_ROUNDOFF;
        self
    }

    /// Declares refusals.
    #[must_use]
    pub fn with_unsupported(mut self, unsupported: &[DeclaredUnsupported]) -> Self {
        self.unsupported.extend_from_slice(unsupported);
        self
    }
}

/// One rounding stage of an op: a sum of products, its operands and its result rounded.
#[derive(Debug, Clone, Copy)]
pub struct Stage {
    /// Products in the sum.
    pub terms: usize,
    /// Format of the weight, if the stage is a linear.
    pub format: Option<Format>,
    /// Whether values are quantised because they are stored so, whatever the backend does to activations.
    pub is_stored: bool,
}

impl Stage {
    /// A linear with `terms` inputs.
    pub fn linear(format: Format, terms: usize) -> Self {
        Self { terms, format: Some(format), is_stored: false }
    }

    /// Any other sum.
    pub fn sum(terms: usize) -> Self {
        Self { terms, format: None, is_stored: false }
    }

    /// `terms` values that are stored in e4m3 and read back together.
    pub fn stored_in_fp8(terms: usize) -> Self {
        Self { terms, format: Some(Format::Fp8), is_stored: true }
    }

    /// Expected squared error relative to the squared result.
    fn variance(self, profile: &Profile) -> f64 {
        let terms = self.terms as f64;
        let rounding = terms * F32_ROUNDOFF.powi(2) + 2.0 * profile.unit_roundoff.powi(2);
        rounding + self.input_step(profile).map_or(0.0, |step| step * step / terms)
    }

    fn input_step(self, profile: &Profile) -> Option<f64> {
        let linears = if self.is_stored { QuantisedInputs::ALL } else { profile.numerics.linears };
        self.format.and_then(|format| format.input_step(linears))
    }
}

/// How far a result may be from what is expected. Both bounds must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Tolerance {
    /// Bound on the normalised mean squared error.
    pub nmse: f64,
    /// Bound on the largest error over the root mean square.
    pub max_error: f64,
    /// Where the bounds come from.
    pub reason: String,
}

impl Tolerance {
    /// For ops that copy.
    pub fn exact() -> Self {
        Self { nmse: 0.0, max_error: 0.0, reason: "copies".into() }
    }

    /// For a chain of stages: the sum of their variances, times 4 (a sum in sequence errs by less than half of the
    /// square root of its length in roundoffs), times `gain` for what amplifies errors on the way.
    pub fn of_stages(profile: &Profile, stages: &[Stage], gain: f64) -> Self {
        let nmse = 4.0 * gain * stages.iter().map(|stage| stage.variance(profile)).sum::<f64>();
        let terms: usize = stages.iter().filter(|stage| !stage.is_stored).map(|stage| stage.terms).sum();
        let mut reason = format!("f32 sums of {terms} terms");
        if profile.unit_roundoff > F32_ROUNDOFF {
            reason += &format!(", {} bf16 roundings", 2 * stages.len());
        }
        if stages.iter().any(|stage| !stage.is_stored && stage.input_step(profile).is_some()) {
            reason += ", an input per row one quantisation step off";
        }
        if let Some(stage) = stages.iter().find(|stage| stage.is_stored) {
            reason += &format!(", one of {} stored values a quantisation step off", stage.terms);
        }
        if gain != 1.0 {
            reason += &format!(", amplified {gain:.0} times");
        }
        // 16 standard deviations: results differ in size, errors grow with them.
        Self { nmse, max_error: 16.0 * nmse.sqrt(), reason }
    }

    /// Errors and their share of what is allowed; nothing allowed and nothing found is no share.
    pub fn measure(&self, comparison: &Comparison) -> Measured {
        let share = |error: f64, allowed: f64| if error == 0.0 { 0.0 } else { error / allowed };
        let Comparison { nmse, max_error, .. } = *comparison;
        let share_of_budget = share(nmse, self.nmse).max(share(max_error, self.max_error));
        Measured { nmse, max_error, share_of_budget }
    }
}
