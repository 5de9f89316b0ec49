//! [`Traced`] changes nothing, [`Checked`] names the op at fault, and the suite itself finds every fault.
#![allow(clippy::unwrap_used)]

use conformance::cases::{Case, cases};
use conformance::faulty::{Fault, Faulty, OPS};
use conformance::harness::{CaseOutcome, Profile, outputs, run_all, run_case, run_selected};
use engine_core::backend::{Backend, Checked, HostBuffer, NO_TOKEN, StepError, Tensor, Traced, delegate_backend};
use engine_core::reference::{Numerics, ReferenceBackend};

fn reference() -> ReferenceBackend {
    ReferenceBackend::new(Numerics::default())
}

fn profile() -> Profile {
    Profile::new("wrappers", Numerics::default())
}

/// The op that a case's name begins with; both MLA ops share their cases.
fn cases_of(op: &str) -> Vec<Case> {
    let family = if op.starts_with("mla_") { "mla" } else { op };
    let few = cases().into_iter().filter(|case| case.name().starts_with(&format!("{family}/")));
    let few: Vec<Case> = few.take(4).collect();
    assert!(!few.is_empty(), "no case for {op}");
    few
}

#[test]
fn the_suite_finds_every_fault_in_every_case() {
    for (op, fault) in OPS.into_iter().flat_map(|op| Fault::ALL.map(|fault| (op, fault))) {
        // The fault of mla_prolog goes into a private copy of its input, where a guard row is nobody's.
        if (op, fault) == ("mla_prolog", Fault::GuardRow) {
            continue;
        }
        let backend = Faulty::new(reference(), op, fault);
        for case in cases_of(op) {
            let outcome = run_case(&case, &backend, &reference(), &profile());
            assert!(matches!(outcome, CaseOutcome::Failed { .. }), "{op}, {fault:?}: {} {outcome:?}", case.name());
        }
    }
}

/// The reference with another choice of the highest logit.
struct Choosing {
    inner: ReferenceBackend,
    /// The id among the row's logits, of which the first take part.
    choose: fn(row: &[f32], num_ids: usize) -> Option<usize>,
}

impl Backend for Choosing {
    delegate_backend!(inner: ReferenceBackend; types, device, uncaptured, prepare, ops except [argmax]);

    fn argmax(
        &self,
        _: &mut <Self as Backend>::Stream,
        logits: &Tensor<HostBuffer, f32>,
        num_ids: usize,
        out: &mut Tensor<HostBuffer, u32>,
    ) -> Result<(), StepError> {
        for (row, out) in out.as_mut_slice().iter_mut().enumerate() {
            *out = (self.choose)(logits.row(row), num_ids).map_or(NO_TOKEN, |id| id as u32);
        }
        Ok(())
    }
}

/// The last id for which `is_better(value, best so far)`, starting at `floor`.
fn last_better(row: &[f32], floor: f32, is_better: fn(f32, f32) -> bool) -> Option<usize> {
    let better = |best: (Option<usize>, f32), (id, value): (usize, &f32)| {
        if is_better(*value, best.1) { (Some(id), *value) } else { best }
    };
    row.iter().enumerate().fold((None, floor), better).0
}

#[test]
fn every_usual_mistake_in_an_argmax_is_found() {
    type Choose = fn(&[f32], usize) -> Option<usize>;
    let run = |choose: Choose| run_selected(&Choosing { inner: reference(), choose }, &profile(), "argmax/");
    run(|row, n| last_better(&row[..n], f32::NEG_INFINITY, |v, best| v > best)).assert_passed();
    let mistakes: [(&str, Choose); 6] = [
        ("ids without a token", |row, _| last_better(row, f32::NEG_INFINITY, |v, best| v > best)),
        ("the last of equals", |row, n| {
            last_better(&row[..n], f32::NEG_INFINITY, |v, best| v >= best && v != f32::NEG_INFINITY)
        }),
        ("0 above -0", |row, n| {
            last_better(&row[..n], f32::NEG_INFINITY, |v, best| v.total_cmp(&best).is_gt() && !v.is_nan())
        }),
        ("NaN wins", |row, n| last_better(&row[..n], f32::NEG_INFINITY, |v, best| v.is_nan() || v > best)),
        ("starts at the lowest number", |row, n| last_better(&row[..n], f32::MIN, |v, best| v > best)),
        ("an id where there is none", |row, n| {
            last_better(&row[..n], f32::NEG_INFINITY, |v, best| v > best).or(Some(0))
        }),
    ];
    for (mistake, choose) in mistakes {
        assert!(run(choose).failures().count() > 0, "not found: {mistake}");
    }
}

#[test]
fn a_declared_refusal_that_does_not_happen_fails() {
    let declared = conformance::harness::DeclaredUnsupported { prefix: "add/1x64", reason: "no adder" };
    let report = run_selected(&reference(), &profile().with_unsupported(&[declared]), "add/");
    let failed: Vec<&str> = report.failures().map(|row| row.case.as_str()).collect();
    assert_eq!(failed, ["add/1x64"]);
    assert!(report.to_string().contains("remove the declaration"), "{report}");
}

#[test]
fn traced_yields_the_same_bits_and_times_every_op() {
    let traced = Traced::timed(reference());
    for case in cases() {
        let bits = |outputs: Vec<conformance::harness::Output>| -> Vec<u32> {
            outputs.iter().flat_map(|output| &output.values).map(|v| v.to_bits()).collect()
        };
        let expected = bits(outputs(&case, &reference(), &profile()).unwrap());
        let found = bits(outputs(&case, &traced, &profile()).unwrap());
        assert_eq!(found, expected, "{}", case.name());
    }
    let timings = traced.report();
    let ops: Vec<&str> = timings.iter().filter(|(_, timing)| timing.count > 0).map(|(op, _)| op).collect();
    let mut expected = OPS.to_vec();
    expected.sort_unstable();
    assert_eq!(ops, expected);
    let table = timings.to_string();
    assert_eq!(table.lines().count(), 1 + OPS.len(), "{table}");
    let widths: Vec<usize> = table.lines().map(|line| line.chars().count()).collect();
    assert!(widths.iter().all(|width| *width == widths[0]), "columns are aligned\n{table}");
}

#[test]
fn traced_without_timings_reports_nothing() {
    let traced = Traced::new(reference());
    run_selected(&traced, &profile(), "add/").assert_passed();
    assert_eq!(traced.report().iter().count(), 0);
}

#[test]
fn checked_passes_the_suite_and_finds_nothing_in_a_sound_backend() {
    let checked = Checked::new(reference());
    run_all(&checked, &profile()).assert_passed();
    assert_eq!(checked.first_mismatch(), None);
    assert!(checked.num_compared() > cases().len());
}

#[test]
fn checked_names_the_op_at_fault() {
    for (op, fault) in OPS.into_iter().flat_map(|op| [(op, Fault::WrongElement), (op, Fault::NotANumber)]) {
        let checked = Checked::new(Faulty::new(reference(), op, fault));
        for case in cases_of(op) {
            outputs(&case, &checked, &profile()).unwrap();
        }
        let mismatch = checked.first_mismatch().unwrap_or_else(|| panic!("{op}, {fault:?}: not found"));
        // The outputs of the prolog are opaque: its fault shows where they are used.
        let shown = if op == "mla_prolog" { "mla_attention" } else { op };
        assert_eq!(mismatch.op, shown, "{mismatch}");
        assert_eq!(mismatch.layer, op.starts_with("mla_").then_some(1), "{mismatch}");
        assert!(mismatch.to_string().starts_with(shown), "{mismatch}");
        assert!(checked.num_mismatches() > 1, "it goes on after the first");
    }
}

#[test]
fn checked_points_at_the_wrong_element() {
    let checked = Checked::new(Faulty::new(reference(), "linear", Fault::WrongElement));
    let case = cases().into_iter().find(|case| case.name() == "linear/bf16/160x256/rows 3").unwrap();
    outputs(&case, &checked, &profile()).unwrap();
    let mismatch = checked.first_mismatch().unwrap();
    assert_eq!((mismatch.row, mismatch.column), (2, 159), "{mismatch}");
    assert_eq!(mismatch.found, 2.0 * mismatch.expected + 1.0, "{mismatch}");
}
