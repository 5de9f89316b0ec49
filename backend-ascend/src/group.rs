//! Groups of devices that sum over all of them.
//!
//! [`open`] opens devices, makes a communicator for each, and tries them out before anybody relies on them: the first sum of
//! a kind connects the devices, which takes long, waits for all ranks on the host, and fails where a machine is set up badly.

use std::sync::{Arc, Weak};
use std::thread;

use engine_core::backend::{Rank, StepError, Unavailable};
use half::bf16;

use crate::backend::AscendBackend;
use crate::device::Device;
use crate::driver::{Absence, Communicator};

/// Values of the sums that are tried: few and many, which go different ways.
const TRIED_COUNTS: [usize; 2] = [64, 1 << 20];

/// Opens several devices as the ranks of one group, in this order. One device is a group of its own and needs no HCCL.
pub(crate) fn open(ordinals: &[u32]) -> Result<Vec<AscendBackend>, Unavailable> {
    Unavailable::check_group("ascend", ordinals)?;
    let unavailable = |reason: String| Unavailable::of_group("ascend", ordinals, reason);
    let mut devices: Vec<Device> = ordinals.iter().map(|ordinal| Device::open(*ordinal)).collect::<Result<_, _>>()?;
    if devices.len() > 1 {
        join(&mut devices).map_err(unavailable)?;
    }
    devices.into_iter().map(AscendBackend::on).collect::<Result<_, _>>().map_err(|error| unavailable(error.to_string()))
}

/// Makes opened devices the ranks of one group.
fn join(devices: &mut [Device]) -> Result<(), String> {
    let contexts: Vec<_> = devices.iter().map(|device| &device.context).collect();
    let communicators = Communicator::of_group(&contexts).map_err(|absence| describe(&absence))?;
    let ranks = Rank::group(devices.len());
    if let Some(rank) = ranks.first() {
        abort_on_failure(rank, communicators.iter().map(Arc::downgrade).collect());
    }
    for (device, (rank, communicator)) in devices.iter_mut().zip(ranks.into_iter().zip(communicators)) {
        (device.rank, device.communicator) = (rank, Some(communicator));
    }
    for count in TRIED_COUNTS {
        try_out(devices, count).map_err(|error| format!("HCCL does not sum {count} values: {error}"))?;
    }
    tracing::debug!(num_ranks = devices.len(), "communicators made");
    Ok(())
}

/// An absence, for users.
fn describe(absence: &Absence) -> String {
    match absence {
        Absence::Library(tried) => format!(
            "no HCCL: {} cannot be loaded; install CANN 9.0 or later and run `source set_env.sh` first",
            tried.join(" or ")
        ),
        Absence::Function(words) => {
            format!("groups need a function that this CANN lacks ({words}); install CANN 9.0 or later")
        }
        Absence::Failed(error) => format!("HCCL makes no communicators: {error}; check `npu-smi info`"),
    }
}

/// Why a trial failed.
#[derive(Debug, thiserror::Error)]
enum TrialError {
    #[error(transparent)]
    Device(#[from] StepError),
    #[error("value {index} on rank {rank} is {found}, it should be {expected}; check the links between the devices")]
    Wrong { rank: usize, index: usize, found: bf16, expected: bf16 },
    #[error("the thread of a rank panicked")]
    Panicked,
}

/// Sums of 1, 2, 3 … which bf16 holds exactly; each rank on a thread of its own, as HCCL wants them.
fn try_out(devices: &[Device], count: usize) -> Result<(), TrialError> {
    thread::scope(|scope| {
        let ranks: Vec<_> = devices.iter().map(|device| scope.spawn(move || try_rank(device, count))).collect();
        // All are waited for before one of them is looked at.
        let results: Vec<_> = ranks.into_iter().map(|rank| rank.join().unwrap_or(Err(TrialError::Panicked))).collect();
        results.into_iter().collect()
    })
}

fn try_rank(device: &Device, count: usize) -> Result<(), TrialError> {
    let rank = device.rank.index();
    let sum = || {
        let mut values = vec![bf16::from_f32(rank as f32 + 1.0); count];
        let (mut stream, buffer) = (device.stream()?, device.alloc(2 * count, "a sum over devices")?);
        device.check(stream.write(&buffer, 0, bytemuck::cast_slice(&values)))?;
        device.check(stream.all_reduce(&buffer, count))?;
        device.check(stream.read(&buffer, 0, bytemuck::cast_slice_mut(&mut values)))?;
        Ok(values)
    };
    // The others wait for this rank.
    let values: Vec<bf16> = sum().map_err(|error: StepError| device.rank.fail(error.to_string()))?;
    let expected = bf16::from_f32((1..=device.rank.world_size()).sum::<usize>() as f32);
    match values.iter().position(|value| *value != expected) {
        Some(index) => Err(TrialError::Wrong { rank, index, found: values[index], expected }),
        None => Ok(()),
    }
}

/// Has the streams of all ranks aborted when a rank of the group fails, so that devices which wait for it come back.
fn abort_on_failure(rank: &Rank, communicators: Vec<Weak<Communicator>>) {
    rank.on_failure(move || {
        let communicators: Vec<Arc<Communicator>> = communicators.iter().filter_map(Weak::upgrade).collect();
        communicators.iter().for_each(|communicator| communicator.refuse());
        communicators.iter().for_each(|communicator| communicator.abort());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        for (absence, words) in [
            (Absence::Library(&["libhccl.so"]), ["no HCCL: libhccl.so", "set_env.sh"]),
            (Absence::Function("undefined symbol: aclrtStreamAbort".into()), ["aclrtStreamAbort", "9.0"]),
        ] {
            let text = describe(&absence);
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
    }
}
