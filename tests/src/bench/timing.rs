//! Clocks.

use std::time::Instant;

use engine_core::backend::{Backend, Replayed, StepError};

/// The middle of some times.
pub(super) fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Seconds that one run of `op` takes on the device, `op` being given a number that changes from run to run. The runs of a
/// measurement are recorded and replayed where the device can, so that launching them costs nothing; the clock is the
/// host's, around a replay and the wait for it.
pub(super) fn seconds_per_run<B: Backend>(
    backend: &B,
    stream: &mut B::Stream,
    num_runs: usize,
    mut op: impl FnMut(&mut B::Stream, usize) -> Result<(), StepError>,
) -> Result<f64, StepError> {
    const NUM_MEASUREMENTS: usize = 5;
    let mut all = |stream: &mut B::Stream| (0..num_runs).try_for_each(|run| op(stream, run));
    // Scratch memory grows in the first runs.
    all(stream)?;
    let graph = match backend.captures() {
        true => backend.capture(stream, &mut all)?,
        false => None,
    };
    let mut once = |stream: &mut B::Stream| -> Result<f64, StepError> {
        backend.synchronize(stream)?;
        let start = Instant::now();
        match &graph {
            Some(graph) if backend.replay(stream, graph)? == Replayed::Queued => {}
            Some(_) | None => all(stream)?,
        }
        backend.synchronize(stream)?;
        Ok(start.elapsed().as_secs_f64() / num_runs as f64)
    };
    once(stream)?;
    let measurements: Result<Vec<f64>, StepError> = (0..NUM_MEASUREMENTS).map(|_| once(stream)).collect();
    Ok(median(measurements?))
}
