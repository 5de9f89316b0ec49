//! What an op does when its turn comes.

use emulator_common::memory::{copy, fill};
use emulator_common::{Failure, Outcome};

use crate::config::Gpu;
use crate::driver::Driver;
use crate::module::Launch;
use crate::status;
use crate::stream::Op;

/// Runs one op on the current context's device.
pub(crate) fn run<G: Gpu>(driver: &mut Driver<G>, op: Op) -> Outcome<()> {
    match op {
        Op::Write { to, bytes } => {
            check(driver, "copy to the device", to, bytes.len())?;
            copy(bytes.as_ptr() as u64, to, bytes.len());
        }
        Op::Copy { from, to, num_bytes } => {
            check(driver, "copy from", from, num_bytes)?;
            check(driver, "copy to", to, num_bytes)?;
            copy(from, to, num_bytes);
        }
        Op::Fill { to, value, num_bytes } => {
            check(driver, "fill", to, num_bytes)?;
            fill(to, value, num_bytes);
        }
        Op::Launch(launch) => run_kernel(driver, &launch)?,
        Op::Free(address) => {
            let freed = driver.context()?.memory.free(address);
            freed.map_err(|message| Failure::new(status::ILLEGAL_ADDRESS, message))?;
        }
        Op::Record { event, count } => {
            // A destroyed event needs no record.
            if let Some(event) = driver.context()?.events.get_mut(&event) {
                event.pass(count);
            }
        }
        Op::Work(work) => {
            if let Some(message) = driver.injection.launch(work.name()) {
                return Err(Failure::new(status::LAUNCH_FAILED, message));
            }
            work.run(driver.context()?)?;
        }
        // What waits, or is made of ops, is the stream's business.
        Op::Wait { .. } | Op::Graph(_) | Op::Collective(_) => {}
    }
    Ok(())
}

/// Memory that was there when the op was queued may be gone when it runs, in a graph above all.
fn check<G: Gpu>(driver: &mut Driver<G>, what: &str, address: u64, num_bytes: usize) -> Outcome<()> {
    let range = address..address.saturating_add(num_bytes as u64);
    let context = driver.context()?;
    if context.pinned.holder(range).is_some() {
        return Ok(());
    }
    context
        .check_device_range(what, address, num_bytes)
        .map_err(|failure| Failure::new(status::ILLEGAL_ADDRESS, failure.message))
}

fn run_kernel<G: Gpu>(driver: &mut Driver<G>, launch: &Launch) -> Outcome<()> {
    if let Some(message) = driver.injection.launch(&launch.kernel) {
        return Err(Failure::new(status::LAUNCH_FAILED, message));
    }
    let illegal =
        |message: String| Failure::new(status::ILLEGAL_ADDRESS, format!("kernel {}: {message}", launch.kernel));
    let holders = driver.context()?.pointer_arguments(launch, G::memory_behind).map_err(illegal)?;
    // Threads start in another order with every launch: a missing barrier shows in some of them.
    driver.config.gpu.run(launch, driver.injection.num_launches() as u32).map_err(illegal)?;
    for address in holders {
        driver.context()?.memory.check_guards(address).map_err(illegal)?;
    }
    Ok(())
}
