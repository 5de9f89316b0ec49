//! Whether a group's devices add up right.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use engine_core::backend::StepError;
use half::bf16;

use super::library::{Communicator, Loaded};
use super::{CollectiveError, abort_all};
use crate::runtime::GpuRuntime;

/// Why a trial failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum TrialError {
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    #[error(transparent)]
    Device(#[from] StepError),
    #[error("value {index} on rank {rank} is {found}, it should be {expected}")]
    Wrong { rank: usize, index: usize, found: bf16, expected: bf16 },
}

/// What a rank brings, and where.
struct Part<'a, R: GpuRuntime> {
    rank: usize,
    runtime: &'a R,
    communicator: &'a Communicator,
    stream: R::Stream,
    buffer: R::Buffer,
    values: Vec<bf16>,
}

/// Sums `count` times 1, 2, 3 …, one of each rank, which bf16 holds exactly. After a failure all communicators are aborted.
pub(super) fn sum<R: GpuRuntime>(
    loaded: &Loaded,
    runtimes: &[&R],
    communicators: &[Arc<Communicator>],
    count: usize,
) -> Result<(), TrialError> {
    let members = runtimes.iter().zip(communicators).enumerate();
    let parts = members.map(|(rank, (runtime, communicator))| Part::new(rank, *runtime, communicator, count));
    let mut parts = parts.collect::<Result<Vec<_>, _>>()?;
    // From one thread, before any waits: the first sum connects the devices on the host.
    let queued = loaded.together(|| parts.iter_mut().try_for_each(Part::queue));
    if queued.is_err() {
        abort_all(communicators);
    }
    queued?;
    let expected = bf16::from_f32((1..=runtimes.len()).sum::<usize>() as f32);
    let results: Vec<Result<(), TrialError>> = thread::scope(|scope| {
        let run = |part: &mut Part<'_, R>| {
            // The others may wait for a rank that failed.
            part.check(expected).inspect_err(|_| abort_all(communicators))
        };
        let threads: Vec<_> = parts.iter_mut().map(|part| scope.spawn(move || run(part))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        threads.into_iter().map(join).collect()
    });
    let is_cause = |error: &TrialError| !matches!(error, TrialError::Collective(CollectiveError::Aborted));
    let mut errors = results.into_iter().filter_map(Result::err);
    let Some(first) = errors.next() else { return Ok(()) };
    Err(if is_cause(&first) { first } else { errors.find(is_cause).unwrap_or(first) })
}

impl<'a, R: GpuRuntime> Part<'a, R> {
    fn new(rank: usize, runtime: &'a R, communicator: &'a Communicator, count: usize) -> Result<Self, StepError> {
        let values = vec![bf16::from_f32(rank as f32 + 1.0); count];
        let num_bytes = size_of_val(values.as_slice());
        let (mut stream, buffer) = (runtime.stream()?, runtime.alloc(num_bytes, "a sum over devices")?);
        runtime.upload(&mut stream, &buffer, 0, bytemuck::cast_slice(&values))?;
        Ok(Self { rank, runtime, communicator, stream, buffer, values })
    }

    fn queue(&mut self) -> Result<(), TrialError> {
        let queue = self.runtime.native_queue(&mut self.stream)?;
        Ok(self.communicator.all_reduce(queue, self.runtime.address(&self.buffer), self.values.len())?)
    }

    fn check(&mut self, expected: bf16) -> Result<(), TrialError> {
        let Self { rank, runtime, communicator, stream, buffer, values } = self;
        runtime.download(stream, buffer, 0, bytemuck::cast_slice_mut(values))?;
        communicator.check()?;
        match values.iter().position(|value| *value != expected) {
            None => Ok(()),
            Some(index) => Err(TrialError::Wrong { rank: *rank, index, found: values[index], expected }),
        }
    }
}
