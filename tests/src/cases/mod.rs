//! The cases, as data. Each can run on any backend and knows what the oracle expects.

mod argmax;
mod elementwise;
mod experts;
mod ffn;
mod gate;
mod linear;
mod logit_rows;
mod mla;
mod script;
mod top_logits;

pub use argmax::ArgmaxCase;
pub use elementwise::ElementwiseCase;
pub use experts::ExpertsCase;
pub use ffn::FfnCase;
pub use gate::GateCase;
pub use linear::LinearCase;
pub use mla::MlaCase;
pub use top_logits::TopLogitsCase;

use engine_core::backend::Backend;

use crate::harness::{Output, Profile, Rig, Stop, Tolerance};
use crate::oracle::Oracle;

/// One conformance case. Names start with the op, so that a prefix selects an op, a format, a shape.
#[derive(Debug, Clone)]
pub enum Case {
    /// Embedding, norms, sums, copies.
    Elementwise(ElementwiseCase),
    /// Linears and the head.
    Linear(LinearCase),
    /// The highest logit.
    Argmax(ArgmaxCase),
    /// The highest logits.
    TopLogits(TopLogitsCase),
    /// Gated FFN.
    Ffn(FfnCase),
    /// Both MLA ops together: queries and cache are opaque.
    Mla(MlaCase),
    /// Routers.
    Gate(GateCase),
    /// Routed and shared experts.
    Experts(ExpertsCase),
}

/// Every case, in the order of the report.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(elementwise::cases().into_iter().map(Case::Elementwise));
    cases.extend(linear::cases().into_iter().map(Case::Linear));
    cases.extend(argmax::cases().into_iter().map(Case::Argmax));
    cases.extend(top_logits::cases().into_iter().map(Case::TopLogits));
    cases.extend(ffn::cases().into_iter().map(Case::Ffn));
    cases.extend(mla::cases().into_iter().map(Case::Mla));
    cases.extend(gate::cases().into_iter().map(Case::Gate));
    cases.extend(experts::cases().into_iter().map(Case::Experts));
    cases
}

impl Case {
    /// Unique name; also the seed of its inputs.
    pub fn name(&self) -> String {
        match self {
            Case::Elementwise(case) => case.name(),
            Case::Linear(case) => case.name(),
            Case::Argmax(case) => case.name(),
            Case::TopLogits(case) => case.name(),
            Case::Ffn(case) => case.name(),
            Case::Mla(case) => case.name(),
            Case::Gate(case) => case.name(),
            Case::Experts(case) => case.name(),
        }
    }

    /// What a backend with this profile may differ by.
    pub fn tolerance(&self, profile: &Profile) -> Tolerance {
        match self {
            Case::Elementwise(case) => case.tolerance(profile),
            Case::Linear(case) => case.tolerance(profile),
            Case::Argmax(case) => case.tolerance(),
            Case::TopLogits(case) => case.tolerance(),
            Case::Ffn(case) => case.tolerance(profile),
            Case::Mla(case) => case.tolerance(profile),
            Case::Gate(case) => case.tolerance(),
            Case::Experts(case) => case.tolerance(profile),
        }
    }

    /// Runs on a backend.
    ///
    /// # Errors
    /// [`Stop`]: refused while loading, or failed.
    pub fn run_on<B: Backend>(&self, rig: &mut Rig<'_, B>) -> Result<Vec<Output>, Stop> {
        match self {
            Case::Elementwise(case) => case.run_on(rig),
            Case::Linear(case) => case.run_on(rig),
            Case::Argmax(case) => case.run_on(rig),
            Case::TopLogits(case) => case.run_on(rig),
            Case::Ffn(case) => case.run_on(rig),
            Case::Mla(case) => case.run_on(rig),
            Case::Gate(case) => case.run_on(rig),
            Case::Experts(case) => case.run_on(rig),
        }
    }

    /// What the formulas give.
    pub fn oracle(&self, oracle: Oracle) -> Vec<Output> {
        match self {
            Case::Elementwise(case) => case.oracle(oracle),
            Case::Linear(case) => case.oracle(oracle),
            Case::Argmax(case) => case.oracle(oracle),
            Case::TopLogits(case) => case.oracle(oracle),
            Case::Ffn(case) => case.oracle(oracle),
            Case::Mla(case) => case.oracle(oracle),
            Case::Gate(case) => case.oracle(oracle),
            Case::Experts(case) => case.oracle(oracle),
        }
    }
}
