//! Two backends on one device, given the same products: are the results the same, and who is faster?
//!
//! Scales differ from block to block on both sides, so that a scale that meets the wrong block shows.

use engine_core::Error;
use engine_core::backend::{ActTensor, Backend, Comparison, Element, Tensor};
use engine_core::quant::QuantisedInputs;
use engine_core::quant::{FP8_BLOCK, Fp8BlockWeight, HostWeight, MatrixShape, ScaleFormat};
use engine_core::reference::{ActivationRounding, Numerics};
use serde::Serialize;

use super::Scale;
use super::kernels::{codes, fp8_linears, num_copies};
use super::timing::seconds_per_run;
use crate::harness::{Format, Profile, Rng, Stage, Tolerance};

/// One product, by both.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PairRow {
    /// The product's shape.
    pub what: String,
    /// Rows of its input.
    pub rows: usize,
    /// Median times, in milliseconds.
    pub ours_ms: f64,
    /// The other's.
    pub theirs_ms: f64,
    /// Our time over theirs: above 1 they are faster.
    pub ratio: f64,
    /// Share of elements that are the same to the last bit.
    pub same: f64,
    /// Mean squared difference over the mean square of our results, and its bound.
    pub nmse: f64,
    /// See `nmse`.
    pub max_nmse: f64,
    /// Largest difference over the root mean square of our results, and its bound.
    pub max_error: f64,
    /// See `max_error`.
    pub max_max_error: f64,
    /// Row and column of the largest difference, our value and theirs.
    pub worst: ((usize, usize), f32, f32),
    /// Both bounds are kept.
    pub agrees: bool,
    /// The other one did compute it.
    pub is_theirs: bool,
}

/// Multiplies with every FP8 weight of the table of kernels, by both backends in turns. `num_theirs` counts products that the
/// other one computed in its own way; `tell` hears each row.
///
/// # Errors
/// As the backends report them.
pub fn pair_products<B: Backend>(
    [ours, theirs]: [&B; 2],
    scale: Scale,
    num_theirs: impl Fn() -> u64,
    mut tell: impl FnMut(&PairRow),
) -> Result<Vec<PairRow>, Error> {
    // The last of each are no multiple of four, or of anything.
    let all_rows: &[usize] = match scale {
        Scale::Full => &[64, 128, 512, 4096, 4095],
        Scale::Quick => &[128, 4096, 4095],
        Scale::Tiny => &[64, 67],
    };
    let mut measured = Vec::new();
    for (name, out, inp) in fp8_linears(scale) {
        let host = weight(out, inp)?;
        let [mut ours, mut theirs] = [Side::new(ours, &host, scale)?, Side::new(theirs, &host, scale)?];
        for &rows in all_rows {
            let x = activations(rows, inp);
            let before = num_theirs();
            let (our_values, ours_s) = ours.multiply(&x, (rows, out, inp))?;
            let (their_values, theirs_s) = theirs.multiply(&x, (rows, out, inp))?;
            let is_theirs = num_theirs() > before;
            let row = PairRow {
                what: format!("linear fp8 {name} {out}x{inp}"),
                rows,
                ours_ms: 1e3 * ours_s,
                theirs_ms: 1e3 * theirs_s,
                ratio: ours_s / theirs_s,
                is_theirs,
                ..compared(&our_values, &their_values, (out, inp))
            };
            tell(&row);
            measured.push(row);
        }
    }
    Ok(measured)
}

/// Both results keep to the tolerance of a linear, so their difference is at most twice as large: four times when squared.
/// Their inputs are the same codes, so that no quantisation step comes between them.
fn compared(ours: &[f32], theirs: &[f32], (out, inp): (usize, usize)) -> PairRow {
    let numerics =
        Numerics { activations: ActivationRounding::Bf16, linears: QuantisedInputs::NONE, ..Numerics::default() };
    let profile = Profile::new("a pair", numerics);
    let Tolerance { nmse, max_error, .. } = Tolerance::of_stages(&profile, &[Stage::linear(Format::Fp8, inp)], 1.0);
    let (max_nmse, max_max_error) = (4.0 * nmse, 2.0 * max_error);
    let found = Comparison::of(ours, theirs);
    let num_same = ours.iter().zip(theirs).filter(|(ours, theirs)| ours.to_bits() == theirs.to_bits()).count();
    let agrees = found.is_within(max_nmse, max_max_error) && ours.iter().all(|value| value.is_finite());
    PairRow {
        what: String::new(),
        rows: 0,
        ours_ms: 0.0,
        theirs_ms: 0.0,
        ratio: 0.0,
        same: num_same as f64 / ours.len() as f64,
        nmse: found.nmse,
        max_nmse,
        max_error: found.max_error,
        max_max_error,
        worst: ((found.worst / out, found.worst % out), found.expected, found.found),
        agrees,
        is_theirs: false,
    }
}

/// Every code but the NaNs, and scales from a half to twice of what keeps results near 1.
fn weight(out: usize, inp: usize) -> Result<HostWeight, Error> {
    let mut random = Rng::from_name(&format!("scales {out}x{inp}"));
    let near_one = 1.0 / (128.0 * (inp as f32).sqrt());
    let num_scales = out.div_ceil(FP8_BLOCK) * inp.div_ceil(FP8_BLOCK);
    let scales: Vec<f32> = (0..num_scales).map(|_| near_one * random.uniform(0.5, 2.0)).collect();
    let shape = MatrixShape::new(out, inp);
    Ok(HostWeight::Fp8Block(Fp8BlockWeight::new(shape, codes(out * inp).into(), scales.into(), ScaleFormat::F32)?))
}

/// Normal values, each group of 128 in its own size.
fn activations(rows: usize, inp: usize) -> Vec<f32> {
    let mut random = Rng::from_name(&format!("activations {rows}x{inp}"));
    let mut values = Vec::with_capacity(rows * inp);
    for _ in 0..rows {
        for first in (0..inp).step_by(FP8_BLOCK) {
            let size = random.uniform(0.25, 4.0);
            values.extend((first..inp.min(first + FP8_BLOCK)).map(|_| size * random.normal()));
        }
    }
    values
}

/// One backend with copies of a weight, which together exceed a card's cache.
struct Side<'a, B: Backend> {
    backend: &'a B,
    stream: B::Stream,
    copies: Vec<B::Linear>,
    num_runs: usize,
}

impl<'a, B: Backend> Side<'a, B> {
    fn new(backend: &'a B, host: &HostWeight, scale: Scale) -> Result<Self, Error> {
        let (num_copies, num_runs) = match scale {
            Scale::Full | Scale::Quick => (num_copies(host.num_bytes() as f64), 16),
            Scale::Tiny => (1, 2),
        };
        let copies = (0..num_copies).map(|_| backend.prepare_linear(host.clone())).collect::<Result<_, _>>()?;
        Ok(Self { backend, stream: backend.stream()?, copies, num_runs: num_runs.max(num_copies) })
    }

    /// The product, and the seconds that it takes.
    fn multiply(&mut self, x: &[f32], (rows, out, inp): (usize, usize, usize)) -> Result<(Vec<f32>, f64), Error> {
        let Self { backend, stream, copies, num_runs } = self;
        let x: Vec<B::Act> = x.iter().map(|value| B::Act::from_f32(*value)).collect();
        let x: ActTensor<B> = Tensor::from_slice(*backend, stream, inp, &x)?;
        let mut y: ActTensor<B> = Tensor::alloc(*backend, rows, out)?;
        let seconds = seconds_per_run(*backend, stream, *num_runs, |stream, run| {
            backend.linear(stream, &copies[run % copies.len()], &x, &mut y)
        })?;
        let mut values = Vec::new();
        y.read(*backend, stream, &mut values)?;
        Ok((values.into_iter().map(Element::to_f32).collect(), seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_that_differ_in_roundings_agree_and_others_do_not() {
        let ours: Vec<f32> = (0..512).map(|i| (i as f32 - 255.5) / 64.0).collect();
        let with = |change: fn(usize, f32) -> f32| -> PairRow {
            let theirs: Vec<f32> = ours.iter().enumerate().map(|(i, value)| change(i, *value)).collect();
            compared(&ours, &theirs, (32, 1024))
        };
        let same = with(|_, value| value);
        assert!(same.agrees && same.same == 1.0 && same.nmse == 0.0);
        let rounded = with(|_, value| half::bf16::from_f32(value).to_f32());
        assert!(rounded.agrees && rounded.same < 1.0);
        for (what, wrong) in [
            ("a scale of another block", with(|i, value| if i < 128 { 2.0 * value } else { value })),
            ("one element", with(|i, value| if i == 300 { value + 1.0 } else { value })),
            ("one that was not written", with(|i, value| if i == 511 { f32::NAN } else { value })),
        ] {
            assert!(!wrong.agrees, "{what}: {wrong:?}");
        }
        assert_eq!(with(|i, value| if i == 300 { value + 1.0 } else { value }).worst.0, (9, 12));
    }
}
