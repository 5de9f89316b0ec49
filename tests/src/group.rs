//! What the backends of a group owe each other: sums over all ranks, in the order of their streams, the same everywhere.

use std::thread;

use engine_core::Error;
use engine_core::backend::{ActTensor, Backend, Element, StepError, Tensor, Unavailable};
use engine_core::quant::{Precision, PrecisionPolicy};
use serde_json::{Value, json};

use crate::golden::{GoldenMode, Goldens, MAX_ACCEPTANCE_ERROR, heldout, load_tiny_group};
use crate::harness::Rng;

/// Rows and columns that are summed, one after the other; one value, sizes that no vector divides, the sums of a prompt.
const SHAPES: [(usize, usize); 5] = [(1, 1), (1, 7168), (3, 257), (64, 256), (1, 256)];

/// Rows past the live ones, which a sum leaves alone.
const GUARD_ROWS: usize = 2;

/// Whether sums over the devices that `open` opens are right and the tiny model on them is as good as its golden, in each of
/// these precisions as far as its perplexity may be from that, and the figures.
///
/// # Errors
/// What keeps the devices from being opened, or the model from being loaded.
///
/// # Panics
/// When a device fails.
pub fn check_group<B: Backend>(
    open: impl Fn() -> Result<Vec<B>, Unavailable>,
    precisions: &[(Precision, f64)],
) -> Result<(bool, Value), Error> {
    let ranks = open()?;
    let (world_size, faults) = (ranks.len(), check_all_reduce(&ranks));
    drop(ranks);
    let (goldens, mode) = (Goldens::load(), GoldenMode::Bf16WeightsBf16);
    let (mut passed, mut runs) = (faults.is_empty(), Vec::new());
    for (precision, max_perplexity_error) in precisions {
        let mut runner = load_tiny_group(open()?, &mode.model_dir(), &PrecisionPolicy::uniform(*precision))?;
        let result = heldout(&goldens, mode, ("heldout_kjv.txt", 512), runner.as_mut());
        let error = (result.perplexity / result.golden_perplexity - 1.0).abs();
        let acceptance_error = (result.draft_acceptance - result.golden_draft_acceptance).abs();
        let holds = error < *max_perplexity_error && acceptance_error < MAX_ACCEPTANCE_ERROR;
        passed &= holds;
        runs.push(json!({
            "mode": mode.name(),
            "precision": precision.to_string(),
            "perplexity": result.perplexity,
            "golden_perplexity": result.golden_perplexity,
            "max_error": max_perplexity_error,
            "draft_acceptance": result.draft_acceptance,
            "golden_draft_acceptance": result.golden_draft_acceptance,
            "holds": holds,
        }));
    }
    Ok((passed, json!({ "check": "group", "world_size": world_size, "all_reduce_faults": faults, "runs": runs })))
}

/// Sums random values over the ranks of a group, each on a thread of its own, and returns what was wrong: nothing, on a
/// backend whose [`all_reduce`](Backend::all_reduce) is right.
///
/// Values are compared with their sum in f64. A rank's partial sum may be rounded to the activation's type at each of the
/// W - 1 additions, half a unit in the last place of at most Σ|v|. Every sum is taken twice over without waiting in between,
/// so a sum that does not follow the stream's order is seen.
pub fn check_all_reduce<B: Backend>(ranks: &[B]) -> Vec<String> {
    let results: Vec<Result<Vec<Vec<f32>>, StepError>> = thread::scope(|scope| {
        let threads: Vec<_> = ranks.iter().map(|rank| scope.spawn(|| sums_of(rank))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    });
    let mut faults = Vec::new();
    let mut sums: Vec<Vec<Vec<f32>>> = Vec::new();
    for (rank, result) in results.into_iter().enumerate() {
        match result {
            Ok(values) => sums.push(values),
            Err(error) => faults.push(format!("rank {rank}: {error}")),
        }
    }
    if faults.is_empty() {
        for (case, shape) in SHAPES.into_iter().enumerate() {
            let of_case: Vec<&[f32]> = sums.iter().map(|rank| rank[case].as_slice()).collect();
            faults.extend(fault_in::<B>(case, shape, &of_case));
        }
    }
    faults
}

/// What rank `rank` brings to a case.
fn inputs<B: Backend>(case: usize, rank: usize, len: usize) -> Vec<B::Act> {
    let mut rng = Rng::from_name(&format!("all_reduce/{case}/{rank}"));
    (0..len).map(|_| B::Act::from_f32(rng.uniform(-1.0, 1.0))).collect()
}

/// A rank's tensors after each case, guard rows included.
fn sums_of<B: Backend>(backend: &B) -> Result<Vec<Vec<f32>>, StepError> {
    let mut stream = backend.stream()?;
    let mut tensors = Vec::new();
    for (case, (rows, cols)) in SHAPES.into_iter().enumerate() {
        let values = inputs::<B>(case, backend.rank().index(), (rows + GUARD_ROWS) * cols);
        let mut tensor: ActTensor<B> = Tensor::from_slice(backend, &mut stream, cols, &values)?;
        tensor.set_rows(rows);
        backend.all_reduce(&mut stream, &mut tensor)?;
        backend.all_reduce(&mut stream, &mut tensor)?;
        tensors.push(tensor);
    }
    let read = |tensor: &mut ActTensor<B>| {
        let mut values = Vec::new();
        tensor.set_rows(tensor.capacity());
        tensor.read(backend, &mut stream, &mut values)?;
        Ok(values.into_iter().map(Element::to_f32).collect())
    };
    tensors.iter_mut().map(read).collect()
}

/// The first thing wrong with what the ranks have after a case.
fn fault_in<B: Backend>(case: usize, (rows, cols): (usize, usize), found: &[&[f32]]) -> Option<String> {
    let world_size = found.len();
    let brought: Vec<Vec<B::Act>> =
        (0..world_size).map(|rank| inputs::<B>(case, rank, (rows + GUARD_ROWS) * cols)).collect();
    // Half a unit in the last place of bf16 is 2^-9 of the value; f32 is added in f32 at least.
    let half_unit = if size_of::<B::Act>() == 2 { 2f64.powi(-9) } else { 2f64.powi(-25) };
    let name = format!("all_reduce {rows} x {cols}");
    for i in 0..rows * cols {
        let values = brought.iter().map(|values| f64::from(values[i].to_f32()));
        let (sum, magnitude) = values.fold((0.0, 0.0), |(sum, magnitude), v| (sum + v, magnitude + v.abs()));
        // Twice: the second sum adds W equal values, and carries the first one's rounding on.
        let expected = sum * world_size as f64;
        let bound = 2.0 * (world_size * world_size) as f64 * half_unit * magnitude;
        let error = (f64::from(found[0][i]) - expected).abs();
        if error.is_nan() || error > bound {
            return Some(format!("{name}: value {i} is {}, expected {expected} within {bound:e}", found[0][i]));
        }
        if let Some(rank) = found.iter().position(|values| values[i].to_bits() != found[0][i].to_bits()) {
            return Some(format!("{name}: value {i} is {} on rank {rank}, {} on rank 0", found[rank][i], found[0][i]));
        }
    }
    for (rank, (found, brought)) in found.iter().zip(&brought).enumerate() {
        let guard = rows * cols..;
        if !found[guard.clone()].iter().zip(&brought[guard]).all(|(found, brought)| *found == brought.to_f32()) {
            return Some(format!("{name}: rows past the live ones were written on rank {rank}"));
        }
    }
    None
}
