//! Captured work.

use gpu_emulator::{entries, write};

use crate::config::Hip;

entries! {
    Hip;

    fn hipGraphInstantiateWithFlags(driver, executable: *mut u64, graph: u64, flags: u64) {
        write(executable, driver.instantiate(graph, flags)?)
    }

    fn hipGraphLaunch(driver, executable: u64, stream: u64) {
        driver.launch_graph(executable, stream)
    }

    fn hipGraphDestroy(driver, graph: u64) {
        driver.destroy_graph(graph)
    }

    fn hipGraphExecDestroy(driver, executable: u64) {
        driver.destroy_executable(executable)
    }
}
