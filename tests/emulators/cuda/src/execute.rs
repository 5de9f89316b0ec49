//! What an op does when its turn comes.

use std::time::Instant;

use crate::abi::status;
use crate::config::Fault;
use crate::driver::{Driver, Failure, Outcome};
use crate::kernels;
use crate::memory::{copy, fill};
use crate::module::Launch;
use crate::stream::Op;

/// Runs one op on the current context's device.
pub(crate) fn run(driver: &mut Driver, op: Op) -> Outcome<()> {
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
                event.num_done = event.num_done.max(count);
                event.when = Some(Instant::now());
            }
        }
        // Waiting is the stream's business, and a captured wait was refused.
        Op::Wait { .. } => {}
        Op::Graph(ops) => ops.into_iter().try_for_each(|op| run(driver, op))?,
    }
    Ok(())
}

/// Memory that was there when the op was queued may be gone when it runs, in a graph above all.
fn check(driver: &mut Driver, what: &str, address: u64, num_bytes: usize) -> Outcome<()> {
    let range = address..address.saturating_add(num_bytes as u64);
    let context = driver.context()?;
    if context.pinned.holder(range).is_some() {
        return Ok(());
    }
    context
        .check_device_range(what, address, num_bytes)
        .map_err(|failure| Failure::new(status::ILLEGAL_ADDRESS, failure.message))
}

fn run_kernel(driver: &mut Driver, launch: &Launch) -> Outcome<()> {
    driver.num_launches += 1;
    if driver.config.fault == Some(Fault::Launch(driver.num_launches)) {
        let message = format!("injected: launch {} ({}) fails", driver.num_launches, launch.kernel);
        return Err(Failure::new(status::LAUNCH_FAILED, message));
    }
    if let Some(Fault::Kernel(name)) = driver.config.fault
        && launch.kernel.starts_with(name)
    {
        return Err(Failure::new(status::LAUNCH_FAILED, format!("injected: kernel {} fails", launch.kernel)));
    }
    let holders = driver.context()?.pointer_arguments(launch).map_err(|message| illegal(launch, message))?;
    // Threads start in another order with every launch: a missing barrier shows in some of them.
    let order = driver.num_launches as u32;
    kernels::run(launch, order).map_err(|message| illegal(launch, message))?;
    for address in holders {
        driver.context()?.memory.check_guards(address).map_err(|message| illegal(launch, message))?;
    }
    Ok(())
}

fn illegal(launch: &Launch, message: String) -> Failure {
    Failure::new(status::ILLEGAL_ADDRESS, format!("kernel {}: {message}", launch.kernel))
}
