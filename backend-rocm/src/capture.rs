//! Whether recorded launches are to be trusted.
//!
//! By version: until ROCm 7.2.0 a recording could be killed by another thread that asked about an event, and in 7.2.0 to
//! 7.2.3 replays on gfx942 are known to corrupt results now and then (ROCm/clr#279). By trial: what is replayed must give
//! what the same launches gave.

use engine_core::backend::{PrepareError, StepError};
use gpu_common::{Arg, GpuRuntime, LaunchShape};

/// HIP of ROCm 7.2.1 is 7.2, build 53211.
const ROCM_7_2_1: i32 = 70_253_211;
/// The first version after 7.2, of which builds with a mended replay on gfx942 cannot be told from others.
const AFTER_ROCM_7_2: i32 = 70_300_000;

/// Values that the trial works on, and launches that it records.
const NUM_VALUES: u32 = 1000;
const NUM_LAUNCHES: usize = 40;
/// Threads of a block that every device has.
const BLOCK_SIZE: u32 = 64;
/// How often the recording is replayed.
const NUM_REPLAYS: usize = 3;

/// True where HIP of this version replays what was recorded.
pub(crate) fn is_trusted(version: i32, architecture: &str) -> bool {
    version >= if architecture == "gfx942" { AFTER_ROCM_7_2 } else { ROCM_7_2_1 }
}

/// Records launches, each of which needs the result of the one before, and says if their replays give what the launches
/// gave.
///
/// # Errors
/// From the driver, or where the images lack the kernel.
pub(crate) fn replays_as_launched<R: GpuRuntime>(runtime: &R) -> Result<bool, PrepareError> {
    let add = runtime.kernel("elementwise", "add")?;
    let mut stream = runtime.stream()?;
    let num_bytes = 2 * NUM_VALUES as usize;
    let [x, sum] = [runtime.alloc(num_bytes, "a trial")?, runtime.alloc(num_bytes, "a trial")?];
    // bf16 below 2, so that sums of forty stay finite.
    let values: Vec<u8> = (0..NUM_VALUES).flat_map(|i| (0x3f00 + (i % 251) as u16).to_le_bytes()).collect();
    let args = [Arg::Ptr(runtime.address(&x)), Arg::Ptr(runtime.address(&sum)), Arg::U32(NUM_VALUES)];
    let shape = LaunchShape::linear(NUM_VALUES.div_ceil(BLOCK_SIZE), BLOCK_SIZE);
    runtime.upload(&mut stream, &x, 0, &values)?;

    let launch_all = |stream: &mut _| -> Result<(), StepError> {
        (0..NUM_LAUNCHES).try_for_each(|_| runtime.launch(stream, &add, shape, &args))
    };
    let result_of = |stream: &mut _, work: &dyn Fn(&mut _) -> Result<(), StepError>| -> Result<Vec<u8>, StepError> {
        runtime.upload(stream, &sum, 0, &values)?;
        work(stream)?;
        let mut result = vec![0; num_bytes];
        runtime.download(stream, &sum, 0, &mut result)?;
        Ok(result)
    };
    let launched = result_of(&mut stream, &launch_all)?;
    runtime.begin_capture(&mut stream)?;
    launch_all(&mut stream)?;
    let Some(graph) = runtime.end_capture(&mut stream)? else { return Ok(false) };
    for _ in 0..NUM_REPLAYS {
        if result_of(&mut stream, &|stream| runtime.replay(stream, &graph))? != launched {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_with_known_faults_are_not_trusted() {
        for (version, architecture, expected) in [
            (60_342_131, "gfx950", false),
            (70_226_015, "gfx950", false),
            (70_253_211, "gfx950", true),
            (70_253_211, "gfx942", false),
            (71_300_000, "gfx942", true),
        ] {
            assert_eq!(is_trusted(version, architecture), expected, "{version} on {architecture}");
        }
    }
}
