//! [`Traced`] changes nothing, [`Checked`] names the op at fault, and the suite itself finds every fault.
#![allow(clippy::unwrap_used)]

use conformance::cases::{Case, cases};
use conformance::faulty::{Fault, Faulty, OPS};
use conformance::harness::{CaseOutcome, Profile, outputs, run_all, run_case, run_selected};
use engine_core::backend::{
    Backend, CacheFormat, CacheSpec, Checked, HostBuffer, LayerStep, MlaPrologIo, NO_TOKEN, PAD_SLOT, PrepareError,
    StepError, Tensor, Traced, delegate_backend,
};
use engine_core::reference::{Numerics, ReferenceBackend, ReferenceCache};

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

/// The reference with a mistake in what its FP8 cache holds.
struct Caching {
    inner: ReferenceBackend,
    rank: usize,
    /// Given what is stored of `kv_c` in a slot.
    spoil: fn(&mut [f32]),
    format: CacheFormat,
}

impl Backend for Caching {
    delegate_backend!(
        inner: ReferenceBackend; types, device, uncaptured, prepare except [latent_cache], ops except [mla_prolog]
    );

    fn latent_cache(&self, spec: &CacheSpec) -> Result<ReferenceCache, PrepareError> {
        self.inner.latent_cache(&CacheSpec { format: self.format, ..*spec })
    }

    fn mla_prolog(
        &self,
        stream: &mut <Self as Backend>::Stream,
        mla: &<Self as Backend>::Mla,
        step: LayerStep<'_, HostBuffer>,
        io: MlaPrologIo<'_, Self>,
    ) -> Result<(), StepError> {
        let MlaPrologIo { x, cache, queries } = io;
        self.inner.mla_prolog(stream, mla, step, MlaPrologIo { x, cache, queries })?;
        let written = step.meta.host().slot_mapping.iter().filter(|slot| **slot != PAD_SLOT);
        written.for_each(|slot| (self.spoil)(&mut cache.slot_mut(step.layer, *slot as usize)[..self.rank]));
        Ok(())
    }
}

fn amax(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, value| value.abs().max(most))
}

#[test]
fn every_usual_mistake_in_an_fp8_cache_is_found() {
    let run = |(case, rank): (&str, usize), format, spoil: fn(&mut [f32])| {
        let backend = Caching { inner: reference(), rank, spoil, format };
        run_selected(&backend, &profile(), &format!("mla/fp8-cache/{case}"))
    };
    // Latents of one group, of one and a short one, of four.
    let [one, ragged, four] = [
        ("bf16/batch/q_lora, 4 heads", 32),
        ("bf16/chunked/direct q, 3 heads 20/12/28/b", 140),
        ("bf16/long/direct", 512),
    ];
    for cases in [one, ragged, four] {
        run(cases, CacheFormat::Fp8, |_| {}).assert_passed();
        let not_found = || panic!("not found over {}", cases.0);
        // Values that are not rounded at all.
        run(cases, CacheFormat::Native, |_| {}).failures().next().map_or_else(not_found, |_| ());
        // Scales of another power.
        let halved: fn(&mut [f32]) = |kv_c| kv_c.iter_mut().for_each(|value| *value *= 0.5);
        run(cases, CacheFormat::Fp8, halved).failures().next().map_or_else(not_found, |_| ());
    }
    // The scales of the first two groups exchanged: scales go with the largest magnitudes.
    let exchanged: fn(&mut [f32]) = |kv_c| {
        let (first, second) = kv_c.split_at_mut(128);
        let end = second.len().min(128);
        let second = &mut second[..end];
        let ratio = amax(second) / amax(first);
        first.iter_mut().for_each(|value| *value *= ratio);
        second.iter_mut().for_each(|value| *value /= ratio);
    };
    for cases in [ragged, four] {
        assert!(run(cases, CacheFormat::Fp8, exchanged).failures().count() > 0, "not found over {}", cases.0);
    }
    // A last group that is not stored.
    let cut: fn(&mut [f32]) = |kv_c| kv_c[128..].fill(0.0);
    assert!(run(ragged, CacheFormat::Fp8, cut).failures().count() > 0);
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
