//! Captured work.

use gpu_emulator::{entries, write};

use crate::config::Cuda;

entries! {
    Cuda;

    fn cuGraphInstantiateWithFlags(driver, executable: *mut u64, graph: u64, flags: u64) {
        write(executable, driver.instantiate(graph, flags)?)
    }

    fn cuGraphLaunch(driver, executable: u64, stream: u64) {
        driver.launch_graph(executable, stream)
    }

    fn cuGraphDestroy(driver, graph: u64) {
        driver.destroy_graph(graph)
    }

    fn cuGraphExecDestroy(driver, executable: u64) {
        driver.destroy_executable(executable)
    }
}
