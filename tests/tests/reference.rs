//! The reference backend, the specification of all others, held against formulas in f64.
#![allow(clippy::print_stdout, reason = "the report of a test run")]

use conformance::cases::cases;
use conformance::harness::{Profile, Report, run_case_against_oracle};
use engine_core::quant::QuantisedInputs;
use engine_core::reference::{ActivationRounding, MlaForm, Numerics, ReferenceBackend};

fn holds_against_the_oracle(numerics: Numerics) {
    let profile = Profile::new(format!("reference, {numerics}"), numerics);
    let backend = ReferenceBackend::new(numerics);
    let mut report = Report::new(&profile);
    for case in cases() {
        report.add(&case, run_case_against_oracle(&case, &backend, &profile));
    }
    println!("{report}");
    report.assert_passed();
}

#[test]
fn exact_and_absorbed() {
    holds_against_the_oracle(Numerics::default());
}

#[test]
fn exact_and_not_absorbed() {
    holds_against_the_oracle(Numerics { mla_form: MlaForm::NonAbsorbed, ..Numerics::default() });
}

#[test]
fn quantised_activations() {
    holds_against_the_oracle(Numerics { linears: QuantisedInputs::ALL, ..Numerics::default() });
}

#[test]
fn bf16_activations() {
    holds_against_the_oracle(Numerics { activations: ActivationRounding::Bf16, ..Numerics::default() });
}

#[test]
fn case_names_are_unique() {
    let mut names: Vec<String> = cases().iter().map(|case| case.name()).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "a name is a case's seed and its address");
}
